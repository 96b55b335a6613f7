"""Burgers shocks: wavelet coefficients against the field, at equal parameters and equal steps.

64 x 64 films of viscosity 0.002, whose last times hold shocks one or two points wide, of a seed
that no model was trained on. Two kinds of sensors, both with errors of 1 % of the s.d. of u: five
positions at all times, as published (there of 128 positions), and 3 % of space and time at random.

Beside the two networks: the linear-Gaussian posterior with the covariance of the training films,
which is the same wherever on the circle (so 1,024 films with all their shifts fit it to 1 %), and
linear interpolation on the circle. CRPS and errors are relative to the rms of each film. A front is
where u falls most steeply, at half the largest fall of its time or more; the front error is the
distance to the nearest one, from the truth to the estimate and back, in points, at the times after
the first half; of the mean, and of a member (each is where a front may be, so it errs by more). The
fall is the steepest one of a member over that of the truth: 1 is as sharp.

Published, not comparable: 2.68 % at 128 x 128 for viscosity 0.01 (mild fronts), five positions and
no errors: DiffusionPDE, Huang et al., 2024, https://arxiv.org/abs/2406.17763.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr
from _report import Report
from scipy.interpolate import LinearNDInterpolator, NearestNDInterpolator

import sciddm as sd
from _recovery import upscaling
from sciddm import recipe
from sciddm.model import Model
from sciddm.score import coverage, crps, gaussian_crps

ROOT = Path(__file__).resolve().parents[2]
SIZE, VISCOSITY, NOISE, HELD_OUT, MEMBERS = 64, 0.002, 0.01, 999, 16
MODELS = {"field network": "burgers", "wavelet network": "burgers_wavelet"}
SAID = "CRPS of the sub-bands over that of the field, {}: "
"""The line of both cards that this part holds them to."""
PUBLISHED = 0.0268
COLUMNS = (
    "method",
    "error_of_mean",
    "crps",
    "front_error",
    "front_of_member",
    "fall",
    "coverage_90",
    "misfit_sd",
    "films",
    "members",
    "evaluations",
    "parameters",
    "cpu_s_a_member",
)


def films(samples: int, seed: int, size: int = SIZE) -> xr.DataArray:
    """Films (sample, time, x) of the recipe."""
    data = recipe.load(ROOT / "datasets" / "burgers.py", "datasets")
    found: xr.DataArray = data.fields(samples, size, seed, viscosity=VISCOSITY)["velocity"]
    return found


@dataclass(frozen=True, eq=False)
class Case:
    """Films (sample, time, x), and what is seen of them: indices (n,) and values (sample, n)."""

    truth: xr.DataArray
    at: np.ndarray
    values: np.ndarray
    std: float

    @property
    def seen(self) -> sd.Observed:
        times, x = (self.truth[d].values[i] for d, i in zip(("time", "x"), self.at, strict=True))
        place = {"time": ("sensor", times), "x": ("sensor", x)}
        array = xr.DataArray(self.values, dims=("sample", "sensor"), name="velocity", coords=place)
        return sd.Observed(array.assign_coords(sample=self.truth.sample.values), std=self.std)


def cases(kind: str, truth: xr.DataArray) -> list[Case]:
    """The five positions see all films; random points are others for every two films."""
    std = NOISE * float(truth.std())
    if kind == "five positions":
        x = np.round(np.arange(0.5, 5) * SIZE / 5).astype(int)
        at = np.stack([v.ravel() for v in np.meshgrid(np.arange(SIZE), x, indexing="ij")])
        return [_seen(truth, at, std, 0)]
    found = []
    for first in range(0, truth.sizes["sample"], 2):
        rng = np.random.default_rng([6, first])
        flat = rng.choice(SIZE**2, round(0.03 * SIZE**2), replace=False)
        at = np.stack(np.divmod(flat, SIZE))
        found.append(_seen(truth.isel(sample=slice(first, first + 2)), at, std, first))
    return found


def _seen(truth: xr.DataArray, at: np.ndarray, std: float, seed: int) -> Case:
    exact = truth.values[:, at[0], at[1]].astype(float)
    errors = np.random.default_rng([7, seed]).standard_normal(exact.shape)
    return Case(truth, at, exact + std * errors, std)


class LinearGaussian:
    """N(0, covariance of the training films), the same at every place of the circle."""

    def __init__(self, train: xr.DataArray) -> None:
        waves = np.fft.rfft(train.values.astype(float), axis=2)
        power = np.einsum("nik,njk->kij", waves, waves.conj(), optimize=True) / len(train)
        self.table = np.fft.irfft(power, n=SIZE, axis=0) / SIZE  # (shift, time, time)

    def between(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Covariances of points (2, n) and (2, m)."""
        shift = (a[1][:, None] - b[1]) % SIZE
        return np.asarray(self.table[shift, a[0][:, None], b[0]])

    def posterior(self, case: Case) -> tuple[xr.DataArray, xr.DataArray]:
        """Mean like the films, s.d. (time, x)."""
        every = np.stack([v.ravel() for v in np.indices((SIZE, SIZE))])
        cross = self.between(every, case.at)
        gram = self.between(case.at, case.at) + case.std**2 * np.eye(case.at.shape[1])
        gain = np.linalg.solve(gram, cross.T).T
        prior = np.repeat(self.table[0].diagonal(), SIZE)
        variance = np.clip(prior - (gain * cross).sum(1), 1e-12, None)
        mean = (case.values @ gain.T).reshape(-1, SIZE, SIZE)
        blank = case.truth.isel(sample=0, drop=True)
        spread = blank.copy(data=np.sqrt(variance).reshape(SIZE, SIZE))
        return case.truth.copy(data=mean), spread


def interpolated(case: Case) -> np.ndarray:
    """Linear between the points seen, wrapped round the circle; the nearest one beyond them."""
    around = np.concatenate([case.at + np.array([[0], [k * SIZE]]) for k in (-1, 0, 1)], axis=1).T
    every, found = np.indices((SIZE, SIZE)).reshape(2, -1).T, []
    for values in case.values:
        three = np.tile(values, 3)
        line = LinearNDInterpolator(around, three)(every)
        near = NearestNDInterpolator(around, three)(every)
        found.append(np.where(np.isfinite(line), line, near).reshape(SIZE, SIZE))
    return np.stack(found)


def fronts(u: np.ndarray) -> np.ndarray:
    """Whether each cell of one time (x,) holds a front."""
    fall = u - np.roll(u, -1)
    top = (fall >= np.roll(fall, 1)) & (fall > np.roll(fall, -1))
    return np.asarray(top & (fall >= 0.5 * fall.max()))


def front_error(u: np.ndarray, truth: np.ndarray) -> float:
    """Mean distance of the fronts of ``u`` (time, x) and of ``truth``, both ways, in points."""
    gaps = []
    for mine, real in zip(u[SIZE // 2 :: 6], truth[SIZE // 2 :: 6], strict=True):
        a, b = np.flatnonzero(fronts(mine)), np.flatnonzero(fronts(real))
        apart = np.abs(a[:, None] - b)
        apart = np.minimum(apart, SIZE - apart)
        gaps.append(0.5 * (apart.min(0).mean() + apart.min(1).mean()))
    return float(np.mean(gaps))


def steepest(u: np.ndarray) -> float:
    """The largest fall between neighbours at the times after the first half."""
    late = u[SIZE // 2 :]
    return float((late - np.roll(late, -1, 1)).max(1).mean())


def scores(draws: np.ndarray, truth: xr.DataArray) -> dict[str, float]:
    """Figures of members (member, time, x) of one film; of one member: of an estimate."""
    real, size = truth.values, float(np.sqrt((truth.values.astype(float) ** 2).mean()))
    ens = xr.DataArray(draws, dims=("member", "time", "x"))
    plain = truth.reset_coords(drop=True).drop_vars(["time", "x"])
    one = len(draws) == 1
    absolute = float(np.abs(draws[0] - real).mean())
    return {
        "error_of_mean": float(np.sqrt(((draws.mean(0) - real) ** 2).mean())) / size,
        "crps": (absolute if one else float(crps(ens, plain))) / size,
        "front_error": front_error(draws.mean(0), real),
        "front_of_member": float(np.mean([front_error(u, real) for u in draws])),
        "fall": float(np.mean([steepest(u) for u in draws])) / steepest(real),
        "coverage_90": np.nan if one else float(coverage(ens, plain, level=0.9)),
    }


def network(name: str, model: Model, every: list[Case], steps: int) -> dict[str, object]:
    """One line of the table."""
    rows, squares, start = [], [], time.process_time()
    for case in every:
        post = sd.recover(model, case.seen, members=MEMBERS, seed=1, steps=steps)
        squares.append(float(post.attrs["misfit_sd"]) ** 2)
        velocity = post["velocity"].transpose("sample", "member", "time", "x")
        pairs = zip(velocity.values, case.truth, strict=True)
        rows += [scores(draws, truth) for draws, truth in pairs]
    cost = (time.process_time() - start) / len(rows) / MEMBERS
    weights = sum(w.numel() for w in model.sampler.denoiser.parameters())
    more = {"misfit_sd": float(np.sqrt(np.mean(squares))), "cpu_s_a_member": cost}
    price = {"evaluations": steps, "members": MEMBERS, "parameters": weights}
    return line(name, rows) | more | price


def gaussian(law: LinearGaussian, every: list[Case]) -> dict[str, object]:
    """The same of the linear-Gaussian posterior, in closed form; fronts of its mean."""
    rows = []
    for case in every:
        means, std = law.posterior(case)
        for mean, truth in zip(means, case.truth, strict=True):
            row = scores(mean.values[None], truth)
            size = float(np.sqrt((truth.astype(float) ** 2).mean()))
            row["crps"] = float(gaussian_crps(mean, std, truth)) / size
            row["coverage_90"] = float((np.abs(truth - mean) < 1.6449 * std).mean())
            rows.append(row)
    return line("linear-Gaussian posterior", rows)


def number(row: dict[str, object], key: str) -> float:
    """A figure of a line."""
    return float(str(row[key]))


def line(name: str, rows: list[dict[str, float]]) -> dict[str, object]:
    """Means over the films."""
    mean = {k: float(np.mean([r[k] for r in rows])) for k in rows[0]}
    return {"method": name, **mean, "films": len(rows)}


def said(kind: str) -> float:
    """What the cards say of the wavelet network's CRPS over the field network's."""
    found = []
    for folder in MODELS.values():
        text = (ROOT / "models" / folder / "card.md").read_text()
        match = re.search(re.escape(SAID.format(kind)) + r"(\d+\.\d+)", text)
        found.append(float(match[1]) if match else np.nan)
    return found[0] if found[0] == found[1] else np.nan


def run(report: Report, quick: bool) -> None:
    """Both kinds of sensors, then finer grids."""
    count, steps = (4, 20) if quick else (20, 50)
    truth, train = films(count, HELD_OUT), films(256 if quick else 1024, 0)
    law = LinearGaussian(train)
    models = {name: sd.load(ROOT / "models" / folder) for name, folder in MODELS.items()}
    for kind in ("five positions", "3 % at random"):
        every = cases(kind, truth)
        guesses = np.concatenate([interpolated(case) for case in every])
        guessed = [scores(g[None], t) for g, t in zip(guesses, truth, strict=True)]
        plain, base = line("interpolation", guessed), gaussian(law, every)
        nets = {name: network(name, model, every, steps) for name, model in models.items()}
        rows = [plain, base, *nets.values()]
        if kind == "five positions":
            rows.append({"method": "published, other fields", "error_of_mean": PUBLISHED})
        report.table(f"Burgers shocks from {kind}", [dict.fromkeys(COLUMNS) | r for r in rows])
        field, wave = (number(row, "crps") for row in nets.values())
        ratio, slack = wave / field, 0.2 if quick else 0.1
        report.claim(
            f"Burgers, {kind}: wavelet CRPS over the field's ({ratio:.3f}) over what the cards say",
            ratio / said(kind), 1 - slack, 1 + slack,
        )  # fmt: skip
        best = min(field, wave) / number(base, "crps")
        report.claim(f"Burgers, {kind}: the better CRPS over linear-Gaussian", best, 0, 1)
        for name, row in nets.items():
            misfit = number(row, "misfit_sd")
            report.claim(f"Burgers, {kind}: {name}, misfit in s.d.", misfit, 0.8, 1.5)
    upscaling.run(report, quick, train.values, films(count, HELD_OUT, 2 * SIZE).values)
