"""Orders of the deterministic solvers on every process that they serve, white and Matern noise."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from time import perf_counter

import torch
from _report import Report

from sciddm.basis import Cosine
from sciddm.covariance import Covariance, Matern, Spectral, White
from sciddm.denoise import Context, Gaussian
from sciddm.process import (
    VE,
    VP,
    Bridge,
    Clock,
    Drifting,
    Flow,
    Interpolant,
    LogLinear,
    MeanReverting,
    Process,
    SubVP,
    shift,
)
from sciddm.solve import (
    Adams,
    DataForm,
    Euler,
    GaussianForm,
    HeavyBall,
    Heun,
    History,
    InKappa,
    InTime,
    Multistep,
    Singlestep,
    Solver,
    StraightForm,
)

DOUBLE = torch.float64
SIZE = 16
CLOCK = LogLinear(0.5, 5.0)
PRIOR = Spectral(Matern(0.4, 2.5, 1.5), (1.0,), Cosine())
NEAR = Gaussian(torch.tensor(0.3), Spectral(Matern(0.3, 1.5), (1.0,), Cosine()), VE())
NOISES: Mapping[str, Covariance] = {
    "white": White(),
    "Matern": Spectral(Matern(0.2, 0.5), (1.0,), Cosine()),
}
PROCESSES: Mapping[str, Callable[[Covariance, Clock], Process]] = {
    "VE": VE,
    "Bridge": lambda noise, clock: Bridge(VP(noise, clock), 2.0),
    "VP": VP,
    "SubVP": SubVP,
    "Flow": Flow,
    "MeanReverting": lambda noise, clock: MeanReverting(noise, clock, 0.7),
    "Drifting": Drifting,
    "Interpolant": Interpolant,
}
SOLVERS: Mapping[str, tuple[Solver, int]] = {
    "Euler()": (Euler(), 1),
    "Heun()": (Heun(), 2),
    "Heun(StraightForm(), InTime())": (Heun(StraightForm(), InTime()), 2),
    "Multistep()": (Multistep(), 2),
    "Multistep(3)": (Multistep(3), 3),
    "Singlestep(2, NoiseForm())": (Singlestep(2), 2),
    "Singlestep(3, NoiseForm())": (Singlestep(3), 3),
    "Singlestep(2, DataForm())": (Singlestep(2, DataForm()), 2),
    "Singlestep(3, DataForm())": (Singlestep(3, DataForm()), 3),
    "Adams(2, InKappa())": (Adams(2, InKappa()), 2),
    "Adams(3, InKappa())": (Adams(3, InKappa()), 3),
    "Adams(3)": (Adams(3), 3),
    "Adams(4, InTime())": (Adams(4, InTime()), 4),
    "Adams(2, GaussianForm(near))": (Adams(2, form=GaussianForm(NEAR)), 2),
    "Adams(2, corrector=3)": (Adams(2, corrector=3), 3),
    "Adams(3, DataForm(), corrector=4)": (Adams(3, form=DataForm(), corrector=4), 4),
    "HeavyBall(0.7)": (HeavyBall(0.7), 1),
    "HeavyBall(1.7)": (HeavyBall(1.7), 2),
    "HeavyBall(2.7, DataForm())": (HeavyBall(2.7, form=DataForm()), 3),
}


def errors(solver: Solver, process: Process, steps: tuple[int, int]) -> list[float]:
    """Relative errors at the last time, from exact starting values: three steps on the flow."""
    mean = torch.linspace(-1, 1, SIZE, dtype=DOUBLE).view(1, SIZE)
    denoiser = Gaussian(mean, PRIOR, process)
    draws = torch.manual_seed(0)
    m = torch.randn(4, 1, SIZE, generator=draws, dtype=DOUBLE) if process.anchored else None
    ends = torch.tensor([1.0, 0.0], dtype=DOUBLE)
    z = torch.randn(4, 1, SIZE, generator=draws, dtype=DOUBLE)
    alpha, beta, sigma = process.coefficients(ends[0])
    start = shift(alpha * mean + sigma * process.noise.sqrt(z), beta, m)
    exact = denoiser.flow(start, *ends, m)
    found = []
    for n in steps:
        times = process.times(n + 1)
        x, state = start, History()
        for k, (t, s) in enumerate(zip(times[:-1], times[1:], strict=True)):
            x, state = solver.step(denoiser, x, t, s, Context(anchor=m), state, None)
            if k < 3:
                x = denoiser.flow(start, ends[0], s, m)
                here = denoiser.flow(start, ends[0], t, m)
                state = state._replace(kept=tuple(here for _ in state.kept))
        found.append(float((x - exact).norm() / exact.norm()))
    return found


def run(report: Report, quick: bool) -> None:
    """The slope of every solver: two processes when quick, all when not."""
    steps = (64, 128) if quick else (96, 192)
    kinds = dict(list(PROCESSES.items())[: 2 if quick else None])
    rows, worst, where = [], 0.0, ""
    for label, (solver, order) in SOLVERS.items():
        start = perf_counter()
        line: dict[str, object] = {"solver": label, "order": order}
        for name, kind in kinds.items():
            for noise, covariance in NOISES.items():
                coarse, fine = errors(solver, kind(covariance, CLOCK), steps)
                slope = math.log(coarse / fine) / math.log(steps[1] / steps[0])
                line[f"{name}, {noise}"] = slope
                if abs(slope - order) > worst:
                    worst, where = abs(slope - order), f"{label} on {name}, {noise}"
        line |= {"error at the finer": fine, "evaluations": solver.evaluations(steps[1] + 1)}
        rows.append(line | {"seconds": perf_counter() - start})
    rows.append({"solver": "exact flow", "error at the finer": 0.0})
    report.table(f"Orders: slope of the error from {steps[0]} to {steps[1]} steps", rows)
    print(f"largest deviation: {where}")
    report.claim("orders, largest deviation from theory", worst, 0, 0.15)
