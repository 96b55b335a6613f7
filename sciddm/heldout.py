"""Values of series that are hidden, drawn, and held to what they were: what pipelines score."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np
import xarray as xr

from sciddm import score
from sciddm.completion import Completion, Progress, longest
from sciddm.data.items import Draws, Item, Items
from sciddm.data.masks import Mask
from sciddm.data.panels import Panels
from sciddm.errors import InputError
from sciddm.model import Model
from sciddm.series.base import SeriesSampler
from sciddm.series.baselines import Floor, Held, Level, Line, pooled
from sciddm.series.panel import Panel
from sciddm.series.points import Point

SAID = ("crps_pooled", "wql_9_pooled", "mae_median_pooled", "coverage_pooled")
BATCHES = 8
"""Panels of 16 windows that residuals of the floors are taken from."""


def hide(items: Items, mask: Mask, seed: int = 0) -> tuple[Items, tuple[np.ndarray, ...]]:
    """Items without what ``mask`` hides of them, and which values those are, (n, C) bool each.

    Raises `InputError` where nothing would be hidden.
    """
    found, where = [], []
    for k, item in enumerate(items):
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, k, 29])))
        gone = mask(len(item), len(items.variables), rng) & np.isfinite(item.values)
        found.append(replace(item, values=np.where(gone, np.nan, item.values)))
        where.append(gone)
    if not any(gone.any() for gone in where):
        raise InputError("Nothing of these items is hidden; expected a larger share, or values.")
    return items.only(found), tuple(where)


def last_rows(items: Items, steps: int, starts: int) -> Items:
    """Items as they were at ``starts`` starts, ``steps`` rows apart, each with the rows to come:
    one item a start, ``name`` or ``name, -24`` for the one 24 rows before.

    Raises `InputError` where no item has a row before its first start.
    """
    found: list[Item] = []
    for item in items:
        for k in reversed(range(starts)):
            stop = len(item) - k * steps
            if stop > steps and np.isfinite(item.values[: stop - steps]).any():
                name = item.name if k == 0 else f"{item.name}, -{k * steps}"
                found.append(replace(item.rows(slice(0, stop)), name=name))
    if not found:
        raise InputError(
            f"No item has known rows before {starts} times {steps} rows at its end; expected longer"
            " series: ask fewer steps or starts."
        )
    return items.only(found)


def drawn(
    model: Model,
    items: Items,
    hidden: tuple[np.ndarray, ...],
    *,
    members: int,
    seed: int,
    progress: Progress = lambda done, total: None,
) -> Draws:
    """The hidden values of items that are in the model's order (`SeriesCodec.conform`)."""
    return Completion(model, items, hidden, members, seed).draw(progress)


def cut(
    items: Items, hidden: tuple[np.ndarray, ...], rows: int
) -> tuple[Items, tuple[np.ndarray, ...]]:
    """The last ``rows`` rows of each item, and of what is hidden of it."""
    return (
        items.only([i.rows(slice(max(0, len(i) - rows), None)) for i in items]),
        tuple(h[max(0, len(h) - rows) :] for h in hidden),
    )


def table(draws: Draws, truth: Items, hidden: tuple[np.ndarray, ...]) -> dict[str, xr.Dataset]:
    """Scores of each variable at the hidden values, item by item and pooled; see
    `score.by_item`."""
    out = {}
    most = max(int(h.sum(0).max()) for h in hidden)
    for c, name in enumerate(draws.items.variables):
        ens = np.full((draws.members, len(hidden), most), np.nan)
        true = np.full((len(hidden), most), np.nan)
        for k, (values, item, gone) in enumerate(zip(draws.values, truth, hidden, strict=True)):
            rows = np.flatnonzero(gone[:, c])
            ens[:, k, : len(rows)] = values[:, rows, c]
            true[k, : len(rows)] = item.values[rows, c]
        if not np.isfinite(true).any():
            continue
        coords = {"item": list(draws.items.names)}
        out[name] = score.by_item(
            xr.DataArray(ens, coords, ("member", "item", "cell"), name=name),
            xr.DataArray(true, coords, ("item", "cell"), name=name),
            channel=None,
        )
    return out


def floors(model: Model, train: Items | None, mask: Mask, *, ahead: bool) -> dict[str, Model]:
    """The simplest models of the same series: the line between neighbours, or the last value, and
    the training marginal, each with the residuals that it left in training."""
    if train is None:
        return {}
    codec = model.cells
    panels = Panels(train, replace(codec, masks=mask, window=longest(codec)), batch=16)
    some = [panels.at(step) for step in range(BATCHES)]
    season = codec.periods[0] if codec.periods and codec.clock.step is not None else None
    points: dict[str, Point] = {"last value": Held()} if ahead else {"linear interpolation": Line()}
    if season is not None and ahead:
        points["seasonal naive"] = Held(season)
    found: dict[str, SeriesSampler] = {
        name: Floor(point, pooled(point, _panels(some))) for name, point in points.items()
    }
    found["training marginal"] = Floor(Level(), pooled(Level(), _panels(some)))
    return {name: replace(model, sampler=sampler) for name, sampler in found.items()}


def plain(tables: Mapping[str, xr.Dataset]) -> dict[str, dict[str, object]]:
    """Scores of each variable as numbers and lists."""
    return {
        name: {str(k): np.round(v.values.astype(float), 6).tolist() for k, v in t.items()}
        for name, t in tables.items()
    }


def _panels(some: list[Panel]) -> Iterable[Panel]:
    yield from some
