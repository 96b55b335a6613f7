"""Series without a level to return to: a random walk whose steps are as large as its last ones.

Draws p(what given what)
    p(later values | earlier ones), and of gaps between known values, several variables together.
Process and noise
    None: a Gaussian random walk in time (of logarithms, where asked for). Steps of the variables
    are correlated as in training; how large they are says the mean absolute step of the last ones,
    which one jump moves less than their variance. Draws are exact.
Backbone
    None. A network was not given: there is nothing in past rates that it could learn honestly.
Trained on
    Any regular series that wander: `datasets/lorenz63_series.py` for its test (they do not),
    `datasets/exchange_rate.py` with configs/exchange_rate.toml.
Scores
    `python benchmarks/series.py exchange`: on exchange rates nobody beats the bootstrap of the last
    60 steps honestly; this does no harm beside it.
Do not use for
    Series that return to a mean or have seasons: the spread of a walk grows without end.
"""

from __future__ import annotations

import torch
import xarray as xr

import sciddm
from sciddm.data import items
from sciddm.data.clock import Clock
from sciddm.data.joined import joined
from sciddm.data.measure import Log
from sciddm.data.series import SeriesCodec
from sciddm.errors import InputError
from sciddm.series.gp import GaussianSeries
from sciddm.series.kernel import Mixed, Term, Wiener
from sciddm.series.lagged import Seasonal
from sciddm.task import Lead, Task, View

BEFORE = 1e4
"""Steps before the first training row at which the walk begins: its level is free."""


def build(
    ds: xr.Dataset,
    *,
    variables: tuple[str, ...] = (),
    logs: tuple[str, ...] = (),
    unit: str = "",
    window: int = 91,
    recent: int = 60,
    prior: float = 1.0,
) -> sciddm.Model:
    """The walk of the training rows of ``ds``, of ``window`` rows at a time.

    The last ``recent`` steps say how large they are, beside ``prior`` steps of the usual size.
    """
    train = items.of(ds, target=variables).split("train")
    clock = Clock.of(train, unit, regular=True)
    codec = SeriesCodec.fit(
        train, clock, window=window,
        warps=tuple(Log() if n in logs else None for n in train.variables) if logs else (),
    )  # fmt: skip
    assert clock.step is not None
    steps = torch.from_numpy(joined(train, codec, apart=1)).diff(dim=0)
    steps = steps[torch.isfinite(steps).all(1)]
    if len(steps) < 2 * codec.channels:
        raise InputError(f"Got {len(steps)} whole steps; expected more, to see how they differ.")
    between = steps.T @ steps / len(steps) / clock.step
    between = between + 1e-9 * between.diagonal().mean() * torch.eye(codec.channels)
    loads = torch.linalg.cholesky(between)
    none = torch.zeros(codec.channels, dtype=torch.float64)
    walk = Mixed((Term(Wiener(-BEFORE * clock.step), loads, none),), none)
    still = torch.zeros(1, codec.channels)
    law = Seasonal(walk, still, still + 1, clock.step, recent * clock.step, prior)
    lead = Lead(clock.step, clock.unit) if clock.dated else None
    task = Task(View(codec.names), sample="item", lead=lead)
    return sciddm.Model(task, codec, GaussianSeries(law))
