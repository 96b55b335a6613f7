"""Poisson and Helmholtz from 3 % of the points, without noise: the trained networks at the floor.

64 x 64 with 123 random points, a mask for each field, and the same weights at 128 x 128 with 500.
The values have no error; guidance and the exact posterior are told 1e-4 of the rms of the field
seen. The row at 1e-6 says what that costs. Every ensemble's figure is of the plain mean of its M
members, sqrt(1 + 1/M) times the posterior mean's where the draws are exact.
"""

from __future__ import annotations

from _report import Report

import sciddm as sd
from _recovery.cases import TOLD, Case, Draw, Problem, claim, measured, point
from sciddm.model import Model

PROBLEMS = ("poisson", "helmholtz")
BOUND = {"inverse": 1.15, "forward": 1.10}
SHARE = 0.03


def run(report: Report, quick: bool) -> None:
    """Both problems, both directions, both grids; --quick has 6 fields of 64 x 64 alone."""
    for name in PROBLEMS:
        coarse = Problem.of(name, 64)
        for task in BOUND:
            cases = masks(coarse, task, 6 if quick else 24, round(SHARE * 64**2), 1)
            rows = table(report, coarse, task, cases, 32)
            if not quick:
                draw = drawn(coarse.trained, 32, 50)
                longer = measured("trained network, 50", task, cases[:6], draw, 50)
                claim(report, f"{name} {task} 64, network at 50", longer, BOUND[task])
                rows.insert(3, longer)
            report.table(f"{name.capitalize()} {task}, 64 x 64, 3 % of the points", rows)
    for name in () if quick else PROBLEMS:
        fine = Problem.of(name, 128)
        for task in BOUND:
            cases = masks(fine, task, 2, 500, 2)
            rows = table(report, fine, task, cases, 16)
            title = f"{name.capitalize()} {task}, weights of 64 x 64 at 128 x 128, 500 points"
            report.table(title, rows)


def masks(problem: Problem, task: str, count: int, points: int, fields: int) -> list[Case]:
    """Cases of ``fields`` fields, each case with sensors of its own."""
    return [problem.case(task, mask, points=points, fields=fields) for mask in range(count)]


def drawn(model: Model, members: int, steps: int) -> Draw:
    """The default of the library."""
    return lambda case: sd.recover(model, case.seen, members=members, steps=steps, seed=3)


def table(
    report: Report, problem: Problem, task: str, cases: list[Case], members: int
) -> list[dict[str, object]]:
    """Exact rows, the trained network at 20 evaluations with its claims, and the classical rows."""
    points = cases[0].seen.values.sizes["station"]
    sharper = [
        problem.case(task, k, points=points, fields=len(case.truth), told=1e-6).mean
        for k, case in enumerate(cases)
    ]
    network = measured("trained network, 20", task, cases, drawn(problem.trained, members, 20), 20)
    claim(report, f"{problem.name} {task} {problem.size}, network at 20", network, BOUND[task])

    def krige(case: Case) -> object:
        return sd.krige(problem.exact, case.seen, members=members)

    turn = iter(sharper)
    rows = [
        point(f"exact posterior mean, told {TOLD:g}", cases, lambda case: case.mean),
        measured("exact posterior draws", task, cases, krige, 0),  # type: ignore[arg-type]
        network,
        point("exact posterior mean, told 1e-6", cases, lambda case: next(turn)),
        point(
            "kriging, fitted covariance, and the equation",
            cases,
            lambda case: problem.kriged(case, task),
        ),
        point(
            "thin plates, then the equation",
            cases,
            lambda case: problem.interpolated(case, task, nearest=False),
        ),
    ]
    if task == "forward":  # the Laplacian of a field of steps is of no use
        rows.append(
            point(
                "nearest value, then the equation",
                cases,
                lambda case: problem.interpolated(case, task, nearest=True),
            )
        )
    return rows
