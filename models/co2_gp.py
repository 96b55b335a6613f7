"""Gaps of a long record with a trend and a season: a Gaussian law by maximum likelihood.

Draws p(what given what)
    p(values at any times | all values that are known), one variable.
Process and noise
    None: a trend of decades, changes over a year, a yearly cycle whose shape slowly changes,
    weather of some weeks and a white rest, in units of a year. Draws are exact.
Backbone
    None.
Trained on
    Windows of the training split of `datasets/co2.py`, all values: the exact density of each.
Scores
    `python benchmarks/series.py gaps`, beside lines, seasons and state-space models.
Do not use for
    Gaps of more than a year, or records whose season is not that of the calendar.
"""

from __future__ import annotations

import torch
import xarray as xr

import sciddm
from sciddm.data import items as series
from sciddm.data.clock import Clock
from sciddm.data.items import Items
from sciddm.data.series import SeriesCodec
from sciddm.series.fitting import fitted
from sciddm.series.gp import GaussianSeries
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
from sciddm.series_law import parts, windowed
from sciddm.task import Lead, Task, View

YEAR = 365.2425
"""Days."""


def build(ds: xr.Dataset, *, variable: str = "co2", steps: int = 60) -> sciddm.Model:
    """The likeliest law of the training split of ``ds``."""
    return fit(series.of(ds, target=(variable,)).split("train"), steps=steps)


def fit(train: Items, *, steps: int = 60, cells: int = 200, window: int = 320) -> sciddm.Model:
    """The likeliest law of items of one variable, by windows of ``cells`` values."""
    clock = Clock.of(train, "days", regular=True)
    codec = SeriesCodec.fit(train, clock, window=window)
    law = fitted(start(), parts(windowed(codec, train, cells), 8), steps=steps, rate=0.1)
    task = Task(View(codec.names), sample="item", lead=Lead(clock.step or 1.0, clock.unit))
    return sciddm.Model(task, codec, GaussianSeries(law))


def start() -> Mixed:
    """Where the fit begins: lengths in days, variances in units of the record's."""

    def term(shape: Shape, variance: float) -> Term:
        own = torch.tensor([variance], dtype=torch.float64)
        return Term(shape, torch.zeros(1, 0, dtype=torch.float64), own)

    return Mixed(
        (
            term(SquaredExponential(20 * YEAR), 4.0),
            term(Matern32(1.5 * YEAR), 0.01),
            term(Product((Season(YEAR, 1.0), SquaredExponential(20 * YEAR))), 0.1),
            term(OrnsteinUhlenbeck(36.0), 0.002),
        ),
        torch.tensor([0.0005], dtype=torch.float64),
        torch.zeros(1, dtype=torch.float64),
    )
