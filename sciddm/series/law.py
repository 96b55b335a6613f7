"""Gaussian laws of a panel, and what they say once some cells are known.

The law of the series is the base of every model here: the oracle of the tests, the row of every
table (kriging, Kalman), and the noise of the diffusions, whose untrained network is exact for it.

Rasmussen, Williams. Gaussian processes for machine learning. 2006, eq. 2.22-2.24, 2.30.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from sciddm.series.panel import Panel

JITTER = 1e-9
"""Added to the diagonal, as a share of its mean."""


class Law(ABC):
    """X ~ N(mean, covariance) at the cells of any panel, float64."""

    @abstractmethod
    def mean(self, panel: Panel) -> Tensor:
        """(B, m)."""

    @abstractmethod
    def covariance(self, panel: Panel) -> Tensor:
        """(B, m, m) of the values at all cells, those outside ``real`` too."""


class Posterior(NamedTuple):
    """The law of the wanted cells given the known ones, float64.

    mean : (B, m), at known cells their values (smoothed where they have errors).
    factor : (B, m, m), lower: mean + factor w with white w (B, m) is a draw of every real cell.
    """

    mean: Tensor
    factor: Tensor

    @property
    def std(self) -> Tensor:
        """(B, m)."""
        return self.factor.square().sum(-1).sqrt()


def factor(matrix: Tensor) -> Tensor:
    """Lower Cholesky factor of (B, m, m); with more jitter where rounding asks for it."""
    eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    size = matrix.diagonal(dim1=-2, dim2=-1).mean(-1).clamp_min(1e-300)[:, None, None]
    for power in range(6):
        chol, info = torch.linalg.cholesky_ex(matrix + JITTER * 10.0**power * size * eye)
        if not bool(info.any()):
            return chol
    raise ValueError("The covariance of the cells is not positive.")


def posterior(law: Law, panel: Panel) -> Posterior:
    """Kriging of every series at its own times: exact for a panel of this law."""
    mean, cov = law.mean(panel), law.covariance(panel)
    known, real = panel.known, panel.real
    seen = known.double()
    gap = torch.where(known, panel.value.double() - mean, 0.0)
    error2 = torch.zeros_like(mean) if panel.error is None else panel.error.double().square()
    # rows and columns of other cells are those of the identity, so that all rows have one size
    inner = cov * seen[:, :, None] * seen[:, None, :] + torch.diag_embed(1 - seen + seen * error2)
    chol = factor(inner)
    cross = cov * seen[:, None, :]
    found = mean + (cross @ torch.cholesky_solve(gap[..., None], chol))[..., 0]
    half = torch.linalg.solve_triangular(chol, cross.mT, upper=False)
    rest = cov - half.mT @ half
    if panel.error is None:
        found = torch.where(known, panel.value.double(), found)
        free = (real & ~known).double()
    else:
        free = real.double()
    rest = rest * free[:, :, None] * free[:, None, :] + torch.diag_embed(1 - free)
    out = factor(rest) * free[:, :, None] * free[:, None, :]
    return Posterior(torch.where(real, found, 0.0), out)


def log_prob(law: Law, panel: Panel) -> Tensor:
    """log p(known values) of each series, (B,), in nats."""
    seen = panel.known.double()
    gap = torch.where(panel.known, panel.value.double() - law.mean(panel), 0.0)
    error2 = torch.zeros_like(gap) if panel.error is None else panel.error.double().square()
    cov = law.covariance(panel) * seen[:, :, None] * seen[:, None, :]
    chol = factor(cov + torch.diag_embed(1 - seen + seen * error2))
    white = torch.linalg.solve_triangular(chol, gap[..., None], upper=False)[..., 0]
    size = chol.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return -0.5 * white.square().sum(-1) - size - 0.5 * math.log(2 * math.pi) * seen.sum(-1)
