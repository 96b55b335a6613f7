"""Orthonormal bases on a regular grid, where stationary covariances are diagonal.

`Periodic` is the torus, `Cosine` the box with a free (zero-slope) boundary at half a cell outside
the end points (DCT-II), `Sine` the box whose field is zero one cell outside (DST-I). The discrete
vectors are orthonormal, so energies are sums of squared coefficients (Parseval).

References
----------
Strang. The discrete cosine transform. SIAM Review 41, 1999.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor


class Basis(ABC):
    """An orthonormal transform along the last ``dim`` axes."""

    @abstractmethod
    def forward(self, x: Tensor, dim: int) -> Tensor:
        """Coefficients of fields ``x`` (..., *grid) along the last ``dim`` axes."""

    @abstractmethod
    def inverse(self, c: Tensor, shape: tuple[int, ...]) -> Tensor:
        """Fields (..., *shape) of coefficients ``c``."""

    @abstractmethod
    def wavenumbers(self, shape: tuple[int, ...], lengths: tuple[float, ...]) -> Tensor:
        """Squared angular wavenumber of every coefficient, float64."""

    @abstractmethod
    def multiplicity(self, shape: tuple[int, ...]) -> Tensor:
        """How many basis vectors each coefficient stands for, float64; the sum is the grid's."""

    @abstractmethod
    def cells(self, shape: tuple[int, ...]) -> int:
        """How many cells of the grid fill the box."""

    @abstractmethod
    def diagonal(self, values: Tensor, shape: tuple[int, ...]) -> Tensor:
        """``sum_k values_k e_k(x)^2`` at every grid point (*shape), the shape of ``values`` that
        of the coefficients."""


@dataclass(frozen=True)
class Periodic(Basis):
    """Fourier modes on a torus; real fields keep half of the last axis."""

    def forward(self, x: Tensor, dim: int) -> Tensor:
        return torch.fft.rfftn(x, dim=tuple(range(-dim, 0)), norm="ortho")

    def inverse(self, c: Tensor, shape: tuple[int, ...]) -> Tensor:
        axes = tuple(range(-len(shape), 0))
        return torch.fft.irfftn(c, s=shape, dim=axes, norm="ortho")

    def wavenumbers(self, shape: tuple[int, ...], lengths: tuple[float, ...]) -> Tensor:
        last = len(shape) - 1
        axes = []
        for i, (n, side) in enumerate(zip(shape, lengths, strict=True)):
            frequencies = torch.fft.rfftfreq if i == last else torch.fft.fftfreq
            axes.append(2 * math.pi / side * frequencies(n, d=1 / n, dtype=torch.float64))
        return _sum_of_squares(axes)

    def multiplicity(self, shape: tuple[int, ...]) -> Tensor:
        count = torch.full((*shape[:-1], shape[-1] // 2 + 1), 2.0, dtype=torch.float64)
        count[..., 0] = 1
        if shape[-1] % 2 == 0:
            count[..., -1] = 1
        return count

    def cells(self, shape: tuple[int, ...]) -> int:
        return math.prod(shape)

    def diagonal(self, values: Tensor, shape: tuple[int, ...]) -> Tensor:
        # the two vectors of a wavenumber are a cosine and a sine of the same phase
        total = (self.multiplicity(shape).to(values) * values).sum()
        return (total / math.prod(shape)).expand(shape)


@dataclass(frozen=True)
class Cosine(Basis):
    """Cosines of half-sample symmetry (DCT-II); wavenumbers pi n / length, n = 0, 1, ..."""

    def forward(self, x: Tensor, dim: int) -> Tensor:
        for axis in range(-dim, 0):
            x = along(x, cosines(x.shape[axis], x.dtype), axis)
        return x

    def inverse(self, c: Tensor, shape: tuple[int, ...]) -> Tensor:
        for axis in range(-len(shape), 0):
            c = along(c, cosines(c.shape[axis], c.dtype).T, axis)
        return c

    def wavenumbers(self, shape: tuple[int, ...], lengths: tuple[float, ...]) -> Tensor:
        return _sum_of_squares(
            [
                math.pi / side * torch.arange(n, dtype=torch.float64)
                for n, side in zip(shape, lengths, strict=True)
            ]
        )

    def multiplicity(self, shape: tuple[int, ...]) -> Tensor:
        return torch.ones(shape, dtype=torch.float64)

    def cells(self, shape: tuple[int, ...]) -> int:
        return math.prod(shape)

    def diagonal(self, values: Tensor, shape: tuple[int, ...]) -> Tensor:
        for axis in range(-len(shape), 0):
            values = along(values, cosines(shape[axis], values.dtype).T.square(), axis)
        return values


@dataclass(frozen=True)
class Sine(Basis):
    """Sines that vanish one cell outside the grid (DST-I); wavenumbers pi (n + 1) / length."""

    def forward(self, x: Tensor, dim: int) -> Tensor:
        for axis in range(-dim, 0):
            x = along(x, sines(x.shape[axis], x.dtype), axis)
        return x

    def inverse(self, c: Tensor, shape: tuple[int, ...]) -> Tensor:
        return self.forward(c, len(shape))

    def wavenumbers(self, shape: tuple[int, ...], lengths: tuple[float, ...]) -> Tensor:
        return _sum_of_squares(
            [
                math.pi / side * torch.arange(1, n + 1, dtype=torch.float64)
                for n, side in zip(shape, lengths, strict=True)
            ]
        )

    def multiplicity(self, shape: tuple[int, ...]) -> Tensor:
        return torch.ones(shape, dtype=torch.float64)

    def cells(self, shape: tuple[int, ...]) -> int:
        return math.prod(n + 1 for n in shape)

    def diagonal(self, values: Tensor, shape: tuple[int, ...]) -> Tensor:
        for axis in range(-len(shape), 0):
            values = along(values, sines(shape[axis], values.dtype).square(), axis)
        return values


def along(x: Tensor, matrix: Tensor, axis: int) -> Tensor:
    """``matrix`` (m, n) applied along one axis of length n."""
    return (x.movedim(axis, -1) @ matrix.T.to(x.device)).movedim(-1, axis)


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # what is cached under inference must stay usable by autograd
def cosines(n: int, dtype: torch.dtype) -> Tensor:
    """The orthonormal DCT-II matrix (n, n), rows by wavenumber."""
    k = torch.arange(n, dtype=torch.float64)
    matrix = math.sqrt(2 / n) * torch.cos(math.pi / n * k[:, None] * (k[None] + 0.5))
    matrix[0] /= math.sqrt(2)
    return matrix.to(dtype)


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # what is cached under inference must stay usable by autograd
def sines(n: int, dtype: torch.dtype) -> Tensor:
    """The orthonormal DST-I matrix (n, n), symmetric and its own inverse."""
    k = torch.arange(1, n + 1, dtype=torch.float64)
    matrix = math.sqrt(2 / (n + 1)) * torch.sin(math.pi / (n + 1) * k[:, None] * k[None])
    return matrix.to(dtype)


def _sum_of_squares(axes: list[Tensor]) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for i, k in enumerate(axes):
        total = total + (k**2).reshape([-1 if j == i else 1 for j in range(len(axes))])
    return total
