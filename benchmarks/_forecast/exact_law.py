"""The heat equation driven by noise: every engine beside the law that no forecast can beat.

Starts are frames of the test films of `datasets/spde_heat.py`, two a film. The exact law of the
frames that follow is Gaussian and known: its CRPS at the very truths of the starts, in closed form,
is what each method's fair CRPS is divided by, start by start in pairs. Spread/skill is unbiased,
sqrt((M + 1)/M <variance> / <squared error of the mean>). Standard errors are over films, by the
delta method. Baselines are fitted to one record of 20,000 frames of the same law.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from _report import Report

import sciddm as sd
from sciddm import recipe
from sciddm.data.codec import Codec
from sciddm.denoise import Context
from sciddm.forecasters import (
    Climatology,
    DampedAnomaly,
    Forecaster,
    LinearGaussian,
    Persistent,
    linear_inverse,
)
from sciddm.random import Streams

ROOT = Path(__file__).resolve().parents[2]
LEADS, TRAINED, TEST, PAST = 20, 3600, 400, 8
NEWEST = (7, 27)  # the frames of a film that forecasts start from
SHOWN = (1, 2, 3, 5, 8, 12, 16, 20)
ENGINES = {
    "autoregressive (default)": ("spde_heat_autoregressive", 800),
    "rolling": ("spde_heat_rolling", 120),
    "scored": ("spde_heat_scored", 200),
    "refine": ("spde_heat_refine", 120),
    "dyffusion": ("spde_heat_dyffusion", 120),
    "dropout": ("spde_heat_dropout", 200),
    "film": ("spde_heat_film", 20),
}
"""Engines: the folder of the trained model, and from how many starts it is drawn, by its cost."""
CHUNK = 2000
"""Members drawn together, of as many starts as that is."""


@dataclass(frozen=True)
class Starts:
    """pasts (S, 1, PAST, X) and truths (S, LEADS, X) in the units of the store; film (S,) of each.

    law : of the store. crps : (S, LEADS), of the exact law at the truths, in closed form.
    """

    past: np.ndarray
    truth: np.ndarray
    film: np.ndarray
    law: LinearGaussian
    crps: np.ndarray

    @staticmethod
    def of(films: int, starts: Sequence[int]) -> Starts:
        """Test films from their first, each at the frames ``starts``."""
        shelf = recipe.load(ROOT / "datasets" / "spde_heat.py", "datasets")
        ds = shelf.fields(films, 64, 0, TRAINED)
        u = ds["temperature"].values.astype(np.float64)
        past = np.concatenate([u[:, n + 1 - PAST : n + 1] for n in starts])
        truth = np.concatenate([u[:, n + 1 : n + 1 + LEADS] for n in starts])
        law = shelf.law(ds)
        mean = law.means(torch.from_numpy(past)[:, None], LEADS)[:, 0].numpy()
        std = law.variances(LEADS)[:, 0].sqrt().numpy() + np.zeros_like(mean)
        crps = sd.score.gaussian_crps(named(mean), named(std), named(truth), over=("x",))
        return Starts(past, truth, np.tile(np.arange(films), len(starts)), law, crps.values)

    def some(self, count: int) -> Starts:
        """The first ``count``."""
        parts = (self.past, self.truth, self.film)
        return Starts(*(p[:count] for p in parts), self.law, self.crps[:count])


def run(report: Report, quick: bool) -> None:
    """All engines that have a trained model; --quick has fewer members, and fewer starts for all
    but the default."""
    starts, members = Starts.of(TEST, NEWEST), 8 if quick else 50
    few = starts.some(TEST // 2 if quick else TEST)
    rows: list[Row] = [scored("exact law", starts.law, None, few, members)]
    for name, (folder, count) in ENGINES.items():
        if (ROOT / "models" / folder / "model.json").is_file():
            model = sd.load(ROOT / "models" / folder)
            count = count // 4 if quick and "default" not in name else count
            used = starts.some(count)
            rows.append(scored(name, model.forecaster, model.codec, used, members))
    rows += [scored(name, law, None, few, members) for name, law in baselines(starts).items()]
    title = f"Spde_heat, autoregressive and every engine: {{}}, {members} members"
    report.table(title.format("fair CRPS over the exact law's, by lead"), [r.crps() for r in rows])
    report.table(title.format("unbiased spread/skill by lead"), [r.calibration() for r in rows])
    default = next((r for r in rows if "default" in r.name), None)
    if default is None:
        report.claim("spde_heat autoregressive (default) has a trained model", 0, 1, 1)
        return
    for lead in range(LEADS):
        name = f"spde_heat autoregressive (default), lead {lead + 1}"
        report.claim(f"{name}: CRPS over exact", default.ratio[lead], 0.0, 1.05)
        report.claim(f"{name}: spread/skill", default.spread[lead], 0.95, 1.05)


@dataclass(frozen=True)
class Row:
    """One method: what it costs, and its scores by lead (LEADS,) with their standard errors."""

    name: str
    starts: int
    evaluations: float
    seconds: float
    ratio: np.ndarray
    ratio_error: np.ndarray
    spread: np.ndarray
    spread_error: np.ndarray

    def crps(self) -> dict[str, object]:
        """A line of the first table."""
        return self._line(self.ratio, float(np.max(self.ratio)), "worst", self.ratio_error)

    def calibration(self) -> dict[str, object]:
        """A line of the second."""
        far = float(self.spread[np.argmax(np.abs(np.log(np.maximum(self.spread, 1e-9))))])
        return self._line(self.spread, far, "farthest from 1", self.spread_error)

    def _line(
        self, values: np.ndarray, worst: float, said: str, error: np.ndarray
    ) -> dict[str, object]:
        by_lead = {str(n): round(float(values[n - 1]), 3) for n in SHOWN}
        return {
            "method": self.name,
            "starts": self.starts,
            "evaluations a frame": round(self.evaluations, 2),
            "seconds a frame": float(f"{self.seconds:.2g}"),
            **by_lead,
            said: round(worst, 3),
            "largest s.e.": round(float(error.max()), 3),
        }


def scored(name: str, engine: Forecaster, codec: Codec | None, starts: Starts, members: int) -> Row:
    """Forecasts from every start, scored in the units of the store. ``codec`` is the model's, or
    None for a law in these units. Seconds are of one frame of one member, in a batch."""
    crps, variance, error = (np.empty((len(starts.film), LEADS)) for _ in range(3))
    each, spent = max(1, CHUNK // members), 0.0
    for lo in range(0, len(starts.film), each):
        past, truth = starts.past[lo : lo + each], starts.truth[lo : lo + each]
        begun = time.perf_counter()
        film = drawn(engine, codec, past, members, lo)
        spent += time.perf_counter() - begun
        at = slice(lo, lo + len(past))
        ens = named(film).transpose("member", "start", "lead", "x")
        crps[at] = sd.score.crps(ens, named(truth), over=("x",)).values
        variance[at] = film.var(1, ddof=1).mean(-1)
        error[at] = ((film.mean(1) - truth) ** 2).mean(-1)
    ratio, ratio_error = paired(crps, starts.crps, starts.film)
    share, share_error = paired((members + 1) / members * variance, error, starts.film)
    spread = np.sqrt(share)
    frames = len(starts.film) * members * LEADS
    spread_error = 0.5 * share_error / np.maximum(spread, 1e-12)
    return Row(
        name, len(starts.film), engine.evaluations, spent / frames,
        ratio, ratio_error, spread, spread_error,
    )  # fmt: skip


def drawn(
    engine: Forecaster, codec: Codec | None, past: np.ndarray, members: int, first: int
) -> np.ndarray:
    """(s, members, LEADS, X) in the units of the store, of pasts (s, PAST, X) numbered from
    ``first``."""
    count = len(past)
    x = torch.from_numpy(past)[:, None]
    if codec is not None:
        name = next(iter(codec.variables))
        x = codec.encode({name: past.reshape(-1, past.shape[-1])})
        x = x.unflatten(0, (count, PAST)).movedim(2, 1)
    rng = Streams(
        0,
        tuple(int(i) for i in np.repeat(np.arange(first, first + count), members)),
        tuple(range(members)) * count,
    )
    shape = (count * members, x.shape[1], LEADS, *x.shape[3:])
    out = engine(shape, Context(past=x.repeat_interleave(members, 0)), rng)
    if codec is not None:
        out = codec.physical(out.movedim(2, 1).flatten(0, 1)).unflatten(0, (-1, LEADS))
        return out[:, :, 0].double().numpy().reshape(count, members, LEADS, -1)
    return out[:, 0].double().numpy().reshape(count, members, LEADS, -1)


def paired(above: np.ndarray, below: np.ndarray, film: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The ratio of two means over starts (S, LEADS), and its standard error over films."""
    ratio = above.mean(0) / below.mean(0)
    off = (above - ratio * below) / below.mean(0)
    by_film = np.stack([off[film == f].sum(0) for f in np.unique(film)]) / len(film)
    return ratio, np.sqrt(len(by_film)) * by_film.std(0, ddof=1)


def baselines(starts: Starts) -> dict[str, Forecaster]:
    """Simple forecasts, fitted to one long record of the law."""
    noise = Streams.of(1, 1)
    still = torch.zeros(1, 1, 1, 64, dtype=torch.float64)
    record = starts.law((1, 1, 20_200, 64), Context(past=still), noise)[0].movedim(1, 0)[200:]
    return {
        "linear inverse model": linear_inverse(record.movedim(0, 1)[None], 64),
        "damped anomaly": DampedAnomaly.fit(record, LEADS),
        "climatology": Climatology.fit(record),
        "persistence and its past errors": Persistent.fit(record, LEADS),
        "persistence": Persistent(),
    }


def named(values: np.ndarray) -> xr.DataArray:
    """([start,] [member,] lead, x) with names."""
    dims = {3: ("start", "lead", "x"), 4: ("start", "member", "lead", "x")}[values.ndim]
    return xr.DataArray(values, dims=dims)
