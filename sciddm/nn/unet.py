"""A small U-Net: convolutions where the detail is, a spectral operator where the overview is.

References
----------
Ronneberger, Fischer, Brox. U-Net: convolutional networks for biomedical image segmentation.
MICCAI 2015. https://arxiv.org/abs/1505.04597
Ho, Jain, Abbeel. Denoising diffusion probabilistic models. NeurIPS 2020, appendix B.
https://arxiv.org/abs/2006.11239
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sciddm.denoise import Context
from sciddm.nn.spectral import Film, NoiseLevel, SpectralBlock, conv, coordinates, zero


class ResBlock(nn.Module):
    """x + W2 silu(film(W1 silu(x))), both 3x3."""

    def __init__(self, dim: int, width: int, embedding: int, periodic: bool) -> None:
        nn.Module.__init__(self)
        self.first = conv(dim, width, width, 3, periodic)
        self.second = conv(dim, width, width, 3, periodic)
        self.film = Film(embedding, width)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        silu = nn.functional.silu
        return x + self.second(silu(self.film(self.first(silu(x)), level)))


class UNet(nn.Module):
    """``(x (B, I, *grid), log_kappa, context) -> (B, O, *grid)``, halving the grid at each level.

    Parameters
    ----------
    inputs, outputs : channels. widths : channels at each level, finest first.
    modes : cosine (or Fourier) coefficients of the spectral blocks at the coarsest level.
    blocks : residual blocks a level on the way down and on the way up.
    periodic : circular padding and Fourier basis. scalars : parameters in the context.

    Any grid of at least ``2^levels`` points a side: each level is resized to meet its skip.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        modes: tuple[int, ...],
        widths: tuple[int, ...] = (32, 64, 96),
        blocks: int = 1,
        periodic: bool = False,
        scalars: int = 0,
    ) -> None:
        nn.Module.__init__(self)
        self.inputs, self.outputs, self.modes = inputs, outputs, tuple(modes)
        self.widths, self.blocks = tuple(widths), blocks
        self.periodic, self.scalars = periodic, scalars
        dim, size = len(self.modes), 2 * widths[0]
        self.level = NoiseLevel(size, scalars)
        self.lift = conv(dim, inputs + (0 if periodic else dim), widths[0], 3, periodic)

        def stack(width: int) -> nn.ModuleList:
            return nn.ModuleList(ResBlock(dim, width, size, periodic) for _ in range(blocks))

        pairs = list(zip(self.widths, self.widths[1:], strict=False))
        self.down = nn.ModuleList(stack(w) for w in self.widths[:-1])
        self.wider = nn.ModuleList(conv(dim, a, b, 1, periodic) for a, b in pairs)
        self.middle = nn.ModuleList(
            SpectralBlock(self.widths[-1], self.modes, size, 3, periodic) for _ in range(2)
        )
        self.narrower = nn.ModuleList(conv(dim, b, a, 1, periodic) for a, b in pairs)
        self.meet = nn.ModuleList(conv(dim, 2 * a, a, 1, periodic) for a, _ in pairs)
        self.up = nn.ModuleList(stack(w) for w in self.widths[:-1])
        self.head = conv(dim, widths[0], outputs, 3, periodic)
        zero(self.head)

    def forward(self, x: Tensor, log_kappa: Tensor, context: Context) -> Tensor:
        level = self.level(log_kappa, context, x)
        if context.fields is not None:
            fields = context.fields.to(x).expand(x.shape[0], *context.fields.shape[1:])
            x = torch.cat([x, fields], dim=1)
        if not self.periodic:
            x = torch.cat([x, coordinates(x)], dim=1)
        h = self.lift(x)
        pool = (nn.functional.avg_pool1d, nn.functional.avg_pool2d, nn.functional.avg_pool3d)
        skips = []
        for blocks, wider in zip(self.down, self.wider, strict=True):
            h = run(blocks, h, level)
            skips.append(h)
            h = wider(pool[len(self.modes) - 1](h, 2, ceil_mode=True))
        h = run(self.middle, h, level)
        levels = list(zip(self.narrower, self.meet, self.up, skips, strict=True))
        for narrower, meet, blocks, skip in reversed(levels):
            h = nn.functional.interpolate(narrower(h), size=skip.shape[2:], mode="nearest")
            h = run(blocks, meet(torch.cat([h, skip], dim=1)), level)
        out: Tensor = self.head(nn.functional.silu(h))
        return out


def run(blocks: nn.Module, h: Tensor, level: Tensor) -> Tensor:
    """A list of conditioned blocks, one after the other."""
    for block in blocks.children():
        h = block(h, level)
    return h
