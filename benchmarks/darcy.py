"""Two-phase Darcy: the trained network beside the linear-Gaussian posterior of its training set.

64 x 64, 3 % of the solution seen with an error of 1 % of its s.d. The coefficient (3 or 12) is the
target. The baseline is the linear-Gaussian posterior with the full sample covariance of the
training split: what optimal interpolation or an ensemble smoother of that size would give.

    python benchmarks/darcy.py [--quick] [--json]
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from _report import Report, arguments
from scipy.stats import norm
from torch import Tensor

import sciddm as sd
from sciddm import recipe
from sciddm.data.codec import TwoValued
from sciddm.guide import DPS
from sciddm.model import Model
from sciddm.score import brier, coverage, crps, gaussian_crps, spread_skill

ROOT = Path(__file__).resolve().parent.parent
SHARE, NOISE, MIDDLE = 0.03, 0.01, 7.5


def fields(samples: int, seed: int) -> xr.Dataset:
    """Darcy pairs at 64 x 64; the training set is seed 0, the fields here are of another seed."""
    return recipe.load(ROOT / "datasets" / "darcy.py", "datasets").fields(samples, 64, seed)


class LinearGaussian:
    """N(mean, sample covariance) of the training fields, conditioned on points of the solution."""

    def __init__(self, model: Model, samples: int, pairs: xr.Dataset | None = None) -> None:
        # the normaliser alone: the mean of two phases is not one of them
        codec = model.codec.inner if isinstance(model.codec, TwoValued) else model.codec
        train = fields(samples, 0) if pairs is None else pairs
        names = list(codec.variables)
        self.x = codec.encode({n: train[n].values for n in names}).flatten(1)
        self.mean = self.x.mean(0)
        self.x -= self.mean
        self.variance = self.x.square().mean(0).double()
        self.codec = codec

    def posterior(self, seen: sd.Observed) -> tuple[xr.Dataset, xr.Dataset]:
        """Mean and s.d. of every variable."""
        _, _, observation = next(iter(seen.cases(self.codec)))
        like = torch.zeros(1, self.codec.channels, *self.codec.grid.shape)
        rows = observation.operator.rows(like).flatten(1)
        images = (self.x @ rows.T).double()
        cross = (images.T.float() @ self.x).double() / len(self.x)
        gram = images.T @ images / len(self.x) + observation.covariance
        gain = torch.linalg.solve(gram, cross)
        mean = self.mean.view_as(like)
        gap = observation.residual(mean)[0].double()
        centre = self.mean.double() + gap @ gain
        spread = (self.variance - (cross * gain).sum(0)).clamp_min(1e-9).sqrt()
        return self._labelled(centre, 1.0), self._labelled(spread, 0.0)

    def _labelled(self, x: Tensor, shift: float) -> xr.Dataset:
        fields = x.view(1, self.codec.channels, *self.codec.grid.shape)
        row = xr.DataArray([0], dims="row", name="row")
        ds = self.codec.decode(fields, row).isel(row=0, drop=True)
        if shift:
            return ds
        zero = self.codec.decode(torch.zeros_like(fields), row).isel(row=0, drop=True)
        return ds - zero


def observe(truth: xr.Dataset, seed: int, std: float) -> sd.Observed:
    """3 % of the solution at random points."""
    rng = np.random.default_rng([9, seed])
    flat = rng.choice(64 * 64, round(SHARE * 64 * 64), replace=False)
    at = {
        d: xr.DataArray(i, dims="station") for d, i in zip("yx", np.divmod(flat, 64), strict=True)
    }
    points = truth["solution"].isel(at)
    return sd.Observed(points + std * rng.standard_normal(len(flat)), std=std)


def ensemble_row(post: xr.Dataset, truth: xr.Dataset) -> dict[str, float]:
    """Scores of the coefficient of one case."""
    draws, real = post["coefficient"], truth["coefficient"]
    majority = (draws > MIDDLE).mean("member") > 0.5
    return {
        "crps": float(crps(draws, real)),
        "brier": float(brier(draws, real, MIDDLE)),
        "wrong_cells": float((majority != (real > MIDDLE)).mean()),
        "coverage_90": float(coverage(draws, real, level=0.9)),
        "spread_skill": float(spread_skill(draws, real)),
        "solution_crps": float(crps(post["solution"], truth["solution"])),
        "misfit_sd": float(post.attrs["misfit_sd"]),
    }


def gaussian_row(mean: xr.Dataset, std: xr.Dataset, truth: xr.Dataset) -> dict[str, float]:
    """The same for a Gaussian posterior, in closed form."""
    real = truth["coefficient"]
    m, s = mean["coefficient"], std["coefficient"]
    above = xr.apply_ufunc(norm.cdf, (m - MIDDLE) / s)
    inside = np.abs((real - m) / s) < norm.ppf(0.95)
    return {
        "crps": float(gaussian_crps(m, s, real)),
        "brier": float(((above - (real > MIDDLE)) ** 2).mean()),
        "wrong_cells": float(((m > MIDDLE) != (real > MIDDLE)).mean()),
        "coverage_90": float(inside.mean()),
        "spread_skill": float(np.sqrt((s**2).mean() / ((m - real) ** 2).mean())),
        "solution_crps": float(gaussian_crps(mean["solution"], std["solution"], truth["solution"])),
        "misfit_sd": float("nan"),
    }


def averaged(name: str, rows: list[dict[str, float]], **more: object) -> dict[str, object]:
    """One line of the table."""
    return {"method": name, **{k: float(np.mean([r[k] for r in rows])) for k in rows[0]}, **more}


def main() -> None:
    args = arguments(__doc__ or "")
    cases, members = (8 if args.quick else 24), 64
    model = sd.load(ROOT / "models" / "darcy")
    truths = fields(cases, 999)
    std = NOISE * float(truths["solution"].std())
    pairs = [
        (truths.isel(sample=i, drop=True), observe(truths.isel(sample=i, drop=True), i, std))
        for i in range(cases)
    ]
    report = Report(
        "darcy",
        {
            "grid": 64,
            "points": round(SHARE * 4096),
            "noise": NOISE,
            "cases": cases,
            "members": members,
        },
    )
    baseline = LinearGaussian(model, 10_000 if args.quick else 27_000)
    rows = [
        averaged(
            "linear-Gaussian posterior",
            [gaussian_row(*baseline.posterior(s), t) for t, s in pairs],
            evaluations=0,
        )
    ]
    for steps in (20, 50):
        start = time.monotonic()
        results = [
            ensemble_row(sd.recover(model, s, members=members, seed=1, steps=steps), t)
            for t, s in pairs
        ]
        seconds = (time.monotonic() - start) / cases
        rows.append(
            averaged(
                f"trained network, {steps}",
                results,
                evaluations=steps,
                members=members,
                seconds_a_case=seconds,
            )
        )
    few = pairs[:2]
    results = [
        ensemble_row(sd.recover(model, s, members=16, seed=1, steps=100, rule=DPS), t)
        for t, s in few
    ]
    rows.append(averaged("trained network, DPS (2 cases)", results, evaluations=100, members=16))
    report.table("Darcy coefficient from 3 % of the solution", rows)
    base, net = rows[0], rows[2]
    report.claim("crps over linear-Gaussian", net["crps"] / base["crps"], 0, 0.5)
    report.claim("brier over linear-Gaussian", net["brier"] / base["brier"], 0, 0.95)
    report.claim("90 % coverage", net["coverage_90"], 0.85, 0.95)
    report.claim("misfit in s.d.", net["misfit_sd"], 0.8, 1.5)
    if args.sign:
        report.sign(ROOT / "models" / "darcy")
    report.finish(args.json)


if __name__ == "__main__":
    main()
