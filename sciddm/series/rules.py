r"""Rules that impose known cells on an unconditional prior of series.

=====================  ===========================================================================
rule                   expect
=====================  ===========================================================================
`Matching`             exact where the prior is the Gaussian law, with any number of steps
`Replacement`          known cells are kept, the others hear of them too late: too wide near them
`SelfGuidance`         TSDiff: biased by a scale that has to be tuned, and by plug-in variances
`Reconstruction`       Diffusion-TS: gradient steps on the sample, and replacement
=====================  ===========================================================================

The last three are published rules, kept for comparison: on a Gaussian series none tends to the
posterior (`tests/series/test_rules_series.py` says by how much). Levels, noise and scales are in
the vocabulary of this library: with a white law of the noise they are the authors'.

References
----------
Kollovieh et al. Predict, refine, synthesize (TSDiff). NeurIPS 2023, eq. 6-9, algorithm 1.
https://arxiv.org/abs/2307.11494
Yuan, Qiao. Diffusion-TS: interpretable diffusion for general time series generation. ICLR 2024,
section 3.4, algorithm 1. https://arxiv.org/abs/2403.01742
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from sciddm.denoise import Context, Denoiser
from sciddm.errors import InputError
from sciddm.guide import MMPS, Conditioned, Replace, Resampling
from sciddm.observe import Observation
from sciddm.observe.operators import Points
from sciddm.process import Process
from sciddm.random import Streams
from sciddm.series.law import posterior
from sciddm.solve import (
    Adams,
    CosineGrid,
    Euler,
    Grid,
    History,
    LogKappa,
    RotationForm,
    Solver,
)
from sciddm.solve.address import below
from sciddm.solve.kernel import transition
from sciddm.solve.sampler import trajectory

if TYPE_CHECKING:
    from sciddm.series.prior import Bound

HOLD = 1e-5
"""S.d. at which exact values are held in a draw, in units of their cell's; they are then exact."""


class Seen(NamedTuple):
    """The known cells of one series: their places (n,), and the observation of fields (M, 1, m)."""

    at: Tensor
    observation: Observation

    @staticmethod
    def of(prior: Bound) -> Seen:
        panel = prior.panel
        at = panel.known[0].nonzero()[:, 0]
        least = (HOLD * prior.cells.std[0, at]).square().clamp_min(1e-30)
        error2 = least if panel.error is None else panel.error[0, at].double().square() + least
        operator = Points(at[:, None], torch.ones(len(at), 1, dtype=torch.float64))
        return Seen(at, Observation(panel.value[0, at].double(), operator, error2))


class Rule(ABC):
    """Draws of one series: a solver, its times, and how known cells enter."""

    steps: int
    grid: Grid
    solver: Solver

    @abstractmethod
    def posed(self, prior: Bound, seen: Seen, rng: Streams) -> tuple[Denoiser, Solver]:
        """The denoiser and the solver that draw given what is ``seen``."""

    @property
    def evaluations(self) -> int:
        """Network evaluations a draw."""
        return self.solver.evaluations(self.steps)

    def draw(self, prior: Bound, rng: Streams) -> Tensor:
        """(M, m), float64, of the one series that ``prior`` is bound to."""
        times = self.grid.times(prior.process, self.steps, None, None)
        centre = self.centre(prior)
        x = prior.start(times[0], centre, rng.at("start"))
        if bool(prior.panel.known.any()):
            denoiser, solver = self.posed(prior, Seen.of(prior), rng)
        else:
            denoiser, solver = prior, About(self.solver, centre[:, None])
        for x_s in trajectory(denoiser, x, times, Context(), solver, rng):
            x = x_s
        return x[:, 0]

    def centre(self, prior: Bound) -> Tensor:
        """(1, m), where the draws start from: the mean of u at the highest level."""
        return prior.cells.mean


@dataclass(frozen=True)
class Matching(Rule):
    """Moment matching: the covariance of the law stands for Cov[X | x_t] (`guide.Conditioned`).

    With the law as the noise the default form and the start know the law's own flow, so draws of a
    zero network are those of the exact posterior with any number of steps.

    Parameters
    ----------
    steps : evaluations of the network.
    corrections : iterations that correct the law's covariance by the network's own Jacobian
        (`guide.MMPS`), two backward passes each; 0 for none.
    """

    steps: int = 20
    corrections: int = 0
    grid: Grid = field(default_factory=CosineGrid)
    solver: Solver = field(default_factory=lambda: Adams(2, form=RotationForm()))

    @property
    def evaluations(self) -> int:
        return self.solver.evaluations(self.steps) * (1 + 2 * self.corrections)

    def centre(self, prior: Bound) -> Tensor:
        return posterior(prior.prior.law, prior.panel).mean

    def posed(self, prior: Bound, seen: Seen, rng: Streams) -> tuple[Denoiser, Solver]:
        solver = About(self.solver, self.centre(prior)[:, None])
        if self.corrections:
            return MMPS(prior, seen.observation, self.corrections, prior), solver
        return Conditioned(prior, seen.observation, prior), solver


@dataclass(frozen=True, eq=False)
class About(Solver):
    """A solver in deviations from ``centre`` (1, 1, m), for forms that are exact about zero."""

    solver: Solver
    centre: Tensor

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
        start, end = (denoiser.process.coefficients(v)[0] * self.centre for v in (t, s))
        about = _Deviation(denoiser, self.centre)
        v, after = self.solver.step(about, x_t - start.to(x_t), t, s, context, state, rng)
        return v + end.to(v), after

    def check(self, process: Process, times: Tensor) -> None:
        self.solver.check(process, times)

    def evaluations(self, steps: int) -> int:
        return self.solver.evaluations(steps)


class _Deviation(Denoiser):
    def __init__(self, denoiser: Denoiser, centre: Tensor) -> None:
        nn.Module.__init__(self)
        self.denoiser, self.centre, self.process = denoiser, centre, denoiser.process

    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        centre = self.centre.to(x_t)
        alpha = self.process.coefficients(t)[0].to(x_t)
        return self.denoiser(x_t + alpha * centre, t, context) - centre


@dataclass(frozen=True)
class Replacement(Rule):
    """Known cells replaced in every clean estimate, each step taken ``repeats`` times (RePaint)."""

    steps: int = 50
    repeats: int = 1
    grid: Grid = field(default_factory=LogKappa)
    solver: Solver = field(default_factory=lambda: Euler(eta=1.0))

    @property
    def evaluations(self) -> int:
        return Resampling(self.repeats, self.solver).evaluations(self.steps)

    def posed(self, prior: Bound, seen: Seen, rng: Streams) -> tuple[Denoiser, Solver]:
        keep, value = prior.panel.known, prior.panel.value.double()
        guided = Replace(prior, torch.where(keep, value, 0.0), keep)
        return guided, Resampling(self.repeats, self.solver)


class Energy(ABC):
    """-log p(y | clean estimate), up to a constant."""

    @abstractmethod
    def __call__(self, gap: Tensor, rng: Streams) -> Tensor:
        """(M,) of y - x_hat at the known cells, (M, n), in units of their s.d."""


@dataclass(frozen=True)
class SquaredEnergy(Energy):
    """Errors of unit s.d.: half the sum of squares. TSDiff, eq. 7."""

    def __call__(self, gap: Tensor, rng: Streams) -> Tensor:
        return 0.5 * gap.square().sum(1)


@dataclass(frozen=True)
class QuantileEnergy(Energy):
    """Member k of ``members`` aims at level (k + 1) / (members + 1), k from 0. TSDiff, eq. 9.

    The level belongs to the member's address, so a member is the same in any block; further members
    begin again at the first level.
    """

    members: int = 100

    def levels(self, rng: Streams) -> Tensor:
        """(M,)."""
        k = torch.tensor(rng.members, dtype=torch.float64) % self.members
        return (k + 1) / (self.members + 1)

    def __call__(self, gap: Tensor, rng: Streams) -> Tensor:
        level = self.levels(rng)[:, None].to(gap)
        return torch.maximum(level * gap, (level - 1) * gap).sum(1)


@dataclass(frozen=True)
class SelfGuidance(Rule):
    """Observation self-guidance of TSDiff: ancestral steps, each moved down an energy.

        x_s = mean + s.d. z - scale variance C grad_{x_t} E(y - x_hat(x_t))

    The gradient is taken at x_t, as the paper says; the authors' code takes it at the sample x_s,
    with the level of x_t. The paper's set-up is white noise, 100 levels of beta from 1e-4 to 0.1
    (`LinearBeta(0.01, 10)` and `Uniform`) and scales of 1 to 8.
    """

    scale: float = 4.0
    energy: Energy = field(default_factory=SquaredEnergy)
    steps: int = 100
    grid: Grid = field(default_factory=LogKappa)
    solver: Solver = field(default_factory=lambda: Euler(eta=1.0))

    def __post_init__(self) -> None:
        if not self.scale > 0:
            raise InputError(f"Got a guidance scale of {self.scale}; expected a positive one.")

    def posed(self, prior: Bound, seen: Seen, rng: Streams) -> tuple[Denoiser, Solver]:
        std = prior.cells.std[:, seen.at]

        def energy(x_hat: Tensor) -> Tensor:
            return self.energy(seen.observation.residual(x_hat) / std.to(x_hat), rng)

        return prior, _Guided(self.scale, energy)


@dataclass(frozen=True)
class Reconstruction(Rule):
    """Reconstruction guidance of Diffusion-TS: after every ancestral step, Adagrad on the sample,
    then the known cells at their level of noise.

    The loss is the squared error of the clean estimate at the known cells and ``pull`` times the
    squared distance to the mean of the step, both over the step's variance. There are 3 descents
    above 0.9 of the time, 2 above 0.75 at half the rate, 1 below at a quarter, none in the last
    twentieth. The printed update climbs; this one descends.
    """

    rate: float = 5e-2
    pull: float = 1e-2
    steps: int = 200
    grid: Grid = field(default_factory=LogKappa)
    solver: Solver = field(default_factory=lambda: Euler(eta=1.0))

    def posed(self, prior: Bound, seen: Seen, rng: Streams) -> tuple[Denoiser, Solver]:
        return prior, _Reconstructed(self.rate, self.pull, seen)

    @property
    def evaluations(self) -> int:
        shares = [1 - (k + 1) / (self.steps - 1) for k in range(self.steps - 1)]
        return self.steps + sum(descents(share)[0] for share in shares)


def descents(share: float) -> tuple[int, float]:
    """How many descents of the sample at ``share`` of the time, and at which share of the rate."""
    for above, count, rate in ((0.9, 3, 1.0), (0.75, 2, 0.5), (0.05, 1, 0.25)):
        if share > above:
            return count, rate
    return 0, 0.0


@dataclass(frozen=True, eq=False)
class _Guided(Solver):
    scale: float
    energy: Callable[[Tensor], Tensor]

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
        process = denoiser.process
        with torch.enable_grad():
            x = x_t.detach().requires_grad_()
            x_hat = denoiser(x, t, context)
            (slope,) = torch.autograd.grad(self.energy(x_hat).sum(), x)
        x_s = transition(process, x_t, x_hat.detach(), t, s, eta=1.0, rng=rng)
        push = self.scale * variance(process, t, s).to(x_t) * process.noise(slope)
        return x_s - push, state

    def evaluations(self, steps: int) -> int:
        return steps


@dataclass(frozen=True, eq=False)
class _Reconstructed(Solver):
    rate: float
    pull: float
    seen: Seen

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
        process, spread = denoiser.process, variance(denoiser.process, t, s)
        x_hat = denoiser(x_t, t, context)
        mean = _mean(process, x_t, x_hat, t, s)
        x = mean + spread.sqrt().to(x_t) * process.noise.sample(x_t, rng)
        count, share = descents(float(s))
        total = torch.zeros_like(x)
        for _ in range(count):
            with torch.enable_grad():
                leaf = x.detach().requires_grad_()
                gap = self.seen.observation.residual(denoiser(leaf, s, context))
                loss = gap.square().sum() + self.pull * (leaf - mean).square().sum()
                (slope,) = torch.autograd.grad(loss / spread, leaf)
            total = total + slope.square()
            x = x - share * self.rate * slope / (total.sqrt() + 1e-10)
        alpha, _, sigma = (c.to(x) for c in process.coefficients(s))
        noise = process.noise.sample(x, below(rng, "known"))[..., self.seen.at]
        x = x.clone()
        x[..., self.seen.at] = alpha * self.seen.observation.y.to(x) + sigma * noise
        return x, state

    def evaluations(self, steps: int) -> int:
        return steps


def variance(process: Process, t: Tensor, s: Tensor) -> Tensor:
    """Of an ancestral step from t to s, in units of C."""
    (_, _, sigma), ratio = process.coefficients(s), process.kappa(s) / process.kappa(t)
    return sigma**2 * (1 - ratio**2)


def _mean(process: Process, x_t: Tensor, x_hat: Tensor, t: Tensor, s: Tensor) -> Tensor:
    alpha, _, sigma = (c.to(x_t) for c in process.coefficients(s))
    ratio = (process.kappa(s) / process.kappa(t)).to(x_t)
    return alpha * x_hat + sigma * ratio * process.residual(x_t, x_hat, t)
