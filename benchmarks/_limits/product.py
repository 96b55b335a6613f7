"""The product test: processes x covariances x solvers x observations against the exact posterior.

With a Gaussian prior, a linear observation and the closed-form guidance, a draw is an affine
function of all the noise that goes into it: the start and every draw of a stochastic solver. So
the law of the whole ensemble follows from the images of zero and of unit noise, without Monte
Carlo, and is held to the dense posterior cell by cell. One line adds a process, a solver, a
covariance or an observation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

import torch
from torch import Tensor

from sciddm.basis import Cosine, Periodic
from sciddm.covariance import Covariance, LowRank, Matern, Spectral, White
from sciddm.denoise import Context, Denoiser, Gaussian
from sciddm.guide import Conditioned
from sciddm.observe import Coarsen, Observation, Operator, points
from sciddm.process import (
    VE,
    VP,
    Bridge,
    Drifting,
    Flow,
    Interpolant,
    LogLinear,
    MeanReverting,
    OneClock,
    SubVP,
)
from sciddm.random import Streams
from sciddm.solve import (
    Adams,
    DataForm,
    Euler,
    ExtendedReverse,
    GaussianForm,
    HeavyBall,
    Heun,
    InKappa,
    Langevin,
    Matched,
    Multistep,
    Restart,
    Singlestep,
    Solver,
    StochasticAdams,
    trajectory,
)

DOUBLE = torch.float64
N = 20
CLOCK = LogLinear(0.01, 300.0)
MEAN = torch.linspace(-1, 1, N, dtype=DOUBLE).view(1, N)
ANCHOR = torch.cos(torch.linspace(0, 6, N, dtype=DOUBLE)).view(1, 1, N)
SMOOTH = Spectral(Matern(0.3, 1.5, 1.2), (1.0,), Cosine())
SD = 0.15
"""S.d. of the observations' errors."""


@dataclass(frozen=True)
class Rule:
    """A solver, the order of its law in the step, and the error of the s.d. (of its logarithm) that
    is allowed at 20 evaluations. Solvers that need the base are functions of it."""

    solver: Solver | Callable[[Gaussian], Solver]
    order: float
    error: float

    def at(self, base: Gaussian) -> Solver:
        """The solver, for a prior ``base``."""
        return self.solver if isinstance(self.solver, Solver) else self.solver(base)

    def allowed(self, evaluations: int) -> float:
        """Error allowed at ``evaluations``."""
        return self.error * (20 / evaluations) ** self.order + FLOOR


def steps_of(solver: Solver, evaluations: int) -> int:
    """The most steps that ``evaluations`` pay for."""
    steps = 2
    while solver.evaluations(steps + 1) <= evaluations:
        steps += 1
    return steps


def low_rank() -> LowRank:
    noise = torch.randn(N, 8, generator=torch.manual_seed(1), dtype=DOUBLE)
    modes = torch.linalg.qr(noise).Q.T.reshape(8, 1, N)
    return LowRank(modes, 16 * 0.6 ** torch.arange(8, dtype=DOUBLE), 0.05)


PROCESSES: dict[str, Callable[[Covariance], OneClock]] = {
    "VE": lambda c: VE(c, CLOCK),
    "VP": lambda c: VP(c, CLOCK),
    "sub-VP": lambda c: SubVP(c, CLOCK),
    "flow": lambda c: Flow(c, CLOCK),
    "mean-reverting": lambda c: MeanReverting(c, CLOCK, 0.8),
    "drifting": lambda c: Drifting(c, CLOCK),
    "interpolant": lambda c: Interpolant(c, CLOCK, 0.7, 0.5),
    "coupling": lambda c: Interpolant(c, CLOCK, 0.7, 1.0),
    "bridge VE": lambda c: Bridge(VE(c, CLOCK), 2.0),
    "bridge VP": lambda c: Bridge(VP(c, CLOCK), 2.0),
}
# prior, noise
COVARIANCES: dict[str, tuple[Covariance, Covariance]] = {
    "smooth in white": (SMOOTH, White()),
    "rough in white": (Spectral(Matern(0.2, 0.5), (1.0,), Periodic()), White()),
    "low rank in white": (low_rank(), White()),
    "smooth in matern": (SMOOTH, Spectral(Matern(0.1, 0.5), (1.0,), Cosine())),
}
PLACES = torch.tensor([[1.0], [4.0], [5.0], [11.0], [16.0]], dtype=DOUBLE)
OPERATORS: dict[str, Operator] = {
    "points": points([0] * 5, PLACES, (N,)),
    "off the grid": points([0] * 5, PLACES + 0.37, (N,)),
    "coarse means": Coarsen((4,)),
}
SOLVERS: dict[str, Rule] = {
    "Euler": Rule(Euler(), 1, 0.2),
    "ancestral": Rule(Euler(1.0), 1, 0.35),
    "matched": Rule(Matched(), 0, 0.0),
    "Heun": Rule(Heun(), 2, 0.3),
    "Multistep": Rule(Multistep(), 2, 0.03),
    "DPM-Solver-2": Rule(Singlestep(2), 2, 0.04),
    "DPM-Solver++-3": Rule(Singlestep(3, DataForm()), 3, 0.01),
    "DEIS-3": Rule(Adams(3), 3, 0.01),
    "rho-DEIS-3": Rule(Adams(3, InKappa()), 3, 0.07),
    "UniPC-2": Rule(Adams(2, form=DataForm(), corrector=2), 2, 0.02),
    "DPM-Solver-v3-2": Rule(lambda base: Adams(2, form=GaussianForm(base)), 2, 0.05),
    "heavy ball": Rule(HeavyBall(), 1.5, 0.08),
    "SA-Solver": Rule(StochasticAdams(2, 2), 2, 0.13),
    "ER-SDE-3": Rule(ExtendedReverse(3), 2, 0.03),
    "Langevin": Rule(Langevin(), 1, 0.4),
    "Restart": Rule(Restart(), 2, 0.06),
}
FLOOR = 0.01
"""What the ends of the clock cost: the mean of the field over the noise at the start, and what is
still unknown at the end."""


@dataclass(frozen=True)
class Unit(Streams):
    """Stands for addressed noise: each address has unit noise in rows of its own.

    A first run on one row writes the book of addresses, so that the second can give each of them
    its rows: row 0 is without noise.
    """

    book: dict[tuple[str, int], tuple[int, int]] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        return 1 + sum(size for _, size in self.book.values())

    def normal(self, like: Tensor) -> Tensor:
        address, size = (self.purpose, self.step), like[0].numel()
        first, _ = self.book.setdefault(address, (self.rows, size))
        noise = torch.zeros(len(like), size, dtype=like.dtype)
        if first + size <= len(like):
            noise[first : first + size] = torch.eye(size, dtype=like.dtype)
        return noise.view(like.shape)


@torch.no_grad()
def law(denoiser: Denoiser, solver: Solver, steps: int) -> tuple[Tensor, Tensor]:
    """Mean (D,) and covariance (D, D) of all that an affine sampler can draw."""
    process = denoiser.process
    times, rng = process.times(steps), Unit(0, (), ())
    for _ in range(2):
        anchor = ANCHOR.expand(rng.rows, 1, N)
        context = Context(anchor=anchor)
        x = process.start(torch.zeros_like(anchor), times[0], anchor, rng.at("start"))
        *_, last = trajectory(denoiser, x, times, context, solver, rng)
    moved = (last[1:] - last[0]).flatten(1)
    return last[0].flatten(), moved.T @ moved


def seen(name: str, prior: Covariance) -> Observation:
    """What the operator ``name`` sees of a field of the prior, with errors of `SD`."""
    operator = OPERATORS[name]
    truth = MEAN + prior.sample(torch.zeros(1, 1, N, dtype=DOUBLE), Streams.of(3, 1))
    clean = operator(truth)
    error = SD * torch.randn(clean.shape[1], dtype=DOUBLE, generator=torch.manual_seed(6))
    return Observation(clean[0] + error, operator, torch.tensor(SD**2, dtype=DOUBLE))


def exact(prior: Covariance, observation: Observation) -> tuple[Tensor, Tensor]:
    """Mean (D,) and covariance (D, D) of the posterior, by dense algebra."""
    unit = torch.eye(N, dtype=DOUBLE).view(N, 1, N)
    sigma, a = prior(unit).flatten(1), observation.operator(unit).T
    gain = sigma @ a.T @ torch.linalg.inv(a @ sigma @ a.T + observation.covariance)
    mean = MEAN.flatten()
    return mean + gain @ (observation.y - a @ mean), sigma - gain @ a @ sigma


@lru_cache(maxsize=2)
def posterior(
    process: str, covariance: str, observation: str
) -> tuple[Conditioned, Tensor, Tensor]:
    """The guided denoiser, and the mean (D,) and covariance (D, D) that it should draw.

    Kept, so that solvers on the same times share its gains.
    """
    prior, noise = COVARIANCES[covariance]
    gaussian, y = Gaussian(MEAN, prior, PROCESSES[process](noise)), seen(observation, prior)
    return Conditioned(gaussian, y, gaussian), *exact(prior, y)


@dataclass(frozen=True)
class Cell:
    """One cell of the product.

    distance : of the means in posterior s.d., rms. ratio : of the s.d., the one furthest from 1.
    whole : relative error of the covariance matrix (Frobenius). allowed : see `Rule`.
    """

    process: str
    covariance: str
    observation: str
    solver: str
    evaluations: int
    distance: float
    ratio: float
    whole: float
    allowed: float

    @property
    def within(self) -> bool:
        """Whether mean, spread and correlations are as good as the order of the solver says."""
        return (
            self.distance <= FLOOR
            and abs(math.log(self.ratio)) <= self.allowed
            and self.whole <= math.expm1(2 * self.allowed)
        )


def judge(
    place: tuple[str, str, str],
    solver: str,
    evaluations: int,
    found: tuple[Tensor, Tensor],
    truth: tuple[Tensor, Tensor],
) -> Cell:
    """Compare the law that was found (mean, covariance) with the true one."""
    (mean, spread), (m, c) = found, truth
    distance = float(((mean - m) / c.diagonal().sqrt()).square().mean().sqrt())
    logs = 0.5 * (spread.diagonal() / c.diagonal()).clamp_min(1e-12).log()
    ratio = float(logs[logs.abs().argmax()].exp())
    whole = float((spread - c).norm() / c.norm())
    allowed = SOLVERS[solver].allowed(evaluations)
    return Cell(*place, solver, evaluations, distance, ratio, whole, allowed)


def cell(process: str, covariance: str, observation: str, solver: str, evaluations: int) -> Cell:
    """Run the sampler on unit noise and compare its law with the posterior."""
    denoiser, mean, covariances = posterior(process, covariance, observation)
    rule = SOLVERS[solver].at(denoiser.prior)
    found = law(denoiser, rule, steps_of(rule, evaluations))
    place = (process, covariance, observation)
    return judge(place, solver, evaluations, found, (mean, covariances))
