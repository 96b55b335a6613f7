"""Stays in intensive care at the minutes of their own reports: a tenth of the values hidden.

35 vital signs and laboratory values of the last 80 of 400 stays; training and every choice are of
the others. Each of three masks hides a tenth of the values of every stay at random; what is drawn
is scored in units of the s.d. of each variable over the training stays, all hidden values alike.
CRPS is fair; `wql 19` is the quantile loss of 19 levels over the sum of absolute standardised
values, the normalisation of published tables. Those tables are of 4,000 stays in hourly bins, with
statistics of all of them: the second table does the same to ours, and is not comparable either.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from _report import Report

import sciddm as sd
from sciddm import recipe
from sciddm.data import items
from sciddm.data.items import Item, Items
from sciddm.data.masks import Share
from sciddm.data.panels import Panels
from sciddm.data.series import SeriesCodec
from sciddm.random import Streams
from sciddm.series import GaussianSeries, SeriesSampler
from sciddm.series.baselines import Floor, Pooled, pooled
from sciddm.series.conditional import Conditional
from sciddm.series.points import Level, Line

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT.parent / "shared" / "data" / "series"
MODEL = ROOT / "models" / "physionet2012_conditional"
HIDDEN = 0.1
FLOOR, LAW, NET = "interpolation + residuals", "Gaussian law (kriging)", "conditional network"
PRESSURE = ("DiasABP", "SysABP", "MAP", "NIDiasABP", "NISysABP", "NIMAP")
SIGNS = ("HR", "RespRate", "Temp", "GCS", "Urine", "FiO2", "SaO2")


@dataclass(frozen=True, eq=False)
class Scored:
    """Standardised draws (M, n) of all hidden values, their truth and variable (n,)."""

    draws: np.ndarray
    truth: np.ndarray
    channel: np.ndarray

    def crps(self, of: np.ndarray | None = None) -> float:
        """Fair, of all or of those values."""
        return float(sd.score.crps(*self._labelled(of)))

    def row(self) -> dict[str, float]:
        ens, truth = self._labelled()
        return {
            "crps": self.crps(),
            "wql 19": float(sd.score.weighted_quantile_loss(ens, truth, levels=19)),
            "mae": float(sd.score.median_error(ens, truth)),
            "coverage 90": float(sd.score.coverage(ens, truth)),
        }

    def _labelled(self, of: np.ndarray | None = None) -> tuple[xr.DataArray, xr.DataArray]:
        at = slice(None) if of is None else of
        draws = xr.DataArray(self.draws[:, at], dims=("member", "cell"))
        return draws, xr.DataArray(self.truth[at], dims="cell")


def run(report: Report, quick: bool) -> None:
    """--quick: 20 stays, one mask, 40 members."""
    with tempfile.TemporaryDirectory() as folder:
        make = recipe.load(ROOT / "datasets" / "physionet2012.py").make
        source = str(SOURCE) if SOURCE.is_dir() else ""
        every = items.of(make(Path(folder) / "stays.zarr", size="full", source=source))
        train, test = every.split("train"), every.split("test")
    if quick:
        test = test.only(list(test)[:20])
    title = "PhysioNet 2012, 10 % hidden"
    found = table(report, f"{title}, own times", train, test, quick)
    kinds(report, f"{title}, kinds of values", found, train.variables)
    ratio = np.mean([a.crps() / b.crps() for a, b in zip(found[NET], found[FLOOR], strict=True)])
    report.claim(f"{title}: CRPS over {FLOOR}", float(ratio), 0.0, 0.70)
    hourly = [part.only([binned(i) for i in part]) for part in (train, test)]
    table(report, f"{title}, hourly bins", hourly[0], hourly[1], quick)


def table(
    report: Report, title: str, train: Items, test: Items, quick: bool
) -> dict[str, list[Scored]]:
    """A line a method, its mean over the masks and their standard error."""
    seeds, members = (1, 40) if quick else (3, 50)
    model = sd.load(MODEL)
    plain = SeriesCodec.fit(train, model.cells.clock, masks=Share(HIDDEN, HIDDEN))
    made = methods(model, plain, train)
    found, lines = {}, []
    for name, (sampler, codec) in made.items():
        found[name] = [scored(sampler, codec, plain, test, s, members) for s in range(seeds)]
    base = np.array([part.crps() for part in found[FLOOR]])
    for name, parts in found.items():
        each = {k: np.array([p.row()[k] for p in parts]) for k in parts[0].row()}
        each["over interpolation"] = each["crps"] / base
        line: dict[str, object] = {"method": name}
        for key, values in each.items():
            line[key] = float(values.mean())
            if key == "crps" and seeds > 1:
                line["s.e."] = float(values.std(ddof=1) / np.sqrt(seeds))
        said = {"members": members, "evaluations": made[name][0].evaluations}
        lines.append(line | said | {"values": sum(len(p.truth) for p in parts)})
    report.table(title, lines)
    return found


def methods(
    model: sd.Model, plain: SeriesCodec, train: Items
) -> dict[str, tuple[SeriesSampler, SeriesCodec]]:
    """Every row of the tables: a sampler, and the codec of its panels."""
    net = model.series
    assert isinstance(net, Conditional)
    panels = [Panels(train, plain).spread(len(train.items))]
    levels = np.linspace(0, 1, 1001)
    values = (np.concatenate([i.values for i in train]) - plain.mean) / plain.std
    marginal = torch.from_numpy(np.nanquantile(values, levels, axis=0).T.copy())[:, None]

    def floor(*edges: float) -> Floor:
        # a variable without another value in the stay is infinitely far from its neighbours
        edges = (*edges, 1e9)
        near = pooled(Line(), panels, edges if len(edges) > 1 else ()).quantiles
        near = near[:, : len(edges)]
        return Floor(Line(), Pooled(torch.cat([near, marginal], 1), edges))

    return {
        "training marginal": (Floor(Level(torch.zeros(plain.channels)), Pooled(marginal)), plain),
        FLOOR: (floor(), plain),
        f"{FLOOR} by distance": (floor(0.26, 1.01, 4.01), plain),
        LAW: (GaussianSeries(net.law), model.cells),
        NET: (net, model.cells),
    }


def scored(
    sampler: SeriesSampler, codec: SeriesCodec, plain: SeriesCodec, test: Items, seed: int,
    members: int,
) -> Scored:  # fmt: skip
    """Draws of what the mask of ``seed`` hides in every stay."""
    draws, truth, channel = [], [], []
    for number, item in enumerate(codec.conform(test)):
        seen = np.isfinite(item.values)
        rng = np.random.default_rng([seed, number, 12])
        hidden = seen & (rng.random(seen.shape) < HIDDEN)
        if not hidden.any():
            continue
        coded = codec.coded(item, seen & ~hidden, seen)
        with torch.no_grad():
            drawn = sampler.draw(coded.panel, Streams.of(seed, members, case=number))[0]
        at = np.nonzero(hidden)[1]
        values = codec.decode(drawn.double(), coded)[:, hidden]
        draws.append((values - plain.mean[at]) / plain.std[at])
        truth.append((item.values[hidden] - plain.mean[at]) / plain.std[at])
        channel.append(at)
    return Scored(np.concatenate(draws, 1), np.concatenate(truth), np.concatenate(channel))


def kinds(
    report: Report, title: str, found: dict[str, list[Scored]], names: tuple[str, ...]
) -> None:
    """CRPS by kind of variable, pooled over the masks."""
    groups = {"blood pressures": PRESSURE, "other signs": SIGNS}
    rest = tuple(n for n in names if n not in PRESSURE + SIGNS)
    lines = []
    for group, members in (groups | {"laboratory": rest}).items():
        of = [names.index(n) for n in members]
        line: dict[str, object] = {"variables": group}
        for method, parts in found.items():
            chosen = [np.isin(p.channel, of) for p in parts]
            weights = [int(c.sum()) for c in chosen]
            scores = [p.crps(c) for p, c in zip(parts, chosen, strict=True)]
            line[method] = float(np.average(scores, weights=weights))
        lines.append(line | {"values": sum(weights)})
    report.table(title, lines)


def binned(item: Item) -> Item:
    """The last value of each variable in each hour, at the middle of the hour."""
    hour = np.minimum(np.floor(item.time), 47).astype(int)
    values = np.full((48, item.values.shape[1]), np.nan)
    for at, row in zip(hour, item.values, strict=True):
        values[at] = np.where(np.isfinite(row), row, values[at])
    kept = np.isfinite(values).any(1)
    return replace(item, time=np.arange(48)[kept] + 0.5, values=values[kept])
