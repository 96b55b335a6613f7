"""Real records with hidden blocks of a day to a month: weekly CO2, hourly weather at New York.

The models see what lies on both sides of a block. CO2: the law is fitted on 1958 to 1984, blocks
are of 1985 to 2001. Weather: two laws a variable, each fitted on one half of 2013 and tested on the
other; a station's block is scored where the other two are known, and where they miss the same
hours. CRPS is fair; coverage is of the central 90 %. Scores are means over the blocks of a seed,
then over seeds, with the standard error over seeds; the smoothers of weather have one seed. What is
claimed of weather is the coverage of its three variables together; each is in the tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import xarray as xr
from _report import Report
from _series.classical import Smoother, Spec, arima, components
from torch import Tensor

import sciddm as sd
from sciddm import recipe
from sciddm.completion import address
from sciddm.data.items import Item, Items
from sciddm.data.series import Coded, SeriesCodec
from sciddm.random import Streams
from sciddm.series import Panel, SeriesSampler
from sciddm.series.baselines import Floor, Line, Point, pooled

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
MEMBERS = 100
SEEDS = 3
WEEKS = {"1 week": 1, "2 weeks": 2, "3 weeks": 3, "5 weeks": 5}
HOURS = {"1 day": 24, "3 days": 72, "10 days": 240, "30 days": 720}
COUNTS = {24: 12, 72: 8, 240: 4, 720: 4}
"""Blocks of each length a half, seed and case."""
VARIABLES = ("temp", "dewp", "pressure")
CASES = {"all stations": False, "one station": True}
TRAINING = 24
"""Hidden training blocks that the residuals of the baselines come from."""
LAW, FLOOR = "Gaussian law", "line + residuals"


@dataclass(frozen=True, eq=False)
class Block:
    """Rows of a record. covered : (n, C), not known. hidden : those of them that are scored."""

    part: Item
    covered: np.ndarray
    hidden: np.ndarray

    def coded(self, codec: SeriesCodec) -> Coded:
        """The panel, in which hidden cells hold the truth."""
        seen = np.isfinite(self.part.values)
        short, hidden = replace(codec, window=len(self.part)), self.hidden & seen
        return short.coded(self.part, seen & ~self.covered, (seen & ~self.covered) | hidden)

    @property
    def truth(self) -> np.ndarray:
        return self.part.values[self.hidden & np.isfinite(self.part.values)]


class Beside(Point):
    """The mean of the other channels at the same time, where they are known; else the line."""

    def forward(self, panel: Panel) -> Tensor:
        assert panel.dense is not None
        line, seen = Line()(panel), panel.known.unflatten(1, panel.dense)
        value = torch.where(seen, panel.value.double().unflatten(1, panel.dense), 0.0)
        count = (seen.sum(1, keepdim=True) - seen.long()).flatten(1)
        mean = (value.sum(1, keepdim=True) - value).flatten(1) / count.clamp_min(1)
        return torch.where(panel.known | (count == 0), line, mean)


def blocks(item: Item, length: int, beside: int, count: int, one: bool, seed: int) -> list[Block]:
    """About ``count`` blocks of ``length`` rows of one column in turn, one in each of as many
    stretches of the record; with ``one`` the other columns stay known. Stretches in which a fifth
    of the values is missing are left out. ``beside`` rows are seen on either side."""
    rng = np.random.default_rng([seed, length, one])
    rows, columns = item.values.shape
    found = []
    for slot in range(count):
        column = int(rng.integers(columns))
        for _ in range(20):
            first = 1 + int((slot + rng.random()) / count * (rows - length - 2))
            inside = slice(first, first + length)
            if np.isfinite(item.values[inside, column]).mean() > 0.8:
                covered, hidden = np.zeros((2, rows, columns), bool)
                hidden[inside, column] = True
                covered[inside, column if one else slice(None)] = True
                rest = slice(max(0, first - beside), first + length + beside)
                found.append(Block(item.rows(rest), covered[rest], hidden[rest]))
                break
    return found


def scores(sampler: SeriesSampler, codec: SeriesCodec, cases: Sequence[Block]) -> np.ndarray:
    """(blocks, 3): CRPS, coverage and width of the central 90 %, in the record's units."""
    rows = []
    for case in cases:
        coded = case.coded(codec)
        rng = Streams.of(0, MEMBERS, address(case.part))
        with torch.no_grad():
            drawn = sampler.draw(coded.panel, rng)[0].double()
        values = codec.decode(drawn, coded)[:, case.hidden & np.isfinite(case.part.values)]
        ens = xr.DataArray(values, dims=("member", "cell"))
        truth = xr.DataArray(case.truth, dims="cell")
        low, high = np.quantile(values, [0.05, 0.95], axis=0, method="weibull")
        rows.append([float(sd.score.crps(ens, truth)), float(sd.score.coverage(ens, truth)),
                     float((high - low).mean())])  # fmt: skip
    return np.array(rows)


def baselines(
    codec: SeriesCodec, train: Item, length: int, beside: int, one: bool, season: float
) -> dict[str, SeriesSampler]:
    """Estimates with residuals of their own on hidden training blocks of the same length."""
    panels = [b.coded(codec).panel for b in blocks(train, length, beside, TRAINING, one, 99)]
    points: dict[str, Point] = {FLOOR: Line(), "seasonal line + residuals": Line(season)}
    if one and codec.channels > 1:
        points["other stations + residuals"] = Beside()
    return {name: Floor(point, pooled(point, panels)) for name, point in points.items()}


def smoothers(
    codec: SeriesCodec, train: Item, specs: dict[str, Spec], rows: int
) -> dict[str, Smoother]:
    """State-space models of statsmodels, fitted to the last training rows of the first column."""
    values = ((train.values[-rows:, 0] - codec.mean[0]) / codec.std[0]).copy()
    made = {name: Smoother.fit(spec, [values]) for name, spec in specs.items()}
    return {n: Smoother(m.spec, list(m.parameters) * codec.channels) for n, m in made.items()}


Found = dict[tuple[str, str], list[np.ndarray]]
"""By method and length: for every seed (blocks, 3)."""


def table(report: Report, title: str, found: Found, names: Sequence[str]) -> None:
    """A line a method."""
    rows = []
    for method in dict.fromkeys(m for m, _ in found):
        row: dict[str, object] = {"method": method}
        for name in names:
            parts = found[method, name]
            mean, error = over_seeds(parts)
            row[f"{name}: CRPS"] = said(mean[0], error[0])
            row["coverage" + " " * len(row)] = said(mean[1], error[1])
            row["width" + " " * len(row)] = f"{mean[2]:.3g}"
        rows.append(row | {"blocks": sum(map(len, found[method, names[0]]))})
    report.table(title, rows)


def over_seeds(parts: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the seeds' means (3,), and its standard error, NaN of one seed."""
    means = np.array([p.mean(0) for p in parts])
    error = means.std(0, ddof=1) / len(means) ** 0.5 if len(means) > 1 else np.full(3, np.nan)
    return means.mean(0), error


def said(mean: float, error: float) -> str:
    return f"{mean:.3f}" if np.isnan(error) else f"{mean:.3f} ({error:.3f})"


def run(report: Report, quick: bool) -> None:
    """--quick: of CO2 one seed, of the weather the temperature and two lengths."""
    carbon_dioxide(report, quick)
    weather(report, quick)


def carbon_dioxide(report: Report, quick: bool) -> None:
    """One channel, by the week."""
    frame = pd.read_csv(DATA / "series" / "co2.csv")
    time = pd.to_datetime(frame.date.astype(str)).to_numpy("datetime64[ns]")
    item = Item("series", time, frame.co2.to_numpy(float)[:, None])
    cut = int(np.searchsorted(time, np.datetime64("1985-01-01")))
    train, test = item.rows(slice(0, cut)), item.rows(slice(cut, None))
    model = recipe.load(ROOT / "models" / "co2_gp.py").fit(
        Items(("co2",), (train,)), steps=40 if quick else 150
    )
    codec = model.cells
    specs = {"statsmodels: trend, season, AR(1)": components(52.18, 3, "lltrend")}
    states = smoothers(codec, train, specs, 1000)
    found: Found = {}
    for name, length in WEEKS.items():
        made = {LAW: model.series, **baselines(codec, train, length, 130, True, 364.0), **states}
        for seed in range(1 if quick else SEEDS):
            count = (60 if quick else 150) // (length + 1)
            cases = blocks(test, length, 130, count, True, seed)
            for method, sampler in made.items():
                found.setdefault((method, name), []).append(scores(sampler, codec, cases))
    table(report, "co2 [ppm], hidden weeks of 1985 to 2001", found, list(WEEKS))
    for name in WEEKS:
        claims(report, f"co2, gaps of {name}", found[LAW, name], found[FLOOR, name])
    report.claim("co2: sd.impute draws the same", same(model, blocks(test, 5, 130, 4, True, 0)[0]),
                 0.0, 1e-6)  # fmt: skip


def weather(report: Report, quick: bool) -> None:
    """Three channels, the stations, by the hour."""
    fit = recipe.load(ROOT / "models" / "nyc_weather_gp.py").fit
    names = ["1 day", "10 days"] if quick else list(HOURS)
    variables = VARIABLES[:1] if quick else VARIABLES
    specs = {"statsmodels: level, day, AR(2)": components(24.0, 2, "llevel", 2),
             "statsmodels: AR(3)": arima((3, 0, 0))}  # fmt: skip
    pooled_cover: dict[tuple[str, str], list[list[np.ndarray]]] = {}
    for variable in variables:
        item, middle = stations(variable), np.datetime64("2013-07-01")
        halves = [item.rows(item.time < middle), item.rows(item.time >= middle)]
        tables: dict[str, Found] = {case: {} for case in CASES}
        for k in range(2):
            train, test = halves[k], halves[1 - k]
            model = fit(Items(STATIONS, (train,)), steps=40)
            codec = model.cells
            states = smoothers(codec, train, specs, 1500)
            for case, one in CASES.items():
                for name in names:
                    length, beside = HOURS[name], 72 if HOURS[name] > 400 else 120
                    plain = baselines(codec, train, length, beside, one, 1.0)
                    for seed in range(SEEDS):
                        made = {LAW: model.series, **plain} | ({} if one or seed else states)
                        count = COUNTS[length]
                        cases = blocks(test, length, beside, count, one, seed)
                        for method, sampler in made.items():
                            parts = tables[case].setdefault((method, name), [])
                            new = scores(sampler, codec, cases)
                            if k == 0:
                                parts.append(new)
                            else:
                                parts[seed] = np.concatenate([parts[seed], new])
        for case, found in tables.items():
            table(report, f"nyc weather, {variable}, hidden at {case}", found, names)
            for name in names:
                pooled_cover.setdefault((case, name), []).append(found[LAW, name])
    for (case, name), parts in pooled_cover.items():
        both = [np.concatenate(p) for p in zip(*parts, strict=True)]
        report.claim(
            f"nyc weather at {case}, gaps of {name}: coverage of 90 %",
            over_seeds(both)[0][1], 0.85, 0.95,
        )  # fmt: skip


STATIONS = ("EWR", "JFK", "LGA")


def stations(variable: str) -> Item:
    """One variable of 2013 by the hour, a column a station."""
    frame = pd.read_csv(DATA / "stations" / "nyc_weather_2013.csv")
    frame["time"] = pd.to_datetime(frame.time_hour, utc=True).dt.tz_localize(None)
    wide = frame.pivot(index="time", columns="origin", values=variable).asfreq("h")
    return Item("series", wide.index.to_numpy("datetime64[ns]"), wide[list(STATIONS)].to_numpy())


def claims(
    report: Report, name: str, ours: Sequence[np.ndarray], floor: Sequence[np.ndarray]
) -> None:
    mean, base = over_seeds(ours)[0], over_seeds(floor)[0]
    report.claim(f"{name}: coverage of 90 %", mean[1], 0.85, 0.95)
    report.claim(f"{name}: CRPS over {FLOOR}", mean[0] / base[0], 0.0, 1.0)


def same(model: sd.Model, case: Block) -> float:
    """The largest difference between the draws of a block here and those of `sd.impute` from a
    Dataset, over the s.d. of the record."""
    codec = replace(model.cells, window=len(case.part))
    values = np.where(case.covered, np.nan, case.part.values)
    ds = xr.Dataset(
        {n: ("time", values[:, c]) for c, n in enumerate(codec.names)}, {"time": case.part.time}
    )
    filled = sd.impute(replace(model, codec=codec), ds, members=8, seed=0)
    coded = codec.encode(replace(case.part, values=values), np.isnan(values))
    rng = Streams.of(0, 8, address(replace(case.part, name="series")))
    ours = codec.decode(model.series.draw(coded.panel, rng)[0].double(), coded)
    theirs = np.stack([filled[n].values for n in codec.names], -1)
    return float(np.abs((ours - theirs)[:, case.hidden]).max() / codec.std.max())
