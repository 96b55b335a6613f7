"""The time axis of a past, counted in the lead steps of a model, on any calendar.

Dates are numpy's or one of the model calendars (noleap, 360_day, ...); an axis without dates holds
plain numbers. A lead in seconds to days is a duration. A lead in months or years goes from one
period to another: a frame belongs to its month (or year), wherever in it its date stands, so that
mid-month dates, which lie 29 to 31 days apart, are one step apart. Dates to come stand where those
of the axis do: on the same day, at the same share of the period, or as far before its end.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import cftime
import numpy as np
import xarray as xr

from sciddm.data import checks
from sciddm.data.names import is_date
from sciddm.errors import InputError

SECONDS = {"seconds": 1, "minutes": 60, "hours": 3600, "days": 86400}
"""Leads of a fixed length."""
PERIODS = {"months": "M", "years": "Y"}
"""Leads of the calendar, with numpy's letter."""
SHORT = {"s": "seconds", "sec": "seconds", "min": "minutes", "h": "hours", "hr": "hours"}
SHORT |= {"d": "days", "second": "seconds", "minute": "minutes", "hour": "hours", "day": "days"}
NEAR = 0.01
"""Times that differ by less than this part of a step are one, rounded differently."""
_ISO = re.compile(
    r"(-?\d{4,})(?:-(\d\d)(?:-(\d\d)(?:[T ](\d\d)(?::(\d\d)(?::(\d\d)(?:\.(\d+))?)?)?)?)?)?Z?"
)


@dataclass(frozen=True, eq=False)
class Axis:
    """Times ``coord`` (T,), rising, as frames ``step`` of ``unit`` apart; made by `Axis.of`.

    unit : of `SECONDS` or `PERIODS`, or "1" where times are numbers without a unit.
    """

    coord: xr.DataArray
    step: float
    unit: str

    @staticmethod
    def of(coord: xr.DataArray, step: float, unit: str) -> Axis:
        """The checked axis.

        Raises:
            InputError: dates that are missing, fall or come twice; numbers where the lead needs
                dates, or dates where it has no unit; parts of months.
        """
        name = coord.name
        if is_date(coord):
            checks.check_dates(coord)
            if unit == "1":
                raise InputError(
                    f"{name!r} holds dates, and the model's lead of {step:g} has no unit; expected "
                    "numbers, as in training."
                )
        elif coord.dtype.kind in "fiu":
            checks.check_axis(str(name), coord.values)
            own = _unit(coord)
            if unit != own and unit != "1":
                raise InputError(
                    f"{name!r} holds numbers in {own or 'no unit'}; expected dates, which a lead "
                    f"of {step:g} {unit} is counted on: decode them, or set them."
                )
            if coord.size > 1 and coord.values[-1] < coord.values[0]:
                raise InputError(f"{name!r} falls; expected rising times: ds.sortby({name!r}).")
        else:
            checks.check_dates(coord)
        if unit in PERIODS and step != int(step):
            raise InputError(f"Got a lead of {step:g} {unit}; expected whole {unit}.")
        return Axis(coord, step, unit)

    @property
    def times(self) -> np.ndarray:
        """(T,) dates or numbers."""
        return self.coord.values

    @property
    def dated(self) -> bool:
        """Whether the times are dates."""
        return self.times.dtype.kind in "MO"

    def find(self, start: object) -> int:
        """The index of a time: a date in any form, or a number.

        Raises:
            InputError: a time that is not on the axis, with the nearest that is.
        """
        value = self._read(start)
        index = self.index(value)
        if index < 0:
            near = int(np.abs(self._places - self._place(value)).argmin())
            raise InputError(
                f"Got a start at {said(value)}, which is not on the time axis "
                f"{self.coord.name!r} ({said(self.times[0])} to {said(self.times[-1])}); the "
                f"nearest is {said(self.times[near])}."
            )
        return index

    def index(self, time: Any) -> int:  # noqa: ANN401 (a date of any calendar, or a number)
        """Where a time of this axis's kind is; -1 where it is not."""
        off = np.abs(self._places - self._place(time))
        fits = np.flatnonzero(off <= self._tolerance)
        if len(fits) > 1 and self.dated and self.unit in PERIODS:  # an axis finer than the lead
            fits = np.array([i for i in fits if self.times[i] == time], dtype=int)
        return int(fits[off[fits].argmin()]) if len(fits) else -1

    def indices(self, times: np.ndarray) -> np.ndarray:
        """`index` of each of ``times``, of any calendar."""
        return np.array([self.index(self._read(t)) for t in times], dtype=int)

    def window(self, start: int, history: int) -> list[int]:
        """The ``history`` frames that end at index ``start``, one lead step apart, oldest first.

        Raises:
            InputError: fewer frames before it, or one of them missing.
        """
        frames = [self.index(self.ahead(start, [-k])[0]) for k in range(history - 1, 0, -1)]
        if all(i >= 0 for i in frames):
            return [*frames, start]
        lost = max(k for k, i in zip(range(history - 1, 0, -1), frames, strict=True) if i < 0)
        before = self.ahead(start, [-lost])[0]
        if self._place(before) < self._places[0] - self._tolerance:
            have = sum(i >= 0 for i in frames) + 1
            raise InputError(
                f"Got a start at {said(self.times[start])} with {have} of the {history} frames of "
                f"the past, {self.step:g} {self.unit} apart, that the model starts from: the time "
                f"axis begins at {said(self.times[0])}; take a later start, or a longer past."
            )
        raise InputError(
            f"No frame at {said(before)}: a gap in the {history} frames, {self.step:g} {self.unit} "
            f"apart, that end at {said(self.times[start])}; take another start, or fill the gap."
        )

    def ahead(self, start: int, steps: Sequence[int] | np.ndarray) -> np.ndarray:
        """The times ``steps`` lead steps after index ``start``; negative ones are before it."""
        origin, step = self.times[start], Fraction(repr(float(self.step)))
        if not self.dated:
            return np.array([float(Fraction(repr(float(origin))) + step * int(n)) for n in steps])
        if self.unit in SECONDS:
            whole = step * SECONDS[self.unit]
            if self.times.dtype.kind == "O":
                parts = [round(whole * int(n) * 10**6) for n in steps]
                return _objects([origin + datetime.timedelta(microseconds=us) for us in parts])
            first = origin.astype("M8[us]")
            micro = [round(whole * int(n) * 10**6) for n in steps]
            return _fine(np.array([first + np.timedelta64(us, "us") for us in micro]))
        dates = [self._moved(origin, int(self.step) * int(n)) for n in steps]
        return _objects(dates) if self.times.dtype.kind == "O" else _fine(np.array(dates))

    def served(self, history: int, steps: int) -> list[int]:
        """Indices from which ``steps`` leads can be forecast and held to what came: ``history``
        frames up to them and ``steps`` after them are on the axis."""
        around = np.arange(1 - history, steps + 1)
        every = range(len(self.times))
        return [i for i in every if (self.indices(self.ahead(i, around)) >= 0).all()]

    def reached(self, starts: Sequence[int], steps: int) -> int:
        """How many leads, up to ``steps``, the axis holds after every one of ``starts``."""
        ahead = [self.indices(self.ahead(s, np.arange(1, steps + 1))) >= 0 for s in starts]
        return int(np.append(~np.all(ahead, axis=0), True).argmax())

    def leads(self, steps: int) -> xr.Variable:
        """The coordinate of ``steps`` leads: durations, or numbers with ``units`` where a lead has
        no fixed length."""
        counts = [Fraction(repr(float(self.step))) * n for n in range(1, steps + 1)]
        attrs = {"standard_name": "forecast_period", "long_name": "time since the start"}
        if self.unit in SECONDS:
            ns = [round(c * SECONDS[self.unit] * 10**9) for c in counts]
            return xr.Variable("lead_time", np.array(ns, dtype="m8[ns]"), attrs)
        whole = self.step == int(self.step)
        values = np.array([int(c) if whole else float(c) for c in counts])
        return xr.Variable("lead_time", values, attrs | {"units": self.unit})

    @cached_property
    def _places(self) -> np.ndarray:
        """The times in lead steps after the first (fixed lengths), or by number of their period."""
        if not self.dated:
            return (self.times.astype(np.float64) - float(self.times[0])) / self.step
        if self.times.dtype.kind == "O" and self.unit in PERIODS:
            return np.array([_period(t, self.unit) for t in self.times]) / self.step
        if self.times.dtype.kind == "O":
            gone = [(t - self.times[0]).total_seconds() for t in self.times]
            return np.array(gone) / self._length
        if self.unit in PERIODS:
            return self.times.astype(f"M8[{PERIODS[self.unit]}]").astype(float) / self.step
        gone_by = (self.times - self.times[0]) / np.timedelta64(1, "s")
        return np.asarray(gone_by / self._length)

    def _place(self, time: Any) -> float:  # noqa: ANN401
        """The same of one time."""
        if not self.dated:
            return (float(time) - float(self.times[0])) / self.step
        if self.unit in PERIODS:
            return _period(time, self.unit) / self.step
        if self.times.dtype.kind == "O":
            return float((time - self.times[0]).total_seconds()) / self._length
        return float((time - self.times[0]) / np.timedelta64(1, "s")) / self._length

    @property
    def _length(self) -> float:
        return self.step * SECONDS[self.unit]

    @cached_property
    def _tolerance(self) -> float:
        """How far from a time a frame may stand, in lead steps."""
        if self.dated and self.unit in PERIODS:
            return NEAR / self.step
        finest = np.diff(self._places).min() if len(self._places) > 1 else 1.0
        return NEAR * min(1.0, float(finest))

    def _read(self, given: object) -> Any:  # noqa: ANN401
        """A time in the kind of the axis. Raises `InputError` for what is none."""
        if isinstance(given, xr.DataArray | np.ndarray):
            given = np.asarray(given).reshape(-1)[0]
        if not self.dated:
            try:
                number = float(given)  # type: ignore[arg-type]
            except (TypeError, ValueError):
                number = np.nan
            if np.isfinite(number):
                return number
            raise InputError(f"Got a start {given!r}; expected a number of {self.coord.name!r}.")
        model = self.times.dtype.kind == "O"
        if isinstance(given, np.datetime64) and not model and not np.isnat(given):
            return given
        if isinstance(given, cftime.datetime) and model and type(given) is type(self.times[0]):
            return given
        dated = isinstance(given, datetime.date | cftime.datetime)
        text = given.isoformat() if dated else str(given)  # type: ignore[attr-defined]
        found = _ISO.fullmatch(text.strip())
        if found is None:
            raise InputError(
                f"Got a start {given!r}; expected a date on {self.coord.name!r}, such as "
                f"{said(self.times[-1])}."
            )
        parts = [
            int(p) if p else d for p, d in zip(found.groups(), (1, 1, 1, 0, 0, 0), strict=False)
        ]
        micro = int((found[7] or "").ljust(6, "0")[:6])
        try:
            if model:
                first = self.times[0]
                return type(first)(*parts, micro, **_calendar(first))
            year, month, day, hour, minute, second = parts
            return np.datetime64(
                f"{year:04d}-{month:02d}-{day:02d}T{hour:02d}:{minute:02d}:{second:02d}.{micro:06d}"
            )
        except ValueError:
            raise InputError(f"Got a start {given!r}, which is no date of the calendar.") from None

    def _moved(self, date: Any, periods: int) -> Any:  # noqa: ANN401
        """``date`` moved by periods, to where in its period the axis has its dates."""
        share, before_end = self._habit
        begin = _begin(date, self.unit, periods)
        end = _begin(date, self.unit, periods + 1)
        if share is not None:
            return begin + _part(end - begin, share)
        if before_end is not None:
            return end - before_end
        if self.unit == "months":
            return _same_day(date, begin)
        return _same_day(date, _begin(date, "months", 12 * periods))

    @cached_property
    def _habit(self) -> tuple[float | None, Any]:
        """Where the dates stand in their periods, if it is not on one day: the share of the period,
        or the time before its end."""
        begins = [_begin(t, self.unit, 0) for t in self.times]
        ends = [_begin(t, self.unit, 1) for t in self.times]
        pairs = list(zip(begins, ends, self.times, strict=True))
        if len({t - b for b, _, t in pairs}) == 1:
            return None, None
        shares = {round((t - b) / (e - b), 6) for b, e, t in pairs}
        if len(shares) == 1:
            return shares.pop(), None
        rests = {e - t for _, e, t in pairs}
        return None, rests.pop() if len(rests) == 1 else None


def said(time: object) -> str:
    """A time in words, as short as it can be."""
    if isinstance(time, np.datetime64):
        text = str(np.datetime_as_string(time.astype("M8[us]")))
    elif isinstance(time, cftime.datetime | datetime.datetime):
        text = time.isoformat()
    else:
        return f"{time:.10g}" if isinstance(time, float | np.floating) else str(time)
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return re.sub(r"T00:00(:00?)?$", "", re.sub(r"(T\d\d:\d\d):00?$", r"\1", text))


def _unit(coord: xr.DataArray) -> str:
    """The unit of times that are numbers, in the words of `SECONDS`, or as it came."""
    own = str(coord.attrs.get("units", ""))
    return SHORT.get(own.lower(), own)


def _calendar(date: cftime.datetime) -> dict[str, Any]:
    """What a date of the same calendar is made with."""
    plain = type(date) is cftime.datetime
    return {"calendar": date.calendar} if plain else {}


def _objects(dates: list[Any]) -> np.ndarray:
    out = np.empty(len(dates), dtype=object)
    out[:] = dates
    return out


def _fine(dates: np.ndarray) -> np.ndarray:
    """Dates in nanoseconds, as xarray has them, where they fit; in microseconds beyond."""
    near = (np.abs(dates.astype("M8[Y]").astype(int)) < 290).all()
    return dates.astype("M8[ns]" if near else "M8[us]")


def _period(date: Any, unit: str) -> int:  # noqa: ANN401
    if isinstance(date, np.datetime64):
        return int(date.astype(f"M8[{PERIODS[unit]}]").astype(int))
    return int(date.year * 12 + date.month if unit == "months" else date.year)


def _begin(date: Any, unit: str, periods: int) -> Any:  # noqa: ANN401
    """The first instant of the period of ``date``, moved by ``periods``."""
    if isinstance(date, np.datetime64):
        return (date.astype(f"M8[{PERIODS[unit]}]") + periods).astype("M8[us]")
    first = date.replace(month=1, day=1, hour=0, minute=0, second=0, microsecond=0)
    months = 12 * periods if unit == "years" else date.month - 1 + periods
    return first.replace(year=date.year + months // 12, month=months % 12 + 1)


def _part(length: Any, share: float) -> Any:  # noqa: ANN401
    """``share`` of a duration, to the second."""
    if isinstance(length, np.timedelta64):
        return np.timedelta64(round(length / np.timedelta64(1, "s") * share), "s")
    return datetime.timedelta(seconds=round(length.total_seconds() * share))


def _same_day(date: Any, begin: Any) -> Any:  # noqa: ANN401
    """The day and time of ``date`` in the month that begins at ``begin``, or its last day."""
    gone = date - _begin(date, "months", 0)
    length = _begin(begin, "months", 1) - begin
    day = np.timedelta64(1, "D") if isinstance(date, np.datetime64) else datetime.timedelta(days=1)
    extra = gone // day - length // day + 1
    return begin + gone - max(0, int(extra)) * day
