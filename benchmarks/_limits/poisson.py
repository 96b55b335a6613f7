"""Poisson at 128 x 128, 500 points, errors of 1e-4 of the rms: the default beside the exact law.

The prior on the coefficient is exact and the equation linear, so the posterior is a closed form.
Inverse: points of the solution, the coefficient is wanted. Forward: the other way round.

The truth is a draw of the posterior, so the error of an ensemble and its CRPS have an expectation
over the truth that is known from the posterior alone: it has no luck of the few fields in it. The
claims are on it; the values at the fields that were drawn stand beside.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
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
from sciddm.observe import Observation
from sciddm.pde import Poisson
from sciddm.pde.grid import laplacian
from sciddm.random import Streams
from sciddm.score import coverage, crps

ROOT = Path(__file__).resolve().parents[2]
SIZE, POINTS, NOISE, MEMBERS = 128, 500, 1e-4, 64
DRAWS = Streams.of(11, 512)
SEEN = {"inverse": "solution", "forward": "coefficient"}
WANTED = {"inverse": "coefficient", "forward": "solution"}


Draw = Callable[["Case"], xr.Dataset]


@dataclass(frozen=True)
class Case:
    """Fields that share their sensors, and the exact posterior of what is wanted.

    truth : dims (sample, y, x). mean : the same shape. std : (y, x). In the units of the data.
    """

    truth: xr.DataArray
    seen: sd.Observed
    mean: np.ndarray
    std: np.ndarray


def exact_model() -> Model:
    """The exact prior of the data set at 128 x 128."""
    trained = sd.load(ROOT / "models" / "poisson")
    model: Model = recipe.load(ROOT / "models" / "poisson.py", "models").exact(trained)
    return model.at({"y": SIZE, "x": SIZE})


def make_case(model: Model, task: str, mask: int, fields: int) -> Case:
    """Fields of the prior, seen at the 500 grid points of ``mask``."""
    gaussian = model.gaussian
    assert gaussian is not None
    numbers = range(fields * mask, fields * (mask + 1))
    blank = torch.zeros(fields, 1, SIZE, SIZE, dtype=torch.float64)
    x = gaussian.sample(blank, Streams.of(707, numbers))
    sample = xr.DataArray(np.array(numbers), dims="sample", name="sample")
    truth = model.codec.decode(x, sample)
    rng = np.random.default_rng([5, mask])
    row, col = np.divmod(rng.choice(SIZE * SIZE, POINTS, replace=False), SIZE)
    many = gaussian.sample(torch.zeros(512, *blank.shape[1:], dtype=torch.float64), DRAWS.at("rms"))
    unit = float(model.codec.inner.std[0])
    shown = many if SEEN[task] == "coefficient" else Poisson()(many)
    std = NOISE * unit * float(shown.square().mean().sqrt())
    at = {"y": xr.DataArray(row, dims="station"), "x": xr.DataArray(col, dims="station")}
    values = truth[SEEN[task]].isel(at)
    seen = sd.Observed(values + std * rng.standard_normal(values.shape), std=std)
    observations = [o for _, _, o in seen.cases(model.codec)]
    first = observations[0]
    together = Observation(torch.stack([o.y for o in observations]), first.operator, first.variance)
    mean, gain, variance = linear_posterior(gaussian, together, blank[:1])
    if task == "forward":
        # the solution is linear in the coefficient: its mean is solved for, its spread drawn
        white = DRAWS.at("error").normal(torch.zeros(512, POINTS, dtype=torch.float64))
        error = white @ torch.linalg.cholesky(first.covariance).T
        zero = first.operator(0 * blank[:1])
        centred = many - gain(first.operator(many) - error - zero)
        variance = Poisson()(centred - centred.mean(0)).square().mean(0)
        mean = Poisson()(mean)
    std_field = variance[0].sqrt().numpy() * unit
    return Case(truth[WANTED[task]], seen, mean[:, 0].numpy() * unit, std_field)


def exact_crps(case: Case) -> Tensor:
    """CRPS of the exact posterior at each truth, closed form."""
    s = torch.from_numpy(case.std).clamp_min(1e-15).expand(case.mean.shape)
    z = (torch.from_numpy(case.truth.values).double() - torch.from_numpy(case.mean)) / s
    density = torch.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    law = s * (z * torch.erf(z / math.sqrt(2)) + 2 * density - 1 / math.sqrt(math.pi))
    return law.flatten(1).mean(1)


def expected_crps(draws: np.ndarray, mean: np.ndarray, std: np.ndarray) -> float:
    """Fair CRPS of members (M, y, x), expected over a truth of law N(mean, std^2)."""
    s = torch.from_numpy(std).clamp_min(1e-15)
    x = torch.from_numpy(draws).double()
    z = (x - torch.from_numpy(mean)) / s
    density = torch.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    apart = s * (z * torch.erf(z / math.sqrt(2)) + 2 * density)
    n = len(x)
    # sum over pairs of |x_i - x_j| from the order statistics
    rank = 2 * torch.arange(1, n + 1, dtype=torch.float64) - n - 1
    pairs = (x.sort(0).values * rank.view(-1, 1, 1)).sum(0) / (n * (n - 1))
    return float((apart.mean(0) - pairs).mean())


def scores(case: Case, post: xr.DataArray) -> list[dict[str, float]]:
    """Figures of every field; `row` turns their means into ratios."""
    floor = exact_crps(case)
    found = []
    for k, truth in enumerate(case.truth):
        draws = post.isel(sample=k)
        norm = float(np.sqrt((truth**2).sum()))
        error = draws.mean("member") - truth
        found.append(
            {
                "error": float(np.sqrt((error**2).sum())) / norm,
                "exact": float(np.linalg.norm(case.mean[k] - truth.values)) / norm,
                "variance": float(draws.var("member", ddof=1).mean() / np.mean(case.std**2)),
                "crps": float(crps(draws, truth)) / norm,
                "exact_crps": float(floor[k]) / norm,
                "coverage": float(coverage(draws, truth, level=0.9)),
                "off_mean": float(((draws.mean("member") - case.mean[k]) ** 2).mean()),
                "expected_crps": expected_crps(draws.values, case.mean[k], case.std),
                "spread": float(np.mean(case.std**2)),
                "narrowest": float(np.mean(case.std)) / math.sqrt(math.pi),
            }
        )
    return found


def row(name: str, results: list[dict[str, float]], evaluations: int, seconds: float) -> dict:
    """Ratios of means over the fields."""
    mean = {k: float(np.mean([r[k] for r in results])) for k in results[0]}
    return {
        "method": name,
        "error_of_mean": mean["error"],
        "over_exact": math.sqrt(1 + mean["off_mean"] / mean["spread"]),
        "at_these": mean["error"] / mean["exact"],
        "sd_ratio": math.sqrt(mean["variance"]),
        "crps_over_exact": mean["expected_crps"] / mean["narrowest"],
        "crps_at_these": mean["crps"] / mean["exact_crps"],
        "coverage_90": mean["coverage"],
        "evaluations": evaluations,
        "members": MEMBERS,
        "seconds_a_case": seconds,
    }


def baseline(task: str, case: Case) -> float:
    """Thin-plate interpolation, then the equation: relative error."""
    errors = []
    for k, truth in enumerate(case.truth):
        values = case.seen.values.isel(sample=k, drop=True)
        if task == "inverse":
            smooth = thin_plate(values, truth, edge=0.0).values
            guess = laplacian(torch.from_numpy(smooth)[None, None])[0, 0].numpy()
        else:
            smooth = thin_plate(values, truth).values
            guess = Poisson()(torch.from_numpy(smooth)[None, None].double())[0, 0].numpy()
        errors.append(np.linalg.norm(guess - truth.values) / np.linalg.norm(truth.values))
    return float(np.mean(errors))


def measured(name: str, task: str, cases: list[Case], draw: Draw, steps: int) -> dict:
    """A row of the table: ``draw`` on every case."""
    start = time.monotonic()
    found = [f for case in cases for f in scores(case, draw(case)[WANTED[task]])]
    return row(name, found, steps, (time.monotonic() - start) / len(found))


def run(report: Report, quick: bool) -> None:
    """The default at 20 and 50 evaluations, exact draws and the baseline beside it."""
    model = exact_model()
    bounds = {20: (1.08, 0.95, 1.08, 1.03), 50: (1.03, 0.97, 1.04, 1.02)}

    def exact(case: Case) -> xr.Dataset:
        return sd.krige(model, case.seen, members=MEMBERS)

    def default(steps: int) -> Draw:
        return lambda case: sd.recover(model, case.seen, members=MEMBERS, steps=steps, seed=3)

    for task in SEEN:
        cases = [make_case(model, task, k, 4) for k in range(1 if quick else 3)]
        rows = [measured("exact posterior draws", task, cases, exact, 0)]
        for steps, (error, low, high, score) in bounds.items():
            rows.append(measured(f"default, {steps} steps", task, cases, default(steps), steps))
            for name, value, least, most in (
                ("error over exact", rows[-1]["over_exact"], 0, error),
                ("sd ratio", rows[-1]["sd_ratio"], low, high),
                ("crps over exact", rows[-1]["crps_over_exact"], 0, score),
            ):
                report.claim(f"{task} 128, default at {steps}: {name}", value, least, most)
        plain = baseline(task, cases[0])
        rows.append({"method": "interpolate, then the equation", "error_of_mean": plain})
        report.table(f"Poisson {task}, 128 x 128, 500 points", rows)
