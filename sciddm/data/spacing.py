"""How far apart the frames of a record are: the lead step that its own time axis means."""

from __future__ import annotations

import numpy as np
import xarray as xr

from sciddm.data.names import is_date
from sciddm.errors import InputError

SHORT = {"s": "seconds", "min": "minutes", "h": "hours", "d": "days"}


def spacing(axis: xr.DataArray) -> tuple[float, str]:
    """The step of a time axis and its unit, as `sciddm.task.Lead` takes them.

    Dates of one a month (or every third month, or year) are months or years apart, wherever in
    their months they stand and on any calendar; others are hours, minutes or seconds apart. A
    record with gaps has the step that is smallest. Numbers have their own ``units``, or "1".

    Args:
        axis: Times ``(time,)``, rising, two at least.

    Raises:
        InputError: Fewer than two times, times that do not rise, or neither dates nor numbers.
    """
    if axis.size < 2:
        raise InputError(f"{axis.name!r} holds {axis.size} times; expected two or more to step by.")
    if is_date(axis):
        return _dated(axis)
    if axis.dtype.kind not in "fiu":
        raise InputError(f"{axis.name!r} holds {axis.dtype} values; expected dates or numbers.")
    step = float(np.diff(axis.values.astype(np.float64)).min())
    _rises(axis, step)
    unit = str(axis.attrs.get("units", "")) or "1"
    return round(step, 9), SHORT.get(unit, unit)


def _dated(axis: xr.DataArray) -> tuple[float, str]:
    steps = np.diff(axis.values)
    if axis.dtype.kind == "M":
        seconds = steps / np.timedelta64(1, "s")
    else:
        seconds = np.array([step.total_seconds() for step in steps])
    _rises(axis, float(seconds.min()))
    months = np.diff(12 * axis.dt.year.values.astype(int) + axis.dt.month.values.astype(int))
    least = int(months.min())
    if least > 0 and not (months % least).any():
        return (least / 12, "years") if least % 12 == 0 else (float(least), "months")
    step = float(seconds.min())
    for unit, size in (("hours", 3600), ("minutes", 60)):
        if step % size == 0:
            return step / size, unit
    return step, "seconds"


def _rises(axis: xr.DataArray, step: float) -> None:
    if not step > 0:
        raise InputError(f"{axis.name!r} does not rise; expected rising times: ds.sortby(...).")
