"""Which solver and grid: guided draws against the exact posterior, found grids, the early phase."""

from __future__ import annotations

import math
from collections.abc import Mapping
from time import perf_counter

import torch
from _report import Report
from torch import Tensor, nn

from _limits.problem import Problem, make
from sciddm.basis import Cosine
from sciddm.covariance import LowRank, Matern, Spectral
from sciddm.denoise import Context, Denoiser, Gaussian, Mixture, interpolate
from sciddm.guide import Conditioned
from sciddm.process import VE, LogLinear
from sciddm.random import Streams
from sciddm.solve import (
    Adams,
    CosineGrid,
    DataForm,
    Diffusion,
    Early,
    Euler,
    GaussianForm,
    Given,
    Grid,
    HeavyBall,
    Heun,
    LogKappa,
    Multistep,
    Rho,
    Singlestep,
    Solver,
    StraightForm,
    refine,
    trajectory,
)

DOUBLE = torch.float64
Row = tuple[Solver, Grid]


def most(solver: Solver, budget: int) -> int:
    """The longest grid within ``budget`` evaluations."""
    steps = 2
    while solver.evaluations(steps + 1) <= budget:
        steps += 1
    return steps


def choices(problem: Problem) -> Mapping[str, Row]:
    """Solvers and grids for a guided draw."""
    base = GaussianForm(problem.prior)
    return {
        "Euler(), log kappa": (Euler(), LogKappa()),
        "Heun(), log kappa": (Heun(), LogKappa()),
        "Singlestep(2), log kappa": (Singlestep(2), LogKappa()),
        "Multistep(), log kappa": (Multistep(), LogKappa()),
        "Multistep(), rho 7": (Multistep(), Rho()),
        "Multistep(), cosine": (Multistep(), CosineGrid()),
        "Multistep(3), log kappa": (Multistep(3), LogKappa()),
        "Adams(2), log kappa": (Adams(2), LogKappa()),
        "Adams(3), log kappa": (Adams(3), LogKappa()),
        "Adams(3), rho 7": (Adams(3), Rho()),
        "Adams(4), log kappa": (Adams(4), LogKappa()),
        "Adams(2, StraightForm()), log kappa": (Adams(2, form=StraightForm()), LogKappa()),
        "Adams(3, StraightForm()), log kappa": (Adams(3, form=StraightForm()), LogKappa()),
        "Adams(2, corrector=2), log kappa": (Adams(2, corrector=2), LogKappa()),
        "Adams(2, corrector=3), log kappa": (Adams(2, corrector=3), LogKappa()),
        "Adams(3, corrector=3), log kappa": (Adams(3, corrector=3), LogKappa()),
        "Adams(3, corrector=4), log kappa": (Adams(3, corrector=4), LogKappa()),
        "Adams(2, DataForm(), corrector=2)": (
            Adams(2, form=DataForm(), corrector=2),
            LogKappa(),
        ),
        "Adams(2, DataForm(), corrector=3)": (
            Adams(2, form=DataForm(), corrector=3),
            LogKappa(),
        ),
        "Adams(3, DataForm(), corrector=3)": (
            Adams(3, form=DataForm(), corrector=3),
            LogKappa(),
        ),
        "Adams(1, prior)": (Adams(1, form=base), LogKappa()),
        "Adams(2, prior)": (Adams(2, form=base), LogKappa()),
        "Adams(2, prior, corrector=3)": (Adams(2, form=base, corrector=3), LogKappa()),
        "HeavyBall(1.5)": (HeavyBall(1.5), LogKappa()),
        "HeavyBall(2.5)": (HeavyBall(2.5), LogKappa()),
    }


class Rough(Denoiser):
    """The exact denoiser of a Gaussian with an error of its own at every evaluation.

    Each has ``share`` of the s.d. that the clean field has left there, in every direction, and is
    the same for all members, so that it shows in the mean of the draws.
    """

    def __init__(self, gaussian: Gaussian, share: float) -> None:
        nn.Module.__init__(self)
        self.gaussian, self.process, self.share = gaussian, gaussian.process, share
        self.calls = 0

    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        self.calls += 1
        draw = torch.manual_seed(self.calls)
        z = torch.randn(x_t[:1].shape, generator=draw, dtype=DOUBLE)
        kappa = self.process.kappa(t)
        error = self.gaussian.prior.joint(
            z, self.process.noise, lambda p, c: kappa * torch.sqrt(c * p / (p + kappa**2 * c))
        )
        return self.gaussian(x_t, t, context) + self.share * error


def affine(
    problem: Problem, denoiser: Denoiser, row: Row, budget: int, units: bool = True
) -> tuple[Tensor, Tensor]:
    """Mean and s.d. (pixels,) of all that a deterministic solver can draw, exactly."""
    solver, grid = row
    process = denoiser.process
    times = grid.times(process, most(solver, budget), None, None)
    size = len(problem.law.variances)
    z = torch.zeros(1, size, dtype=DOUBLE)
    if units:
        z = torch.cat([z, torch.eye(size, dtype=DOUBLE)])
    x = process.coefficients(times[0])[2] * z[:, None]
    *_, last = trajectory(denoiser, x, times, Context(), solver)
    field = problem.wanted(last)[:, problem.live]
    return field[0], (field[1:] - field[0]).square().sum(0).sqrt()


def guided(report: Report, quick: bool) -> None:
    """Solver by grid, at 10, 20 and 50 evaluations, Poisson inverse and forward.

    ``network`` is the shift of the mean, in posterior s.d., per unit of the relative error that the
    denoiser makes anew at every evaluation: what a solver makes of a network.
    """
    size, points = (16, 25) if quick else (24, 40)
    nearest, best = math.inf, ""
    for task in ("inverse", "forward"):
        problem = make(size, points, 1e-4, task == "inverse", 1)
        prior, observation = problem.prior, problem.observation(1)
        std, mean = problem.std[problem.live], problem.wanted(problem.mean)[0][problem.live]
        rows = []
        for label, row in choices(problem).items():
            start = perf_counter()
            line: dict[str, object] = {"solver and grid": label}
            for budget in (10, 20, 50):
                centre, spread = affine(
                    problem, Conditioned(prior, observation, prior), row, budget
                )
                rough = Conditioned(Rough(prior, 0.01), observation, prior)
                moved, _ = affine(problem, rough, row, budget, units=False)
                ratio = float((spread / std).square().mean().sqrt())
                line |= {
                    f"mean off, {budget}": _rms((centre - mean) / std),
                    f"sd ratio, {budget}": ratio,
                    f"network, {budget}": 100 * _rms((moved - centre) / std),
                }
                if budget == 20 and task == "inverse" and abs(ratio - 1) < nearest:
                    nearest, best = abs(ratio - 1), label
            rows.append(line | {"seconds": perf_counter() - start})
        exact = {"mean off": 0.0, "sd ratio": 1.0, "network": None}
        rows.append(
            {"solver and grid": "exact posterior"}
            | {f"{k}, {n}": v for n in (10, 20, 50) for k, v in exact.items()}
        )
        report.table(f"Guided draws, Poisson {task}, by evaluations", rows)
    print(f"nearest spread at 20 evaluations: {best}")
    report.claim("guided, best solver at 20: sd ratio off by", nearest, 0, 0.02)


def _rms(v: Tensor) -> float:
    return float(v.square().mean().sqrt())


def mixture(size: int = 16) -> Mixture:
    """Four smooth fields and a common width: far from Gaussian below their distance."""
    draws = Spectral(Matern(0.3, 1.5, 1.0), (1.0,), Cosine()).sample(
        torch.zeros(4, 1, size, dtype=DOUBLE), Streams.of(5, 4)
    )
    weights = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=DOUBLE)
    return Mixture(draws, weights, 0.2, VE(clock=LogLinear(0.01, 300.0)))


def matched(law: Mixture) -> Gaussian:
    """The Gaussian with the mean and covariance of the mixture."""
    flat = law.means.flatten(1)
    mean = law.weights @ flat
    scaled = (flat - mean) * law.weights.sqrt()[:, None]
    _, spread, modes = torch.linalg.svd(scaled, full_matrices=False)
    shape = law.means.shape[1:]
    covariance = LowRank(modes.view(-1, *shape), spread**2 + law.std**2, law.std**2)
    return Gaussian(mean.view(shape), covariance, law.process)


def draws(law: Mixture, solver: Solver, steps: int, grid: Grid, early: Early | None) -> Tensor:
    """300 members, always from the same noise."""
    shape = (300, *law.means.shape[1:])
    sampler = Diffusion(law, solver, steps, grid=grid, early=early)
    return sampler(shape, Context(), Streams.of(17, 300))


def early(report: Report, quick: bool) -> None:
    """Distance of the median member from its draw at 400 steps, by where the network starts.

    The median: near the border between two fields of the mixture a draw of any error may end in
    the other one, which hides the rest in a mean of squares.
    """
    law = mixture()
    base, grid, solver = matched(law), LogKappa(), Multistep()
    exact = draws(law, solver, 400, grid, None)
    scale = _rms(exact - exact.mean(0))

    def error(steps: int, phase: Early | None) -> float:
        gap = (draws(law, solver, steps, grid, phase) - exact).flatten(1)
        return float(gap.square().mean(1).sqrt().median()) / scale

    counts = (6, 8, 10, 12, 14, 16, 20, 24, 32)
    rows, found = [], {}
    for kappa in (None, 100.0, 30.0, 10.0, 5.0, 3.0):
        start = perf_counter()
        phase = None if kappa is None else Early(base, kappa)
        found[kappa] = [error(n, phase) for n in counts]
        line: dict[str, object] = {
            "network starts at kappa": kappa or law.process.clock.ends()[1],
            "floor": error(400, phase),
        }
        line |= {f"{n} evaluations": v for n, v in zip(counts, found[kappa], strict=True)}
        # evaluations of the whole grid at the error that this start has with 12
        at = torch.tensor(found[kappa][counts.index(12)], dtype=DOUBLE).log()
        knots = -torch.tensor(found[None], dtype=DOUBLE).log()
        needed = interpolate(-at, knots, torch.tensor(counts, dtype=DOUBLE).log()).exp()
        saved = float(needed) - 12
        rows.append(line | {"saved at the error of 12": saved, "seconds": perf_counter() - start})
    report.table("Early phase on a mixture: distance from the exact flow, share of the rms", rows)
    most_saved = max(float(str(r["saved at the error of 12"])) for r in rows)
    report.claim("early phase: evaluations saved at the error of 12", most_saved, 5, math.inf)


def grids(report: Report, quick: bool) -> None:
    """Grids found for a solver at 5 to 10 evaluations, shown on other draws."""
    law = mixture()
    x = 300 * Streams.of(23, 512).normal(torch.zeros(512, *law.means.shape[1:], dtype=DOUBLE))
    exact = draws(law, Multistep(), 400, LogKappa(), None)
    scale = _rms(exact - exact.mean(0))
    rows, worst = [], 0.0
    solvers = {
        "Euler()": Euler(),
        "Multistep()": Multistep(),
        "Adams(3)": Adams(3),
    }
    for label, solver in solvers.items():
        for steps in (5, 8, 10):
            start = perf_counter()
            given: Given = refine(law, solver, x, steps, candidates=16)
            seconds = perf_counter() - start
            tried = {
                "refined": given,
                "log kappa": LogKappa(),
                "rho 7": Rho(),
                "cosine": CosineGrid(),
            }
            found = {
                k: _rms(draws(law, solver, steps, g, None) - exact) / scale
                for k, g in tried.items()
            }
            ratio = found["refined"] / min(found["log kappa"], found["rho 7"])
            worst = max(worst, ratio)
            line = {"solver": label, "evaluations": steps} | found | {"floor": 0.0}
            rows.append(line | {"refined / better fixed": ratio, "seconds to find": seconds})
    report.table("Grids on a mixture: distance from the exact flow, share of the rms", rows)
    report.claim("refined grid, worst ratio to log kappa and rho 7", worst, 0, 1.0)


def run(report: Report, quick: bool) -> None:
    """Guided draws, found grids, the early phase."""
    guided(report, quick)
    grids(report, quick)
    early(report, quick)
