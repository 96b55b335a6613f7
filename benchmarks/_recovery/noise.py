"""Poisson under noise of 0 to 15 % and at 1 to 10 % of the points, with one setting everywhere.

64 x 64, the trained network at 20 evaluations, both directions. The errors are Gaussian, of the
stated share of the rms of the field seen, and guidance is told so; values without noise are told
1e-4. Each row has the same fields and errors. --large: the inverse at 128 x 128 with 500 points.
"""

from __future__ import annotations

from _report import Report

from _recovery.cases import TOLD, Case, Problem, claim, measured
from _recovery.linear import BOUND, drawn

LEVELS = (0.0, 1e-3, 1e-2, 5e-2, 0.15)
SHARES = (0.01, 0.10)
KEPT = (
    "error_of_mean", "over_exact", "expected", "sd_ratio", "coverage_90", "crps_over_exact",
    "misfit_sd", "fields", "members", "cpu_s_a_member",
)  # fmt: skip


def run(report: Report, quick: bool) -> None:
    """All levels at 3 % of the points, then other shares at 1 % noise."""
    problem = Problem.of("poisson", 64)
    masks, fields = (2, 3) if quick else (5, 4)
    levels = LEVELS[::2] if quick else LEVELS
    for task in BOUND:
        rows = [line(report, problem, task, noise, 0.03, masks, fields, 16) for noise in levels]
        for share in SHARES:
            rows.append(line(report, problem, task, 1e-2, share, masks, fields, 16))
        report.table(f"Poisson {task}, 64 x 64, network at 20 by noise and points", rows)


def large(report: Report, quick: bool) -> None:
    """The inverse at 128 x 128 from 500 points, weights of 64 x 64."""
    problem = Problem.of("poisson", 128)
    levels = LEVELS[1:3] if quick else LEVELS[:4]
    share = 500 / 128**2
    rows = [line(report, problem, "inverse", noise, share, 1, 4, 16) for noise in levels]
    report.table("Poisson inverse, 128 x 128, 500 points, network of 64 x 64 at 20", rows)


def line(
    report: Report,
    problem: Problem,
    task: str,
    noise: float,
    share: float,
    masks: int,
    fields: int,
    members: int,
) -> dict[str, object]:
    """One setting: the trained network beside the exact posterior of the same values."""
    points = round(share * problem.size**2)

    def case(mask: int) -> Case:
        return problem.case(task, mask, points=points, noise=noise, fields=fields)

    cases = [case(mask) for mask in range(masks)]
    found = measured("network", task, cases, drawn(problem.trained, members, 20), 20)
    name = f"{problem.name} {task} {problem.size}, noise {noise:g}, {points} points"
    claim(report, name, found, BOUND[task])
    exact = float(str(found["error_of_mean"])) / float(str(found["over_exact"]))
    setting = {"noise": noise, "told": noise or TOLD, "points": points, "exact_error": exact}
    return setting | {key: found[key] for key in KEPT}
