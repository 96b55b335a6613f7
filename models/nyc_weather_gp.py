"""Gaps of hourly weather: a Gaussian law, fitted by the score of what is hidden.

Draws p(what given what)
    p(values at any hour | all values that are known), for the variables of one item.
Process and noise
    None: a season, weather of some days and of some hours, a daily cycle that slowly changes and a
    white rest, all livelier in one half of the year. Variables share each part as far as the data
    say. Draws are exact.
Backbone
    None.
Trained on
    Blocks of six hours to a month, hidden in the training split of `datasets/nyc_weather.py`: the
    CRPS of every hidden hour. The likelihood would widen the spread to pay for passing fronts.
Scores
    `python benchmarks/series.py gaps`, beside lines and state-space models.
Do not use for
    Rain, wind and cloud, which are far from Gaussian; more than a month at once.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import xarray as xr

import sciddm
from sciddm.data import items as series
from sciddm.data.clock import Clock
from sciddm.data.items import Items
from sciddm.data.series import Coded, SeriesCodec, stacked
from sciddm.series.fitting import fitted
from sciddm.series.gp import GaussianSeries
from sciddm.series.hidden import Hidden
from sciddm.series.kernel import (
    Matern32,
    Mixed,
    OrnsteinUhlenbeck,
    Product,
    Season,
    Shape,
    SquaredExponential,
    Term,
)
from sciddm.series.panel import Panel
from sciddm.series.swelling import Swelling
from sciddm.task import Lead, Task, View

WINDOW = 40 * 24
"""Hours that are drawn at a time: a month, and five days on either side."""
EDGE = 3 * 24
"""Hours on either side of a block of the fit."""
SCORED = 60
"""Most hours of a block that the fit scores."""
YEAR = 365.2425
"""Days."""


def build(
    ds: xr.Dataset, *, variables: tuple[str, ...] = ("temp",), steps: int = 60
) -> sciddm.Model:
    """The law of some ``variables``, one for all items."""
    return fit(series.of(ds, target=variables).split("train"), steps=steps)


def fit(
    train: Items, *, steps: int = 60, batch: int = 2, longest: int = 30 * 24, seed: int = 0
) -> sciddm.Model:
    """The law of items of hourly values, by hidden blocks of up to ``longest`` hours."""
    clock = Clock.of(train, "days", regular=True)
    codec = SeriesCodec.fit(train, clock, window=WINDOW)
    coldest = float(clock.numbers(np.array(["2013-01-20"], "M8[ns]"))[0])
    still = torch.zeros(codec.channels, dtype=torch.float64)
    first = Swelling(start(codec.channels), still, YEAR, coldest)
    hidden, signed = blocks(codec, train, batch, longest, seed), ("loads", "offset", "swell")
    law = fitted(first, hidden, steps=steps, rate=0.1, signed=signed, loss=Hidden(first))
    task = Task(View(codec.names), sample="item", lead=Lead(clock.step or 1.0, clock.unit))
    return sciddm.Model(task, codec, GaussianSeries(law))


def start(channels: int) -> Mixed:
    """Where the fit begins: variances of each part, and how much of it the variables share."""

    def term(shape: Shape, variance: float, shared: float) -> Term:
        loads = torch.full((channels, 1), (variance * shared) ** 0.5, dtype=torch.float64)
        own = torch.full((channels,), variance * (1 - shared), dtype=torch.float64)
        return Term(shape, loads, own)

    return Mixed(
        (
            term(SquaredExponential(40.0), 0.5, 0.99),
            term(OrnsteinUhlenbeck(4.0), 0.2, 0.96),
            term(Matern32(0.6), 0.05, 0.9),
            term(Product((Season(1.0, 1.8), OrnsteinUhlenbeck(12.0))), 0.1, 0.95),
        ),
        torch.full((channels,), 0.002, dtype=torch.float64),
        torch.zeros(channels, dtype=torch.float64),
    )


def blocks(
    codec: SeriesCodec, train: Items, batch: int, longest: int, seed: int
) -> Callable[[int], Panel]:
    """Panels by step. In each row a block of one variable is hidden, in half of them with the
    same hours of all others, which are left out; five days at most where the others are known. Of a
    long block some hours are scored, evenly spread."""
    every = codec.conform(train).items

    def panel(step: int) -> Panel:
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, step, 29])))
        rows: list[Coded] = []
        while len(rows) < batch:
            item = every[int(rng.integers(len(every)))]
            channel, alone = int(rng.integers(codec.channels)), bool(rng.random() < 0.5)
            most = min(longest, 120) if alone else longest
            length = int(np.exp(rng.uniform(np.log(6), np.log(most))))
            first = int(rng.integers(1, len(item) - length))
            part = item.rows(slice(max(0, first - EDGE), first + length + EDGE))
            at = np.arange(len(part)) + max(0, first - EDGE) - first
            gap = (at >= 0) & (at < length)
            apart = -(-length // SCORED)
            seen = np.isfinite(part.values)
            hidden, covered = np.zeros_like(seen), np.zeros_like(seen)
            covered[gap, channel if alone else slice(None)] = True
            hidden[gap & ((at - rng.integers(apart)) % apart == 0), channel] = True
            known, hidden = seen & ~covered, seen & hidden
            if hidden.any() and known[:, channel].any():
                rows.append(codec.coded(part, known, known | hidden, scattered=True))
        return stacked(rows)

    return panel
