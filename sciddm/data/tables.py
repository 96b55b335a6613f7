"""Tables of series: pandas frames, long or wide, CSV and parquet, to items and back.

A long table has a row an item and time: ``item_id, timestamp, target``, or ``unique_id, ds, y``,
or several columns of values. A wide one has a column a variable (of one item) or a column an item
(of one variable). A third kind has a row a value, with a column that names its variable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sciddm.data import columns, rows, stamps
from sciddm.data.checks import warn
from sciddm.data.columns import How
from sciddm.data.forms import Long, Wide
from sciddm.data.items import Item, Items, said
from sciddm.errors import InputError, nearest

ITEM = ("item_id", "unique_id", "series_id", "item", "station", "stationname", "station_id")
TIME = ("timestamp", "ds", "time", "datetime", "date", "valid_time", "timeobs", "time_utc")
PARTS = ("year", "month", "week", "day", "hour", "yyyymm")
TARGET = ("target", "y")
ENDINGS = (".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt", ".parquet")
MONTHS = {"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}


def is_table(path: Path) -> bool:
    """Whether a path names a table and not a store or NetCDF."""
    return path.name.lower().endswith(ENDINGS)


def read(source: str | Path | pd.DataFrame | pd.Series[Any], how: How) -> Items:
    """Items of a frame or of a table's file; see `items.of`."""
    one = "series"
    if isinstance(source, str | Path):
        one = Path(source).name.split(".")[0]
        try:
            return _read(_loaded(Path(source), how), how, one, lambda i: f"row {i + 2}")
        except InputError as error:
            raise InputError(f"{source}: {error}") from error
    frame = source.to_frame(source.name or "value") if isinstance(source, pd.Series) else source
    return _read(frame, how, one, lambda i: f"row {i}")


def _loaded(path: Path, how: How) -> pd.DataFrame:
    """The file as text, a column under each name of its first line."""
    if not path.is_file():
        raise InputError("nothing is there; expected a CSV or parquet table.")
    try:
        if path.name.lower().endswith(".parquet"):
            return pd.read_parquet(path)
        separator = "\t" if ".tsv" in path.name.lower() else ","
        frame = pd.read_csv(path, sep=separator, dtype=str, header=None, keep_default_na=False)
    except ImportError as error:
        raise InputError("parquet needs pyarrow: pip install pyarrow, or write CSV.") from error
    except (ValueError, UnicodeDecodeError, OSError) as error:
        why = str(error).splitlines()[0].rstrip(".")
        if "Expected" in why:
            why += "; are there semicolons, or decimal commas?"
        raise InputError(f"cannot be read as a table ({why}); expected commas between.") from error
    header = [str(h).strip() for h in frame.iloc[0]]
    if any(";" in h for h in header):
        raise InputError(
            "columns are separated by semicolons; expected commas and decimal points: "
            "pandas.read_csv(path, sep=';', decimal=',')."
        )
    if how.step is None and len(frame) > 1 and any(_numeral(h) for h in header):
        raise InputError(
            f"the first line is {', '.join(header[:4])}, numbers and no names, or no time in the "
            "table; expected a header and a column of times: for rows of equal steps say step=1."
        )
    if len(frame) < 2:
        raise InputError("has no rows below its header.")
    return frame.iloc[1:].set_axis(header, axis=1).reset_index(drop=True)


def _numeral(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def _read(frame: pd.DataFrame, how: How, one: str, where: stamps.Where) -> Items:
    twice = frame.columns[frame.columns.duplicated()]
    if len(twice):
        raise InputError(f"two columns are named {str(twice[0])!r}; expected distinct names.")
    frame, index = _with_index(frame.set_axis([str(c) for c in frame.columns], axis=1))
    if not len(frame):
        raise InputError("the table has no rows; expected at least one.")
    fixed = () if how.variable else how.static
    for name in (how.item, how.variable, *how.time, *how.target, *how.covariates, *fixed):
        if name and name not in frame:
            raise InputError(f"no column {name!r}.{nearest(name, frame.columns)}")
    item = how.item or _by_name(frame, ITEM, how)
    time, times = _times(frame, how, index, where)
    if how.variable:
        return _of_values(frame, how, item, (time, times), one, where)
    left = [c for c in frame if c not in (item, time, *how.time)]
    if {c.lower() for c in left} >= MONTHS:
        raise InputError(
            "a row holds a year and a column a month; expected a row a time: "
            f"frame.melt(id_vars={time!r}) and one column of dates."
        )
    names = _targets(frame, left, how, wide=len(index) == 1)
    got = {
        n: columns.numbers(frame[n], n, where, how.na_values, how.missing_values)
        for n in (*names, *how.covariates, *how.static)
    }
    for name in names:
        if np.isnan(got[name]).all():
            raise InputError(
                f"the column {name!r} has no value in any row; expected some: name others as "
                "target."
            )
    if how.columns_are_items:
        out = _across(frame, how, got, names, (time, times), bool(index), one, where)
    else:
        labels, groups = rows.grouped(frame, item, one, where)
        made = [_item(name, mine, got, names, times, how, where) for name, mine in groups]
        order = (*index, *(c for c in frame if c not in index))
        out = Items(
            names, tuple(made), how.covariates, how.static,
            time_units=times.units, calendar=times.calendar,
            form=Long(item, time or "time", order, labels, index),
        )  # fmt: skip
    rows.remark(out)
    return out


def _item(
    name: str,
    mine: npt.NDArray[np.intp],
    got: Mapping[str, npt.NDArray[np.float64]],
    names: tuple[str, ...],
    times: stamps.Times,
    how: How,
    where: stamps.Where,
) -> Item:
    order = rows.in_order(times.values[mine], name, how, rows.among(where, mine))
    mine = mine[order]
    block = np.stack([got[n][mine] for n in (*names, *how.covariates)], 1)
    when, block = rows.merged(times.values[mine], block, how.keep)
    known = block[:, len(names) :] if how.covariates else None
    static = rows.fixed(got, how.static, mine, name, where)
    return Item(name, when, block[:, : len(names)], known, static)


def _across(
    frame: pd.DataFrame,
    how: How,
    got: Mapping[str, npt.NDArray[np.float64]],
    names: tuple[str, ...],
    when: tuple[str, stamps.Times],
    index: bool,
    one: str,
    where: stamps.Where,
) -> Items:
    """Items of a table whose columns are items of one variable."""
    time, times = when
    order = rows.in_order(times.values, one, how, where)
    made = [
        Item(n, *rows.merged(times.values[order], got[n][order, None], how.keep)) for n in names
    ]
    return Items(
        (str(frame.columns.name or "value"),), tuple(made),
        time_units=times.units, calendar=times.calendar, form=Wide(time or "time", index),
    )  # fmt: skip


def _with_index(frame: pd.DataFrame) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Indices of times, or of items and times, as columns; and their names."""
    index = frame.index
    if isinstance(index, pd.MultiIndex):
        names = [str(n or ("item_id", "timestamp")[min(i, 1)]) for i, n in enumerate(index.names)]
        return frame.rename_axis(names).reset_index(), tuple(names)
    dated = isinstance(index, pd.DatetimeIndex | pd.PeriodIndex) or (
        len(index) and hasattr(index[0], "calendar")
    )
    if dated or (index.name is not None and str(index.name).lower() in TIME):
        name = str(index.name or "time")
        return frame.rename_axis(name).reset_index(), (name,)
    return frame.reset_index(drop=True), ()


def _by_name(frame: pd.DataFrame, usual: Sequence[str], how: How) -> str:
    """The first column that has one of the usual names, or ""."""
    taken = {*how.time, *how.target, *how.covariates, *how.static, how.variable}
    lower = {c.lower(): c for c in reversed(list(frame)) if c not in taken}
    return next((lower[u] for u in usual if u in lower), "")


def _times(
    frame: pd.DataFrame, how: How, index: tuple[str, ...], where: stamps.Where
) -> tuple[str, stamps.Times]:
    if how.step is not None:
        return "", stamps.Times(how.step * np.arange(len(frame), dtype=np.float64))
    if len(how.time) > 1:
        name = " ".join(how.time)
        joined = frame[how.time[0]].astype(str)
        for part in how.time[1:]:
            joined = joined.str.cat(frame[part].astype(str), sep=" ")
        return name, stamps.read(joined, name, where, how.time_format)
    name = how.time[0] if how.time else (index[-1] if index else _by_name(frame, TIME, how))
    if not name:
        parts = [c for c in frame if c.lower() in PARTS and c not in how.target]
        if len(parts) > 1:
            raise InputError(
                f"the columns {parts} are parts of a time; expected one column, or say which: "
                f"time={tuple(parts)} with time_format='%Y %m %d %H'."
            )
        if not parts:
            raise InputError(
                "no column of times (timestamp, ds, date, ..); expected one: name it by time, or "
                f"say step=1 for rows of equal steps.{nearest('time', frame.columns)}"
            )
        name = parts[0]
    return name, stamps.read(frame[name], name, where, how.time_format)


def _targets(frame: pd.DataFrame, left: Sequence[str], how: How, *, wide: bool) -> tuple[str, ...]:
    if how.target:
        return how.target
    free = [c for c in left if c not in (*how.covariates, *how.static)]
    found = "" if wide or how.columns_are_items else _by_name(frame, TARGET, how)
    good = [c for c in free if columns.is_number(frame[c], how.na_values)]
    chosen = [found] if found in good else good
    if not chosen:
        raise InputError(f"no column of numbers beside the times; there are {free}.")
    rest = [c for c in free if c not in chosen]
    if rest:
        warn(f"The columns {rest} are left out; name them as target, covariates or static.")
    return tuple(chosen)


def _of_values(
    frame: pd.DataFrame,
    how: How,
    item: str,
    names: tuple[str, stamps.Times],
    one: str,
    where: stamps.Where,
) -> Items:
    """Items of a table of one value a row."""
    time, times = names
    left = [c for c in frame if c not in (item, time, how.variable, *how.time)]
    chosen = how.target or ((_by_name(frame, ("value", *TARGET), how) or (*left, "")[0]),)
    if len(chosen) != 1 or not chosen[0]:
        raise InputError(f"{len(chosen)} columns of values; expected one: name it as target.")
    code, unique = pd.factorize(frame[how.variable].astype(str).str.strip())
    for name in how.static:
        if name not in unique:
            raise InputError(f"no variable {name!r} in {how.variable!r}.{nearest(name, unique)}")
    got = np.full(len(frame), np.nan)
    for v, name in enumerate(unique):
        mine = np.flatnonzero(code == v)
        got[mine] = columns.numbers(
            frame[chosen[0]].iloc[mine].reset_index(drop=True), name, rows.among(where, mine),
            how.na_values, how.missing_values,
        )  # fmt: skip
    fixed = np.isin(unique, how.static)
    labels, groups = rows.grouped(frame, item, one, where)
    made = []
    for name, mine in groups:
        when, cells, twice = rows.pivoted(
            times.values[mine], code[mine], got[mine], len(unique), how.keep
        )
        if twice is not None:
            at = int(mine[twice])
            raise InputError(
                f"item {name!r}: {unique[code[at]]!r} stands twice at {said(times.values[at])}, "
                f"again in {where(at)}; expected one value a time: say keep='first', 'last' or "
                "'mean'."
            )
        numbers = cells[:, [int(np.flatnonzero(unique == n)[0]) for n in how.static]]
        static = np.array([next((x for x in c if x == x), np.nan) for c in numbers.T])
        made.append(Item(name, when, cells[:, ~fixed], None, static if how.static else None))
    return Items(
        tuple(str(u) for u in unique[~fixed]), tuple(made), (), how.static,
        time_units=times.units, calendar=times.calendar,
        form=Long(item, time or "time", (), labels),
    )  # fmt: skip
