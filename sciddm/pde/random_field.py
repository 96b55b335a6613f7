"""The Gaussian random field of the elliptic benchmarks: a cosine Karhunen-Loeve expansion.

On an ``S x S`` grid, for wave numbers ``k1, k2 = 0 .. S-1``,

    c(k) = tau^(alpha-1) (pi^2 |k|^2 + tau^2)^(-alpha/2),    c(0, 0) = 0,
    field = orthonormal 2-D inverse DCT-II of  S c(k) xi(k),    xi ~ N(0, 1) independent.

The covariance operator is ``tau^(2 alpha - 2) (-Laplace + tau^2)^(-alpha)`` with zero slope at the
edges and the mean removed. The marginal variance, averaged over the square, is the sum of
``c(k)^2``: for ``alpha`` 2 and ``tau`` 3 the standard deviation is 0.2921, whatever the grid.

The points are strictly the cell centres ``(i + 1/2) / S``; the benchmarks read the same array as
node values, and so do the solvers here.

References:
    Fourier Neural Operator for Parametric Partial Differential Equations, Li et al., 2020,
    https://arxiv.org/abs/2010.08895 (section 5.2, mu = N(0, (-Laplace + 9 I)^-2)).
"""

from __future__ import annotations

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
        # A seed of two 32-bit words would run into the index and repeat another seed's samples.
        if min(samples, seed, start) < 0 or seed >= 2**32 or size < 3:
            raise InputError(
                f"Got samples={samples}, size={size}, seed={seed}, start={start}; expected numbers "
                "of at least 0, a seed below 2**32 and a size of at least 3."
            )
        scale = size * self.spectrum(size)
        fields = torch.empty(samples, 1, size, size, dtype=torch.float64)
        for row in range(samples):
            xi = _noise(seed, start + row, size)
            fields[row, 0] = idct2(scale * xi)
        return fields


def _noise(seed: int, index: int, size: int) -> Tensor:
    rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, index])))
    return torch.from_numpy(rng.standard_normal((size, size)))
