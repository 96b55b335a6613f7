"""Series of any kind, conditional: kriging with a fitted law, and a network for what it leaves out.

Draws p(what given what)
    p(values at any times | values at other times, with their errors), for one item at a time: gaps,
    times to come, new series.
Process and noise
    The innovation of the wanted values about the posterior mean of a Gaussian process in physical
    time, diffused with noise of the posterior's own covariance. The law is a sum of
    Ornstein-Uhlenbeck parts that share patterns between the variables and a white rest, all by
    maximum likelihood on the training items. Untrained the model is that law, exactly.
Backbone
    `SetTransformer`: reads the known values as a set of (time, variable, value), once an item;
    12 evaluations a draw for the wanted values alone.
Trained on
    Any data set of series, such as `datasets/ou.py`; `datasets/physionet2012.py` for the shipped
    one. What is hidden in training is a random share (`hidden`), or the last rows (`horizon`).
Scores
    See models/physionet2012_conditional/card.md and `python benchmarks/series.py`.
Do not use for
    More than about 1000 values at a time: the law costs their cube. Decisions about patients.
"""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr

import sciddm
from sciddm.data import items
from sciddm.data.clock import Clock
from sciddm.data.masks import Ahead, Mask, Share
from sciddm.data.measure import Centred, Log, NormalScore, Scale, Warp
from sciddm.data.panels import Panels
from sciddm.data.series import SeriesCodec
from sciddm.nn import SetTransformer
from sciddm.series.conditional import Conditional
from sciddm.series.fitting import fitted, guess, median_gap
from sciddm.series.kernel import OrnsteinUhlenbeck
from sciddm.task import Lead, Task, View


def build(
    ds: xr.Dataset,
    *,
    variables: tuple[str, ...] = (),
    logs: tuple[str, ...] = (),
    ranks: bool = False,
    regular: bool = False,
    unit: str = "",
    window: int = 0,
    centred: bool = False,
    hidden: tuple[float, float] = (0.05, 0.5),
    horizon: int = 0,
    lengths: tuple[float, ...] = (),
    patterns: int = 1,
    fit_steps: int = 120,
    fit_batch: int = 8,
    fit_rate: float = 0.1,
    periods: tuple[float, ...] = (),
    width: int = 32,
    heads: int = 4,
    readers: int = 2,
    writers: int = 2,
    floor: float = 1e-3,
    steps: int = 12,
    copies: int = 4,
) -> sciddm.Model:
    """The likeliest law of the training items, with a network that is silent until trained.

    ``logs`` are variables to take logarithms of; with ``ranks`` all are given the normal quantiles
    of their ranks. ``regular`` takes the steps of the data for granted; ``unit`` is that of dates.
    ``window`` rows are drawn at a time (0: whole items), each ``centred`` and scaled by what is
    known of it. ``lengths`` of the parts of the law in time, where the fit starts (default two, by
    the gaps and the span of the data), share ``patterns`` between the variables each. ``periods``
    are told to the network.
    """
    every = items.of(ds, target=variables)
    train = every.split("train")
    clock = Clock.of(train, unit, regular=regular)
    masks: Mask = Ahead(horizon) if horizon else Share(*hidden)
    item: Scale | None = Centred() if centred else None
    codec = SeriesCodec.fit(
        train, clock, window=window or None, item=item, warps=warps(train, logs, ranks),
        masks=masks, periods=periods,
    )  # fmt: skip
    panels = Panels(train, codec, batch=fit_batch, seed=1)
    sample = panels.spread(64)
    span = float(torch.where(sample.real, sample.time, -torch.inf).amax(1).max()
                 - torch.where(sample.real, sample.time, torch.inf).amin(1).min())  # fmt: skip
    gap = median_gap(sample)
    shapes = [OrnsteinUhlenbeck(x) for x in lengths or (3 * gap, max(span / 5, 10 * gap))]
    rank = min(patterns, codec.channels - 1)
    start = guess(sample, codec.channels, shapes, rank=rank, centred=True)
    law = fitted(start, panels.at, steps=fit_steps, rate=fit_rate)
    net = SetTransformer(
        codec.channels, min(gap, span / 20), span, width, heads, readers, writers,
        covariates=codec.told, static=len(codec.static),
    )  # fmt: skip
    sampler = Conditional(net, law, codec.channels, floor=floor, steps=steps, copies=copies)
    lead = None if clock.step is None or not clock.dated else Lead(clock.step, clock.unit)
    return sciddm.Model(Task(View(codec.names), sample="item", lead=lead), codec, sampler)


def warps(train: items.Items, logs: tuple[str, ...], ranks: bool) -> tuple[Warp | None, ...]:
    """The transform of each variable, or none at all."""
    if ranks:
        columns = np.concatenate([i.values for i in train]).T
        return tuple(NormalScore.fit(column) for column in columns)
    return tuple(Log() if n in logs else None for n in train.variables) if logs else ()
