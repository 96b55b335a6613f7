"""Series by their Gaussian law alone: exact draws of gaps, of times to come, and of new series.

Draws p(what given what)
    p(values at any times | values at other times, with their errors), for one item at a time.
Process and noise
    None: the law is a Gaussian process in physical time, a slow and a fast part, seasons where the
    data have them, and a rest that is white, all by maximum likelihood on windows of the training
    items. Variables share patterns (linear model of coregionalisation). Draws are exact.
Backbone
    None.
Trained on
    Any data set of series; `datasets/ou.py` for its test.
Scores
    That of kriging: it is the row that every learned model of series is held to.
Do not use for
    Laws that are not Gaussian after a logarithm; more than about 2000 values at a time, which cost
    their cube (longer series are drawn window by window).
"""

from __future__ import annotations

import xarray as xr

import sciddm
from sciddm import series_law
from sciddm.data import items
from sciddm.data.clock import Clock
from sciddm.data.measure import Centred, Log, Scale
from sciddm.data.series import SeriesCodec


def build(
    ds: xr.Dataset,
    *,
    variables: tuple[str, ...] = (),
    logs: tuple[str, ...] = (),
    regular: bool = False,
    unit: str = "",
    window: int = 0,
    centred: bool = False,
    seasons: bool = True,
    periods: tuple[float, ...] = (),
    rank: int = 1,
    cells: int = 160,
    batch: int = 12,
    steps: int = 200,
) -> sciddm.Model:
    """The likeliest law of the training items.

    ``regular`` takes the steps of the data for granted and draws rows that are missing; ``unit`` is
    that of dates (default by their spacing). ``window`` rows are drawn at a time (0: what about
    2000 values allow), each ``centred`` and scaled by what is known of it. ``periods`` of seasons,
    in that unit, else day and year are tried on the validation items, or none without ``seasons``.
    """
    every = items.of(ds, target=variables)
    train, held = every.split("train"), every.split("validation")
    clock = Clock.of(train, unit, regular=regular)
    item: Scale | None = Centred() if centred else None
    codec = SeriesCodec.fit(
        train, clock, window=window or None, item=item,
        warps=tuple(Log() if n in logs else None for n in train.variables) if logs else (),
    )  # fmt: skip
    chosen = tuple(periods) if periods or not seasons else None
    return series_law.model(
        train, clock, codec, periods=chosen, held=held, rank=rank, cells=cells, batch=batch,
        steps=steps,
    )  # fmt: skip
