"""Poisson inverse at the floor: every rule beside the exact posterior on the same fields and masks.

64 x 64, 3 % of the solution seen with an error of 1e-3 of its rms; 8 fields x 4 masks x 64 members.
The prior is Gaussian and the equation linear, so the posterior is known in closed form: the error
of its mean is the floor of every row. Then the trained denoiser against the exact one by noise
level, and the model trained at 64 x 64 used at 128 x 128.

    python benchmarks/poisson_floor.py [--quick] [--json]
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from _report import Report, arguments

import sciddm as sd
from sciddm import recipe
from sciddm.baseline import thin_plate
from sciddm.basis import Cosine
from sciddm.denoise import Context, Denoiser, Gaussian
from sciddm.guide import DPS, linear_posterior
from sciddm.model import Model
from sciddm.objective import LEVELS
from sciddm.pde.grid import laplacian
from sciddm.random import Streams
from sciddm.score import coverage, crps

ROOT = Path(__file__).resolve().parent.parent
NOISE, SHARE = 1e-3, 0.03


@dataclass(frozen=True)
class Case:
    """One field, one mask, and the exact posterior of its coefficient."""

    truth: xr.Dataset
    seen: sd.Observed
    mean: np.ndarray
    std: np.ndarray


def draw_truth(model: Model, size: int, seed: int) -> xr.Dataset:
    """A field whose lowest 64 x 64 cosine coefficients are the same on every grid."""
    at = model.at({"y": size, "x": size})
    prior = at.sampler.denoiser.prior
    rng = np.random.default_rng([77, seed])
    low = rng.standard_normal((64, 64))
    xi = rng.standard_normal((size, size)) if size > 64 else low
    xi[:64, :64] = low
    c = torch.from_numpy(xi) * prior.eigenvalues((size, size)).sqrt()
    x = Cosine().inverse(c, (size, size))[None, None]
    return at.codec.decode(x, xr.DataArray([0], dims="sample", name="sample")).isel(sample=0)


def make_case(model: Model, field: int, mask: int, size: int = 64) -> Case:
    """Points at the same places on every grid (even indices at 128)."""
    truth = draw_truth(model, size, field)
    rng = np.random.default_rng([5, field, mask])
    flat = rng.choice(64 * 64, round(SHARE * 64 * 64), replace=False)
    row, col = (np.round(i * (size - 1) / 63).astype(int) for i in np.divmod(flat, 64))
    std = NOISE * float(np.sqrt((truth["solution"] ** 2).mean()))
    points = truth["solution"].isel(
        y=xr.DataArray(row, dims="station"), x=xr.DataArray(col, dims="station")
    )
    seen = sd.Observed(points + std * rng.standard_normal(len(flat)), std=std)
    at = model.at({"y": size, "x": size})
    _, _, observation = next(iter(seen.cases(at.codec)))
    like = torch.zeros(1, 1, size, size, dtype=torch.float64)
    mean, _, variance = linear_posterior(at.sampler.denoiser, observation, like)
    unit = float(at.codec.inner.std[0])
    return Case(truth, seen, mean[0, 0].numpy() * unit, variance[0].sqrt().numpy() * unit)


def scores(case: Case, post: xr.Dataset) -> dict[str, float]:
    """Ratios to the exact posterior on this field and mask."""
    truth, draws = case.truth["coefficient"], post["coefficient"]
    norm = float(np.sqrt((truth**2).sum()))
    error = float(np.sqrt(((draws.mean("member") - truth) ** 2).sum())) / norm
    floor = float(np.sqrt(((case.mean - truth) ** 2).sum())) / norm
    spread = float(np.sqrt((draws.var("member", ddof=1)).mean() / (case.std**2).mean()))
    return {
        "error": error,
        "exact": floor,
        "sd_ratio": spread,
        "crps": float(crps(draws, truth)),
        "exact_crps": gaussian_crps(case),
        "coverage": float(coverage(draws, truth, level=0.9)),
        "misfit": post.attrs.get("misfit_sd", math.nan),
    }


def gaussian_crps(case: Case) -> float:
    """Closed-form CRPS of the exact posterior at the truth."""
    s = torch.from_numpy(case.std).clamp_min(1e-12)
    z = (
        torch.from_numpy(case.truth["coefficient"].values).double() - torch.from_numpy(case.mean)
    ) / s
    density = torch.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
    return float(
        (s * (z * torch.erf(z / math.sqrt(2)) + 2 * density - 1 / math.sqrt(math.pi))).mean()
    )


def exact_draws(model: Model, case: Case, members: int) -> xr.Dataset:
    """Exact posterior draws by Matheron's rule: the noise of every column."""
    _, _, observation = next(iter(case.seen.cases(model.codec)))
    gaussian = model.sampler.denoiser
    like = torch.zeros(members, 1, 64, 64, dtype=torch.float64)
    _, gain, _ = linear_posterior(gaussian, observation, like)
    rng = Streams.of(11, members)
    prior = gaussian.sample(like, rng.at("prior"))
    error = rng.at("error").normal(torch.zeros(members, len(observation.y), dtype=torch.float64))
    x = prior + gain(observation.y - observation.operator(prior) - error)
    return model.codec.decode(x, xr.DataArray(np.arange(members), dims="member", name="member"))


def interpolate_then_solve(case: Case) -> float:
    """Thin-plate interpolation of the values seen, then the Laplacian: relative error."""
    truth = case.truth["coefficient"]
    smooth = thin_plate(case.seen.values, truth, edge=0.0).values
    a = laplacian(torch.from_numpy(smooth)[None, None])[0, 0].numpy()
    return float(np.sqrt(((a - truth.values) ** 2).sum() / (truth.values**2).sum()))


def row(
    name: str,
    results: list[dict[str, float]],
    evaluations: int | None,
    seconds: float,
    members: int,
) -> dict[str, object]:
    """One line of the table: means over cases, ratios of means."""
    mean = {k: float(np.mean([r[k] for r in results])) for k in results[0]}
    return {
        "method": name,
        "error_of_mean": mean["error"],
        "over_exact": mean["error"] / mean["exact"],
        "sd_ratio": mean["sd_ratio"],
        "crps_over_exact": mean["crps"] / mean["exact_crps"],
        "coverage_90": mean["coverage"],
        "misfit_sd": mean["misfit"],
        "evaluations": evaluations,
        "members": members,
        "seconds_a_case": seconds,
    }


def levels(trained: Denoiser, exact: Gaussian, fields: int) -> list[dict[str, float]]:
    """Mean squared error of the trained denoiser over the exact one's, by noise level."""
    shape = torch.zeros(fields, 1, 64, 64)
    x = exact.sample(shape, Streams.of(4242, fields))
    rows = []
    for i, t in enumerate(exact.process.times(LEVELS, 100.0, 0.02)):
        x_t, _ = exact.process.forward(x, t, None, Streams.of(1, fields).at("level", i))
        with torch.no_grad():
            errors = [(d(x_t, t, Context()) - x).square().mean() for d in (trained, exact)]
        rows.append(
            {
                "kappa": float(exact.process.kappa(t)),
                "trained": float(errors[0]),
                "exact": float(errors[1]),
                "ratio": float(errors[0] / errors[1]),
            }
        )
    return rows


def run(model: Model, cases: list[Case], members: int, **how: object) -> tuple[list, float]:
    """Scores of every case and seconds a case."""
    start = time.monotonic()
    results = [
        scores(case, sd.recover(model, case.seen, members=members, seed=3, **how)) for case in cases
    ]
    return results, (time.monotonic() - start) / len(cases)


def main() -> None:
    args = arguments(__doc__ or "")
    fields, masks, members = 8, 4, 64
    trained = sd.load(ROOT / "models" / "poisson")
    exact = recipe.load(ROOT / "models" / "poisson.py", "models").exact(trained)
    report = Report(
        "poisson_floor",
        {
            "grid": 64,
            "points": round(SHARE * 4096),
            "noise": NOISE,
            "fields": fields,
            "masks": masks,
            "members": members,
        },
    )
    cases = [make_case(exact, f, m) for f in range(fields) for m in range(masks)]
    rows = []
    draws = [scores(c, exact_draws(exact, c, members)) for c in cases]
    rows.append(row("exact posterior draws", draws, 0, 0.0, members))
    for steps in (20, 50):
        results, seconds = run(exact, cases, members, steps=steps)
        rows.append(row(f"exact prior, closed form, {steps}", results, steps, seconds, members))
    for steps in (20, 32):
        results, seconds = run(trained, cases, members, steps=steps)
        rows.append(row(f"trained network, closed form, {steps}", results, steps, seconds, members))
    few = cases[:: 8 if args.quick else 4]
    results, seconds = run(exact, few, 16, steps=200, rule=DPS)
    rows.append(row("exact prior, DPS (biased), 200", results, 200, seconds, 16))
    report.table("Poisson inverse 64 x 64", rows)
    baseline = float(np.mean([interpolate_then_solve(c) for c in cases]))
    print(f"interpolate then solve: error {baseline:.3f}; prior mean: error 1")
    r20, net = rows[1], rows[4]
    report.claim("exact prior, 20: error over exact", r20["over_exact"], 0, 1.03)
    report.claim("exact prior, 20: sd ratio", r20["sd_ratio"], 0.95, 1.08)
    report.claim("exact prior, 20: crps over exact", r20["crps_over_exact"], 0, 1.03)
    report.claim("trained, 32: error over exact", net["over_exact"], 0, 1.10)
    report.claim("trained, 32: sd ratio", net["sd_ratio"], 0.90, 1.15)
    by_level = levels(trained.sampler.denoiser, exact.sampler.denoiser, 64)
    report.table("Denoising error by noise level", by_level)
    report.claim(
        "trained over exact denoising error, worst level",
        max(r["ratio"] for r in by_level),
        0,
        1.02,
    )
    pairs = [(f, f % masks) for f in range(4 if args.quick else fields)]
    fine = [make_case(exact, f, m, 128) for f, m in pairs]
    coarse = [c for i, c in enumerate(cases) if (i // masks, i % masks) in pairs]
    at_64, _ = run(trained, coarse, 32)
    at_128, seconds = run(trained, fine, 32, sizes={"y": 128, "x": 128})
    both = [
        row("trained at 64, used at 64", at_64, 32, 0.0, 32),
        row("trained at 64, used at 128", at_128, 32, seconds, 32),
    ]
    report.table("Change of resolution, the same fields and sensors", both)
    change = both[1]["error_of_mean"] / both[0]["error_of_mean"]
    report.claim("error at 128 over error at 64", change, 0.85, 1.15)
    if args.sign:
        report.sign(ROOT / "models" / "poisson")
    report.finish(args.json)


if __name__ == "__main__":
    main()
