"""Every rule of guidance, good or bad, against the exact posterior of the joint Poisson problem.

One table for each direction: the floor is exact posterior draws, the baselines are interpolation
followed by the equation and draws of the prior. Then the calibration of every rule over many cases
on a small grid. All rules use the exact denoiser: what is left is the rule's own error. Claims are
made for the default alone; its law is affine in the noise it starts from, so they are exact figures
of that law, without Monte Carlo.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import torch
import xarray as xr
from _report import Report
from torch import Tensor

from _limits.every_rule import (
    Rule,
    conditioned,
    default,
    even,
    fine_rules,
    in_fields,
    in_modes,
    quick_rules,
    small_rules,
    whole_rules,
)
from _limits.problem import Problem, coverage, gaussian_crps, joint_law, make, scores
from sciddm.denoise import Context
from sciddm.random import Streams
from sciddm.score import tarp
from sciddm.score.c2st import c2st
from sciddm.solve import Multistep, trajectory


def rows(problem: Problem, rules: Sequence[Rule], members: int) -> list[dict[str, object]]:
    """The table of one direction: the floor, the baselines and a row a rule."""
    like = in_modes(problem, members).like
    prior = problem.prior.sample(like, Streams.of(1, len(like)))
    smooth = problem.interpolated()
    truth, exact = problem.wanted(problem.truth), problem.wanted(problem.mean)
    error, floor = (
        ((m - truth).flatten(1).norm(dim=1) / truth.flatten(1).norm(dim=1)).mean()
        for m in (smooth, exact)
    )
    found = [
        line("exact posterior draws", scores(problem, problem.exact(members), members), 0, 0, 0.0),
        line("prior draws", scores(problem, prior, members), 0, 0, 0.0),
        {"rule": "interpolate, then the equation", "error_of_mean": float(error / floor)},
    ]
    for r in rules:
        start = time.monotonic()
        x = r.draw(problem, members, 5)
        seconds = time.monotonic() - start
        found.append(line(r.name, scores(problem, x, members), r.evaluations, r.products, seconds))
    return found


def line(
    name: str, s: dict[str, float], evaluations: int, products: int, seconds: float
) -> dict[str, object]:
    """One row; a rule whose mean is worse than a hundred times the exact one has diverged."""
    row: dict[str, object] = {"rule": name}
    if not s["error"] < 100:
        row |= {"error_of_mean": "diverged"}
    else:
        row |= {
            "error_of_mean": s["error"],
            "distance_sd": s["distance"],
            "sd_ratio": s["sd"],
            "crps": s["crps"],
            "coverage_error": s["coverage"],
            "misfit_sd": s["misfit"],
        }
    return row | {"evaluations": evaluations, "products": products, "seconds": seconds}


def calibration(problem: Problem, rules: Sequence[Rule], members: int) -> list[dict[str, object]]:
    """Coverage error, TARP distance and C2ST against exact draws, over all cases of ``problem``.

    The exact posterior has the same covariance in every case, so draws less the exact mean of their
    case are of one law for the exact rule: C2ST compares those.
    """
    truth, exact = problem.wanted(problem.truth), problem.wanted(problem.mean)
    live = problem.live

    def centred(x: Tensor) -> Tensor:
        draws = problem.wanted(x).unflatten(0, (-1, members))
        return ((draws - exact[:, None]) / problem.std)[..., live]

    reference = centred(problem.exact(members, seed=1))
    found = []
    for r in [Rule("exact posterior draws", lambda p, m, s: p.exact(m, s), 0), *rules]:
        start = time.monotonic()
        x = r.draw(problem, members, 7)
        seconds = time.monotonic() - start
        if not bool(torch.isfinite(x).all()) or float(x.abs().max()) > 1e4:
            found.append({"rule": r.name, "coverage_error": "diverged"})
            continue
        draws = problem.wanted(x).unflatten(0, (-1, members))
        share = float(coverage(draws, truth)[:, live].mean())
        mine, theirs = (d[:, :5].flatten(0, 1) for d in (centred(x), reference))
        found.append(
            {
                "rule": r.name,
                "coverage_error": abs(share - 0.9),
                "tarp": tarp_distance(draws[..., live], truth[:, live]),
                "c2st": float(c2st(labelled(mine), labelled(theirs))),
                "evaluations": r.evaluations,
                "seconds": seconds,
            }
        )
    return found


def labelled(draws: Tensor) -> xr.DataArray:
    return xr.DataArray(draws.numpy(), dims=("member", "x"))


def tarp_distance(draws: Tensor, truth: Tensor) -> float:
    """Largest distance of the curve of `sciddm.score.tarp` to the diagonal, of draws (F, M, n)."""
    ens = xr.DataArray(draws.numpy(), dims=("case", "member", "x"))
    return float(
        tarp(ens, xr.DataArray(truth.numpy(), dims=("case", "x")), "case").attrs["max_error"]
    )


def law_of_default(problem: Problem, steps: int = 32) -> dict[str, float]:
    """Distance, s.d. ratio and CRPS over exact of the default rule's own law, in closed form.

    A draw is affine in its first noise: the images of no noise, for every field, and of each unit
    vector, for one, are its mean and a root of its covariance.
    """
    count = len(problem.y)
    posed = in_modes(problem, 1)
    modes = posed.like.shape[-1]
    values = torch.cat([problem.y, problem.y[:1].expand(modes, -1)])
    guided = conditioned(replace(posed, observation=replace(posed.observation, y=values)))
    z = torch.cat([torch.zeros(count, modes), torch.eye(modes)]).double()[:, None]
    times = even(guided.process, steps)
    *_, x = trajectory(guided, guided.process.kappa(times[0]) * z, times, Context(), Multistep())
    truth, exact = problem.wanted(problem.truth), problem.wanted(problem.mean)
    mean = problem.wanted(x[:count])
    std = problem.wanted(x[count:] - x[:1]).square().sum(0).sqrt()
    live = problem.live
    away = ((mean - exact)[:, live] / problem.std[live]).square().mean().sqrt()
    crps, floor = (
        (s * gaussian_crps((truth - m) / s.clamp_min(1e-300)))[:, live].mean()
        for m, s in ((mean, std), (exact, problem.std))
    )
    ratio = (std[live].square().mean() / problem.std[live].square().mean()).sqrt()
    return {"distance": float(away), "sd": float(ratio), "crps": float(crps / floor)}


def modes_and_fields() -> float:
    """Largest difference of draws from the same noise, posed in modes and in fields."""
    problem = make(8, 12, 1e-2, True, 2)
    posed = in_modes(problem, 2), in_fields(problem, 2)
    z = Streams.of(1, 4).normal(posed[1].like)
    modes = problem.law.modes.flatten(1)
    drawn = []
    for p, noise in zip(posed, ((z.flatten(1) @ modes.T)[:, None], z), strict=True):
        guided = conditioned(p)
        times = even(guided.process, 12)
        start = guided.process.kappa(times[0]) * noise
        *_, x = trajectory(guided, start, times, Context(), Multistep())
        drawn.append(problem.wanted(x))
    return float((drawn[0] - drawn[1]).abs().max())


def run(report: Report, quick: bool) -> None:
    """At most 2 minutes with ``quick`` on one core, 20 without."""
    fields, members = (4 if quick else 8), 20
    report.claim("the same draws in modes and in fields", modes_and_fields(), 0, 1e-9)
    for inverse in (True, False):
        what = "inverse" if inverse else "forward"
        problem = make(32, 125, 1e-3, inverse, fields)
        title = f"Poisson {what}, 32 x 32, 125 points, errors 1e-3, {fields} fields x {members}"
        report.table(title, rows(problem, quick_rules() if quick else whole_rules(), members))
        law = law_of_default(problem)
        report.claim(
            f"{what}: default rule, distance of the means in s.d.", law["distance"], 0, 0.05
        )
        report.claim(f"{what}: default rule, s.d. ratio", law["sd"], 0.95, 1.05)
        report.claim(f"{what}: default rule, CRPS over exact", law["crps"], 0, 1.02)
    if not quick:
        for inverse in (True, False):
            what = "inverse" if inverse else "forward"
            problem = make(64, 500, 1e-4, inverse, 4)
            title = f"Poisson {what}, 64 x 64, 500 points, errors 1e-4, 4 fields x 8"
            report.table(title, rows(problem, fine_rules(), 8))
        joint_law.cache_clear()
    problem = make(12, 30, 1e-2, True, 200)
    title = "Calibration, Poisson inverse, 12 x 12, 30 points, errors 1e-2, 200 cases"
    report.table(title, calibration(problem, small_rules(), 20))
    many = make(12, 30, 1e-2, True, 1000, seed=1)
    (_, best) = calibration(many, [default()], 20)
    for name, bound in (("coverage_error", 0.02), ("tarp", 0.06), ("c2st", 0.55)):
        report.claim(f"default rule, 1000 cases: {name}", float(str(best[name])), 0, bound)
