"""What a user asks of a model of series: gaps filled, times to come, new series.

Series come as a long or wide pandas frame, a CSV file, an xarray Dataset, or `Items` read by
`sciddm.data.items.of`, and go back in that form: every member, or the mean, median and bounds of
intervals.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from sciddm import ensemble
from sciddm.completion import Completion, Progress, Std, extended, longest
from sciddm.data.checks import warn
from sciddm.data.items import Draws, Item, Items, of, said
from sciddm.data.ragged import Labelled
from sciddm.ensemble import Job
from sciddm.errors import InputError
from sciddm.model import Model
from sciddm.random import SCHEME
from sciddm.series.base import SeriesLearner
from sciddm.task import Observed

SMALL = 0.01
"""Error of the known values of a field, in their own s.d., where none is given."""
STEPS = 12
"""Rows of a forecast where neither the user nor the model nor the series says how many."""


def quiet(done: int, total: int) -> None:
    """No progress line."""


def imputed(
    model: Model,
    gappy: Any,  # noqa: ANN401 (a frame, a Dataset, a path, or Items)
    *,
    members: int = 64,
    seed: int = 0,
    std: Std | None = None,
    at: Any = None,  # noqa: ANN401 (times in any form)
    progress: Progress = quiet,
) -> Draws:
    """Draws of every missing value of ``gappy``; see `sciddm.impute`."""
    items = of(gappy)
    if at is not None:
        items = extended(items, times(at, items.dated))
    return Completion(model, items, None, members, seed, std).draw(progress)


def forecast(
    model: Model,
    past: Any,  # noqa: ANN401
    *,
    steps: int | None = None,
    members: int = 64,
    seed: int = 0,
    start: Any = None,  # noqa: ANN401
    at: Any = None,  # noqa: ANN401
    levels: Sequence[float] = (),
    progress: Progress = quiet,
) -> Any:  # noqa: ANN401 (in the form of ``past``)
    """What follows the series of ``past``, in their form; see `sciddm.forecast`.

    Of a Dataset whose series end together: dims (`member`, item, `lead_time`), with `init_time` and
    `valid_time`; a list of ``start`` makes `init_time` a dim, of a frame a column.
    """
    items = of(past)
    several = isinstance(start, list | tuple | np.ndarray | pd.Index | xr.DataArray)
    found = []
    for one in list(start) if several else [start]:
        draws, last = ahead(
            model, items, steps=steps, members=members, seed=seed, start=one, at=at,
            progress=progress,
        )  # fmt: skip
        made = draws.back(levels)
        if isinstance(made, xr.Dataset) and last is not None and not levels:
            made = _leads(made, items, last)
        elif several:
            made = made.assign(init_time=one)
        found.append(made)
    if not several:
        return found[0]
    if not found:
        raise InputError("Got an empty list of starts; expected at least one.")
    if isinstance(found[0], xr.Dataset):
        return xr.concat(
            found, "init_time", combine_attrs="override", coords="different", compat="equals"
        )
    return pd.concat(found, ignore_index=True)


def ahead(
    model: Model,
    items: Items,
    *,
    steps: int | None,
    members: int,
    seed: int,
    start: Any = None,  # noqa: ANN401
    at: Any = None,  # noqa: ANN401
    progress: Progress = quiet,
) -> tuple[Draws, Any]:
    """Draws of the rows that follow each item, and the last known time where all share it."""
    codec = model.cells
    ready = codec.conform(items)
    asked = [_begun(model, i, steps, start, at, ready.dated) for i in ready]
    kept = [(item, count) for item, count in asked if item is not None]
    lost = [i.name for i, (item, _) in zip(ready, asked, strict=True) if item is None]
    if not kept:
        raise InputError(
            f"None of {len(ready)} items has a value before the start of the forecast; expected "
            "known values to forecast from."
        )
    if lost:
        names = ", ".join(map(repr, lost[:5])) + (", .." if len(lost) > 5 else "")
        warn(f"{len(lost)} of {len(ready)} items have no value to forecast from and are skipped: "
             f"{names}.")  # fmt: skip
    whole = ready.only([item for item, _ in kept])
    most = _most(model)
    drawn = [max(count, most) for _, count in kept]
    wanted = tuple(
        np.broadcast_to((np.arange(len(i)) >= len(i) - d)[:, None], i.values.shape).copy()
        for i, d in zip(whole, drawn, strict=True)
    )
    draws = Completion(model, whole, wanted, members, seed).draw(progress)
    future, values, ends = [], [], set()
    for (item, count), d, x in zip(kept, drawn, draws.values, strict=True):
        rows = slice(len(item) - d, len(item) - d + count)
        future.append(item.rows(rows))
        values.append(x[:, rows])
        ends.add(item.time[len(item) - d - 1])
    out = Draws(ready.only(future), tuple(values), draws.attrs)
    return out, ends.pop() if len(ends) == 1 and codec.clock.step is not None else None


def generated(
    model: Model,
    *,
    members: int = 64,
    seed: int = 0,
    length: int | None = None,
    times_of: Any = None,  # noqa: ANN401
    progress: Progress = quiet,
) -> xr.Dataset:
    """New series, dims (member, time); see `sciddm.generate`."""
    codec = model.cells
    if codec.covariates or codec.static:
        name = (*codec.covariates, *codec.static)[0]
        raise InputError(
            f"The model is told {name!r} beside the series; expected it: use sd.impute with items "
            "that hold it and no values."
        )
    clock = codec.clock
    first = np.datetime64(str(clock.origin), "ns") if clock.dated else float(clock.origin)
    if times_of is not None:
        time = times(times_of, clock.dated)
    elif clock.step is None:
        raise InputError("The model is of irregular times; say which: times=[...].")
    else:
        rows = length or codec.window or 100
        head = Item("series", np.array([first]), np.full((1, codec.channels), np.nan))
        time = np.concatenate([head.time, clock.after(head, rows - 1)]) if rows > 1 else head.time
    item = Item("series", time, np.full((len(time), codec.channels), np.nan))
    units = "" if clock.dated or clock.unit == "1" else clock.unit
    blank = Items(codec.names, (item,), (), (), codec.units, units, form=Labelled(item=""))
    out: xr.Dataset = Completion(model, blank, None, members, seed).draw(progress).back()
    return out.drop_attrs(deep=False).assign_attrs(
        {"Conventions": "CF-1.10", **Completion(model, blank, None, members, seed).attrs}
    )


def of_fields(
    model: Model,
    gappy: xr.Dataset | xr.DataArray,
    *,
    members: int,
    seed: int,
    std: Any = None,  # noqa: ANN401
    progress: Progress = quiet,
) -> xr.Dataset:
    """Members of fields with gaps: `sciddm.recover` from the values that are there.

    std : of `Observed`; None takes a hundredth of the s.d. of the values of each variable.
    """
    if not isinstance(gappy, xr.Dataset | xr.DataArray):
        raise InputError(
            f"Got a {type(gappy).__name__} for a model of fields; expected a Dataset or a DataArray"
            " of fields with NaN where they are missing."
        )
    ds = gappy.to_dataset(name=gappy.name) if isinstance(gappy, xr.DataArray) else gappy
    names = [n for n in map(str, ds.data_vars) if n in model.fields.variables]
    if not names:
        raise InputError(
            f"None of {list(map(str, ds.data_vars))} is a variable of the model; expected some of "
            f"{list(model.fields.variables)}."
        )
    said_std = "as given"
    if std is None:
        std = {n: SMALL * float(ds[n].std()) for n in names}
        said_std = ", ".join(f"{n} {v:.3g}" for n, v in std.items())
    post = ensemble.draw(Job(model, Observed(ds[names], std), members, seed), progress)
    return post.assign_attrs(known_values="within their error", known_std=said_std)


def times(given: Any, dated: bool) -> np.ndarray:  # noqa: ANN401
    """Times in any form as dates without a zone, or numbers, rising."""
    try:
        if not dated:
            return np.unique(np.asarray(given, dtype=np.float64).reshape(-1))
        index = pd.DatetimeIndex(pd.to_datetime(np.asarray(given).reshape(-1)))
        index = index.tz_convert("UTC").tz_localize(None) if index.tz is not None else index
        return np.unique(index.to_numpy().astype("datetime64[ns]"))
    except (ValueError, TypeError):
        want = "dates" if dated else "numbers"
        raise InputError(f"Got the times {given!r}; expected {want}, as the series have.") from None


def _most(model: Model) -> int:
    """Rows that are drawn at least: all that the model was trained on, so that the first rows of a
    forecast do not depend on how many are asked for."""
    codec = model.cells
    most = None if codec.masks is None else codec.masks.ahead
    return most if most and codec.clock.step is not None and not codec.covariates else 0


def _begun(
    model: Model,
    item: Item,
    steps: int | None,
    start: Any,  # noqa: ANN401
    at: Any,  # noqa: ANN401
    dated: bool,
) -> tuple[Item | None, int]:
    """The item up to its start and the wanted rows after it, and how many are asked for."""
    codec = model.cells
    seen = np.isfinite(item.values).any(1)
    if start is not None:
        seen = seen & (item.time <= times(start, dated)[0])
    if not seen.any():
        return None, 0
    last = len(item) - 1 if start is not None else int(np.flatnonzero(seen)[-1])
    if start is not None:
        last = int(np.flatnonzero(item.time <= times(start, dated)[0])[-1])
    past, beyond = item.rows(slice(0, last + 1)), item.time[last + 1 :]
    most = None if codec.masks is None else codec.masks.ahead
    if at is not None:
        later = times(at, dated)
        if not (later > past.time[-1]).all():
            raise InputError(
                f"Item {item.name!r}: got the time {said(later[0])} to forecast, which is not after"
                f" its last value at {said(past.time[-1])}; use sd.impute for times before it."
            )
    elif steps is None and start is None and len(beyond):
        later = beyond
    else:
        later = codec.clock.after(past, steps or most or STEPS)
    count = len(later)
    if at is not None and codec.clock.step is not None:  # every step up to the last one
        later, count = _every(item, past, later, codec.clock.after), 0
        count = len(later)
    if most is not None and count > most:
        raise InputError(
            f"Got {count} rows to forecast of item {item.name!r}; the model was trained on {most}: "
            "ask no more, or take another model."
        )
    if 0 < count < _most(model):
        later = codec.clock.after(past, _most(model))
    room = longest(codec) - len(later)
    if room < 1:
        raise InputError(
            f"Got {count} rows to forecast of item {item.name!r}; the model's windows hold "
            f"{longest(codec)}, one known row among them: ask fewer."
        )
    short = (
        codec.window is not None and len(past) < room and isinstance(model.series, SeriesLearner)
    )
    if short:
        warn(f"Item {item.name!r} has {len(past)} rows of the {room} that the model was trained to "
             "forecast from.")  # fmt: skip
    first = max(0, len(past) - room)
    values = np.full((len(later), item.values.shape[1]), np.nan)
    known = None
    if item.covariates is not None:
        ahead_of = np.full((len(later), item.covariates.shape[1]), np.nan)
        place = np.searchsorted(item.time, later)
        there = (place < len(item)) & (item.time[np.minimum(place, len(item) - 1)] == later)
        ahead_of[there] = item.covariates[place[there]]
        known = np.concatenate([item.covariates[first : last + 1], ahead_of])
    return Item(
        item.name, np.concatenate([past.time[first:], later]),
        np.concatenate([past.values[first:], values]), known, item.static,
    ), count  # fmt: skip


def _every(item: Item, past: Item, later: np.ndarray, after: Any) -> np.ndarray:  # noqa: ANN401
    """Every step from the last known row to the last of ``later``."""
    count = 1
    while after(past, count)[-1] < later[-1]:
        count *= 2
    steps = after(past, count)
    return np.asarray(steps[steps <= later[-1]])


def _leads(made: xr.Dataset, items: Items, last: Any) -> xr.Dataset:  # noqa: ANN401
    """A Dataset of times to come by its leads."""
    time = items.form.time if isinstance(items.form, Labelled) else "time"
    if time not in made.dims:
        return made
    valid = made[time]
    lead = (valid.values - last) if valid.dtype.kind in "Mf" else np.arange(1, valid.size + 1)
    out = made.rename({time: "lead_time"}).assign_coords(
        lead_time=("lead_time", lead, {"standard_name": "forecast_period"}),
        valid_time=("lead_time", valid.values, {**valid.attrs, "standard_name": "time"}),
        init_time=((), last, {"standard_name": "forecast_reference_time"}),
    )
    return out.assign_attrs(noise_scheme=SCHEME)
