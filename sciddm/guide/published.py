r"""Published guidance loops, as their authors run them: a push on x_s after the solver's step.

    x_s <- x_s - grad_{x_t} F(x_hat),    x_hat the solver's last clean estimate of the step

with the gradient taken through every network evaluation of the step. The push does not know the
length of the step, so the law drawn depends on the number of steps, and none of the three tends to
the posterior. They are solvers around a solver, for comparison with published figures; to guide,
use `sciddm.guide.Conditioned` or `MMPS`.

==================  ========================================  ====================================
loop                F                                         published set-up
==================  ========================================  ====================================
`DPSLoop`           2 zeta |d|                                ancestral, 1000 steps
`FunDPSLoop`        weight min(1, sigma) |d|^2 / n            Heun, 200 or 500 steps, rho 7
`DiffusionPDELoop`  weight |d|, a tenth of it in the last     Heun, 2000 steps, rho 7
                    fifth, and there the equation's residual
==================  ========================================  ====================================

d = y - A x_hat, n values. rho 7 is the grid of Karras et al., eq. 5, from 80 to 0.002, for fields
of s.d. 0.5.

References
----------
Chung, Kim, McCann, Klasky, Ye. Diffusion posterior sampling for general noisy inverse problems.
ICLR 2023, algorithm 1 and section 3.3. https://arxiv.org/abs/2209.14687
Yao, Mammadov, Berner, Kerrigan, Ye, Azizzadenesheli, Anandkumar. Guided diffusion sampling on
function spaces (FunDPS). NeurIPS 2025, algorithm 1. https://arxiv.org/abs/2505.17004
Huang, Yang, Wang, Park. DiffusionPDE: generative PDE-solving under partial observation. NeurIPS
2024, algorithm 1. https://arxiv.org/abs/2406.17763
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sciddm.denoise import Context, Denoiser
from sciddm.errors import InputError
from sciddm.guide.score import observed, one_level
from sciddm.observe import Observation, Operator
from sciddm.process import Process
from sciddm.random import Streams
from sciddm.solve import Euler, Heun, History, Solver

LAST_FIFTH = (80 ** (1 / 7) + 0.8 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
"""Noise level where the last fifth of the grid rho 7 from 80 to 0.002 begins, 0.085."""


class Loop(Solver):
    """A solver's step, then a push down the gradient of ``objective``."""

    observation: Observation
    solver: Solver

    @abstractmethod
    def objective(self, x_hat: Tensor, t: Tensor, process: Process) -> Tensor:
        """F of each row of the clean estimate (B, C, *grid): (B,), differentiable."""

    def step(
        self,
        denoiser: Denoiser,
        x_t: Tensor,
        t: Tensor,
        s: Tensor,
        context: Context,
        state: History,
        rng: Streams | None,
    ) -> tuple[Tensor, History]:
        watched = Watched(denoiser)
        with torch.enable_grad():
            x = x_t.detach().requires_grad_()
            x_s, after = self.solver.step(watched, x, t, s, context, state, rng)
            total = self.objective(watched.last, t, denoiser.process).sum()
            (pull,) = torch.autograd.grad(total, x)
        known = History(*(tuple(v.detach() for v in part) for part in after))
        return (x_s - pull).detach(), known

    def check(self, process: Process, times: Tensor) -> None:
        self.solver.check(process, times)

    def evaluations(self, steps: int) -> int:
        return self.solver.evaluations(steps)


@dataclass(frozen=True)
class DPSLoop(Loop):
    """Chung et al.: the step zeta / |d| on the gradient of |d|^2.

    Parameters
    ----------
    observation : y with any differentiable operator; its error is not used.
    zeta : the authors recommend 0.1 to 1 for images.
    solver : theirs is ancestral.
    """

    observation: Observation
    zeta: float = 1.0
    solver: Solver = field(default_factory=lambda: Euler(eta=1.0))

    def __post_init__(self) -> None:
        positive("zeta", self.zeta)

    def objective(self, x_hat: Tensor, t: Tensor, process: Process) -> Tensor:
        return 2 * self.zeta * length(gap(self.observation, x_hat))


@dataclass(frozen=True)
class FunDPSLoop(Loop):
    """FunDPS: the mean squared misfit, its weight multiplied by sigma below sigma = 1.

    Parameters
    ----------
    observation : y with any differentiable operator; its error is not used.
    weight : for Poisson on 128 x 128 points with 500 values and fields of s.d. 0.5 the authors
        take 10000 (forward) and 20000 (inverse). The push on a mode grows with weight over the
        number of grid points: divide by 16 on 32 x 32.
    """

    observation: Observation
    weight: float
    solver: Solver = field(default_factory=Heun)

    def __post_init__(self) -> None:
        positive("weight", self.weight)

    def objective(self, x_hat: Tensor, t: Tensor, process: Process) -> Tensor:
        share = min(1.0, float(one_level(process.kappa(t))))
        return self.weight * share * gap(self.observation, x_hat).square().mean(1)


@dataclass(frozen=True)
class DiffusionPDELoop(Loop):
    """DiffusionPDE: the length of the misfit; below ``late`` a tenth of it and the equation.

    Parameters
    ----------
    observation : y with any differentiable operator; its error is not used.
    weight : in units of the field. The authors measure the misfit in physical units, so theirs
        is divided by the number of units of the field in one physical unit; for Poisson they take
        0.8 on a coefficient divided by 2.15 and 40 on a solution multiplied by 36.5, which is
        1.72 and 1.10 on their fields.
    late : sigma below which the last phase runs.
    equation : fields -> residuals of the equation (B, m), or None: the term vanishes where every
        clean estimate solves the equation.
    equation_weight : on the length of the residual over m.
    """

    observation: Observation
    weight: float
    late: float = LAST_FIFTH
    equation: Operator | None = None
    equation_weight: float = 1.0
    solver: Solver = field(default_factory=Heun)

    def __post_init__(self) -> None:
        positive("weight", self.weight)
        positive("late", self.late)
        positive("equation_weight", self.equation_weight)

    def objective(self, x_hat: Tensor, t: Tensor, process: Process) -> Tensor:
        misfit = self.weight * length(gap(self.observation, x_hat))
        if float(one_level(process.kappa(t))) > self.late:
            return misfit
        if self.equation is None:
            return 0.1 * misfit
        residual = self.equation(x_hat)
        return 0.1 * misfit + self.equation_weight * length(residual) / residual.shape[1]


class Watched(Denoiser):
    """A denoiser that keeps its last answer."""

    last: Tensor

    def __init__(self, prior: Denoiser) -> None:
        torch.nn.Module.__init__(self)
        self.prior, self.process = prior, prior.process

    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        self.last = self.prior(x_t, t, context)
        return self.last


def gap(observation: Observation, x_hat: Tensor) -> Tensor:
    """y - A x_hat, (B, n), differentiable."""
    return observation.y.to(x_hat) - observed(observation, x_hat)


def length(d: Tensor) -> Tensor:
    """|d| of each row of (B, n); its gradient is 0 at a fit."""
    square = d.square().sum(1)
    return square.clamp_min(torch.finfo(square.dtype).tiny).sqrt()


def positive(name: str, value: float) -> None:
    """Refuse a number that is not positive and finite."""
    if not 0 < value < math.inf:
        raise InputError(f"Got {name} = {value}; expected a positive finite number.")
