"""Observations along the way: guided forecasts of the driven heat equation at the exact smoother.

Of every forecast from a test film of `datasets/spde_heat.py`, 3 % of the grid (2 of 64 points, at
random places) are seen at leads 6, 12 and 18 with errors of 0.2 of the field's s.d. The law of the
20 frames given the start and the values is Gaussian and known: its draws are the row 'exact
smoother', and what any figure is divided by. All draw the same number of members from the same
starts and values; fair CRPS in units of the field's s.d., over leads and points; spread/skill is
unbiased; coverage is of the central 90 %. Standard errors are over starts.

The composed rows draw the 21 frames from Gaussian windows of 5 and 8 frames, as published or beside
the law of the whole film; the ensemble smoother updates exact forecasts by their own covariances.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from _report import Report
from torch import Tensor

import sciddm as sd
from sciddm import recipe, score
from sciddm.basis import Periodic
from sciddm.covariance import PowerLaw
from sciddm.data.codec import Normaliser
from sciddm.denoise import Context, Gaussian
from sciddm.forecasters import Composed, Film, Forecaster
from sciddm.observe import Observation, points
from sciddm.pde import StochasticHeat
from sciddm.random import Streams
from sciddm.spacetime import SpaceTime, longer, markov

ROOT = Path(__file__).resolve().parents[2]
POINTS, LEADS, TRAINED, START = 64, 20, 3600, 20
SEEN, SHARE, ERROR = (6, 12, 18), 0.03, 0.2
DOUBLE = torch.float64
Draw = Callable[["Case", int], Tensor]


@dataclass(frozen=True, eq=False)
class Case:
    """One start: its number, the newest frame (X,), the frames that follow (LEADS, X), and what is
    seen of them, of normalised films: field = mean + std * film."""

    number: int
    past: Tensor
    truth: Tensor
    mean: float
    std: float
    seen: Observation

    @staticmethod
    def of(number: int, film: Tensor, mean: float, std: float) -> Case:
        """From a film (T, X), with places and errors of its own."""
        truth = film[START + 1 : START + 1 + LEADS]
        rng = Streams.of(number, 1, case=7)
        count = max(1, round(SHARE * POINTS))
        white = rng.at("places").normal(torch.zeros(1, len(SEEN), POINTS, dtype=DOUBLE))[0]
        where = white.argsort(1)[:, :count]
        leads = torch.tensor(SEEN)[:, None].expand_as(where)
        values = truth[leads - 1, where]
        values = values + ERROR * rng.at("errors").normal(values[None])[0]
        position = torch.stack([leads - 1, where], dim=-1).flatten(0, 1)
        see = points([0] * len(position), position, (LEADS, POINTS), (False, True))
        variance = torch.tensor((ERROR / std) ** 2, dtype=DOUBLE)
        return Case(
            number,
            film[START],
            truth,
            mean,
            std,
            Observation((values.flatten() - mean) / std, see, variance),
        )

    def context(self, members: int) -> Context:
        """What a forecaster is told."""
        past = ((self.past - self.mean) / self.std).float().view(1, 1, 1, -1)
        return Context(past=past.expand(members, 1, 1, POINTS))

    def drawn(self, forecaster: Forecaster, members: int) -> Tensor:
        """(members, LEADS, X) in the units of the store."""
        rng = Streams.of(0, members, case=self.number)
        x = forecaster((members, 1, LEADS, POINTS), self.context(members), rng)
        return self.mean + self.std * x[:, 0].double()


class Exact:
    """The law of the store: what follows a frame, and what follows it given values."""

    def __init__(self, ds: xr.Dataset) -> None:
        said = ds.attrs["sciddm_generator"]
        numbers = (said[key] for key in ("length", "diffusivity", "damping", "speed"))
        heat = StochasticHeat(*numbers, PowerLaw(**said["noise"]))
        step, noise = heat.transition(POINTS, said["step"])
        parts = (
            v[:, None, None].to(torch.complex128) for v in (heat.stationary(POINTS), step, noise)
        )
        self.films = markov(*parts, LEADS + 1, (POINTS,), Periodic())

    @cached_property
    def ahead(self) -> tuple[Tensor, Tensor]:
        """The regression on the newest frame (LEADS X, X), and the covariance of what it leaves."""
        size = (LEADS + 1) * POINTS
        full = self.films(torch.eye(size, dtype=DOUBLE).view(size, 1, -1, POINTS)).flatten(1)
        now, later = slice(0, POINTS), slice(POINTS, None)
        gain = torch.linalg.solve(full[now, now], full[now, later]).T
        return gain, full[later, later] - gain @ full[now, later]

    @cached_property
    def root(self) -> Tensor:
        """A square root of the covariance of the forecast."""
        values, vectors = torch.linalg.eigh(self.ahead[1])
        return vectors * values.clamp_min(0).sqrt()

    def free(self, case: Case, members: int) -> Tensor:
        """Draws of the forecast."""
        white = Streams.of(1, members, case=case.number).at("exact")
        noise = white.normal(torch.zeros(members, LEADS * POINTS, dtype=DOUBLE))
        return (self.ahead[0] @ case.past + noise @ self.root.T).view(members, LEADS, POINTS)

    def climate(self, case: Case, members: int) -> Tensor:
        """Draws of the stationary law."""
        like = torch.zeros(members, 1, LEADS + 1, POINTS, dtype=DOUBLE)
        return self.films.sample(like, Streams.of(2, members, case=case.number))[:, 0, 1:]

    def smooth(self, case: Case, members: int) -> Tensor:
        """Draws given the values, by Matheron's rule with the exact covariance."""
        a = case.seen.operator.rows(torch.zeros(1, 1, LEADS, POINTS, dtype=DOUBLE)).flatten(1)
        cross = self.ahead[1] @ a.T
        return updated(case, self.free(case, members), cross, a @ cross)

    def ensemble(self, case: Case, members: int) -> Tensor:
        """The ensemble Kalman smoother: the same with the covariances of the members."""
        a = case.seen.operator.rows(torch.zeros(1, 1, LEADS, POINTS, dtype=DOUBLE)).flatten(1)
        x = self.free(case, members)
        off = (x - x.mean(0)).flatten(1)
        cross = off.T @ (off @ a.T) / (members - 1)
        return updated(case, x, cross, a @ cross)


def updated(case: Case, x: Tensor, cross: Tensor, spread: Tensor) -> Tensor:
    """Members ``x`` moved to the values, each with an error of its own."""
    a = case.seen.operator.rows(torch.zeros(1, 1, LEADS, POINTS, dtype=DOUBLE)).flatten(1)
    y = case.mean + case.std * case.seen.y
    total = spread + ERROR**2 * torch.eye(len(y), dtype=DOUBLE)
    white = Streams.of(1, len(x), case=case.number).at("exact error")
    gap = y + ERROR * white.normal(torch.zeros(len(x), len(y), dtype=DOUBLE)) - x.flatten(1) @ a.T
    return x + (gap @ torch.linalg.solve(total, cross.T)).view_as(x)


def run(report: Report, quick: bool) -> None:
    """Every row on the same cases; --quick has 12 starts and 16 members."""
    count, members = (12, 16) if quick else (50, 50)
    shelf = recipe.load(ROOT / "datasets" / "spde_heat.py", "datasets")
    ds = shelf.fields(count, POINTS, 0, TRAINED)
    model = sd.load(ROOT / "models" / "spde_heat_film")
    film, codec = model.forecaster, model.codec
    assert isinstance(film, Film) and isinstance(codec, Normaliser)
    mean, std = float(codec.mean.ravel()[0]), float(codec.std[0])
    truths = torch.from_numpy(ds["temperature"].values.astype(np.float64))
    cases = [Case.of(i, truths[i], mean, std) for i in range(count)]
    exact = Exact(ds)

    def guided(source: Film) -> Draw:
        return lambda case, n: case.drawn(source.given(case.seen, LEADS), n)

    law = Film(film.gaussian, film.length, film.history, steps=film.steps)
    each = film.steps
    draws: dict[str, tuple[int, Draw]] = {
        "exact smoother": (0, exact.smooth),
        "exact forecast": (0, exact.free),
        "film, free": (each, lambda case, n: case.drawn(film, n)),
        "film, guided": (each, guided(film)),
        "Gaussian law of films, guided": (each, guided(law)),
    }
    for window in (5, 8):
        for whole in (False, True):
            source = composed(film.gaussian, window, each, whole)
            kind = "beside the law" if whole else "as published"
            name = f"windows of {window}, {kind}, guided"
            draws[name] = (each * (LEADS + 2 - window), guided(source))
    draws["ensemble Kalman smoother"] = (0, exact.ensemble)
    draws["climatology"] = (0, exact.climate)
    rows = {name: scored(name, cost, draw, cases, members) for name, (cost, draw) in draws.items()}
    floor = rows["exact smoother"]
    title = (
        f"Spde_heat with values at leads 6, 12, 18, {count} starts, {members} members, fair CRPS"
    )
    report.table(title, [r.line(floor) for r in rows.values()])
    free, best = rows["film, free"], rows["film, guided"]
    report.claim("spde_heat_film guided over free, CRPS", best.over(free)[0], 0.0, 0.999)
    report.claim(
        "spde_heat_film guided over the exact smoother, CRPS", best.over(floor)[0], 0.95, 1.05
    )
    report.claim("spde_heat_film guided, spread/skill", best.spread, 0.95, 1.05)
    report.claim("spde_heat_film guided, coverage of 90 %", best.coverage, 0.86, 0.94)


def composed(law: Gaussian, window: int, steps: int, whole: bool) -> Film:
    """A film of LEADS + 1 frames whose denoiser is composed of Gaussian windows."""
    assert isinstance(law.prior, SpaceTime)
    small = Gaussian(law.mean, longer(law.prior, window), law.process)
    full = Gaussian(law.mean, longer(law.prior, LEADS + 1), law.process)
    beside = (small, full) if whole else (None, None)
    denoiser = Composed(small, window, 1, *beside)
    return Film(denoiser, LEADS + 1, law=full, steps=steps)


@dataclass(frozen=True)
class Row:
    """One method: evaluations and seconds a member, CRPS by start, all leads (S,) and by lead
    (LEADS,), and its calibration."""

    name: str
    evaluations: int
    seconds: float
    crps: np.ndarray
    by_lead: np.ndarray
    spread: float
    coverage: float

    def over(self, other: Row) -> tuple[float, float]:
        """Ratio of the mean CRPS, and its standard error over starts, in pairs."""
        ratio = self.crps.mean() / other.crps.mean()
        left = self.crps - ratio * other.crps
        return float(ratio), float(left.std(ddof=1) / math.sqrt(len(left)) / other.crps.mean())

    def line(self, floor: Row) -> dict[str, object]:
        """A line of the table."""
        ratio, error = self.over(floor)
        by_lead = self.by_lead / floor.by_lead
        return {
            "method": self.name,
            "fair CRPS": round(float(self.crps.mean()), 4),
            "over the smoother": round(ratio, 4),
            "s.e.": round(error, 4),
            **{f"lead {n}": round(float(by_lead[n - 1]), 3) for n in (1, 6, 9, 12, 18, 20)},
            "spread/skill": round(self.spread, 3),
            "coverage 90 %": round(self.coverage, 3),
            "evaluations a draw": self.evaluations,
            "seconds a draw": float(f"{self.seconds:.2g}"),
        }


def scored(name: str, evaluations: int, draw: Draw, cases: list[Case], members: int) -> Row:
    """Fair CRPS, spread/skill and coverage over all cases, leads and points."""
    begun = time.perf_counter()
    ens = torch.stack([draw(case, members) for case in cases]).numpy()
    spent = time.perf_counter() - begun
    truth = torch.stack([case.truth for case in cases]).numpy()
    dims = ("start", "lead", "x")
    found = xr.DataArray(ens, dims=("start", "member", "lead", "x")).transpose("member", ...)
    true = xr.DataArray(truth, dims=dims)
    crps = score.crps(found, true, over=("x",))
    variance, error = ens.var(1, ddof=1).mean(), ((ens.mean(1) - truth) ** 2).mean()
    spread = math.sqrt((members + 1) / members * variance / error)
    coverage = float(score.coverage(found, true, level=0.9))
    each = spent / (len(cases) * members)
    by_lead = crps.mean("start").values
    return Row(name, evaluations, each, crps.mean("lead").values, by_lead, spread, coverage)
