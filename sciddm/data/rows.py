"""Rows of a table as items: grouped, in order of time, one a time, or said which are not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sciddm.data import stamps
from sciddm.data.checks import warn
from sciddm.data.columns import How
from sciddm.data.items import Item, Items, said
from sciddm.errors import InputError


def among(where: stamps.Where, rows: npt.NDArray[np.intp]) -> stamps.Where:
    """The words for a row, of the row's place among some."""
    return lambda i: where(int(rows[i]))


def grouped(
    frame: pd.DataFrame, item: str, one: str, where: stamps.Where
) -> tuple[dict[str, Any], list[tuple[str, npt.NDArray[np.intp]]]]:
    """Rows of each item, in the order of their first; and the items as they were named."""
    if not item:
        return {}, [(one, np.arange(len(frame)))]
    code, unique = pd.factorize(frame[item])
    lost = (code < 0) | np.array([*(str(u).strip() == "" for u in unique), False])[code]
    if lost.any():
        raise InputError(f"the item {item!r} is missing in {where(int(np.argmax(lost)))}.")
    order = np.argsort(code, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(code, minlength=len(unique)))[:-1])
    names = [str(u) for u in unique]
    return dict(zip(names, unique, strict=True)), list(zip(names, parts, strict=True))


def in_order(
    time: npt.NDArray[Any], name: str, how: How, where: Callable[[int], str]
) -> npt.NDArray[np.intp]:
    """Rows in order of time; refused where they are not and nothing was said."""
    step = np.diff(time)
    zero = step.dtype.type(0)
    back = step < zero
    order = np.arange(len(time))
    if back.any():
        row = int(np.argmax(back)) + 1
        if not how.sort:
            fall = "every row goes" if back.all() else "goes"
            raise InputError(
                f"item {name!r}: time {fall} back, first in {where(row)} ({said(time[row])} after "
                f"{said(time[row - 1])}); expected rising times: say sort=True."
            )
        order = np.argsort(time, kind="stable")
        step = np.diff(time[order])
    twice = step == zero
    if twice.any() and not how.keep:
        row = int(np.argmax(twice)) + 1
        raise InputError(
            f"item {name!r}: the time {said(time[order[row]])} stands twice, in "
            f"{where(int(order[row - 1]))} and {where(int(order[row]))} ({int(twice.sum())} "
            "repeats); expected one row a time: name the column of the series (item=..) or all "
            "columns of the time, or say keep='first', 'last' or 'mean'."
        )
    return order


def merged(
    time: npt.NDArray[Any], values: npt.NDArray[np.float64], keep: str
) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
    """Rows of one time as one."""
    unique, first, count = np.unique(time, return_index=True, return_counts=True)
    if len(unique) == len(time):
        return time, values
    if keep == "mean":
        good = np.isfinite(values)
        total = np.add.reduceat(np.where(good, values, 0), first)
        number = np.add.reduceat(good.astype(float), first)
        return unique, np.where(number > 0, total / np.maximum(number, 1), np.nan)
    return unique, values[first if keep == "first" else first + count - 1]


def fixed(
    got: Mapping[str, npt.NDArray[np.float64]],
    names: Sequence[str],
    rows: npt.NDArray[np.intp],
    item: str,
    where: stamps.Where,
) -> npt.NDArray[np.float64] | None:
    """Static values of an item: one value each, missing or not."""
    out = []
    for name in names:
        mine = got[name][rows]
        full = mine[np.isfinite(mine)]
        if len(full) and (full != full[0]).any():
            row = int(rows[np.flatnonzero(np.isfinite(mine) & (mine != full[0]))[0]])
            raise InputError(
                f"item {item!r}: the static column {name!r} changes in {where(row)}; expected one "
                "value an item: name it as a covariate."
            )
        out.append(full[0] if len(full) else np.nan)
    return np.array(out) if names else None


def remark(items: Items) -> None:
    """Say what may be right and is often not: constant series, absent rows."""
    flat = [
        (i.name, v) for i in items for v, x in zip(items.variables, i.values.T, strict=True)
        if np.isfinite(x).sum() > max(2, len(x) / 2) and np.nanmin(x) == np.nanmax(x)
    ]  # fmt: skip
    if flat:
        more = f" ({len(flat)} such series)" if len(flat) > 1 else ""
        warn(f"Item {flat[0][0]!r}: {flat[0][1]!r} is constant{more}; it teaches nothing.")
    for item in items:
        even = stamps.cadence(item.time)
        if even is None:
            continue
        absent = len(even.between(item.time[0], item.time[-1])) - len(item)
        if absent:
            warn(
                f"Item {item.name!r}: {absent} rows of a regular record are absent; models of "
                "equal steps draw them, others only where items.filled() adds them as empty rows."
            )
            return


def pivoted(
    time: npt.NDArray[Any],
    code: npt.NDArray[np.intp],
    values: npt.NDArray[np.float64],
    width: int,
    keep: str,
) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64], int | None]:
    """Times, values (n, width) of rows that hold one each, and the first row that repeats a cell
    where nothing was said of those."""
    when, at = np.unique(time, return_inverse=True)
    cell = at * width + code
    order = np.argsort(cell, kind="stable")
    again = np.diff(cell[order]) == 0
    twice = int(order[1:][again].min()) if again.any() and not keep else None
    out = np.full(len(when) * width, np.nan)
    if keep == "mean":
        good = np.isfinite(values)
        total = np.bincount(cell[good], values[good], out.size)
        number = np.bincount(cell[good], minlength=out.size)
        out[number > 0] = total[number > 0] / number[number > 0]
    else:
        way = slice(None, None, -1 if keep == "first" else 1)
        out[cell[way]] = values[way]
    return when, out.reshape(-1, width), twice


def filled(item: Item) -> Item:
    """An item of equal steps with a row for every step, NaN where it was absent."""
    even = stamps.cadence(item.time)
    if even is None:
        return item
    time = even.between(item.time[0], item.time[-1])
    at = np.searchsorted(time, item.time)
    if time.dtype.kind != "M":
        at = np.rint((item.time - time[0]) / even.length).astype(int)
        time[at] = item.time
    values = np.full((len(time), item.values.shape[1]), np.nan)
    values[at] = item.values
    known = None
    if item.covariates is not None:
        known = np.full((len(time), item.covariates.shape[1]), np.nan)
        known[at] = item.covariates
    return Item(item.name, time, values, known, item.static)
