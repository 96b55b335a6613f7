"""The step that a time axis means, on every calendar and with gaps."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from sciddm.data.spacing import spacing
from sciddm.errors import InputError
from sciddm.task import Lead

HOURS = np.datetime64("2019-03-01", "ns") + np.arange(800) * np.timedelta64(1, "h")
MIDDLES = ["2006-04-16T00", "2006-05-16T12", "2006-06-16T00", "2007-02-15T00", "2007-03-16T12"]


def axis(values: object, **attrs: str) -> xr.DataArray:
    return xr.DataArray(values, dims="time", name="time", attrs=attrs)


def dates(start: str, n: int, freq: str, calendar: str) -> xr.DataArray:
    cftime = calendar != "standard"
    return axis(xr.date_range(start, periods=n, freq=freq, calendar=calendar, use_cftime=cftime))


@pytest.mark.parametrize(
    ("times", "step", "unit"),
    [
        (axis(HOURS), 1, "hours"),
        (axis(HOURS[::6]), 6, "hours"),
        (axis(HOURS[::24]), 24, "hours"),
        (axis(np.delete(HOURS, slice(100, 300))), 1, "hours"),
        (axis(HOURS[0] + np.arange(9) * np.timedelta64(90, "s")), 90, "seconds"),
        (axis(HOURS[0] + np.arange(9) * np.timedelta64(10, "m")), 10, "minutes"),
        (axis(np.array(MIDDLES, "datetime64[ns]")), 1, "months"),
        (axis(HOURS[0] + np.arange(40) * np.timedelta64(30, "D")), 720, "hours"),
        *((dates("2000-01-31", 40, "ME", c), 1, "months") for c in ("standard", "noleap")),
        (dates("2000-01-16", 40, "3MS", "360_day"), 3, "months"),
        *((dates("2000-01-01", 9, "YS", c), 1, "years") for c in ("standard", "noleap", "360_day")),
        (dates("2000-01-01", 500, "D", "noleap"), 24, "hours"),
        (axis(0.8 * np.arange(30)), 0.8, "1"),
        (axis(0.25 * np.arange(30), units="h"), 0.25, "hours"),
        (axis(np.arange(1990, 2000), units="years"), 1, "years"),
    ],
)
def test_the_step_and_its_unit(times: xr.DataArray, step: float, unit: str) -> None:
    assert spacing(times) == (step, unit)
    assert Lead(*spacing(times)).unit == unit


@pytest.mark.parametrize(
    ("times", "said"),
    [
        (axis(HOURS[:1]), "holds 1 times"),
        (axis(HOURS[::-1]), "does not rise"),
        (axis([0.0, 1.0, 1.0]), "does not rise"),
        (axis(["a", "b"]), "expected dates or numbers"),
    ],
)
def test_no_step(times: xr.DataArray, said: str) -> None:
    with pytest.raises(InputError, match=said):
        spacing(times)
