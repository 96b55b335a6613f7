"""Regular series in windows: the law of the record, and what a network adds to it.

Draws p(what given what)
    p(the next rows | the rows before them), or p(hidden values | the others), all variables.
Process and noise
    Innovations of the law's posterior, in its own covariance, on the circle; an untrained network
    is the law. The law: autocovariances at all lags between all variables as the record tells them,
    the mean and the size of each phase of a period, and the size of a window's own last changes.
Backbone
    A transformer over the steps (`sciddm.nn.StepTransformer`); none with `width = 0`.
Trained on
    Windows of the training rows of any regular series: `datasets/lorenz63_series.py` for its test,
    `datasets/etth1.py` with configs/etth1_forecast.toml and configs/etth1_impute.toml.
Scores
    `python benchmarks/series.py etth1`: beside seasonal naive forecasts, lines and the law alone.
Do not use for
    Irregular times; windows of more than about 1500 values, whose law costs their cube.
"""

from __future__ import annotations

import torch
import xarray as xr

import sciddm
from sciddm.data import items
from sciddm.data.clock import Clock
from sciddm.data.joined import joined
from sciddm.data.masks import Ahead, Mask, Share
from sciddm.data.measure import Log
from sciddm.data.series import SeriesCodec
from sciddm.nn import StepTransformer
from sciddm.series.base import SeriesSampler
from sciddm.series.conditional import Conditional
from sciddm.series.gp import GaussianSeries
from sciddm.series.lagged import measured
from sciddm.task import Lead, Task, View


def build(
    ds: xr.Dataset,
    *,
    variables: tuple[str, ...] = (),
    logs: tuple[str, ...] = (),
    unit: str = "",
    window: int = 96,
    horizon: int = 12,
    hidden: tuple[float, float] = (0.05, 0.6),
    phases: int = 24,
    support: int = 700,
    together: float = 0.5,
    level: float = 0.3,
    rest: float = 1e-3,
    slow: int = 0,
    recent: float = 0.0,
    prior: float = 4.0,
    width: int = 32,
    heads: int = 4,
    readers: int = 2,
    writers: int = 2,
    apart: bool = False,
    patch: int = 1,
    periods: tuple[float, ...] = (),
    steps: int = 12,
    copies: int = 4,
    seed: int = 0,
) -> sciddm.Model:
    """An untrained model of the training rows of ``ds``, or with ``width = 0`` their law alone.

    ``window`` rows at a time, of which the last ``horizon`` are hidden in training; with horizon 0
    a share of all values within ``hidden``. ``phases`` rows make a period; ``support``,
    ``together``, ``level``, ``rest``, ``slow`` (0 for none), ``recent`` and ``prior`` are those of
    `sciddm.series.lagged.measured`. ``periods`` in units of time are told to the network, which
    reads the variables ``apart`` or together, ``patch`` rows at a time.
    """
    train = items.of(ds, target=variables).split("train")
    clock = Clock.of(train, unit, regular=True)
    mask: Mask = Ahead(horizon) if horizon else Share(*hidden)
    codec = SeriesCodec.fit(
        train, clock, window=window, masks=mask,
        warps=tuple(Log() if n in logs else None for n in train.variables) if logs else (),
    )  # fmt: skip
    assert clock.step is not None
    law = measured(
        torch.from_numpy(joined(train, codec, phases, window)), phases=phases, step=clock.step,
        lags=window, support=support, together=together, level=level, rest=rest,
        slow=slow or None, recent=recent, prior=prior,
    )  # fmt: skip
    lead = Lead(clock.step, clock.unit) if clock.dated else None
    task = Task(View(codec.names), sample="item", lead=lead)
    sampler: SeriesSampler = GaussianSeries(law)
    if width:
        torch.manual_seed(seed)
        net = StepTransformer(
            codec.channels, clock.step, window * clock.step, width, heads, readers, writers, apart,
            patch, periods,
        )  # fmt: skip
        sampler = Conditional(net, law, codec.channels, steps=steps, copies=copies)
    return sciddm.Model(task, codec, sampler)
