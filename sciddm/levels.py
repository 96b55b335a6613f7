r"""Level by level: the details of a finer grid, drawn given the field on the next coarser one.

One level of a wavelet transform splits a field into averages, which are a field on half the grid,
and details. A diffusion of the details with the averages as a condition is trained on all the
levels that the data have, with one set of weights; the levels that they do not have are then drawn
with the same weights, each given the one before:

    x_0 given;    d_k ~ p(details | x_k),    x_{k+1} = inverse transform of (x_k, d_k).

The averages of what is drawn are x_k, to rounding, whatever the network: nothing that was known is
changed. A network of local maps learns how a front looks that is cut off by the grid, and that
looks alike at every level; what has a length of its own (a viscous width) does not, and is met only
where it is far from the spacing.

References
----------
Hu et al. Wavelet diffusion neural operator. ICLR 2025, section 3.3 (super-resolution trained across
resolutions). https://arxiv.org/abs/2412.04833
Guth, Coste, De Bortoli, Mallat. Wavelet score-based generative modeling. NeurIPS 2022, eq. 11.
https://arxiv.org/abs/2208.05003
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from sciddm.denoise import Context, Preconditioned, denoising_loss
from sciddm.errors import InputError
from sciddm.random import Streams
from sciddm.solve import Diffusion
from sciddm.wavelet import DWT

DEEPEST = 8
"""Doublings of one draw, at most."""


@final
@dataclass(frozen=True, eq=False)
class Finer:
    """Draws p(field on twice the grid | field), again and again.

    Parameters
    ----------
    transform : one level, along the axes that are doubled.
    sampler : draws details (B, C (fold - 1), *grid), the field in units of ``coarse`` being
        ``Context.fields`` (B, C, *grid).
    coarse, detail : scales of the field and of its details, as `fitted` measures them.

    Raises `InputError` for a transform of several levels and scales that are not positive.
    """

    transform: DWT
    sampler: Diffusion
    coarse: float
    detail: float

    def __post_init__(self) -> None:
        if self.transform.levels != 1 or not (self.coarse > 0 and self.detail > 0):
            raise InputError(
                f"Got {self.transform.levels} levels and scales {self.coarse:g} and "
                f"{self.detail:g}; expected one level at a time and positive scales."
            )

    @staticmethod
    def fitted(transform: DWT, sampler: Diffusion, x: Tensor) -> Finer:
        """With the scales of fields ``x`` (N, C, *grid) and of their finest details."""
        blank = Finer(transform, sampler, 1.0, 1.0)
        coarse, details = blank.split(x)
        return Finer(transform, sampler, _rms(coarse), _rms(details))

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """A fine field (B, C, *grid) -> the coarse one (B, C, *half), in its units, and the scaled
        details (B, C (fold - 1), *half)."""
        bands = self.transform.channels(self.transform.forward(x))
        bands = bands.unflatten(1, (-1, self.transform.fold)) / self._gain
        return bands[:, :, 0], bands[:, :, 1:].flatten(1, 2) / self.detail

    def join(self, coarse: Tensor, details: Tensor) -> Tensor:
        """The fine field of a coarse one and scaled details: the inverse of `split`."""
        fold, doubled = self.transform.fold, set(self.transform.chosen)
        parts = (self.detail * details).unflatten(1, (-1, fold - 1))
        bands = self._gain * torch.cat([coarse.unsqueeze(2), parts], dim=2)
        grid = tuple(n * 2 if a in doubled else n for a, n in enumerate(coarse.shape[2:]))
        return self.transform.inverse(self.transform.unchannels(bands.flatten(1, 2), grid))

    def __call__(self, x: Tensor, rng: Streams, doublings: int = 1) -> Tensor:
        """Fields (B, C, *grid) -> draws on a grid doubled ``doublings`` times.

        Row i of the draw has the noise of ``rng``'s row i, another at every doubling.
        """
        if not 1 <= doublings <= DEEPEST:
            raise InputError(f"Got {doublings} doublings; expected 1 to {DEEPEST}.")
        for k in range(doublings):
            cases = tuple(DEEPEST * case + k for case in rng.cases)
            shape = (len(x), x.shape[1] * (self.transform.fold - 1), *x.shape[2:])
            context = Context(fields=x / self.coarse)
            x = self.join(x, self.sampler(shape, context, replace(rng, cases=cases)).to(x))
        return x

    def loss(self, x: Tensor, t: Tensor, rng: Streams, levels: int) -> Tensor:
        """Denoising losses (B,) of fine fields ``x`` at times ``t`` (B, 1, ...), the mean over the
        ``levels`` finest levels that they have."""
        denoiser, losses = self.sampler.denoiser, []
        if not isinstance(denoiser, Preconditioned):
            raise InputError(
                f"Got a {type(denoiser).__name__} to train; expected Preconditioned, which has "
                "weights."
            )
        for level in range(levels):
            x, details = self.split(x)
            context, noise = Context(fields=x / self.coarse), rng.at("level", level)
            losses.append(denoising_loss(denoiser, details, t, context, rng=noise))
        return torch.stack(losses).mean(0)

    @property
    def _gain(self) -> float:
        """Averages over the field's own values: the filters sum to the root of 2 along an axis."""
        return float(2 ** (len(self.transform.chosen) / 2))


def _rms(x: Tensor) -> float:
    return float(x.double().square().mean().sqrt())
