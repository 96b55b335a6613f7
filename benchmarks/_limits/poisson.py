"""Poisson at 128 x 128, 500 points, errors of 1e-4 of the rms: the default beside the exact law.

The prior on the coefficient is exact and the equation linear, so the posterior is a closed form.
Inverse: points of the solution, the coefficient is wanted. Forward: the other way round.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from _report import Report
from torch import Tensor

import sciddm as sd
from sciddm import recipe
from sciddm.baseline import thin_plate
from sciddm.guide import linear_posterior
from sciddm.model import Model
from sciddm.pde import Poisson
from sciddm.pde.grid import laplacian
from sciddm.random import Streams
from sciddm.score import coverage, crps

ROOT = Path(__file__).resolve().parents[2]
SIZE, POINTS, NOISE, MEMBERS = 128, 500, 1e-4, 64
SEEN = {"inverse": "solution", "forward": "coefficient"}
WANTED = {"inverse": "coefficient", "forward": "solution"}


@dataclass(frozen=True)
class Case:
    """A field, what is seen of it, and the exact posterior of what is wanted, in user units."""

    truth: xr.DataArray
    seen: sd.Observed
    mean: np.ndarray
    std: np.ndarray


def exact_model() -> Model:
    """The exact prior of the data set at 128 x 128."""
    trained = sd.load(ROOT / "models" / "poisson")
    model: Model = recipe.load(ROOT / "models" / "poisson.py", "models").exact(trained)
    return model.at({"y": SIZE, "x": SIZE})


def make_case(model: Model, task: str, field: int) -> Case:
    """Field ``field`` of the prior, seen at 500 grid points of its own."""
    like = torch.zeros(1, 1, SIZE, SIZE, dtype=torch.float64)
    gaussian = model.gaussian
    assert gaussian is not None
    x = gaussian.sample(like, Streams.of(707, [field]))
    sample = xr.DataArray([0], dims="sample", name="sample")
    truth = model.codec.decode(x, sample).isel(sample=0)
    rng = np.random.default_rng([5, field])
    row, col = np.divmod(rng.choice(SIZE * SIZE, POINTS, replace=False), SIZE)
    shown = truth[SEEN[task]]
    std = NOISE * float(np.sqrt((shown**2).mean()))
    values = shown.isel(y=xr.DataArray(row, dims="station"), x=xr.DataArray(col, dims="station"))
    seen = sd.Observed(values + std * rng.standard_normal(POINTS), std=std)
    _, _, observation = next(iter(seen.cases(model.codec)))
    mean, gain, variance = linear_posterior(gaussian, observation, like)
    unit = float(model.codec.inner.std[0])
    if task == "inverse":
        return Case(truth["coefficient"], seen, mean[0, 0].numpy() * unit, _root(variance[0], unit))
    # the solution is linear in the coefficient: its mean is solved for, its spread drawn
    solve = Poisson()
    rng_t = Streams.of(11, 512)
    prior = gaussian.sample(torch.zeros(512, 1, SIZE, SIZE, dtype=torch.float64), rng_t.at("prior"))
    white = rng_t.at("error").normal(torch.zeros(512, POINTS, dtype=torch.float64))
    error = white @ torch.linalg.cholesky(observation.covariance).T
    centred = prior - gain(observation.operator(prior) - error - observation.operator(0 * like))
    variance = solve(centred - centred.mean(0)).square().mean(0)
    solution = solve(mean)[0, 0].numpy() * unit
    return Case(truth["solution"], seen, solution, _root(variance[0], unit))


def _root(variance: Tensor, unit: float) -> np.ndarray:
    return variance.sqrt().numpy() * unit


def exact_crps(case: Case) -> float:
    """CRPS of the exact posterior at the truth, closed form."""
    s = torch.from_numpy(case.std).clamp_min(1e-15)
    z = (torch.from_numpy(case.truth.values).double() - torch.from_numpy(case.mean)) / s
    density = torch.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    law = s * (z * torch.erf(z / math.sqrt(2)) + 2 * density - 1 / math.sqrt(math.pi))
    return float(law.mean())


def scores(case: Case, post: xr.DataArray) -> dict[str, float]:
    """Figures of an ensemble; sums that `row` turns into ratios."""
    norm = float(np.sqrt((case.truth**2).sum()))
    return {
        "error": float(np.sqrt(((post.mean("member") - case.truth) ** 2).sum())) / norm,
        "exact": float(np.sqrt(((case.mean - case.truth) ** 2).sum())) / norm,
        "variance": float(post.var("member", ddof=1).mean() / np.mean(case.std**2)),
        "crps": float(crps(post, case.truth)) / norm,
        "exact_crps": exact_crps(case) / norm,
        "coverage": float(coverage(post, case.truth, level=0.9)),
    }


def row(name: str, results: list[dict[str, float]], evaluations: int, seconds: float) -> dict:
    """Ratios of means over the fields."""
    mean = {k: float(np.mean([r[k] for r in results])) for k in results[0]}
    return {
        "method": name,
        "error_of_mean": mean["error"],
        "over_exact": mean["error"] / mean["exact"],
        "sd_ratio": math.sqrt(mean["variance"]),
        "crps_over_exact": mean["crps"] / mean["exact_crps"],
        "coverage_90": mean["coverage"],
        "evaluations": evaluations,
        "members": MEMBERS,
        "seconds_a_case": seconds,
    }


def baseline(task: str, case: Case) -> float:
    """Thin-plate interpolation, then the equation: relative error."""
    if task == "inverse":
        smooth = thin_plate(case.seen.values, case.truth, edge=0.0).values
        guess = laplacian(torch.from_numpy(smooth)[None, None])[0, 0].numpy()
    else:
        smooth = thin_plate(case.seen.values, case.truth).values
        guess = Poisson()(torch.from_numpy(smooth)[None, None].double())[0, 0].numpy()
    return float(np.sqrt(((guess - case.truth.values) ** 2).sum() / (case.truth**2).sum()))


def run(report: Report, quick: bool) -> None:
    """The default at 20 and 50 evaluations, optimal interpolation beside it."""
    model = exact_model()
    bounds = {20: (1.08, 0.95, 1.08, 1.03), 50: (1.03, 0.97, 1.04, 1.02)}
    for task in SEEN:
        cases = [make_case(model, task, k) for k in range(4 if quick else 24)]
        rows: list[dict] = []
        start = time.monotonic()
        drawn = [scores(c, sd.krige(model, c.seen, members=MEMBERS)[WANTED[task]]) for c in cases]
        rows.append(row("exact posterior draws", drawn, 0, _each(start, cases)))
        for steps, (error, low, high, score) in bounds.items():
            start = time.monotonic()
            posts = [
                sd.recover(model, c.seen, members=MEMBERS, steps=steps, seed=3) for c in cases
            ]
            drawn = [scores(c, p[WANTED[task]]) for c, p in zip(cases, posts, strict=True)]
            rows.append(row(f"default, {steps} steps", drawn, steps, _each(start, cases)))
            for name, value, least, most in (
                ("error over exact", rows[-1]["over_exact"], 0, error),
                ("sd ratio", rows[-1]["sd_ratio"], low, high),
                ("crps over exact", rows[-1]["crps_over_exact"], 0, score),
            ):
                report.claim(f"{task} 128, default at {steps}: {name}", value, least, most)
        plain = float(np.mean([baseline(task, c) for c in cases]))
        rows.append({"method": "interpolate, then the equation", "error_of_mean": plain})
        report.table(f"Poisson {task}, 128 x 128, 500 points", rows)


def _each(start: float, cases: list[Case]) -> float:
    return (time.monotonic() - start) / len(cases)


