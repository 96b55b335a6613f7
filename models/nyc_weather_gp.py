"""Gaps of hourly weather: a Gaussian law, fitted by the score of what is hidden.

Draws p(what given what)
    p(values at any hour | all values that are known) of one variable, at one station or at several
    neighbours together.
Process and noise
    None: a season, weather of some days and of some hours, a daily cycle that slowly changes and a
    white rest, all livelier in one half of the year. Stations are alike and share a part of each.
    Draws are exact.
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
from dataclasses import replace
from functools import partial

import numpy as np
import torch
import xarray as xr

import sciddm
from sciddm.data import items as series
from sciddm.data.clock import Clock
from sciddm.data.items import Items
from sciddm.data.series import Coded, SeriesCodec, stacked
from sciddm.series import kernel
from sciddm.series.fitting import Parameters, maximum_likelihood
from sciddm.series.gp import GaussianSeries
from sciddm.series.hidden import Hidden, widening
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
TRIALS = 20
"""Panels of four blocks that say how wide the law is."""
START = {
    "length": (45.0, 4.5, 0.7, 12.0),
    "variance": (0.5, 0.25, 0.03, 0.15),
    "own": (0.001, 0.02, 0.3, 0.03),
}
"""Of season, days, hours and daily cycle: days, and the share that a station has to itself."""


def build(ds: xr.Dataset, *, variable: str = "temp", steps: int = 40) -> sciddm.Model:
    """The law of one ``variable``, one for all items."""
    return fit(series.of(ds, target=(variable,)).split("train"), steps=steps)


def fit(
    train: Items, *, steps: int = 40, batch: int = 3, longest: int = 30 * 24, seed: int = 0
) -> sciddm.Model:
    """The law of items whose columns are alike, by hidden blocks of up to ``longest`` hours."""
    clock = Clock.of(train, "days", regular=True)
    codec = SeriesCodec.fit(train, clock, window=WINDOW)
    coldest = float(clock.numbers(np.array(["2013-01-20"], "M8[ns]"))[0])
    start = {name: torch.tensor(value).double().log() for name, value in START.items()}
    # white rest, roughness of the day and swell
    start |= {k: torch.tensor(v) for k, v in (("rest", -6.0), ("rough", 0.53), ("swell", 0.0))}
    made = partial(law, codec.channels, coldest)
    hidden = blocks(codec, train, batch, longest, seed, 0.5)
    loss = Hidden(made(start))
    fitted = maximum_likelihood(made, start, hidden, steps=steps, rate=0.06, loss=loss)
    assert isinstance(fitted, Swelling)
    found = stretched(fitted, codec, train, longest, seed)
    task = Task(View(codec.names), sample="item", lead=Lead(clock.step or 1.0, clock.unit))
    return sciddm.Model(task, codec, GaussianSeries(found))


def stretched(law: Swelling, codec: SeriesCodec, train: Items, longest: int, seed: int) -> Swelling:
    """As wide as the misses on more blocks of the training split: what all stations share where
    all are hidden, what each has to itself where the others are known."""
    for alone in (0.0, 1.0) if codec.channels > 1 else (0.0,):
        panel = blocks(codec, train, 4, longest, seed + 1, alone)
        size = widening(law, map(panel, range(TRIALS)))
        assert isinstance(law.inner, kernel.Mixed)
        wide = 1.0 if alone else size
        terms = tuple(
            replace(t, own=t.own * size**2, loads=t.loads * wide) for t in law.inner.terms
        )
        law = replace(law, inner=replace(law.inner, terms=terms, rest=law.inner.rest * size**2))
    return law


def law(channels: int, coldest: float, free: Parameters) -> Swelling:
    """The law of channels that are alike."""
    length, variance, own = (free[name].exp() for name in START)
    one = torch.ones(channels, dtype=torch.float64)
    day = kernel.Season(1.0, free["rough"].exp())
    shapes: tuple[kernel.Shape, ...] = (
        kernel.SquaredExponential(length[0]), kernel.OrnsteinUhlenbeck(length[1]),
        kernel.Matern32(length[2]), kernel.Product((day, kernel.OrnsteinUhlenbeck(length[3]))),
    )  # fmt: skip
    terms = tuple(
        kernel.Term(shape, (v * (1 - o).clamp_min(0)).sqrt() * one[:, None], v * o * one)
        for shape, v, o in zip(shapes, variance, own, strict=True)
    )
    mixed = kernel.Mixed(terms, free["rest"].double().exp() * one)
    return Swelling(mixed, free["swell"].double() * one, YEAR, coldest)


def blocks(
    codec: SeriesCodec, train: Items, batch: int, longest: int, seed: int, alone: float
) -> Callable[[int], Panel]:
    """Panels by step. In each row a block of one station is hidden, with it the same hours of all
    others, which are left out, but in a share ``alone`` of the rows. Of a long block some hours are
    scored, evenly spread, and the others' values known six hours about each."""
    every = codec.conform(train).items

    def panel(step: int) -> Panel:
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, step, 29])))
        rows: list[Coded] = []
        while len(rows) < batch:
            item = every[int(rng.integers(len(every)))]
            channel, lonely = int(rng.integers(codec.channels)), bool(rng.random() < alone)
            length = int(np.exp(rng.uniform(np.log(6), np.log(longest))))
            first = int(rng.integers(1, len(item) - length))
            part = item.rows(slice(max(0, first - EDGE), first + length + EDGE))
            at = np.arange(len(part)) + max(0, first - EDGE) - first
            gap = (at >= 0) & (at < length)
            apart = -(-length // (SCORED // 4 if lonely else SCORED))
            scored = gap & ((at - rng.integers(apart)) % apart == 0)
            near = np.convolve(scored, np.ones(13), "same") > 0
            seen = np.isfinite(part.values)
            hidden, covered = np.zeros((2, *seen.shape), bool)
            hidden[scored, channel] = covered[gap, channel] = True
            covered[gap & ~(near & lonely)] = True
            known, hidden = seen & ~covered, seen & hidden
            if hidden.any() and known[:, channel].any():
                rows.append(codec.coded(part, known, known | hidden, scattered=True))
        return stacked(rows)

    return panel
