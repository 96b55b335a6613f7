"""What one member costs: the default beside the published loops, same network, same run.

The trained Poisson network at 64 x 64, 3 % of the solution seen with 1e-3 of its rms. The loops
take their published numbers of steps; their weights were stated for a solution of s.d. 0.5 on
128 x 128 points, so the misfit is put into that unit and the weight of FunDPS divided by 4, the
ratio of the numbers of points. The prior here is on the coefficient alone, so that weight is a
guess: the whole run takes a quarter, one and four times of it, --quick the best that was found.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import poisson_floor as floor
import torch
import xarray as xr
from _report import Report

import sciddm as sd
from sciddm import recipe
from sciddm.denoise import Context, Preconditioned
from sciddm.guide.published import DiffusionPDELoop, FunDPSLoop
from sciddm.model import Model
from sciddm.observe import Function, Observation
from sciddm.random import Streams
from sciddm.solve import Diffusion, Rho, Solver

ROOT = Path(__file__).resolve().parents[2]
STEPS = 20
BEST = {"FunDPS": 0.25, "DiffusionPDE": 4.0}


def in_published_units(model: Model, seen: Observation) -> Observation:
    """The same observation of a solution of s.d. 0.5."""
    net = model.sampler.denoiser
    assert isinstance(net, Preconditioned) and net.base is not None
    like = torch.zeros(256, 1, 64, 64)
    unit = 0.5 / float(seen.operator(model.gaussian.sample(like, Streams.of(1, 256))).std())
    operator = Function(lambda x: unit * seen.operator(x))
    return Observation(unit * seen.y, operator, unit**2 * seen.variance)


def error(post: xr.Dataset, truth: xr.Dataset) -> float:
    """Relative L2 error of one member, averaged over the members."""
    gap = ((post["coefficient"] - truth["coefficient"]) ** 2).sum(["y", "x"])
    return float(np.sqrt(gap / (truth["coefficient"] ** 2).sum()).mean())


def loop(
    model: Model, case: floor.Case, solver: Solver, steps: int, members: int
) -> tuple[xr.Dataset, int]:
    """Members of a published loop, on its own grid."""
    # rho 7 from sigma 80 at fields of s.d. 0.5 is kappa 160 at s.d. 1
    sampler = Diffusion(model.sampler.denoiser, solver, steps, 160.0, 0.01, Rho())
    x = sampler((members, 1, 64, 64), Context(), Streams.of(3, members))
    number = xr.DataArray(np.arange(members), dims="member", name="member")
    return model.codec.decode(x, number), sampler.evaluations


def run(report: Report, quick: bool) -> None:
    """One table; claims on the ratio of wall times and on the errors."""
    trained = sd.load(ROOT / "models" / "poisson")
    exact = recipe.load(ROOT / "models" / "poisson.py", "models").exact(trained)
    members, fields = (2 if quick else 4), 1
    cases = [floor.make_case(exact, k, 0) for k in range(fields)]
    rows: list[dict] = []

    def add(name: str, posts: list[xr.Dataset], evaluations: int, seconds: float, n: int) -> None:
        price = {"evaluations": evaluations, "members": n, "seconds_a_member": seconds / n / fields}
        if not all(np.isfinite(p["coefficient"]).all() for p in posts):
            rows.append({"method": name, "error_of_mean": "diverged"} | price)
            return
        drawn = [floor.scores(c, p) for c, p in zip(cases, posts, strict=True)]
        whole = floor.row(name, drawn, evaluations, seconds / (fields * n), n)
        del whole["misfit_sd"], whole["coverage_90"]
        pairs = zip(cases, posts, strict=True)
        whole["error_of_one"] = float(np.mean([error(p, c.truth) for c, p in pairs]))
        del whole["seconds_a_case"]
        rows.append(whole | price)

    sd.recover(trained, cases[0].seen, members=2, steps=2)  # what is loaded once
    start = time.monotonic()
    posts = [sd.recover(trained, c.seen, members=16, seed=3, steps=STEPS) for c in cases]
    add(f"default, {STEPS} steps", posts, STEPS, time.monotonic() - start, 16)
    for name, steps in (("FunDPS", 500), ("DiffusionPDE", 2000)):
        for times in (BEST[name],) if quick else (0.25, 1.0, 4.0):
            start, posts, evaluations = time.monotonic(), [], 0
            for case in cases:
                _, _, seen = next(iter(case.seen.cases(trained.codec)))
                seen = in_published_units(trained, seen)
                solver: Solver = (
                    FunDPSLoop(seen, times * 5000)
                    if name == "FunDPS"
                    else DiffusionPDELoop(seen, times * 1.1)
                )
                post, evaluations = loop(trained, case, solver, steps, members)
                posts.append(post)
            label = f"{name}, {steps} steps, {times:g} x its weight"
            add(label, posts, evaluations, time.monotonic() - start, members)
    floors = [floor.scores(c, floor.exact_draws(exact, c, 16)) for c in cases]
    rows.append({"method": "exact posterior mean", "error_of_mean": floors[0]["exact"]})
    plain = float(np.mean([floor.interpolate_then_solve(c) for c in cases]))
    rows.append({"method": "interpolate, then the equation", "error_of_mean": plain})
    report.table("Cost of one member, trained network, Poisson inverse 64 x 64", rows)
    loops = rows[1:-2]
    ratio = min(r["seconds_a_member"] for r in loops) / rows[0]["seconds_a_member"]
    report.claim("default cheaper than the published loops by", ratio, 20, float("inf"))
    least = min(r["error_of_one"] for r in loops if "error_of_one" in r)
    report.claim("error of one member over the best loop's", rows[0]["error_of_one"] / least, 0, 1)
