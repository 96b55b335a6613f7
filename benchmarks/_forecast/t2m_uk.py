"""Hourly temperature over the United Kingdom, the last five days of March 2019: the next 24 hours.

Every forecast starts from an hour of the test days that has 24 hours of truth, and is scored in
kelvin with cell-area weights. The spread is held to the error over all leads together; lead by lead
it is in the tables: the first hours of these days are too narrow. Baselines are fitted to the
training hours; the linear inverse models have the truncation and ridge that err least on the
validation days over 12 hours, and the perturbed beginnings the amplitude of the least CRPS there.
Five days are about two weathers: the intervals are of a block bootstrap over starts, in blocks of a
day.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from _report import Report
from torch import Tensor

import sciddm as sd
from sciddm.data import split, store
from sciddm.data.codec import encoded
from sciddm.denoise import Context
from sciddm.forecasters import (
    AboutCycle,
    Climatology,
    Cycle,
    DampedAnomaly,
    Forecaster,
    LinearGaussian,
    Persistent,
    Perturbed,
    linear_inverse,
)
from sciddm.model import Model
from sciddm.random import Streams
from sciddm.score.bootstrap import resamples

ROOT = Path(__file__).resolve().parents[2]
STORE = ROOT / "stores" / "t2m_uk.zarr"
LEADS, NEAR, PAST, DAY = 24, 12, 49, Cycle(24)
SHOWN = (1, 2, 3, 6, 9, 12, 18, 24)
DEFAULT = "autoregressive (default)"
TRAINED = {
    DEFAULT: "t2m_uk_autoregressive",
    "rolling": "t2m_uk_rolling",
    "MC dropout": "t2m_uk_dropout",
}
FEWER = {"rolling": 4, "MC dropout": 1}
"""Networks are dear: they have 16 members, and one start of so many."""
RIVALS = ("MC dropout",)
"""Trained models that are baselines; of the engines only the default has claims."""
MODES, RIDGES, AMPLITUDES = (5, 10, 20, 30, 40, 60), (0.0, 0.01, 0.1), (0.05, 0.1, 0.2, 0.4)


@dataclass(frozen=True)
class Scores:
    """Of one method, each (starts, LEADS): fair CRPS (K), variance of the members, squared error of
    their mean. evaluations a frame; seconds a frame of one member."""

    crps: np.ndarray
    variance: np.ndarray
    error: np.ndarray
    members: int
    evaluations: float
    seconds: float

    @property
    def spread_skill(self) -> np.ndarray:
        """Unbiased, (LEADS,)."""
        variance = self.variance.mean(0) * (1 + 1 / self.members)
        return np.sqrt(variance / self.error.mean(0))


class Month:
    """The record in the normalised units of a model, and what is fitted to its training hours."""

    def __init__(self, model: Model) -> None:
        self.ds = store.open(STORE).load()
        self.codec = model.codec
        self.splits = split.read(self.ds)
        self.x = encoded(self.ds, model.codec, "time")
        forcings = sd.data.forcing.Forcings(day=True).at(self.ds.time)
        assert forcings is not None
        self.hours = torch.from_numpy(forcings)
        area = np.cos(np.deg2rad(self.ds.latitude.values))[:, None]
        self.area = area / (area.sum() * self.ds.sizes["longitude"])

    def starts(self, name: str, every: int) -> np.ndarray:
        """Newest hours: the first hour of a split, and then every so many with 24 hours after."""
        first, stop = self.splits[name]
        return np.arange(first, stop - LEADS, every)

    @property
    def record(self) -> tuple[Tensor, Tensor]:
        """Training frames (T, C, *grid) and their forcings (K, T)."""
        stop = self.splits["train"][1]
        return self.x[:stop], self.hours[:, :stop]

    def score(
        self, engine: Forecaster, starts: np.ndarray, members: int, forcings: bool = True
    ) -> Scores:
        """Forecasts from ``starts``, a few at a time."""
        crps, variance, error = (np.empty((len(starts), LEADS)) for _ in range(3))
        each, spent = max(1, 300 // members), 0.0
        for lo in range(0, len(starts), each):
            some = starts[lo : lo + each]
            begun = time.perf_counter()
            film = self._drawn(engine, some, members, forcings)
            spent += time.perf_counter() - begun
            truth = np.stack([self.ds.t2m.values[s + 1 : s + 1 + LEADS] for s in some])
            at = slice(lo, lo + len(some))
            dims = ("start", "member", "lead", "latitude", "longitude")
            place = {"latitude": self.ds.latitude}
            ens = xr.DataArray(film, dims=dims, coords=place)
            true = xr.DataArray(truth, dims=[d for d in dims if d != "member"], coords=place)
            over = ("latitude", "longitude")  # of one member the CRPS is the absolute error
            crps[at] = sd.score.crps(ens, true, fair=members > 1, over=over).values
            variance[at] = (film.var(1, ddof=1) * self.area).sum((-2, -1)) if members > 1 else 0.0
            error[at] = ((film.mean(1, dtype=float) - truth) ** 2 * self.area).sum((-2, -1))
        cost = spent / (len(starts) * members * LEADS)
        return Scores(crps, variance, error, members, engine.evaluations, cost)

    def _drawn(
        self, engine: Forecaster, starts: np.ndarray, members: int, forcings: bool
    ) -> np.ndarray:
        """(starts, members, LEADS, *grid) in kelvin."""
        past = torch.stack([self.x[s + 1 - PAST : s + 1] for s in starts]).movedim(2, 1)
        known = torch.stack([self.hours[:, s + 1 - PAST : s + 1 + LEADS] for s in starts])
        known = known.repeat_interleave(members, 0)[..., None, None]
        cases = tuple(int(s) for s in np.repeat(starts, members))
        rng = Streams(0, cases, tuple(range(members)) * len(starts))
        context = Context(
            past=past.repeat_interleave(members, 0), forcings=known if forcings else None
        )
        film = engine((len(cases), 1, LEADS, *self.x.shape[2:]), context, rng)
        values = self.codec.physical(film.movedim(2, 1).flatten(0, 1).float())
        return values.numpy().reshape(len(starts), members, LEADS, *self.x.shape[2:])

    @cached_property
    def damped(self) -> DampedAnomaly:
        """The damped anomaly, whose climatology the others use."""
        record, hours = self.record
        return DampedAnomaly.fit(record, LEADS, DAY, hours)

    @cached_property
    def anomalies(self) -> Tensor:
        """The whole record about the climatology, (T, C, *grid)."""
        phase = torch.arange(len(self.x)) % DAY.period
        return self.x - self.damped.climatology[phase].float()

    def linear(self, frames: Tensor) -> tuple[LinearGaussian, str]:
        """The linear inverse model of the training part of ``frames`` (T, C, *grid), chosen on
        validation, and in words."""
        film = frames[: self.splits["train"][1]].movedim(0, 1)[None]
        held = self.starts("validation", 3)
        past = torch.stack([frames[[s]].movedim(0, 1) for s in held])
        truth = torch.stack([frames[s + 1 : s + 1 + NEAR].movedim(0, 1) for s in held])
        found = []
        for modes in MODES:
            for ridge in RIDGES:
                law = linear_inverse(film, modes, ridge=ridge)
                error = float((law.means(past, NEAR) - truth).square().mean())
                found.append((error, modes, ridge, law))
        _, modes, ridge, law = min(found, key=lambda f: f[0])
        return law, f"{modes} EOFs, ridge {ridge:g}"

    def perturbed(self, law: LinearGaussian) -> tuple[Forecaster, str]:
        """The linear model without noise about the climatology, from beginnings perturbed by
        anomalies of the record; the amplitude of the least CRPS on the validation days."""
        still = LinearGaussian(
            law.modes, law.transition, torch.zeros_like(law.noise), law.mean, law.persistence
        )
        patterns = law.innovations()
        found = []
        for std in AMPLITUDES:
            size = float((law.stationary().trace() / patterns.variances.sum()).sqrt())
            engine = AboutCycle(
                Perturbed(still, std * size, patterns), self.damped.climatology, DAY
            )
            held = self.score(engine, self.starts("validation", 6), 20)
            found.append((float(held.crps[:, :NEAR].mean()), std, engine))
        _, std, engine = min(found, key=lambda f: f[0])
        return engine, f"{std:g} of the climatological s.d."

    def baselines(self) -> Iterator[tuple[str, Forecaster]]:
        """Simple forecasts of the training hours."""
        record, hours = self.record
        yield "persistence", Persistent()
        yield "persistence and its past errors", Persistent.fit(record, LEADS)
        yield "the same, of that hour", Persistent.fit(record, LEADS, DAY, hours)
        yield "climatology of the hour", Climatology.fit(record, DAY, hours)
        yield "damped anomaly", self.damped
        law, said = self.linear(self.x)
        yield f"linear inverse model, {said}", law
        law, said = self.linear(self.anomalies)
        yield (
            f"the same of anomalies, {said}",
            AboutCycle(law, self.damped.climatology, DAY),
        )
        engine, said = self.perturbed(law)
        yield f"perturbed beginnings, {said}", engine


def run(report: Report, quick: bool) -> None:
    """The default, the other trained engines and the baselines on the test days; --quick has fewer
    starts and members."""
    if not STORE.exists() or not (ROOT / "models" / TRAINED[DEFAULT]).is_dir():
        report.claim("t2m_uk: the store and the trained model are there", 0, 1, 1)
        return
    models = {
        name: sd.load(ROOT / "models" / folder)
        for name, folder in TRAINED.items()
        if (ROOT / "models" / folder / "model.json").is_file()
    }
    month = Month(models[DEFAULT])
    members, every = (16, 12) if quick else (50, 3)
    starts = month.starts("test", every)
    rows = {}
    for name, model in models.items():
        own = month if name == DEFAULT else Month(model)
        few = (starts, members) if name == DEFAULT else (starts[:: FEWER[name]], min(members, 16))
        rows[name] = own.score(model.forecaster, *few, model.forcings is not None)
    simple = {}
    for name, engine in month.baselines():
        count = 1 if name == "persistence" else members
        simple[name] = month.score(engine, starts, count)
    simple |= {name: rows.pop(name) for name in RIVALS if name in rows}
    tables(report, rows | simple, len(starts))
    claims(report, rows[DEFAULT], simple, DAY.period // every)


def tables(report: Report, rows: dict[str, Scores], starts: int) -> None:
    """Both tables."""
    title = f"Hourly temperature, {starts} starts: {{}}"
    lines: list[dict[str, object]] = []
    ratios: list[dict[str, object]] = []
    for name, row in rows.items():
        cost = {
            "method": name,
            "members": row.members,
            "starts": len(row.crps),
            "evaluations a frame": round(row.evaluations, 2),
            "seconds a frame": float(f"{row.seconds:.2g}"),
        }
        by_lead = {f"{n} h": round(float(row.crps[:, n - 1].mean()), 4) for n in SHOWN}
        lines.append(cost | by_lead | {"1-12 h": round(float(row.crps[:, :NEAR].mean()), 4)})
        share = row.spread_skill
        ratios.append({"method": name} | {f"{n} h": round(float(share[n - 1]), 3) for n in SHOWN})
    report.table(title.format("fair CRPS by lead, K"), lines)
    report.table(title.format("unbiased spread/skill by lead"), ratios)


def claims(report: Report, default: Scores, simple: dict[str, Scores], block: int) -> None:
    """What is claimed of the default; ``block`` starts are a day."""
    own = default.crps.mean(0)
    worst = max(float((own / s.crps.mean(0))[:NEAR].max()) for s in simple.values())
    report.claim("t2m_uk: CRPS over a baseline's, the worst of 1-12 h", worst, 0, 0.99999)
    best = min(simple.values(), key=lambda s: float(s.crps[:, :NEAR].mean()))
    ours, theirs = default.crps[:, :NEAR].mean(1), best.crps[:, :NEAR].mean(1)
    report.claim(
        "t2m_uk: CRPS over the best baseline's, mean of 1-12 h",
        float(ours.mean() / theirs.mean()),
        0,
        0.9,
    )
    whole = np.sqrt(default.variance.mean() * (1 + 1 / default.members) / default.error.mean())
    report.claim("t2m_uk: spread/skill of 1-24 h together", float(whole), 0.85, 1.15)
    if len(ours) < 2 * block:
        return
    counts = resamples(len(ours), block, 2000)
    ratio = np.quantile((counts @ ours) / (counts @ theirs), (0.05, 0.95))
    share = np.sqrt(
        (counts @ default.variance) / (counts @ default.error) * (1 + 1 / default.members)
    )
    low, high = np.quantile(share, (0.05, 0.95), axis=0)
    report.table(
        "Hourly temperature: 90 % intervals of the default",
        [
            {"what": "CRPS over the best baseline's, 1-12 h", "low": ratio[0], "high": ratio[1]},
            *(
                {"what": f"spread/skill at {n} h", "low": low[n - 1], "high": high[n - 1]}
                for n in SHOWN
            ),
        ],
    )
