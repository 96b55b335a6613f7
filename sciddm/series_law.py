"""A Gaussian-process model of any series: its law by maximum likelihood, its draws exact.

The simplest model of series, and what fills the gaps of a file when no model is at hand: slow and
fast parts, a rest that is white, and seasons of the clock (day, year) where the series is long
enough to show them and the likelihood of values that it was not fitted to says that they are there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sciddm.data.axis import SECONDS
from sciddm.data.clock import Clock
from sciddm.data.items import Item, Items
from sciddm.data.series import Coded, SeriesCodec, stacked
from sciddm.errors import InputError
from sciddm.model import Model
from sciddm.series.fitting import fitted, guess, mean_log_prob, median_gap
from sciddm.series.gp import GaussianSeries
from sciddm.series.kernel import Matern32, Mixed, OrnsteinUhlenbeck, Product, Season, Shape
from sciddm.series.panel import Panel
from sciddm.task import Lead, Task, View

MOST = 500
"""Windows that a law is fitted to and chosen by, at most, evenly spread."""
SEEN = 3
"""Periods that a series must span before a season is looked for."""


def model(
    items: Items,
    clock: Clock,
    codec: SeriesCodec | None = None,
    *,
    periods: Sequence[float] | None = None,
    held: Items | None = None,
    rank: int = 1,
    cells: int = 160,
    batch: int = 12,
    steps: int = 200,
) -> Model:
    """The likeliest law of ``items``, as a model that can be saved.

    Parameters
    ----------
    codec : default the mean and s.d. of each variable. periods : of seasons, in units of the clock;
        None takes the day and the year of dates where the values that are held out ask for them.
    held : items to choose by; None holds out the last fifth of the windows.
    rank : how many patterns the variables share, in each part. cells : of the windows whose
        densities are multiplied. batch, steps : of the fit.

    Raises `InputError` for series without two values in any variable.
    """
    codec = SeriesCodec.fit(items, clock) if codec is None else codec
    every = windowed(codec, items, cells)
    if held is not None:
        rest = windowed(codec, held, cells)
    else:
        cut = max(1, len(every) - len(every) // 5)
        every, rest = every[:cut], (every[cut:] or every[-1:])
    trial = stacked(every)
    gap, span = median_gap(trial), max(_span(codec, i) for i in items)
    known = seasons(clock, span) if periods is None else [tuple(periods)]
    rank = min(rank, codec.channels - 1)
    shapes: list[Shape] = [OrnsteinUhlenbeck(2 * gap), Matern32(max(30 * gap, span / 20))]
    law, best = None, -np.inf
    for choice in known:
        own = [Product((Season(p, 1.0), Matern32(SEEN * p))) for p in choice]
        start = guess(trial, codec.channels, [*shapes, *own], rank=rank, centred=True)
        found = fitted(start, parts(every, batch), steps=steps)
        score = float(mean_log_prob(found, stacked(rest)).detach())
        if score > best:
            law, best, chosen = found, score, choice
    if law is None:
        raise InputError("No law of these series has a finite likelihood; look at their values.")
    assert isinstance(law, Mixed)
    lead = None if clock.step is None or not clock.dated else Lead(clock.step, clock.unit)
    task = Task(View(codec.names), sample="item", lead=lead)
    notes = {"periods": list(chosen), "held-out log density a value": round(best, 4)}
    return Model(task, codec, GaussianSeries(law), notes=notes)


def windowed(codec: SeriesCodec, items: Items, cells: int) -> list[Coded]:
    """Every value of the items, all known, in panels of about ``cells`` values: stretches one after
    another, and as many of rows far apart, which tell slow changes."""
    rows = max(8, cells // codec.channels)
    found: list[tuple[Item, slice]] = []
    for item in codec.conform(items):
        seen = np.isfinite(item.values).any(1)
        item = item.rows(np.flatnonzero(seen))
        count = max(1, len(item) // rows)
        for k in range(count):
            found.append((item, slice(k * rows, (k + 1) * rows)))
            found += [(item, slice(k, None, count))] if count > 1 else []
    some = np.unique(np.linspace(0, len(found) - 1, min(MOST, len(found))).astype(int))
    parts = [found[i][0].rows(found[i][1]) for i in some]
    return [_all_known(codec, i) for i in parts if len(i)]


def parts(every: Sequence[Coded], batch: int) -> Callable[[int], Panel]:
    """Panels of ``batch`` windows by step, every window in its turn."""

    def panel(step: int) -> Panel:
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([step, 23])))
        chosen = rng.choice(len(every), size=min(batch, len(every)), replace=False)
        return stacked([every[i] for i in chosen])

    return panel


def seasons(clock: Clock, span: float) -> list[tuple[float, ...]]:
    """Which seasons to try: none, and those of the clock that the series span several times."""
    if not clock.dated or clock.unit not in (*SECONDS, "months"):
        return [()]
    if clock.unit == "months":
        return [(), (12.0,)] if span > SEEN * 12 else [()]
    day = 86400 / SECONDS[clock.unit]
    usual = [p for p in (day, 365.2425 * day) if span > SEEN * p and (clock.step or 0) < p / 2]
    if clock.step is None and clock.unit == "days":
        usual = [p for p in usual if p > day]
    found: list[tuple[float, ...]] = [()]
    return found + [tuple(usual[:k]) for k in range(1, len(usual) + 1)]


def _span(codec: SeriesCodec, item: Item) -> float:
    t = codec.clock.numbers(item.time)
    return float(t[-1] - t[0]) if len(t) > 1 else 0.0


def _all_known(codec: SeriesCodec, item: Item) -> Coded:
    """A panel of the values alone, whatever the clock and the window."""
    seen = np.isfinite(item.values)
    return codec.coded(item, seen, seen, scattered=True)
