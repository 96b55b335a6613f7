r"""Our own neural operator: truncated transforms by matrix products, real weights, FiLM.

A block is ``x + W2 gelu(film(K x + W1 x))`` with K a linear map between the lowest ``modes``
coefficients along each axis, in a cosine basis (bounded domains) or a Fourier basis (the torus),
and W1 local: 1x1, or 3x3 where fine structure matters more than a change of resolution. Every
weight is real, so checkpoints, EMA, float64 and safetensors are plain. The same weights run on any
grid.

References
----------
Li et al. Fourier neural operator for parametric partial differential equations. ICLR 2021, eq. 4-5.
https://arxiv.org/abs/2010.08895
Perez et al. FiLM: visual reasoning with a general conditioning layer. AAAI 2018, eq. 1.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor, nn

from sciddm.basis import along, cosines
from sciddm.denoise import Context
from sciddm.errors import InputError

Convolution = nn.Conv1d | nn.Conv2d | nn.Conv3d


class Film(nn.Module):
    """x (1 + scale) + shift, both (B, C) functions of the embedded noise level."""

    def __init__(self, embedding: int, width: int) -> None:
        nn.Module.__init__(self)
        self.linear = nn.Linear(embedding, 2 * width)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        scale, move = self.linear(level).unflatten(1, (2, -1)).unbind(1)
        view = (*scale.shape, *[1] * (x.ndim - 2))
        return x * (1 + scale.view(view)) + move.view(view)


class NoiseLevel(nn.Module):
    """log kappa (and scalars of the context) -> an embedding (B, width)."""

    frequencies: Tensor

    def __init__(self, width: int, scalars: int = 0) -> None:
        nn.Module.__init__(self)
        self.scalars = scalars
        frequencies = torch.exp(torch.linspace(math.log(0.1), math.log(4.0), 16))
        self.register_buffer("frequencies", frequencies)
        self.mlp = nn.Sequential(
            nn.Linear(32 + scalars, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU()
        )

    def forward(self, log_kappa: Tensor, context: Context, like: Tensor) -> Tensor:
        if log_kappa.numel() not in (1, like.shape[0]):
            raise InputError(
                f"Got noise levels of shape {tuple(log_kappa.shape)} for a batch of "
                f"{like.shape[0]}; this backbone takes one level a row."
            )
        angle = log_kappa.to(like).reshape(-1, 1) * self.frequencies.to(like)
        features = torch.cat([angle.sin(), angle.cos()], dim=1).expand(like.shape[0], -1)
        if self.scalars:
            if context.scalars is None or context.scalars.shape[1] != self.scalars:
                raise InputError(f"This backbone expects {self.scalars} scalars in the context.")
            features = torch.cat([features, context.scalars.to(like)], dim=1)
        return self.mlp(features)


class CosineConv(nn.Module):
    """A linear map between the lowest cosine coefficients: (B, I, *grid) -> (B, O, *grid)."""

    def __init__(self, inputs: int, outputs: int, modes: tuple[int, ...]) -> None:
        nn.Module.__init__(self)
        self.modes = modes
        bound = 1 / math.sqrt(inputs)
        self.weight = nn.Parameter(torch.randn(*modes, inputs, outputs) * bound)

    def forward(self, x: Tensor) -> Tensor:
        grid = x.shape[2:]
        kept = tuple(min(m, n) for m, n in zip(self.modes, grid, strict=True))
        for axis, (m, n) in enumerate(zip(kept, grid, strict=True)):
            x = along(x, cosines(n, x.dtype)[:m] / math.sqrt(n), axis + 2)
        weight = self.weight[tuple(slice(m) for m in kept)].flatten(0, -3)
        mixed = torch.bmm(x.flatten(2).permute(2, 0, 1).contiguous(), weight)
        x = mixed.permute(1, 2, 0).contiguous().unflatten(2, kept)
        for axis, (m, n) in enumerate(zip(kept, grid, strict=True)):
            x = along(x, cosines(n, x.dtype)[:m].T * math.sqrt(n), axis + 2)
        return x


class FourierConv(nn.Module):
    """The same on the torus: the lowest Fourier coefficients, complex products of real weights."""

    def __init__(self, inputs: int, outputs: int, modes: tuple[int, ...]) -> None:
        nn.Module.__init__(self)
        self.modes = modes
        sizes = [2 * m - 1 for m in modes[:-1]] + [modes[-1]]
        bound = 1 / math.sqrt(2 * inputs)
        self.weight = nn.Parameter(torch.randn(2, *sizes, inputs, outputs) * bound)

    def forward(self, x: Tensor) -> Tensor:
        grid = x.shape[2:]
        kept = tuple(
            min(m, n // 2 + 1 if i == len(grid) - 1 else (n + 1) // 2)
            for i, (m, n) in enumerate(zip(self.modes, grid, strict=True))
        )
        real, imag = x, torch.zeros_like(x)
        for axis, (m, n) in enumerate(zip(kept, grid, strict=True)):
            c, s = waves(n, m, axis == len(grid) - 1, x.dtype)
            at = axis + 2
            real, imag = (
                along(real, c, at) + along(imag, s, at),
                along(imag, c, at) - along(real, s, at),
            )
        w_real, w_imag = (self._kept(w, kept).flatten(0, -3) for w in self.weight)
        shape = real.shape[2:]
        re, im = (v.flatten(2).permute(2, 0, 1).contiguous() for v in (real, imag))
        mixed = (
            torch.bmm(re, w_real) - torch.bmm(im, w_imag),
            torch.bmm(re, w_imag) + torch.bmm(im, w_real),
        )
        real, imag = (v.permute(1, 2, 0).unflatten(2, shape) for v in mixed)
        for axis, (m, n) in enumerate(zip(kept, grid, strict=True)):
            last = axis == len(grid) - 1
            c, s = (v.T * n for v in waves(n, m, last, x.dtype))
            if last:  # the other half of the last axis is the conjugate
                twice = torch.full((m,), 2.0, dtype=x.dtype)
                twice[0] = 1.0
                if 2 * (m - 1) == n:
                    twice[-1] = 1.0
                c, s = c * twice, s * twice
            at = axis + 2
            real, imag = (
                along(real, c, at) - along(imag, s, at),
                along(imag, c, at) + along(real, s, at),
            )
        return real

    def _kept(self, weight: Tensor, kept: tuple[int, ...]) -> Tensor:
        for axis, (m, full) in enumerate(zip(kept[:-1], self.modes[:-1], strict=True)):
            weight = weight.narrow(axis, full - m, 2 * m - 1)
        return weight.narrow(len(kept) - 1, 0, kept[-1])


class SpectralBlock(nn.Module):
    """x + W2 gelu(film(K x + W1 x))."""

    def __init__(
        self, width: int, modes: tuple[int, ...], embedding: int, kernel: int, periodic: bool
    ) -> None:
        nn.Module.__init__(self)
        self.spectral = (FourierConv if periodic else CosineConv)(width, width, modes)
        self.local = conv(len(modes), width, width, kernel, periodic)
        self.film = Film(embedding, width)
        self.mix = conv(len(modes), width, width, 1, periodic)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        h = self.film(self.spectral(x) + self.local(x), level)
        return x + self.mix(nn.functional.gelu(h))


class SpectralOperator(nn.Module):
    """The default backbone: ``(x (B, I, *grid), log_kappa, context) -> (B, O, *grid)``.

    Parameters
    ----------
    inputs, outputs : channels. width : channels inside. blocks : how many.
    modes : coefficients kept along each axis (more than the grid has are ignored).
    kernel : size of the local convolution; 1 keeps the map resolution-free, 3 resolves fronts.
    periodic : Fourier basis and circular padding, else cosine basis and replicated edges.
    scalars : parameters in the context that condition every block beside log kappa.

    The grid coordinates in [-1, 1] are appended to the input unless ``periodic``. The last layer
    starts at zero, so an untrained model is its base.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        modes: tuple[int, ...],
        width: int = 32,
        blocks: int = 4,
        kernel: int = 1,
        periodic: bool = False,
        scalars: int = 0,
    ) -> None:
        nn.Module.__init__(self)
        self.inputs, self.outputs, self.modes = inputs, outputs, tuple(modes)
        self.width, self.blocks, self.kernel = width, blocks, kernel
        self.periodic, self.scalars = periodic, scalars
        dim = len(self.modes)
        self.level = NoiseLevel(2 * width, scalars)
        self.lift = conv(dim, inputs + (0 if periodic else dim), width, kernel, periodic)
        self.body = nn.ModuleList(
            SpectralBlock(width, self.modes, 2 * width, kernel, periodic) for _ in range(blocks)
        )
        self.head = conv(dim, width, outputs, 1, periodic)
        zero(self.head)

    def forward(self, x: Tensor, log_kappa: Tensor, context: Context) -> Tensor:
        level = self.level(log_kappa, context, x)
        if context.fields is not None:
            fields = context.fields.to(x).expand(x.shape[0], *context.fields.shape[1:])
            x = torch.cat([x, fields], dim=1)
        if not self.periodic:
            x = torch.cat([x, coordinates(x)], dim=1)
        h = self.lift(x)
        for block in self.body:
            h = block(h, level)
        return self.head(h)


def conv(dim: int, inputs: int, outputs: int, kernel: int, periodic: bool) -> Convolution:
    """A convolution of the right dimension that keeps the grid."""
    kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dim - 1]
    edge: Literal["zeros", "replicate", "circular"] = "zeros"
    if kernel > 1:
        edge = "circular" if periodic else "replicate"
    return kind(inputs, outputs, kernel, padding=kernel // 2, padding_mode=edge)


def zero(layer: Convolution) -> None:
    """Start a layer at zero."""
    for weight in layer.parameters():
        nn.init.zeros_(weight)


def coordinates(x: Tensor) -> Tensor:
    """Cell-centre coordinates in [-1, 1], (B, D, *grid)."""
    axes = [(2 * torch.arange(n, dtype=x.dtype) + 1) / n - 1 for n in x.shape[2:]]
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"))
    return grid.to(x).expand(x.shape[0], *grid.shape)


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # what is cached under inference must stay usable by autograd
def waves(n: int, modes: int, half: bool, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """cos and sin (m, n) / n of the lowest frequencies: 0..modes-1, or both signs unless half."""
    k = torch.arange(0 if half else 1 - modes, modes, dtype=torch.float64)
    angle = 2 * math.pi / n * k[:, None] * torch.arange(n, dtype=torch.float64)[None]
    return (angle.cos() / n).to(dtype), (angle.sin() / n).to(dtype)
