"""Gaussian random fields of the benchmarks: cosine modes on the square, waves on the torus.

The field of the elliptic problems is a cosine Karhunen-Loeve expansion. On an ``S x S`` grid, for
wave numbers ``k1, k2 = 0 .. S-1``,

    c(k) = tau^(alpha-1) (pi^2 |k|^2 + tau^2)^(-alpha/2),    c(0, 0) = 0,
    field = orthonormal 2-D inverse DCT-II of  S c(k) xi(k),    xi ~ N(0, 1) independent.

The covariance operator is ``tau^(2 alpha - 2) (-Laplace + tau^2)^(-alpha)`` with zero slope at the
edges and the mean removed. The marginal variance, averaged over the square, is the sum of
``c(k)^2``: for ``alpha`` 2 and ``tau`` 3 the standard deviation is 0.2921, whatever the grid.

The points are strictly the cell centres ``(i + 1/2) / S``; the benchmarks read the same array as
node values, and so do the solvers here.

The field of the time-dependent problems lives on the torus, at the points ``i / S``. For whole
wave numbers ``n`` with ``-S/2 <= n < S/2`` along each of the d axes,

    c(n) = sqrt(2) sigma (4 pi^2 |n|^2 + tau^2)^(-alpha/2),    c(0) = 0,    sigma = tau^(alpha-d/2),
    field = real part of  sum over n of  c(n) xi(n) exp(2 pi i n . x),

with ``xi`` complex, both parts N(0, 1). The variance is the sum of ``c(n)^2``.

References:
    Fourier Neural Operator for Parametric Partial Differential Equations, Li et al., 2020,
    https://arxiv.org/abs/2010.08895 (section 5.2, mu = N(0, (-Laplace + 9 I)^-2); section 5.3,
    mu = N(0, 7^(3/2) (-Laplace + 49 I)^(-5/2)), without the square root of 2 of the code).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from sciddm.errors import InputError
from sciddm.pde.grid import idct2


@final
@dataclass(frozen=True)
class GaussianField:
    """Zero-mean field with spectrum ``tau^(alpha-1) (pi^2 |k|^2 + tau^2)^(-alpha/2)``.

    Args:
        alpha: smoothness; larger is smoother. Above 1, else the variance grows with the grid.
        tau: inverse length, in units of one over the side of the square. 3 is the benchmark's.

    Raises:
        InputError: ``alpha`` not above 1 or ``tau`` not positive.
    """

    alpha: float = 2.0
    tau: float = 3.0

    def __post_init__(self) -> None:
        if not (1.0 < self.alpha < math.inf and 0.0 < self.tau < math.inf):
            raise InputError(
                f"Got alpha={self.alpha:g} and tau={self.tau:g}; expected alpha > 1 and tau > 0, "
                "the benchmark uses alpha=2, tau=3."
            )

    def spectrum(self, size: int) -> Tensor:
        """Standard deviations ``c(k)`` of the cosine modes, ``(size, size)`` float64."""
        k = torch.arange(size, dtype=torch.float64) * math.pi
        squared = k[:, None] ** 2 + k**2
        c = self.tau ** (self.alpha - 1.0) * (squared + self.tau**2) ** (-self.alpha / 2.0)
        c[0, 0] = 0.0
        return c

    def draw(self, samples: int, size: int, *, seed: int = 0, start: int = 0) -> Tensor:
        """Samples ``start .. start + samples - 1``, as ``(samples, 1, size, size)`` float64.

        The noise of a sample is addressed by ``(seed, index)`` and transformed on its own, so a
        sample has the same bytes in any batch.

        Raises:
            InputError: a negative number, a seed of 2**32 or more, or fewer than 3 points a side.
        """
        _check(samples, size, seed, start)
        scale = size * self.spectrum(size)
        fields = torch.empty(samples, 1, size, size, dtype=torch.float64)
        for row in range(samples):
            xi = _noise(seed, start + row, size)
            fields[row, 0] = idct2(scale * xi)
        return fields


@final
@dataclass(frozen=True)
class PeriodicField:
    """Zero-mean field on the unit torus, ``sqrt(2) sigma (4 pi^2 |n|^2 + tau^2)^(-alpha/2)``.

    A mode has the same number ``xi(n)`` on every grid that holds it, so a sample drawn at two sizes
    is one field, seen on each grid up to its highest mode.

    Args:
        alpha: smoothness; larger is smoother. Above half the number of axes.
        tau: inverse length, in units of one over the side of the torus.
        axes: 1 or 2 grid axes.
        sigma: amplitude; None is ``tau^(alpha - axes / 2)``. The defaults are the initial vorticity
            of the Navier-Stokes benchmark, with standard deviation 0.262 at 128 points a side.

    Raises:
        InputError: a number out of its range.
    """

    alpha: float = 2.5
    tau: float = 7.0
    axes: int = 2
    sigma: float | None = None

    def __post_init__(self) -> None:
        if self.axes not in (1, 2) or not self.axes / 2 < self.alpha < math.inf:
            raise InputError(
                f"Got alpha={self.alpha!r} and axes={self.axes!r}; expected 1 or 2 axes and alpha "
                "above half of that, else the variance grows with the grid."
            )
        if not (0.0 < self.tau < math.inf and (self.sigma is None or 0 < self.sigma < math.inf)):
            raise InputError(
                f"Got tau={self.tau!r} and sigma={self.sigma!r}; expected positive numbers."
            )

    def spectrum(self, size: int) -> Tensor:
        """Amplitudes ``c(n)`` in the order of :func:`torch.fft.fftfreq`, ``(size,) * axes``."""
        k = 2.0 * math.pi * torch.fft.fftfreq(size, dtype=torch.float64) * size
        squared = k**2 if self.axes == 1 else k[:, None] ** 2 + k**2
        sigma = self.tau ** (self.alpha - self.axes / 2) if self.sigma is None else self.sigma
        c = math.sqrt(2.0) * sigma * (squared + self.tau**2) ** (-self.alpha / 2.0)
        c.view(-1)[0] = 0.0
        return c

    def draw(self, samples: int, size: int, *, seed: int = 0, start: int = 0) -> Tensor:
        """Samples ``start .. start + samples - 1``, as ``(samples, 1, *grid)`` float64.

        The grid has ``size`` points along every axis. The noise of a sample is addressed by
        ``(seed, index)`` and transformed on its own.

        Raises:
            InputError: a negative number, a seed of 2**32 or more, or fewer than 3 points a side.
        """
        _check(samples, size, seed, start)
        shape = (size,) * self.axes
        scale, place = self.spectrum(size) * size**self.axes, _places(size, self.axes)
        fields = torch.empty(samples, 1, *shape, dtype=torch.float64)
        for row in range(samples):
            # A third word, so that a seed gives the two kinds of field different numbers.
            rng = np.random.Generator(
                np.random.PCG64(np.random.SeedSequence([seed, start + row, self.axes]))
            )
            xi = rng.standard_normal(2 * size**self.axes).view(np.complex128)
            fields[row, 0] = torch.fft.ifftn(scale * torch.from_numpy(xi)[place]).real
        return fields


def _check(samples: int, size: int, seed: int, start: int) -> None:
    # A seed of two 32-bit words would run into the index and repeat another seed's samples.
    if min(samples, seed, start) < 0 or seed >= 2**32 or size < 3:
        raise InputError(
            f"Got samples={samples}, size={size}, seed={seed}, start={start}; expected numbers "
            "of at least 0, a seed below 2**32 and a size of at least 3."
        )


@functools.lru_cache(maxsize=16)
def _places(size: int, axes: int) -> Tensor:
    """Where each mode's number stands in the stream: a larger grid only appends to it.

    Along an axis the modes 0, -1, 1, -2, ... have the ranks 0, 1, 2, 3, ...; of two axes the square
    of ranks below q comes first, then the row and the column of rank q.
    """
    n = torch.round(torch.fft.fftfreq(size, dtype=torch.float64) * size).long()
    rank = torch.where(n >= 0, 2 * n, -2 * n - 1)
    if axes == 1:
        return rank
    row, column = rank[:, None], rank[None, :]
    q = torch.maximum(row, column)
    return q**2 + torch.where(row == q, column, q + 1 + row)


def _noise(seed: int, index: int, size: int) -> Tensor:
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, index])))
    return torch.from_numpy(rng.standard_normal((size, size)))
