r"""Pseudo-inverse guidance: the clean estimate's error as r^2 I, through the network's gradient.

    r^2 = kappa^2 std^2 / (kappa^2 + std^2),    g = J^T A^T (A A^T + R / r^2)^{-1} (y - A x_hat)

`PiGDM` is the score form, x_hat_y = x_hat + (sigma^2 / (alpha r^2)) C g; `PiGDMLoop` the published
one, x_s <- x_s + alpha_t g after the solver's step, whose weight 1 is applied again at each step.
The error of x_hat has anything but equal variance in all directions, so both are biased by
posterior s.d.s and too wide, and the score form diverges on coarse grids.

References
----------
Song, Vahdat, Mardani, Kautz. Pseudoinverse-guided diffusion models for inverse problems. ICLR 2023,
eq. 7-8 and algorithm 1. https://openreview.net/forum?id=9_gsMA8MRKQ
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from sciddm.denoise import Context, Denoiser
from sciddm.guide.moments import gram
from sciddm.guide.published import Loop, gap, positive
from sciddm.guide.score import linearised, observed, one_level, weigh
from sciddm.observe import Observation
from sciddm.process import Process
from sciddm.solve import Euler, Solver


class PiGDM(Denoiser):
    """The score form: S = R + r^2 A A^T.

    Parameters
    ----------
    prior, observation : the model's denoiser and y with a linear (affine) operator.
    std : s.d. of the data.
    """

    def __init__(self, prior: Denoiser, observation: Observation, std: float = 1.0) -> None:
        positive("std", std)
        torch.nn.Module.__init__(self)
        self.prior, self.process = prior, prior.process
        self.observation, self.std = observation, std
        self._square: list[Tensor] = []

    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        x_hat, d, pull = linearised(self.prior, self.observation, x_t, t, context)
        if not self._square:
            self._square.append(square(self.observation, x_t))
        r2 = ratio(one_level(self.process.kappa(t)), self.std)
        return x_hat + pull(weigh(self.observation.covariance + r2 * self._square[0], d))


@dataclass(frozen=True)
class PiGDMLoop(Loop):
    """The published form, a solver around a solver (see `sciddm.guide.published`).

    Parameters
    ----------
    observation : y with a linear (affine) operator. std : s.d. of the data.
    solver : ``Euler(eta)``; the authors take eta = 1.
    """

    observation: Observation
    std: float = 1.0
    solver: Solver = field(default_factory=lambda: Euler(eta=1.0))
    _square: list[Tensor] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        positive("std", self.std)

    def objective(self, x_hat: Tensor, t: Tensor, process: Process) -> Tensor:
        if not self._square:
            self._square.append(square(self.observation, x_hat))
        alpha, _, _ = process.coefficients(t)
        r2 = ratio(one_level(process.kappa(t)), self.std)
        d = gap(self.observation, x_hat).detach()
        w = one_level(alpha).to(d) * weigh(self._square[0] + self.observation.covariance / r2, d)
        return -(w * observed(self.observation, x_hat)).sum(1)


def ratio(kappa: Tensor, std: float) -> Tensor:
    """r^2, the variance of the error of x_hat for independent data of s.d. ``std``."""
    return kappa**2 * std**2 / (kappa**2 + std**2)


def square(observation: Observation, like: Tensor) -> Tensor:
    """A A^T (n, n), float64, for fields as ``like``."""
    rows = observation.operator.rows(torch.zeros_like(like[:1])).double()
    return gram(rows, rows)
