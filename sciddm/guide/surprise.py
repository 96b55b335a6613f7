r"""When the observations surprise the prior: adaptive inflation of its covariance.

The gap d = y - A x_hat should have covariance A V A^T + R. A trained network that is asked about
fields it never met, which guidance does at every step, is wrong by more than its V: then
chi^2 = d^T (A V A^T + R)^{-1} d exceeds its mean n by far. For such members V is multiplied by the
factor lambda > 1 that brings chi^2 back to its upper limit, n + 3 sqrt(2 n). Members then fit their
observations, and a model whose V is right is left alone: its chi^2 passes the limit about once in a
thousand steps, and lambda starts there from 1.

References
----------
Anderson. An adaptive covariance inflation error correction algorithm for ensemble filters. Tellus A
2007, section 3. https://doi.org/10.1111/j.1600-0870.2006.00216.x
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from scipy import stats
from torch import Tensor

from sciddm.denoise import Gaussian
from sciddm.guide.linear import factor, gram
from sciddm.observe import Observation

LARGEST = 1e8
"""Largest factor on V."""


class Surprise:
    """Compares gaps with their expected covariance, and stretches those that are too large.

    Parameters
    ----------
    spread : A V A^T, (n, n). noise : R, (n, n), positive definite.
    """

    def __init__(self, spread: Tensor, noise: Tensor) -> None:
        chol = torch.linalg.cholesky(noise.double())
        half = torch.linalg.solve_triangular(chol, spread.double(), upper=False)
        white = torch.linalg.solve_triangular(chol, half.T, upper=False)
        values, vectors = torch.linalg.eigh(0.5 * (white + white.T))
        self.ratio = values.clamp_min(0)
        """Variance of the field over that of the error, along each direction."""
        self._turn = torch.linalg.solve_triangular(chol.T, vectors, upper=True)
        self._back = vectors.T @ chol.T

    def chi_square(self, gap: Tensor) -> Tensor:
        """d^T (A V A^T + R)^{-1} d of each row of ``gap`` (B, n): (B,), float64."""
        return ((gap.double() @ self._turn).square() / (self.ratio + 1)).sum(1)

    def stretch(self, gap: Tensor) -> Tensor:
        """Gaps (B, n) that give, under the gain of V, the update under the gain of lambda V.

        lambda is 1 for a row whose chi^2 is below n + 3 sqrt(2 n).
        """
        n = gap.shape[1]
        limit = n + 3 * math.sqrt(2 * n)
        along = gap.double() @ self._turn
        power = along.square()
        large = self.chi_square(gap) > limit
        if not bool(large.any()):
            return gap
        low = torch.zeros(len(gap), 1, dtype=torch.float64)
        high = torch.full_like(low, math.log(LARGEST))
        for _ in range(50):
            middle = 0.5 * (low + high)
            over = (power / (middle.exp() * self.ratio + 1)).sum(1, keepdim=True) > limit
            low, high = torch.where(over, middle, low), torch.where(over, high, middle)
        factor = torch.where(large[:, None], high.exp(), torch.ones_like(high))
        longer = along * factor * (self.ratio + 1) / (factor * self.ratio + 1)
        return torch.where(large[:, None], (longer @ self._back).to(gap), gap)


@dataclass(frozen=True)
class PriorFit:
    """How well observations go with a Gaussian prior, before anything is drawn.

    chi_square : d^T (A Sigma A^T + R)^{-1} d with d = y - A mean, for each row of y.
    low, high : its range in 99 of 100 right models, of the chi-square law with n degrees.
    """

    chi_square: tuple[float, ...]
    low: float
    high: float

    @staticmethod
    def of(values: Sequence[float], n: int) -> PriorFit:
        """Chi-squares of n values each."""
        low, high = stats.chi2(n).interval(0.99)
        return PriorFit(tuple(values), float(low), float(high))

    @property
    def surprising(self) -> bool:
        """Whether any row is outside the range: above it, the values are far from the prior or
        their errors too small; below it, the errors too large."""
        return any(not self.low <= value <= self.high for value in self.chi_square)


def prior_fit(prior: Gaussian, observation: Observation, like: Tensor) -> PriorFit:
    """The chi-square of the observations under ``prior``, and its expected range.

    ``like`` (1, C, *grid) gives shape and type. The operator is linearised at the prior mean.
    Raises `InputError` for errors that are not Gaussian. Cost: n applications of the covariance.
    """
    return prior_fits(prior, [observation], like)[0]


def prior_fits(
    prior: Gaussian, observations: Sequence[Observation], like: Tensor
) -> list[PriorFit]:
    """`prior_fit` of several observations; equal sensors and errors share its cost."""
    centre = prior.mean.to(like).expand_as(like[:1]).double()
    rows, noise, chol = torch.zeros(0), torch.zeros(0), torch.zeros(0)
    found = []
    for observation in observations:
        mine, errors = observation.operator.rows(centre).double(), observation.covariance
        if not torch.equal(mine, rows) or not torch.equal(errors, noise):
            rows, noise = mine, errors
            chol = factor(gram(rows, prior.prior(rows)) + noise)
        gap = observation.residual(centre).double()
        white = torch.linalg.solve_triangular(chol, gap.T, upper=False)
        found.append(PriorFit.of(white.square().sum(0).tolist(), len(rows)))
    return found
