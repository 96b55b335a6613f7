"""ETTh1, the official test hours: a day ahead of all seven channels, and hidden hours.

Forecasts start at every midnight of the four test months and see the hours before them that the
model takes; the seasonal naive forecast is the value of 24 hours before, as published. Imputation:
test windows with 10 % and 50 % of the values hidden at random; the floor is the line between known
neighbours with residuals of training windows, pooled by channel. ``wql_9`` is the quantile loss of
9 levels over the sum of |y|: of each channel, averaged over the seven; and of all of them pooled,
in the units of the file, as gluonts' MeanWeightedSumQuantileLoss over all entries. CRPS is fair, in
units of the training s.d. of each channel, averaged over the seven. Models were fitted to the 8640
training hours and chosen on the 2880 after them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from _report import Report
from _series.classical import Smoothing
from _series.windows import ROOT, Found, Window, ahead, drawn, panels, record, said, scattered
from torch import Tensor

import sciddm as sd
from sciddm.data.items import Items
from sciddm.series import GaussianSeries, Law, Panel, SeriesSampler, posterior
from sciddm.series.baselines import Floor, Held, Line, Point, SeasonalBlocks, pooled, spread
from sciddm.series.conditional import Conditional

HORIZON, DAY = 24, 24.0
TRAIN, TEST, END = 8640, 11520, 14400
TRAINING = 40
"""Training windows that the residuals of the baselines come from."""
LAW, NAIVE, LINE = "law of the record", "seasonal naive", "line + residuals"


def run(report: Report, quick: bool) -> None:
    seeds, members = (1, 50) if quick else (3, 100)
    with tempfile.TemporaryDirectory() as folder:
        every = record("etth1", folder)
        forecasts(report, every, seeds, members, quick)
        gaps(report, every, seeds, members // 2, quick)


class Kriged(Point):
    """The mean of a law's posterior."""

    def __init__(self, law: Law) -> None:
        super().__init__()
        self.law = law

    def forward(self, panel: Panel) -> Tensor:
        return posterior(self.law, panel).mean


def law_of(model: sd.Model) -> Law:
    assert isinstance(model.series, Conditional | GaussianSeries)
    return model.series.law


def with_law(model: sd.Model, name: str) -> dict[str, SeriesSampler]:
    """The model; and where it has a network, its law alone."""
    if isinstance(model.series, Conditional):
        return {name: model.series, LAW: GaussianSeries(law_of(model))}
    return {f"{name}, {LAW}": model.series}


def forecasts(report: Report, every: Items, seeds: int, members: int, quick: bool) -> None:
    model = sd.load(ROOT / "models" / "etth1_forecast")
    codec = model.cells
    item, context = codec.conform(every).items[0], (codec.window or 0) - HORIZON
    starts = range(TEST, END - HORIZON + 1, HORIZON * (4 if quick else 1))
    cases = [ahead(item, s, context, HORIZON) for s in starts]
    before = np.linspace(context, TRAIN - HORIZON, TRAINING).astype(int)
    past = panels([ahead(item, int(s), context, HORIZON) for s in before], codec)
    rows = with_law(model, "etth1_forecast")
    point = Kriged(law_of(model))
    rows |= {
        NAIVE: Floor(Held(DAY)),
        "seasonal naive + residuals": Floor(Held(DAY), pooled(Held(DAY), past)),
        "seasonal block bootstrap": SeasonalBlocks(DAY),
        "naive + residuals": Floor(Held(), pooled(Held(), past)),
        "mean of the law + Gaussian residual": Floor(point, spread(point, past)),
    }
    found = {
        name: [drawn(s, codec, cases, members, seed) for seed in range(seeds)]
        for name, s in rows.items()
    }
    title = f"ETTh1, a day ahead from {len(cases)} midnights, {members} members, {seeds} seeds"
    table(report, title, found, found[NAIVE], rows)
    if not quick:
        few = cases[:: len(cases) // 6]
        chosen: dict[str, SeriesSampler] = dict(list(rows.items())[:1])
        chosen |= {NAIVE: rows[NAIVE], "exponential smoothing": Smoothing(24)}
        less = {name: [drawn(s, codec, few, members, 0)] for name, s in chosen.items()}
        table(report, f"ETTh1, {len(few)} of these midnights", less, less[NAIVE], chosen)
    mine, naive = next(iter(found.values())), found[NAIVE]
    for k, kind in enumerate(("mean of channels", "pooled")):
        value = np.mean([f.wql()[k] for f in mine]) / naive[0].wql()[k]
        report.claim(f"etth1_forecast over seasonal naive, wql_9, {kind}", value, 0.0, 0.79)


def gaps(report: Report, every: Items, seeds: int, members: int, quick: bool) -> None:
    model = sd.load(ROOT / "models" / "etth1_impute")
    codec = model.cells
    item, rows = codec.conform(every).items[0], codec.window or 96
    for share in (0.1, 0.5):

        def windows(first: Iterable[int], seed: int, share: float = share) -> list[Window]:
            return [scattered(item, int(f), rows, share, seed) for f in first]

        past = panels(windows(np.linspace(0, TRAIN - rows, TRAINING).astype(int), 99), codec)
        edges = (1.5, 2.5, 4.5)
        samplers = with_law(model, "etth1_impute") | {
            LINE: Floor(Line(), pooled(Line(), past)),
            "line + residuals by distance": Floor(Line(), pooled(Line(), past, edges)),
            "seasonal line + residuals": Floor(Line(DAY), pooled(Line(DAY), past)),
            "last value + residuals": Floor(Held(), pooled(Held(), past)),
        }
        first = range(TEST, END - rows + 1, rows * (5 if quick else 1))
        found = {
            name: [drawn(s, codec, windows(first, seed), members, seed) for seed in range(seeds)]
            for name, s in samplers.items()
        }
        title = (
            f"ETTh1, {share:.0%} of {len(first)} windows of {rows} hours hidden, {members} members,"
            f" {seeds} seeds"
        )
        table(report, title, found, found[LINE], samplers)
        mine = next(iter(found.values()))
        ratio = np.mean([f.crps() for f in mine]) / np.mean([f.crps() for f in found[LINE]])
        report.claim(f"etth1_impute over lines, CRPS, {share:.0%} hidden", float(ratio), 0.0, 0.7)


def table(
    report: Report,
    title: str,
    found: Mapping[str, Sequence[Found]],
    floor: Sequence[Found],
    samplers: Mapping[str, SeriesSampler],
) -> None:
    """One line a method; ratios to the floor."""

    def over(score: Callable[[Found], float], of: Sequence[Found]) -> float:
        return float(np.mean([score(f) for f in of]) / np.mean([score(f) for f in floor]))

    lines = []
    for name, of in found.items():
        crps, error = said([f.crps() for f in of])
        sampler = samplers.get(name)
        lines.append({
            "method": name, "fair CRPS": crps, "s.e.": error, "CRPS over": over(Found.crps, of),
            "wql_9": said([f.wql()[0] for f in of])[0],
            "over": over(lambda f: f.wql()[0], of),
            "wql_9 pooled": said([f.wql()[1] for f in of])[0],
            "pooled over": over(lambda f: f.wql()[1], of),
            "coverage 90 %": said([f.coverage() for f in of])[0],
            "spread/skill": said([f.ratio() for f in of])[0],
            "evaluations": sampler.evaluations if sampler else 0,
        })  # fmt: skip
    report.table(title, lines)
