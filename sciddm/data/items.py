"""Series with names: items, each with its own times, from a table, a file or a Dataset, and back.

An item is one series: a station, a patient, a float. It has its own times, regular or not, a
column a variable, and NaN where nothing was seen::

    Item    name, time (n,), values (n, C), covariates (n, K), static (S,)
    Items   items of the same variables, with their units and the form in which they came
    Draws   members at the times of items, given back in that form

Nothing is resampled and nothing is joined to a common grid. Rows after the last value of an item
are times at which it is wanted: they hold NaN, and the covariates of that time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sciddm.data.checks import warn
from sciddm.errors import InputError, nearest

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Item:
    """One series.

    Parameters
    ----------
    time : (n,) datetime64[ns] or float64, rising.
    values : (n, C) float64, NaN where missing.
    covariates : (n, K) float64, known at every time, or None. static : (S,) float64, or None.
    """

    name: str
    time: npt.NDArray[Any]
    values: Values
    covariates: Values | None = None
    static: Values | None = None

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.time.shape != self.values.shape[:1]:
            raise InputError(
                f"Item {self.name!r}: got values of shape {self.values.shape} for times of shape "
                f"{self.time.shape}; expected (n, variables) and (n,)."
            )
        if self.covariates is not None and self.covariates.shape[0] != len(self):
            raise InputError(
                f"Item {self.name!r}: got {len(self.covariates)} rows of covariates for "
                f"{len(self)} times; expected one a time."
            )

    def __len__(self) -> int:
        return len(self.time)

    @property
    def seen(self) -> int:
        """Values that are not missing."""
        return int(np.isfinite(self.values).sum())

    def rows(self, index: Any) -> Item:  # noqa: ANN401
        """Some of the rows, by a slice, numbers or a mask."""
        known = None if self.covariates is None else self.covariates[index]
        return replace(self, time=self.time[index], values=self.values[index], covariates=known)


class Form(ABC):
    """How items came, and so how draws are given back; see `data.tables` and `data.ragged`."""

    @abstractmethod
    def items(self, items: Items) -> Any:  # noqa: ANN401
        """The items themselves in this form."""

    @abstractmethod
    def draws(self, draws: Draws, levels: Sequence[float] = ()) -> Any:  # noqa: ANN401
        """Every member, or with ``levels`` (percent) the mean, median and bounds."""


@dataclass(frozen=True, eq=False)
class Items:
    """Series of the same variables.

    Parameters
    ----------
    variables, covariates, static : their names. units : of any of them.
    time_units, calendar : of times that are numbers, in the words of CF (``"hours"``, or ``"days
        since 2000-01-01"`` in the calendar ``"noleap"``); "" for dates.
    attrs : what a Dataset said of itself, its splits among it.
    form : how they came; None for items made in memory.
    """

    variables: tuple[str, ...]
    items: tuple[Item, ...]
    covariates: tuple[str, ...] = ()
    static: tuple[str, ...] = ()
    units: Mapping[str, str] = field(default_factory=dict)
    time_units: str = ""
    calendar: str = ""
    attrs: Mapping[str, Any] = field(default_factory=dict)
    form: Form | None = None

    def __post_init__(self) -> None:
        if not self.variables:
            raise InputError("Items have no variables; expected at least one column of values.")
        names = [item.name for item in self.items]
        if len(set(names)) < len(names):
            twice = next(n for n in names if names.count(n) > 1)
            raise InputError(f"Two items are named {twice!r}; expected distinct names.")
        for item in self.items:
            for said, of, got in (
                ("values", self.variables, item.values.shape[1]),
                ("covariates", self.covariates, _width(item.covariates)),
                ("static values", self.static, _width(item.static)),
            ):
                if len(of) != got:
                    raise InputError(
                        f"Item {item.name!r} has {got} {said}; expected {len(of)}: {list(of)}."
                    )
            if (item.time.dtype.kind == "M") != (self.items[0].time.dtype.kind == "M"):
                raise InputError(
                    f"Item {item.name!r} has times of {item.time.dtype}, {names[0]!r} of "
                    f"{self.items[0].time.dtype}; expected dates in all or numbers in all."
                )

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    def __getitem__(self, name: str) -> Item:
        for item in self.items:
            if item.name == name:
                return item
        raise InputError(f"No item {name!r}.{nearest(name, [i.name for i in self.items])}")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(item.name for item in self.items)

    @property
    def dated(self) -> bool:
        """Whether times are dates and not numbers."""
        return bool(self.items) and self.items[0].time.dtype.kind == "M"

    def only(self, items: Sequence[Item]) -> Items:
        """Others of the same variables."""
        return replace(self, items=tuple(items))

    def split(self, name: str) -> Items:
        """One of the splits that came with the data: whole items, or a stretch of every item.

        Raises:
            InputError: no such split.
        """
        found = self.attrs.get("sciddm_splits") or {}
        if name not in found:
            raise InputError(f"No split {name!r} in these items.{nearest(name, found)}")
        start, stop = (int(b) for b in found[name])
        attrs = {k: v for k, v in self.attrs.items() if k != "sciddm_splits"}
        attrs |= {"sciddm_split": name, "sciddm_range": [start, stop]}
        if self.attrs.get("sciddm_sample_dim") == "time":
            part = [item.rows(slice(start, stop)) for item in self.items]
        else:
            part = list(self.items[start:stop])
        return replace(self, items=tuple(part), attrs=attrs)

    def filled(self) -> Items:
        """Absent rows of regular records as rows without values; other items as they are."""
        from sciddm.data import rows

        return self.only([rows.filled(item) for item in self.items])

    def back(self) -> Any:  # noqa: ANN401
        """The items in the form they came in.

        Raises:
            InputError: items that came from nowhere.
        """
        if self.form is None:
            raise InputError("These items came in no form; use data.tables.frame or ragged.dataset")
        return self.form.items(self)


@dataclass(frozen=True, eq=False)
class Draws:
    """Members of every item.

    Parameters
    ----------
    items : names and times; their values are what was known, NaN where drawn.
    values : for each item (M, n, C); known values stand in every member.
    attrs : how they were made.
    """

    items: Items
    values: tuple[Values, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.values) != len(self.items):
            raise InputError(f"Got draws of {len(self.values)} items; expected {len(self.items)}.")
        for item, drawn in zip(self.items, self.values, strict=True):
            if drawn.shape != (self.members, *item.values.shape):
                raise InputError(
                    f"Item {item.name!r}: got draws of shape {drawn.shape}; expected "
                    f"{(self.members, *item.values.shape)}."
                )

    @property
    def members(self) -> int:
        return len(self.values[0]) if self.values else 0

    def columns(self, which: int, levels: Sequence[float]) -> dict[str, Values]:
        """Mean, median and bounds of item number ``which``: ``v``, ``v-median``, ``v-lo-90``,
        ``v-hi-90``, each (n,).

        Raises:
            InputError: a level that is no percentage.
        """
        drawn, out = self.values[which], {}
        for level in levels:
            if not 0 < level < 100:
                raise InputError(f"Got level {level}; expected percent between 0 and 100, as 90.")
        for c, name in enumerate(self.items.variables):
            one = drawn[0, :, c]  # the mean of equal numbers may differ in the last digit
            out[name] = np.where((drawn[:, :, c] == one).all(0), one, drawn[:, :, c].mean(0))
            out[f"{name}-median"] = np.median(drawn[:, :, c], 0)
            for level in levels:
                low, high = np.quantile(drawn[:, :, c], [0.5 - level / 200, 0.5 + level / 200], 0)
                out[f"{name}-lo-{level:g}"], out[f"{name}-hi-{level:g}"] = low, high
        return out

    def back(self, levels: Sequence[float] = ()) -> Any:  # noqa: ANN401
        """In the form in which the items came: every member, or columns of intervals."""
        from sciddm.data.forms import Long

        form = self.items.form or Long()
        return form.draws(self, levels)


def of(
    source: Any,  # noqa: ANN401
    *,
    item: str = "",
    time: str | Sequence[str] = "",
    target: str | Sequence[str] = (),
    covariates: Sequence[str] = (),
    static: Sequence[str] = (),
    variable: str = "",
    columns_are_items: bool = False,
    time_format: str = "",
    step: float | None = None,
    na_values: Sequence[str] = (),
    missing_values: Sequence[float] | Mapping[str, Sequence[float]] | None = None,
    sort: bool = False,
    keep: str = "",
) -> Items:
    """Items of a pandas frame (long or wide), a CSV or parquet file, or a Dataset.

    Args:
        source: a frame, the path of a table, NetCDF file or zarr store, a Dataset or DataArray
            with dims (time,) or (item, time) or in CF ragged form, or Items.
        item, time: columns that name the item and its time; default by usual names (``item_id``,
            ``unique_id``; ``timestamp``, ``ds``, ``date``). Several columns of time are joined by
            a blank.
        target: columns of values; default ``target`` or ``y``, or else every column of numbers.
        covariates, static: columns known at every time, and those of the item alone.
        variable: a column that says which variable a row holds, of one value a row.
        columns_are_items: the columns of a wide frame are items of one variable, not variables of
            one item.
        time_format: of dates that are no ISO dates, as ``"%m/%d/%Y"`` or ``"%Y%m%d"``; ``"%H:%M"``
            are hours and minutes since the start of an item.
        step: equal steps in place of a column of times.
        na_values: further words for "no value"; missing_values: numbers for it, for all columns or
            a column; () says that there are none.
        sort: put rows in order of time. keep: which of two rows of one time, "first", "last",
            "mean".

    Raises:
        InputError: naming item, column and row.
    """
    import pandas as pd
    import xarray as xr

    from sciddm.data import columns, ragged, schema, tables

    if isinstance(source, Items):
        return source
    came = ""
    if isinstance(source, str | Path) and not tables.is_table(Path(source)):
        came, source = f"{source}: ", schema.open_any(Path(source))
    how = columns.How(
        item, (time,) if isinstance(time, str) and time else tuple(time),
        (target,) if isinstance(target, str) else tuple(target), tuple(covariates), tuple(static),
        variable, columns_are_items, time_format, step, tuple(na_values), missing_values, sort,
        keep,
    )  # fmt: skip
    if isinstance(source, xr.Dataset | xr.DataArray):
        try:
            return ragged.read(source, how)
        except InputError as error:
            raise InputError(f"{came}{error}") from error
    if isinstance(source, str | Path | pd.DataFrame | pd.Series):
        return tables.read(source, how)
    raise InputError(
        f"Got {type(source).__name__}; expected a pandas frame, the path of a table or a store, or "
        "an xarray Dataset."
    )


def long_enough(items: Items, context: int, horizon: int = 0) -> Items:
    """Items of at least ``context + horizon`` rows with at least one value; the others are named in
    a warning.

    Raises:
        InputError: none is left.
    """
    needed = context + horizon
    kept = [i for i in items if len(i) >= needed and i.seen]
    lost = [i for i in items if not (len(i) >= needed and i.seen)]
    if not lost:
        return items
    said = ", ".join(
        f"{i.name!r} ({len(i)} rows)" if i.seen else f"{i.name!r} (no values)" for i in lost[:5]
    )
    line = (
        f"{len(lost)} of {len(items)} items are shorter than context + horizon = {context} + "
        f"{horizon} rows, or empty: {said}{', ..' if len(lost) > 5 else ''}"
    )
    if not kept:
        raise InputError(f"{line}; expected at least one: give longer series or a shorter context.")
    warn(f"{line}; they are skipped.")
    return items.only(kept)


def covered(items: Items, after: Mapping[str, Any] | None = None) -> Items:
    """The items, if every covariate is known at every time.

    Args:
        after: first time of an item that matters; default all.

    Raises:
        InputError: naming item, covariate and time.
    """
    for item in items:
        if item.covariates is None:
            continue
        lost = ~np.isfinite(item.covariates)
        if after is not None and item.name in after:
            lost &= (item.time >= after[item.name])[:, None]
        if lost.any():
            row, k = (int(x) for x in np.argwhere(lost)[0])
            raise InputError(
                f"Item {item.name!r}: the covariate {items.covariates[k]!r} is missing at "
                f"{said(item.time[row])} ({int(lost.sum())} in all); expected a number at every "
                "time, those to be forecast too: add rows with covariates and empty values."
            )
    return items


def said(time: Any) -> str:  # noqa: ANN401
    """A time in words: a date without the zeros of its end, or a number."""
    if isinstance(time, np.datetime64):
        return str(np.datetime_as_string(time, unit="s")).removesuffix("T00:00:00")
    return f"{time:g}"


def _width(values: Values | None) -> int:
    return 0 if values is None else values.shape[-1]


__all__ = ["Draws", "Form", "Item", "Items", "covered", "long_enough", "of", "said"]
