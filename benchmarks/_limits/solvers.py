"""Solvers without a network: exact output laws on Gaussian data, orders, grids, early phase."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import perf_counter

import torch
from _report import Report
from torch import Tensor

from _limits import solver_choice, solver_orders
from _limits.solver_choice import most
from _limits.solver_reference import EVALUATIONS, REFERENCE
from sciddm.covariance import Covariance, Function, White
from sciddm.denoise import Context, Gaussian
from sciddm.process import VE, VP, Flow, LinearBeta, LinearSigma, LogLinear, Process
from sciddm.random import Streams
from sciddm.solve import (
    Adams,
    DataForm,
    Euler,
    Grid,
    Heun,
    InKappa,
    InTime,
    LogKappa,
    Multistep,
    Rho,
    Solver,
    StraightForm,
    Uniform,
    trajectory,
)

DOUBLE = torch.float64


@dataclass(frozen=True, eq=False)
class Modes(Covariance):
    """Independent values with their own variances (n,)."""

    variances: Tensor

    def joint(self, x: Tensor, other: Covariance, f: Function) -> Tensor:
        assert isinstance(other, White)
        return f(self.variances, torch.full_like(self.variances, other.std**2)).to(x) * x

    def average(self, like: Tensor, other: Covariance, f: Function) -> Tensor:
        assert isinstance(other, White)
        return f(self.variances, torch.full_like(self.variances, other.std**2)).mean()

    def sqrt(self, w: Tensor) -> Tensor:
        return self.variances.sqrt().to(w) * w

    def diagonal(self, like: Tensor) -> Tensor:
        return self.variances.expand(like.shape[1:])


@dataclass(frozen=True)
class Impulses(Streams):
    """Unit impulses in place of noise: every address that is asked for has its own row."""

    rows: dict[tuple[str, int], int] = field(default_factory=dict)

    def normal(self, like: Tensor) -> Tensor:
        row = self.rows.setdefault((self.purpose, self.step), len(self.rows) + 1)
        out = torch.zeros_like(like)
        if row < len(like):
            out[row] = 1
        return out


def spectrum(size: int) -> Tensor:
    """Variances (size^2 - 1,) of the cosine modes of a field of variance 0.25, largest first."""
    k = torch.arange(size, dtype=DOUBLE)
    power = (math.pi**2 * (k[:, None] ** 2 + k**2) + 9) ** -2
    values = power.flatten()[1:].sort(descending=True).values
    return values * (0.25 * size**2 / values.sum())


@dataclass(frozen=True)
class Problem:
    """A process, the grid it is drawn on and the s.d. that it starts from."""

    process: Process
    grid: Grid
    start: float


PROBLEMS = {
    "EDM": Problem(VE(clock=LogLinear(0.002, 80.0)), Rho(7.0), 80.0),
    "VP, even t": Problem(VP(clock=LinearBeta()), Uniform(), 1.0),
    "VP, even log kappa": Problem(VP(clock=LinearBeta()), LogKappa(), 1.0),
    "flow, even t": Problem(Flow(clock=LinearSigma()), Uniform(), 1.0),
}

Row = tuple[Solver, Grid | None]
"""A solver, and its grid where it is not the problem's."""

ROWS: Mapping[str, Row] = {
    "Euler()": (Euler(), None),
    "Euler(1)": (Euler(1.0), None),
    "Heun()": (Heun(), None),
    "Heun(StraightForm(), InTime())": (Heun(StraightForm(), InTime()), None),
    "Multistep()": (Multistep(), None),
    "Adams(3, InKappa())": (Adams(3, InKappa()), None),
    "Adams(3)": (Adams(3), None),
    "Adams(4, InTime())": (Adams(4, InTime()), None),
    "SA P3C3, tau 0": (Adams(3, form=DataForm(), corrector=3), None),
}


def output(problem: Problem, row: Row, variances: Tensor, budget: int) -> Tensor:
    """S.d. (n,) of every mode of the draws, exactly: the response to each noise in turn."""
    solver, grid = row[0], row[1] or problem.grid
    process = problem.process
    denoiser = Gaussian(torch.zeros((), dtype=DOUBLE), Modes(variances), process)
    times = grid.times(process, most(solver, budget), None, None)
    unit = torch.full((1, 1, len(variances)), problem.start, dtype=DOUBLE)
    known: dict[tuple[str, int], int] = {}
    for _ in range(2):  # the first pass learns how many impulses there are
        x = torch.cat([unit, torch.zeros(len(known), 1, len(variances), dtype=DOUBLE)])
        rng = Impulses(0, (), (), rows=known)
        *_, last = trajectory(denoiser, x, times, Context(), solver, rng)
        if not known:
            break
    return last.square().sum((0, 1)).sqrt()


def distance(std: Tensor, variances: Tensor) -> float:
    """Relative W2 between two centred Gaussians on the same modes."""
    gap = (std - variances.sqrt()).square().sum()
    return float((gap / variances.sum()).sqrt())


def flow(problem: Problem, variances: Tensor) -> Tensor:
    """S.d. of every mode of the exact flow on this range: what no deterministic solver can beat."""
    process = problem.process
    ends = torch.tensor([1.0, 0.0], dtype=DOUBLE)
    denoiser = Gaussian(torch.zeros((), dtype=DOUBLE), Modes(variances), process)
    x = torch.full((1, 1, len(variances)), problem.start, dtype=DOUBLE)
    return denoiser(denoiser.flow(x, *ends), ends[1], Context()).flatten()


def table(report: Report, rows: Mapping[str, Row]) -> None:
    """Every row on the eight problems, beside the reference."""
    worst, where = 0.0, ""
    for (size, name), reference in REFERENCE.items():
        problem, variances = PROBLEMS[name], spectrum(size)
        printed = []
        for label, row in rows.items():
            start = perf_counter()
            found = [
                100 * distance(output(problem, row, variances, n), variances) for n in EVALUATIONS
            ]
            line = {"solver": label}
            line |= {f"{n} evaluations": v for n, v in zip(EVALUATIONS, found, strict=True)}
            known = reference.get(label)
            if known:
                ratios = [a / b for a, b in zip(found, known, strict=True)]
                line["worst / reference"] = max(ratios)
                if max(ratios) > worst:
                    worst, where = max(ratios), f"{label} on {name}, {size} x {size}"
            line["seconds"] = perf_counter() - start
            printed.append(line)
        floor = 100 * distance(flow(problem, variances), variances)
        printed.append(
            {"solver": "exact flow"}
            | {f"{n} evaluations": floor for n in EVALUATIONS}
            | {"worst / reference": floor / reference["exact flow"][0]}
        )
        report.table(f"{size} x {size} field, {name}: W2 to the exact law, % of the rms", printed)
    print(f"worst: {where}")
    report.claim("solver table, worst ratio to the reference", worst, 0, 1.1)


def run(report: Report, quick: bool) -> None:
    """Add the tables and claims of the solvers."""
    table(report, ROWS)
    solver_orders.run(report, quick)
    solver_choice.run(report, quick)
