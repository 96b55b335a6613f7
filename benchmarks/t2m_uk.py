"""Real hourly temperature: the trained network beside optimal interpolation of the same days.

The last 5 days of March 2019 are held out, every hour is recovered from 48 random points (3 %,
0.5 K), 4 x 4 block means, 10 % of the points, and all but a missing swath of 14 columns (0.1 K).
Optimal interpolation is regularised (tapered and shrunk, chosen on the validation days);
climatology is the mean field and its pointwise spread. The data come first:

    sciddm make era5_t2m_uk stores/t2m_uk.zarr --size full [--set source=FILE]
    python benchmarks/t2m_uk.py [--quick] [--json]
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import xarray as xr
from _report import Report, arguments

import sciddm as sd
from sciddm.data import split, store
from sciddm.score import coverage, crps, gaussian_crps, rmse, spread_skill

ROOT = Path(__file__).resolve().parent.parent
STORE = ROOT / "stores" / "t2m_uk.zarr"


def stations(hours: xr.DataArray, count: int, std: float, seed: int) -> sd.Observed:
    """Random grid points, the same every hour, new errors every hour."""
    rng = np.random.default_rng(seed)
    shape = hours.sizes["latitude"], hours.sizes["longitude"]
    flat = rng.choice(shape[0] * shape[1], count, replace=False)
    index = np.unravel_index(flat, shape)
    at = {
        d: xr.DataArray(i, dims="station")
        for d, i in zip(("latitude", "longitude"), index, strict=True)
    }
    values = hours.isel(at)
    return sd.Observed(values + std * rng.standard_normal(values.shape), std=std)


def blocks(hours: xr.DataArray, std: float, seed: int) -> sd.Observed:
    """Means over 4 x 4 points."""
    rng = np.random.default_rng(seed)
    size = {"latitude": 4, "longitude": 4}
    means = hours.coarsen(size, boundary="trim").mean()
    noisy = means + std * rng.standard_normal(means.shape)
    return sd.Observed(noisy.rename("t2m").assign_attrs(hours.attrs), std=std, coarsen=size)


def swath(hours: xr.DataArray, std: float, seed: int) -> sd.Observed:
    """Everything but columns 18 to 31."""
    rng = np.random.default_rng(seed)
    column = xr.DataArray(np.arange(hours.sizes["longitude"]), dims="longitude")
    noisy = hours + std * rng.standard_normal(hours.shape)
    kept = noisy.where((column < 18) | (column > 31))
    return sd.Observed(kept.assign_attrs(hours.attrs), std=std)


def scores(name: str, post: xr.Dataset, truth: xr.DataArray, seconds: float) -> dict[str, object]:
    """One line of a table."""
    draws = post["t2m"]
    return {
        "method": name,
        "crps_K": float(crps(draws, truth)),
        "rmse_K": float(rmse(draws, truth)),
        "coverage_90": float(coverage(draws, truth, level=0.9)),
        "spread_skill": float(spread_skill(draws, truth)),
        "misfit_sd": post.attrs["misfit_sd"],
        "evaluations": post.attrs["network_evaluations"],
        "members": draws.sizes["member"],
        "seconds": round(seconds, 1),
    }


def main() -> None:
    args = arguments(__doc__ or "")
    if not STORE.exists():
        raise SystemExit(
            f"There is no {STORE}; make it with: sciddm make era5_t2m_uk {STORE} "
            "--size full --set source=FILE"
        )
    ds = store.open(STORE)
    model = sd.load(ROOT / "models" / "t2m_uk")
    train = split.select(ds, "train")["t2m"].load()
    hours = split.select(ds, "test")["t2m"].load()
    if args.quick:
        hours = hours.isel(time=slice(None, None, 6))
    members = 32 if args.quick else 64
    report = Report("t2m_uk", {"hours": hours.sizes["time"], "members": members})
    plain = float(gaussian_crps(train.mean("time"), train.std("time"), hours))
    print(f"climatology: CRPS {plain:.4f} K")
    problems = {
        "48 points, 0.5 K": stations(hours, 48, 0.5, 1),
        "4 x 4 block means, 0.1 K": blocks(hours, 0.1, 2),
        "10 % of the points, 0.1 K": stations(hours, 162, 0.1, 3),
        "missing swath, 0.1 K": swath(hours, 0.1, 4),
    }
    for number, (name, seen) in enumerate(problems.items()):
        rows = []
        for method, verb in (("optimal interpolation", sd.krige), ("trained network", sd.recover)):
            start = time.monotonic()
            post = verb(model, seen, members=members, seed=0)
            rows.append(scores(method, post, hours, time.monotonic() - start))
        report.table(name, rows)
        oi, net = rows
        ratio = float(net["crps_K"]) / float(oi["crps_K"])
        report.claim(f"{name}: crps over optimal interpolation", ratio, 0, 0.92 if number else 1.0)
        if not number:
            report.claim("crps over climatology", float(net["crps_K"]) / plain, 0, 0.4)
            for row in rows:
                report.claim(
                    f"90 % coverage, {row['method']}", float(row["coverage_90"]), 0.85, 0.95
                )
    if args.sign:
        report.sign(ROOT / "models" / "t2m_uk")
    report.finish(args.json)


if __name__ == "__main__":
    main()
