"""Gaussian laws of a panel, and what they say once some cells are known.

The law of the series is the base of every model here: the oracle of the tests, the row of every
table (kriging, Kalman), and the noise of the diffusions, whose untrained network is exact for it.

Rasmussen, Williams. Gaussian processes for machine learning. 2006, eq. 2.22-2.24, 2.30.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import replace
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


class Rescaled(Law):
    """X = shift + size Y, cell by cell, for Y of a law ``inner``: seasons, local scales.

    Its posterior is that of Y at the values (x - shift) / size, scaled back, so that the work is
    shared by all series whose Y has the same covariance.
    """

    inner: Law

    @abstractmethod
    def affine(self, panel: Panel) -> tuple[Tensor, Tensor]:
        """(shift, size), each (B, m) float64, size positive. Only known values may be used."""

    def mean(self, panel: Panel) -> Tensor:
        shift, size = self.affine(panel)
        return shift + size * self.inner.mean(panel)

    def covariance(self, panel: Panel) -> Tensor:
        size = self.affine(panel)[1]
        return size[:, :, None] * self.inner.covariance(panel) * size[:, None, :]


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
    """Kriging of every series at its own times: exact for a panel of this law.

    The cost is that of the known cells cubed, and of the free ones: the wanted cells, and where
    the known values have errors those too. Series that share one covariance (a law that gives it
    expanded over the rows) and their known cells share the work.
    """
    if isinstance(law, Rescaled):
        shift, size = law.affine(panel)
        error = None if panel.error is None else panel.error.double() / size
        at = replace(panel, value=(panel.value.double() - shift) / size, error=error)
        mean, lower = posterior(law.inner, at)
        real = panel.real
        return Posterior(torch.where(real, shift + size * mean, 0.0), size[:, :, None] * lower)
    mean, cov = law.mean(panel), law.covariance(panel)
    known, real = panel.known, panel.real
    exact = panel.error is None
    free = real & ~known if exact else real
    if exact and cov.stride(0) == 0 and bool((known == known[:1]).all() & (real == real[:1]).all()):
        cov, known, free = cov[:1], known[:1], free[:1]
    # rows of fewer cells are filled up with cells of the identity, so that all have one size
    (seen, place), (live, to) = _gathered(known), _gathered(free)
    rows = len(mean)
    gap = torch.where(seen, (panel.value.double() - mean).gather(1, place.expand(rows, -1)), 0.0)
    inner = _block(cov, place, place) * seen[:, :, None] * seen[:, None, :]
    inner = inner + torch.diag_embed((~seen).double())
    if panel.error is not None:
        inner = inner + torch.diag_embed(seen * panel.error.double().square().gather(1, place))
    cross = _block(cov, place, to) * seen[:, :, None] * live[:, None, :]
    chol = factor(inner)
    half = torch.linalg.solve_triangular(chol, cross, upper=False)
    gain = torch.linalg.solve_triangular(chol.mT, half, upper=True)
    to_rows = to.expand(rows, -1)
    moved = mean.gather(1, to_rows) + (gap[:, None] @ gain)[:, 0]
    found = torch.where(real, panel.value.double() if exact else mean, 0.0)
    found = torch.where(real & ~(panel.known & exact), found.scatter(1, to_rows, moved), found)
    rest = _block(cov, to, to) * live[:, :, None] * live[:, None, :] - half.mT @ half
    lower = factor(rest + torch.diag_embed((~live).double())) * live[:, :, None] * live[:, None, :]
    row = torch.arange(len(cov), device=cov.device)[:, None, None]
    out = torch.zeros_like(cov)
    out[row, to[:, :, None], to[:, None, :]] = lower
    return Posterior(found, out.expand(rows, -1, -1))


def _gathered(mask: Tensor) -> tuple[Tensor, Tensor]:
    """The cells of each row of (B, m) where ``mask`` is true, in their order: (B, k) whether there
    is one, and its index, some other cell's where there is none."""
    order = torch.argsort((~mask).byte(), dim=1, stable=True)[:, : int(mask.sum(1).max())]
    return mask.gather(1, order), order


def _block(matrix: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """(B, r, c) of (B, m, m)."""
    row = torch.arange(len(matrix), device=matrix.device)[:, None, None]
    return matrix[row, rows[:, :, None], columns[:, None, :]]


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
