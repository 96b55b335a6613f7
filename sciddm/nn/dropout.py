"""Dropout with masks that are given: the same network again wherever the same mask is given.

Torch draws the masks of its dropout layers anew at every call, from a generator that all share.
Here a mask is a function of noise that the caller addresses, so a member of an ensemble can keep
one sub-network along its whole forecast, and is the same member in any batch.

References
----------
Gal, Ghahramani. Dropout as a Bayesian approximation. ICML 2016. https://arxiv.org/abs/1506.02142
Tompson et al. Efficient object localization using convolutional networks. CVPR 2015, section 3.2
(whole channels). https://arxiv.org/abs/1411.4280
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from sciddm.denoise import Context
from sciddm.errors import InputError
from sciddm.nn.spectral import SpectralBlock
from sciddm.nn.unet import ResBlock


class Dropped(nn.Module):
    """``backbone`` whose residual blocks h + f(h) are h + m f(h), with m zero for some channels.

    Parameters
    ----------
    backbone : a `SpectralOperator`, a `UNet` or another backbone made of their blocks.
    rate : the probability that a channel of a block is dropped; the others are divided by
        1 - rate. 0.05 to 0.3 are usual.

    The mask is read off the first `masks` values of ``context.scalars`` (B, P), standard normal;
    the backbone gets those after them. Without scalars nothing is dropped: the mean network.
    """

    def __init__(self, backbone: nn.Module, rate: float) -> None:
        nn.Module.__init__(self)
        if not 0 <= rate < 1:
            raise InputError(f"Got a dropout rate of {rate}; expected 0 or more and less than 1.")
        self.backbone, self.rate = backbone, rate
        if not self._blocks:
            raise InputError(
                f"Got the backbone {type(backbone).__name__}, which has no residual blocks to drop "
                "channels of; expected SpectralOperator or UNet."
            )

    @property
    def _blocks(self) -> list[SpectralBlock | ResBlock]:
        kinds = SpectralBlock, ResBlock
        return [block for block in self.backbone.modules() if isinstance(block, kinds)]

    @property
    def masks(self) -> int:
        """How many normal values a row of a mask is read off: the channels of all blocks."""
        return sum(_width(block) for block in self._blocks)

    def forward(self, x: Tensor, log_kappa: Tensor, context: Context) -> Tensor:
        """As of the backbone. Raises `InputError` for too few scalars."""
        given = context.scalars
        if given is None:
            out: Tensor = self.backbone(x, log_kappa, context)
            return out
        if given.shape[1] < self.masks:
            raise InputError(
                f"Got {given.shape[1]} scalars; expected {self.masks} for the dropout mask."
            )
        rest = given[:, self.masks :] if given.shape[1] > self.masks else None
        kept = (given[:, : self.masks] > _quantile(self.rate)).to(x) / (1 - self.rate)
        parts = kept.split([_width(block) for block in self._blocks], dim=1)
        hooks = [
            block.register_forward_hook(_dropping(part))
            for block, part in zip(self._blocks, parts, strict=True)
        ]
        try:
            dropped: Tensor = self.backbone(x, log_kappa, replace(context, scalars=rest))
        finally:
            for hook in hooks:
                hook.remove()
        return dropped


def masks(network: nn.Module) -> int:
    """Normal values that the dropout mask of ``network`` takes: 0 for one that is not `Dropped`."""
    return network.masks if isinstance(network, Dropped) else 0


def _width(block: SpectralBlock | ResBlock) -> int:
    last = block.mix if isinstance(block, SpectralBlock) else block.second
    return last.out_channels


def _quantile(rate: float) -> float:
    """Below which a normal value drops its channel."""
    return float(torch.special.ndtri(torch.tensor(rate, dtype=torch.float64)))


def _dropping(kept: Tensor) -> Any:  # noqa: ANN401
    """A hook: the block's answer with the branch of each channel times ``kept`` (B, C)."""

    def hook(block: nn.Module, given: tuple[Tensor, ...], answer: Tensor) -> Tensor:
        h = given[0]
        return h + kept.view(*kept.shape, *[1] * (h.ndim - 2)) * (answer - h)

    return hook
