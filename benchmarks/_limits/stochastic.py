"""Stochastic solvers without a network: exact laws on Gaussian data, weak orders, forgetting."""

from __future__ import annotations

import math
from collections.abc import Callable
from time import perf_counter

import torch
from _report import Report
from torch import Tensor, nn

from _limits.solver_reference import EVALUATIONS, REFERENCE
from _limits.solvers import PROBLEMS, Impulses, distance, flow, output, spectrum
from sciddm.basis import Cosine
from sciddm.covariance import Covariance, Matern, Spectral, White
from sciddm.denoise import Context, Denoiser, Gaussian
from sciddm.guide import Conditioned, linear_posterior
from sciddm.observe import Observation, points
from sciddm.process import VE, VP, Bridge, Flow, LogLinear, MeanReverting, Process, SubVP
from sciddm.random import Streams
from sciddm.sde import Integrated, Scheme
from sciddm.solve import (
    Adaptive,
    Band,
    Constant,
    Euler,
    ExtendedReverse,
    Heun,
    History,
    Langevin,
    Matched,
    Multistep,
    Power,
    Restart,
    Solver,
    StochasticAdams,
    trajectory,
)

DOUBLE = torch.float64
N = 16
CLOCK = LogLinear(0.05, 20.0)
PRIOR = Spectral(Matern(0.4, 2.5, 1.5), (1.0,), Cosine())
ALL = Cosine().inverse(torch.ones(N, dtype=DOUBLE), (N,)).view(1, 1, N)
NOISES: dict[str, Covariance] = {
    "white": White(1.0),
    "Matern": Spectral(Matern(0.2, 0.5), (1.0,), Cosine()),
}

TABLE: dict[str, Solver] = {
    "Euler(1)": Euler(1.0),
    "SA P3C3, tau 0": StochasticAdams(3, 3, Constant(0.0)),
    "SA P3C3, tau 1 on [0.05, 1]": StochasticAdams(3, 3, Band(0.05, 1.0)),
    "SA P3C3, tau 1": StochasticAdams(3, 3),
    "SA P2, tau 1": StochasticAdams(2, 0),
    "ExtendedReverse(3)": ExtendedReverse(3),
    "ExtendedReverse(3, Power(2))": ExtendedReverse(3, Power(2.0)),
    "Langevin(Euler())": Langevin(Euler()),
    "Matched()": Matched(),
}

Made = Callable[[int], Solver | Scheme]
ORDERS: dict[str, tuple[Made, int | None]] = {
    "Euler(1)": (lambda n: Euler(1.0), 1),
    "SA P3C3, tau 1": (lambda n: StochasticAdams(), 2),
    "SA P3C3, tau 1 on [0.05, 1]": (lambda n: StochasticAdams(3, 3, Band(0.05, 1.0)), 2),
    "SA P2, tau 1": (lambda n: StochasticAdams(2, 0), 2),
    "ExtendedReverse(1)": (lambda n: ExtendedReverse(1), 1),
    "ExtendedReverse(2, Power(2))": (lambda n: ExtendedReverse(2, Power(2.0)), 2),
    "ExtendedReverse(3)": (lambda n: ExtendedReverse(3), 2),
    "Restart(Multistep()), descents of n/4": (
        lambda n: Restart(Multistep(), 0.3, 3.0, 2, n // 4),
        2,
    ),
    "Langevin(Euler())": (lambda n: Langevin(Euler()), None),
    "Matched()": (lambda n: Matched(), None),
    "torchsde Euler": (lambda n: Scheme.EULER, 1),
    "torchsde SRK": (lambda n: Scheme.SRK, 2),
}


class Together(Impulses):
    """An impulse excites every eigendirection of the one-dimensional field at once."""

    def normal(self, like: Tensor) -> Tensor:
        return super().normal(like) * ALL.to(like)


def exact(process: Process, t: Tensor) -> Tensor:
    """Variance (N,) of every eigendirection at time t."""
    alpha, _, sigma = process.coefficients(t)
    noise = process.noise
    theirs = noise.eigenvalues((N,)) if isinstance(noise, Spectral) else torch.ones(N).double()
    return alpha**2 * PRIOR.eigenvalues((N,)) + sigma**2 * theirs


def law(denoiser: Denoiser, solver: Solver | Scheme, steps: int) -> Tensor:
    """Variance (N,) of every eigendirection over the exact one, from kappa 10 to 0.1, exactly: the
    response to the start and to each noise in turn."""
    process = denoiser.process
    times = process.times(steps + 1, 10.0, 0.1)
    start = Cosine().inverse(exact(process, times[0]).sqrt(), (N,)).view(1, 1, N)
    context = Context(anchor=torch.zeros(1, 1, N, dtype=DOUBLE) if process.anchored else None)
    known: dict[tuple[str, int], int] = {}
    last = start
    for _ in range(2):  # the first pass learns how many impulses there are
        x = torch.cat([start, torch.zeros(len(known), 1, N, dtype=DOUBLE)])
        rng = Together(0, (), (), rows=known)
        if isinstance(solver, Scheme):
            last = Integrated(denoiser, steps, solver, 1.0, 10.0, 0.1).descend(x, context, rng)
        else:
            *_, last, _ = trajectory(denoiser, x, times, context, solver, rng)
    found = Cosine().forward(last[:, 0], 1).square().sum(0)
    return found / exact(process, times[-1])


def gaussian(process: Process) -> Gaussian:
    return Gaussian(torch.zeros((), dtype=DOUBLE), PRIOR, process)


def table(report: Report) -> None:
    """Every row on the eight problems, beside the reference."""
    worst, far = 0.0, 0.0
    for (size, name), reference in REFERENCE.items():
        problem, variances, printed = PROBLEMS[name], spectrum(size), []
        floor = 100 * distance(flow(problem, variances), variances)
        for label, solver in TABLE.items():
            start = perf_counter()
            found = [
                100 * distance(output(problem, (solver, None), variances, n), variances)
                for n in EVALUATIONS
            ]
            line = {"solver": label}
            line |= {f"{n} evaluations": v for n, v in zip(EVALUATIONS, found, strict=True)}
            if label in reference:
                ratios = [a / b for a, b in zip(found, reference[label], strict=True)]
                line["worst / reference"] = max(ratios)
                worst = max(worst, *ratios)
            if label == "Matched()":
                far = max(far, *(v / floor for v in found))
            line["seconds"] = perf_counter() - start
            printed.append(line)
        printed.append({"solver": "exact flow"} | {f"{n} evaluations": floor for n in EVALUATIONS})
        report.table(
            f"{size} x {size} field, {name}, stochastic: W2 to the exact law, % of the rms", printed
        )
    report.claim("stochastic table, worst ratio to the reference", worst, 0, 1.1)
    report.claim("matched steps, worst W2 over that of the exact flow", far, 0, 1.1)


def orders(report: Report, quick: bool) -> None:
    """Limit laws and weak orders, on every process and noise (a few of them where quick)."""
    cells: list[Process] = []
    for noise in NOISES.values():
        cells += [kind(noise, CLOCK) for kind in (VE, VP, Flow, SubVP, MeanReverting)]
        cells.append(Bridge(VE(noise, CLOCK), 5.0))
    if quick:
        cells = [cells[0], cells[7], cells[11]]
    printed, worst, off = [], 0.0, 0.0
    for label, (make, order) in ORDERS.items():
        start, errors, slopes, evaluations = perf_counter(), [], [], 0
        for process in cells:
            denoiser = gaussian(process)
            coarse, fine = (float((law(denoiser, make(n), n) - 1).abs().max()) for n in (64, 256))
            errors.append(fine)
            slopes.append(math.log(coarse / fine) / math.log(4))
            made = make(256)
            per = made.evaluations * 256 + 1 if isinstance(made, Scheme) else None
            evaluations = per or made.evaluations(257)
        if order is not None:
            off = max(off, *(abs(s - order) for s in slopes))
        worst = max(worst, *errors)
        printed.append(
            {
                "solver": label,
                "theory": order,
                "order, least": min(slopes) if order else None,
                "order, most": max(slopes) if order else None,
                "variance error": max(errors),
                "exact": 0.0,
                "evaluations": evaluations,
                "seconds": perf_counter() - start,
            }
        )
    report.table(f"Variance error at 256 steps and weak order, {len(cells)} processes", printed)
    report.claim("stochastic solvers, largest variance error at 256 steps", worst, 0, 0.02)
    report.claim("stochastic solvers, largest distance from the weak order", off, 0, 0.3)


class Faulty(Denoiser):
    """The exact denoiser, 30 % too small above kappa = 2: the planted error."""

    def __init__(self, inner: Denoiser) -> None:
        nn.Module.__init__(self)
        self.inner, self.process = inner, inner.process

    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        wrong = self.process.kappa(t) > 2 * (1 + 1e-9)
        return torch.where(wrong, 0.7, 1.0).to(x_t) * self.inner(x_t, t, context)


def forgetting(report: Report) -> None:
    """Restart and Langevin under a planted error, against more steps of the plain flow."""
    denoiser = Faulty(gaussian(VP(NOISES["white"], CLOCK)))
    rows: dict[str, tuple[Solver, int]] = {
        "Multistep(), 40 steps": (Multistep(), 40),
        "Multistep(), 160 steps": (Multistep(), 160),
        "Euler(1), 160 steps": (Euler(1.0), 160),
        "Langevin(Heun()), 40 steps": (Langevin(Heun()), 40),
    }
    for rounds in (1, 2, 4, 8):
        restart = Restart(Multistep(), 0.2, 2.0, rounds, 14)
        rows[f"Restart, {rounds} rounds"] = (restart, 40)
    printed, errors = [], {}
    for label, (solver, steps) in rows.items():
        start = perf_counter()
        ratio = law(denoiser, solver, steps).sqrt()
        weight = exact(denoiser.process, denoiser.process.times(2, 10.0, 0.1)[1])
        gap = ((ratio - 1).square() * weight).sum() / weight.sum()
        errors[label] = 100 * float(gap.sqrt())
        printed.append(
            {
                "solver": label,
                "W2, %": errors[label],
                "exact": 0.0,
                "evaluations": solver.evaluations(steps + 1),
                "seconds": perf_counter() - start,
            }
        )
    report.table("An error planted above kappa = 2: W2 to the exact law, % of the rms", printed)
    plain = errors["Multistep(), 160 steps"]
    report.claim(
        "restart, error after 8 rounds over that of the plain flow at as many evaluations",
        errors["Restart, 8 rounds"] / plain,
        0,
        0.4,
    )


def tolerance(report: Report, quick: bool) -> None:
    """Steps from a tolerance: variances against those of fine steps on the same paths, beside the
    ancestral steps of as many evaluations."""
    denoiser = gaussian(VP(NOISES["white"], CLOCK))
    process, count = denoiser.process, 48 if quick else 200
    times, rng = process.times(2, 10.0, 0.1), Streams.of(0, count)
    w = rng.at("start").normal(torch.zeros(count, 1, N, dtype=DOUBLE))
    root = exact(process, times[0]).sqrt()
    x = Cosine().inverse(root * Cosine().forward(w[:, 0], 1), (N,))[:, None]

    def draw(value: float, rows: slice = slice(None)) -> tuple[Tensor, int]:
        members = Streams.of(0, list(range(count))[rows])
        solver = Adaptive(value, value)
        found, state = solver.step(
            denoiser, x[rows], times[0], times[1], Context(), History(), members.at("step")
        )
        return Cosine().forward(found[:, 0], 1).square().mean(0), int(state.kept[0])

    fine, _ = draw(0.004)
    printed, errors, saved = [], [], 0.0
    for value in (0.3, 0.1, 0.03, 0.01):
        start = perf_counter()
        found, calls = draw(value)
        alone = sum(draw(value, slice(i, i + 1))[1] for i in range(4)) // 4
        errors.append(float((found / fine - 1).square().mean().sqrt()))
        plain = float((law(denoiser, Euler(1.0), alone) - 1).square().mean().sqrt())
        saved = plain / errors[-1]  # the ancestral error falls as one over its steps
        printed.append(
            {
                "tolerance": value,
                "variance error": errors[-1],
                "ancestral, as many steps": plain,
                "fewer evaluations, factor": saved,
                "exact": 0.0,
                "evaluations, one member": alone,
                f"calls, {count} members": calls,
                "seconds": perf_counter() - start,
            }
        )
    report.table("Adaptive steps, tau 1: error of the variances, rms over the modes", printed)
    ratio = errors[-1] / errors[0]
    report.claim("adaptive, error at tolerance 0.01 over that at 0.3", ratio, 0, 0.2)
    report.claim("adaptive, ancestral evaluations over its own at equal error", saved, 2, math.inf)


class Units(Impulses):
    """Every address that is asked for has as many rows as a draw has values."""

    def normal(self, like: Tensor) -> Tensor:
        size = like[0].numel()
        first = self.rows.setdefault((self.purpose, self.step), self.rows[END])
        self.rows[END] = max(self.rows[END], first + size)
        out = torch.zeros(len(like), size, dtype=like.dtype)
        if first + size <= len(like):
            out[first : first + size] = torch.eye(size, dtype=like.dtype)
        return out.view_as(like)


END = ("end", 0)
"""The key under which `Units` keeps how many rows there are."""


def posterior(report: Report) -> None:
    """Twelve sensors in a 10 x 10 field: mean and covariance of all draws, exactly."""
    prior = Spectral(Matern(0.35, 1.5, 1.2), (1.0, 1.0), Cosine())
    process, shape, size = VP(clock=LogLinear(0.01, 300.0)), (1, 10, 10), 100
    gaussian = Gaussian(torch.zeros((), dtype=DOUBLE), prior, process)
    position = 9 * torch.rand(12, 2, generator=torch.manual_seed(5), dtype=DOUBLE)
    operator = points([0] * 12, position, shape[1:])
    y = torch.randn(12, generator=torch.manual_seed(6), dtype=DOUBLE)
    observation = Observation(y, operator, torch.tensor(0.15**2, dtype=DOUBLE))
    mean, _, variance = linear_posterior(gaussian, observation, torch.zeros(1, *shape).double())
    denoiser = Conditioned(gaussian, observation, gaussian)
    std, printed, worst = variance.sqrt().flatten(), [], 0.0
    solvers = ("Euler(1)", "SA P3C3, tau 1", "ExtendedReverse(3)", "Matched()")
    for label, solver in {**{k: TABLE[k] for k in solvers}, "Multistep()": Multistep()}.items():
        line: dict[str, object] = {"solver": label}
        start = perf_counter()
        for steps in (2, 5, 10, 20):
            times = process.times(steps)
            sigma = process.coefficients(times[0])[2]
            first = torch.cat([torch.zeros(1, size), torch.eye(size)]).double().view(-1, *shape)
            rows = {END: size + 1}
            for _ in range(2):  # the first pass learns how many impulses there are
                x = torch.zeros(rows[END], *shape, dtype=DOUBLE)
                x[: size + 1] = sigma * first
                rng = Units(0, (), (), rows=rows)
                *_, last = trajectory(denoiser, x, times, Context(), solver, rng)
            moved = (last[1:] - last[:1]).flatten(1)
            ratio = moved.square().sum(0).sqrt() / std
            line[f"s.d. ratio, {steps}"] = float(ratio.square().mean().sqrt())
            gap = (last[0] - mean[0]).flatten() / std
            line[f"mean, {steps}"] = float(gap.square().mean().sqrt())
            if label == "Matched()":
                worst = max(worst, float((ratio - 1).abs().max()), float(gap.abs().max()))
        printed.append(line | {"seconds": perf_counter() - start})
    printed.append({"solver": "exact"} | {k: float("mean" not in k) for k in list(line)[1:]})
    report.table(
        "Posterior at 2 to 20 evaluations: s.d. over the exact, distance of the mean in s.d.",
        printed,
    )
    report.claim("matched steps, worst error of a posterior value in s.d.", worst, 0, 0.02)


def run(report: Report, quick: bool) -> None:
    """Add the tables and claims of the stochastic solvers."""
    table(report)
    orders(report, quick)
    forgetting(report)
    tolerance(report, quick)
    posterior(report)
