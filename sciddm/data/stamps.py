"""Times of a table's rows: dates without a zone, or numbers; never a guess at a date's form.

ISO dates and decoded dates are read as they are; with a zone they become UTC. Integers such as
19580329, and texts such as 1/2/1981, are refused until their form is said.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Any

import cftime
import numpy as np
import numpy.typing as npt
import pandas as pd

from sciddm.errors import InputError

ZONE = re.compile(r"\d[T ]\d{1,2}:?\d\d.*(Z|[+-]\d\d:?\d\d)$")
CLOCK = re.compile(r"(\d{1,4}):(\d\d)(?::(\d\d(?:\.\d+)?))?$")
USUAL = ("%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y", "%m/%d/%Y %H:%M", "%d/%m/%Y %H:%M", "%d.%m.%Y %H:%M",
         "%Y%m%d", "%Y%m", "%b %Y", "%d-%b-%Y", "%Y %m %d %H")  # fmt: skip

Where = Callable[[int], str]
"""A row in words, as ``"row 7"``."""


@dataclass(frozen=True, eq=False)
class Times:
    """Times of rows: datetime64[ns], or float64 with CF units where they are known."""

    values: npt.NDArray[Any]
    units: str = ""
    calendar: str = ""


def read(column: Any, name: str, where: Where, time_format: str = "") -> Times:  # noqa: ANN401
    """The times of a column of any type.

    Args:
        column: a pandas Series or an array: dates, periods, cftime dates, numbers, text.
        name: of the column. where: its rows in words.
        time_format: of text and of integers that are dates.

    Raises:
        InputError: with the first row: no time at all, a mixture of zones, another form, digits
            that look like a date.
    """
    series = pd.Series(column)
    if isinstance(series.dtype, pd.PeriodDtype):
        series = series.dt.to_timestamp()
    if isinstance(series.dtype, pd.DatetimeTZDtype):
        series = series.dt.tz_convert("UTC").dt.tz_localize(None)
    values = series.to_numpy()
    if values.dtype.kind == "M":
        return Times(_present(values.astype("datetime64[ns]"), name, where))
    if values.dtype.kind == "m":
        hours = _present(values, name, where) / np.timedelta64(1, "h")
        return Times(hours.astype(np.float64), "hours")
    if values.dtype.kind in "iuf":
        return _numbers(values, name, where, time_format)
    if values.dtype.kind == "b":
        raise InputError(f"The time {name!r} holds true and false; expected dates or numbers.")
    lost = series.isna().to_numpy()
    if lost.any():
        _absent(lost, name, where)
    if all(isinstance(v, cftime.datetime) for v in values):
        return model_dates(values)
    if all(isinstance(v, date) for v in values):
        zones = np.array([getattr(v, "tzinfo", None) is not None for v in values])
        _one_zone(zones, name, where)
        utc = pd.to_datetime(pd.Series(values, dtype=object), utc=True)
        return Times(utc.dt.tz_localize(None).to_numpy(dtype="datetime64[ns]"))
    return _texts(np.array([str(v).strip() for v in values]), name, where, time_format)


def model_dates(values: npt.NDArray[Any]) -> Times:
    """cftime dates of any calendar as days since the first."""
    calendar = values[0].calendar
    units = f"days since {values[0].strftime('%Y-%m-%d')}"
    return Times(np.asarray(cftime.date2num(values, units, calendar), np.float64), units, calendar)


def _numbers(values: npt.NDArray[Any], name: str, where: Where, time_format: str) -> Times:
    if values.dtype.kind == "f":
        bad = ~np.isfinite(values)
        if bad.any():
            _absent(bad, name, where)
    whole = bool((values == np.round(values)).all())
    if time_format and whole:
        return _texts(values.astype(np.int64).astype(str), name, where, time_format)
    form = digits(values) if whole else ""
    if form:
        raise InputError(
            f"The time {name!r} holds integers such as {int(values[0])}, dates of the form "
            f"{form} it seems; expected dates: say time_format={form!r}."
        )
    return Times(values.astype(np.float64))


def digits(values: npt.NDArray[Any]) -> str:
    """The form of dates written as integers: yyyymmdd, yyyymm, or "" for plain numbers."""
    month, day = values // 100 % 100, values % 100
    if bool(((values > 15_000_000) & (values < 30_000_000)).all()):
        fits = (month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)
        return "%Y%m%d" if bool(fits.all()) else ""
    if bool(((values > 150_000) & (values < 300_000)).all()):
        return "%Y%m" if bool(((day >= 1) & (day <= 12)).all()) else ""
    return ""


def _texts(words: npt.NDArray[Any], name: str, where: Where, time_format: str) -> Times:
    empty = np.isin(words, ["", "NaT", "NaN", "nan", "NA", "None"])
    if empty.any():
        _absent(empty, name, where)
    if time_format in ("%H:%M", "%H:%M:%S"):
        return Times(_hours(words, name, where), "hours")
    if time_format:
        dates = pd.to_datetime(pd.Series(words), format=time_format, errors="coerce", utc=True)
        bad = dates.isna().to_numpy()
        if bad.any():
            row = int(np.argmax(bad))
            raise InputError(
                f"The time {name!r} holds {str(words[row])!r} in {where(row)}; expected dates of "
                f"the form {time_format!r}: correct time_format."
            )
        return Times(dates.dt.tz_localize(None).to_numpy(dtype="datetime64[ns]"))
    numbers = pd.to_numeric(pd.Series(words), errors="coerce").to_numpy(dtype=np.float64)
    if np.isfinite(numbers).all():
        return _numbers(numbers, name, where, "")
    _one_zone(np.array([bool(ZONE.search(w)) for w in words]), name, where)
    dates = pd.to_datetime(pd.Series(words), format="ISO8601", errors="coerce", utc=True)
    bad = dates.isna().to_numpy()
    if bad.any():
        row = int(np.argmax(bad))
        raise InputError(
            f"The time {name!r} holds {str(words[row])!r} in {where(row)}; expected an ISO date "
            f"such as '2019-03-01 06:00'{_advice(words)}."
        )
    return Times(dates.dt.tz_localize(None).to_numpy(dtype="datetime64[ns]"))


def _advice(words: npt.NDArray[Any]) -> str:
    if all(CLOCK.match(w) for w in words):
        return ": for hours and minutes since the start say time_format='%H:%M'"
    fit = [
        form for form in USUAL
        if pd.to_datetime(pd.Series(words), format=form, errors="coerce").notna().all()
    ]  # fmt: skip
    return ": say time_format, " + (" or ".join(map(repr, fit)) if fit else "as '%m/%d/%Y'")


def _hours(words: npt.NDArray[Any], name: str, where: Where) -> npt.NDArray[np.float64]:
    out = np.empty(len(words))
    for row, word in enumerate(words):
        found = CLOCK.match(word)
        if not found:
            raise InputError(
                f"The time {name!r} holds {word!r} in {where(row)}; expected hours and minutes as "
                "'07:30'."
            )
        hours, minutes, rest = found.groups()
        out[row] = int(hours) + int(minutes) / 60 + float(rest or 0) / 3600
    return out


def _one_zone(zoned: npt.NDArray[np.bool_], name: str, where: Where) -> None:
    if zoned.any() and not zoned.all():
        row = int(np.argmax(zoned != zoned[0]))
        raise InputError(
            f"The time {name!r} has a time zone in some rows and none in others, first in "
            f"{where(row)}; expected one or the other: convert all to UTC."
        )


def _present(values: npt.NDArray[Any], name: str, where: Where) -> npt.NDArray[Any]:
    lost = np.isnat(values)
    if lost.any():
        _absent(lost, name, where)
    return values


def _absent(lost: npt.NDArray[np.bool_], name: str, where: Where) -> None:
    raise InputError(
        f"The time {name!r} is missing in {int(lost.sum())} rows, first in "
        f"{where(int(np.argmax(lost)))}; expected a time in every row: leave those rows out."
    )


def dates(times: npt.NDArray[Any], units: str, calendar: str) -> npt.NDArray[Any]:
    """Numbers of time as cftime dates where their units say since when; else as they are."""
    if times.dtype.kind == "M" or " since " not in units or not calendar:
        return times
    return np.asarray(cftime.num2date(times, units, calendar))


@dataclass(frozen=True)
class Cadence:
    """Equal steps: ``length`` in seconds (or in the unit of numbers), or whole ``months``."""

    length: float = 0.0
    months: int = 0

    def between(self, first: Any, last: Any) -> npt.NDArray[Any]:  # noqa: ANN401
        """Every time of the record from ``first`` to ``last``, both within."""
        if self.months:
            month = np.array([first, last]).astype("datetime64[M]")
            days = first - month[0].astype("datetime64[ns]")
            count = int(np.diff(month).astype(int)[0]) // self.months + 1
            steps = month[0] + np.arange(count) * np.timedelta64(self.months, "M")
            return np.asarray(steps.astype("datetime64[ns]") + days)
        if isinstance(first, np.datetime64):
            step = np.timedelta64(round(self.length * 1e9), "ns")
            return np.asarray(np.arange(first, last + step // 2, step))
        number = round(float(last - first) / self.length) + 1
        return np.asarray(first + self.length * np.arange(number))


def cadence(time: npt.NDArray[Any]) -> Cadence | None:
    """The equal steps of a record of which rows may be absent, or None if it is irregular.

    Every step must be a whole number of the shortest one, and half of them that one. Months are
    equal steps if every date is the same day of its month.
    """
    if len(time) < 3:
        return None
    if time.dtype.kind == "M":
        month = time.astype("datetime64[M]")
        jumps = np.diff(month).astype(int)
        if len(np.unique(time - month.astype("datetime64[ns]"))) == 1 and (jumps > 0).all():
            least = int(jumps.min())
            if (jumps % least == 0).all() and np.mean(jumps == least) >= 0.5:
                return Cadence(months=least)
        step = np.diff(time) / np.timedelta64(1, "s")
    else:
        step = np.diff(time).astype(np.float64)
    shortest = float(step.min())
    if shortest <= 0:
        return None
    counts = step / shortest
    whole = np.abs(counts - np.round(counts)) < 1e-6
    return Cadence(shortest) if whole.all() and np.mean(counts < 1.5) >= 0.5 else None


__all__ = ["Cadence", "Times", "cadence", "dates", "digits", "model_dates", "read"]
