"""Times of series as numbers: dates of a table or a Dataset in a model's unit, from its origin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from sciddm.data.axis import NEAR, PERIODS, SECONDS, SHORT, Axis
from sciddm.data.items import Item, Items, said
from sciddm.errors import InputError, nearest

MOST = 10_000_000
"""Rows that a regular series may be given by its first and last time."""


@dataclass(frozen=True)
class Clock:
    """Time in ``unit`` from ``origin``.

    unit : "seconds" to "days", or "months" and "years" of the calendar, for dates; for numbers
        their own unit, "1" where they have none. origin : an ISO date, or a number for numbers.
    step : between two rows of a regular series, or None.
    """

    unit: str = "1"
    origin: str | float = 0.0
    step: float | None = None

    def __post_init__(self) -> None:
        known = (*SECONDS, *PERIODS)
        if self.dated and self.unit not in known:
            raise InputError(f"Got dates in the unit {self.unit!r}.{nearest(self.unit, known)}")
        if self.step is not None and not self.step > 0:
            raise InputError(f"Got a step of {self.step}; expected a positive number or None.")

    @property
    def dated(self) -> bool:
        return isinstance(self.origin, str)

    @staticmethod
    def of(items: Items, unit: str = "", *, regular: bool) -> Clock:
        """The clock of items: from their first time, with the step of most rows where ``regular``.

        unit : of dates; default days, hours, minutes or seconds, the first that their usual step
        is not below, or months and years where rows are one of each.
        Raises `InputError` for items without two rows, and steps that are not the same.
        """
        gaps = [np.diff(i.time) for i in items if len(i) > 1]
        if not gaps:
            raise InputError("Got items of one row each; expected some of two rows or more.")
        if not items.dated:
            own = SHORT.get(items.time_units, items.time_units) or "1"
            step = float(np.median(np.concatenate(gaps)))
            return Clock(own, 0.0, step if regular else None)
        origin = said(min(i.time[0] for i in items))
        usual = float(np.median(np.concatenate(gaps) / np.timedelta64(1, "s")))
        if not unit:
            months = np.concatenate([np.diff(i.time.astype("M8[M]").astype(int)) for i in items])
            least = int(months.min())
            if regular and least > 0:
                unit = "years" if least % 12 == 0 else "months"
            else:
                unit = next((u for u in ("days", "hours", "minutes") if usual >= SECONDS[u]), "")
                unit = unit or "seconds"
        if not regular:
            return Clock(unit, origin)
        if unit in PERIODS:
            clock = Clock(unit, origin, 1.0)
            turns = [np.diff(clock.numbers(i.time)) for i in items if len(i) > 1]
            return Clock(unit, origin, float(np.median(np.concatenate(turns))))
        return Clock(unit, origin, round(usual / SECONDS[unit], 9))

    def numbers(self, time: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """(n,) times as numbers. Raises `InputError` for dates in place of numbers and back."""
        if (time.dtype.kind == "M") != self.dated:
            got, want = ("dates", "numbers") if not self.dated else ("numbers", "dates")
            raise InputError(f"Got times that are {got}; the model was fitted to {want}.")
        if not self.dated:
            return np.asarray(time.astype(np.float64) - float(self.origin))
        origin = np.datetime64(str(self.origin), "ns")
        if self.unit in SECONDS:
            return np.asarray((time - origin) / np.timedelta64(SECONDS[self.unit], "s"))
        letter = PERIODS[self.unit]
        period = time.astype(f"M8[{letter}]")
        count = period.astype(int) - int(origin.astype(f"M8[{letter}]").astype(int))
        if self.step is not None:  # a row belongs to its month, wherever in it its date stands
            return np.asarray(count.astype(np.float64))
        length = (period + 1).astype("M8[ns]") - period.astype("M8[ns]")
        return np.asarray(count + (time - period.astype("M8[ns]")) / length)

    def after(self, item: Item, rows: int) -> npt.NDArray[Any]:
        """(rows,) times that follow the last one: steps of the clock, or the item's usual gap."""
        time = item.time
        if len(time) == 0:
            raise InputError(f"Item {item.name!r} has no rows; expected at least one.")
        count = np.arange(1, rows + 1)
        if self.step is None:
            if len(time) < 2:
                raise InputError(
                    f"Item {item.name!r} has one row, whose usual gap is unknown; say at which "
                    "times to forecast: at=[...]."
                )
            gap = np.median(np.diff(time))
            return np.asarray(time[-1] + (count * gap).astype(gap.dtype))
        if not self.dated:
            return np.asarray(time[-1] + count * self.step)
        axis = Axis.of(xr.DataArray(time, dims="time", name="time"), self.step, self.unit)
        return axis.ahead(len(time) - 1, count).astype("M8[ns]")

    def places(self, item: Item) -> npt.NDArray[np.int64]:
        """(n,) which step after the first each row of a regular series is, rising from 0.

        Raises `InputError` for rows between two steps, or two of one step.
        """
        assert self.step is not None
        if len(item) == 0:
            return np.zeros(0, np.int64)
        t = self.numbers(item.time)
        exact = (t - t[0]) / self.step
        place = np.round(exact).astype(np.int64)
        off = np.abs(exact - place) > NEAR
        if off.any():
            row = int(off.argmax())
            raise InputError(
                f"Item {item.name!r}: {said(item.time[row])} (row {row}) is no whole number of "
                f"steps of {self.step:g} {self.unit} after {said(item.time[0])}; expected regular "
                "times, or a model of irregular ones."
            )
        twice = np.diff(place) <= 0
        if twice.any():
            row = int(twice.argmax()) + 1
            raise InputError(
                f"Item {item.name!r}: {said(item.time[row])} (row {row}) is not a step of "
                f"{self.step:g} {self.unit} after the row before it; expected rising times."
            )
        if len(place) and place[-1] >= MOST:
            raise InputError(
                f"Item {item.name!r} spans {place[-1] + 1} steps of {self.step:g} {self.unit}; "
                f"expected at most {MOST}: look for a wrong date."
            )
        return place

    def regular(self, item: Item) -> Item:
        """The item with a row of missing values at every step where it has none; as it is for a
        clock without a step."""
        if self.step is None or len(item) == 0:
            return item
        place = self.places(item)
        count = int(place[-1]) + 1
        if count == len(item):
            return item
        time = np.empty(count, item.time.dtype)
        head = item.rows(slice(0, 1))
        time[0], time[1:] = item.time[0], self.after(head, count - 1)
        time[place] = item.time
        values = np.full((count, item.values.shape[1]), np.nan)
        values[place] = item.values
        known = None
        if item.covariates is not None:
            known = np.full((count, item.covariates.shape[1]), np.nan)
            known[place] = item.covariates
        return Item(item.name, time, values, known, item.static)
