r"""The law of a panel beside the noise of a diffusion, cell by cell, in float64.

Let Sigma be the covariance of the law at the cells of a series and C that of the noise. One matrix
T brings both to diagonal form,

    C = T T^T,    Sigma = T D T^T,

and everything that a diffusion asks of the Gaussian law is a function of D and kappa: with
u = x + kappa z,

    E[X | u] = mu + T D / (D + kappa^2) T^{-1} (u - mu),
    Cov[X | u] = T kappa^2 D / (D + kappa^2) T^T.

Where the noise is the law, T is its Cholesky factor and D = 1: no eigenvectors are needed.

Golub, Van Loan. Matrix computations. 2013, section 8.7 (symmetric-definite pencils).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sciddm.covariance import Covariance, Dense, Function
from sciddm.series.law import Law, factor
from sciddm.series.panel import Panel


@dataclass(frozen=True, eq=False)
class Cells:
    """Of B series; fields are (n, m) with n = B, or any number where B = 1.

    mean : (B, m). std, noise_std : (B, m), of the law and of the noise at kappa = 1.
    turn : T (B, m, m), float64. values : D (B, m), or None where all are 1.
    """

    mean: Tensor
    std: Tensor
    noise_std: Tensor
    turn: Tensor
    values: Tensor | None

    @staticmethod
    def of(panel: Panel, law: Law, noise: Law | None = None) -> Cells:
        """Of the real cells; a row's others are white and of s.d. 1. ``noise`` None is the law."""
        mean = torch.where(panel.real, law.mean(panel), 0.0)
        sigma = _covariance(law, panel)
        std = sigma.diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt()
        if noise is None:
            return Cells(mean, std, std, factor(sigma), None)
        c = _covariance(noise, panel)
        chol = factor(c)
        half = torch.linalg.solve_triangular(chol, sigma, upper=False)
        inner = torch.linalg.solve_triangular(chol, half.mT, upper=False)
        values, vectors = torch.linalg.eigh(0.5 * (inner + inner.mT))
        noise_std = c.diagonal(dim1=-2, dim2=-1).sqrt()
        return Cells(mean, std, noise_std, chol @ vectors, values.clamp_min(0))

    def coloured(self, w: Tensor) -> Tensor:
        """T w: a draw of the noise from white noise (n, m)."""
        return times(self.turn, w)

    def white(self, z: Tensor) -> Tensor:
        """T^{-1} z, the white noise of a draw of the noise (n, m)."""
        if self.values is None:
            solved = torch.linalg.solve_triangular(self.turn, z[..., None], upper=False)
        else:
            solved = torch.linalg.solve(self.turn, z[..., None])
        return solved[..., 0]

    def start(self, w: Tensor, kappa: Tensor) -> Tensor:
        """A draw of u - mu, u = X + kappa Z, under the law, from white noise (n, m)."""
        if self.values is None:
            return torch.sqrt(1 + kappa**2) * self.coloured(w)
        return self.coloured(torch.sqrt(self.values + kappa**2) * w)

    def estimate(self, u: Tensor, kappa: Tensor) -> Tensor:
        """E[X | u] under the law; ``kappa`` broadcasts with (n, 1)."""
        gap = u - self.mean
        if self.values is None:
            return self.mean + gap / (1 + kappa**2)
        return self.mean + self.coloured(self.values / (self.values + kappa**2) * self.white(gap))

    def error(self, kappa: Tensor) -> Tensor:
        """S.d. of X given u under the law, (n, m)."""
        if self.values is None:
            return kappa * torch.rsqrt(1 + kappa**2) * self.std
        return times(self.turn.square(), self._variance(kappa)).clamp_min(0).sqrt()

    def covariance(self, x: Tensor, kappa: Tensor) -> Tensor:
        """Cov[X | u] x under the law."""
        if self.values is None:
            spread = kappa**2 / (1 + kappa**2) * times(self.turn.mT, x)
        else:
            spread = self._variance(kappa) * times(self.turn.mT, x)
        return self.coloured(spread)

    def fluctuation(self, w: Tensor, kappa: Tensor) -> Tensor:
        """A draw of X - E[X | u] under the law, from white noise (n, m)."""
        if self.values is None:
            return kappa * torch.rsqrt(1 + kappa**2) * self.coloured(w)
        return self.coloured(self._variance(kappa).sqrt() * w)

    def _variance(self, kappa: Tensor) -> Tensor:
        assert self.values is not None
        return kappa**2 * self.values / (self.values + kappa**2)


@dataclass(frozen=True, eq=False)
class CellNoise(Covariance):
    """C = T T^T of fields (n, 1, m): applied and drawn from by T (B, m, m). Its eigenvectors, which
    few need, are found when they are asked for."""

    turn: Tensor

    @cached_property
    def dense(self) -> Dense:
        """The same by its eigenvectors."""
        return Dense(self.turn @ self.turn.mT)

    def __call__(self, x: Tensor) -> Tensor:
        return times(self.turn, times(self.turn.mT, x[:, 0].double()))[:, None].to(x)

    def sqrt(self, w: Tensor) -> Tensor:
        return times(self.turn, w[:, 0].double())[:, None].to(w)

    def joint(self, x: Tensor, other: Covariance, f: Function) -> Tensor:
        return self.dense.joint(x, other.dense if isinstance(other, CellNoise) else other, f)

    def average(self, like: Tensor, other: Covariance, f: Function) -> Tensor:
        return self.dense.average(like, other.dense if isinstance(other, CellNoise) else other, f)

    def diagonal(self, like: Tensor) -> Tensor:
        return self.dense.diagonal(like)


def _covariance(law: Law, panel: Panel) -> Tensor:
    real = panel.real.double()
    cov = law.covariance(panel) * real[:, :, None] * real[:, None, :]
    return cov + torch.diag_embed(1 - real)


def times(matrix: Tensor, x: Tensor) -> Tensor:
    """(1 or B, m, m) times the rows of (n, m)."""
    if len(matrix) == 1:
        return x @ matrix[0].mT
    return (matrix @ x[..., None])[..., 0]
