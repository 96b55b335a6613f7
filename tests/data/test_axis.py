"""Time axes counted in lead steps: on every calendar, wherever in its month a date stands."""

from __future__ import annotations

import datetime

import cftime
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from sciddm.data.axis import Axis, said
from sciddm.errors import InputError


def coord(values: object, **attrs: str) -> xr.DataArray:
    return xr.Dataset(coords={"time": ("time", np.asarray(values), attrs)})["time"]


def hours(count: int = 48) -> xr.DataArray:
    return coord(pd.date_range("2019-03-01", periods=count, freq="h").values)


def middles(first: str, count: int) -> np.ndarray:
    begin = np.datetime64(first, "M") + np.arange(count + 1)
    days = begin.astype("M8[h]")
    return (days[:-1] + np.diff(days) / 2).astype("M8[ns]")


def test_a_lead_is_counted_in_its_unit_and_the_dates_are_exact() -> None:
    axis = Axis.of(hours(), 6.0, "hours")
    assert axis.window(axis.find("2019-03-02T03"), 3) == [15, 21, 27]
    ahead = axis.ahead(27, np.arange(1, 10_001))
    assert ahead[0] == np.datetime64("2019-03-02T09") and ahead.dtype == "M8[ns]"
    assert ahead[-1] == np.datetime64("2019-03-02T03") + np.timedelta64(60_000, "h")
    leads = axis.leads(3)
    assert (leads.values == np.array([6, 12, 18], "m8[h]")).all() and "units" not in leads.attrs


def test_a_step_that_no_float_holds_does_not_drift() -> None:
    axis = Axis.of(hours(), 0.1, "hours")
    assert axis.ahead(0, [10_000])[0] == np.datetime64("2019-03-01") + np.timedelta64(1000, "h")
    plain = Axis.of(coord(np.arange(20) * 0.1), 0.1, "1")
    assert plain.ahead(3, [3])[0] == pytest.approx(0.6, abs=1e-15)
    assert plain.window(plain.find(0.7), 2) == [6, 7]
    assert plain.leads(3).values.tolist() == [0.1, 0.2, 0.3]


@pytest.mark.parametrize("start", [
    "2019-03-02T03", "2019-03-02 03:00", "2019-03-02T03:00:00Z", datetime.datetime(2019, 3, 2, 3),
    pd.Timestamp("2019-03-02T03"), np.datetime64("2019-03-02T03", "s"),
    cftime.DatetimeGregorian(2019, 3, 2, 3), xr.DataArray(np.datetime64("2019-03-02T03", "ns")),
])  # fmt: skip
def test_a_start_is_read_in_every_form(start: object) -> None:
    assert Axis.of(hours(), 1, "hours").find(start) == 27


def test_dates_off_by_a_rounding_are_found() -> None:
    off = hours().values + np.timedelta64(1300, "us")
    assert Axis.of(coord(off), 1, "hours").window(5, 3) == [3, 4, 5]
    assert Axis.of(coord(off), 1, "hours").find("2019-03-01T07") == 7


def test_a_month_is_one_step_wherever_its_dates_stand() -> None:
    mid = Axis.of(coord(middles("2006-01", 12)), 1, "months")
    assert mid.window(mid.find("2006-03"), 3) == [0, 1, 2]
    assert (mid.ahead(0, np.arange(12)) == middles("2006-01", 12)).all()
    assert (mid.ahead(11, [1, 2]) == middles("2007-01", 2)).all()
    ends = pd.date_range("2005-11-30", periods=6, freq="ME").values
    end = Axis.of(coord(ends), 1, "months")
    assert (end.ahead(0, np.arange(6)) == ends).all()
    assert end.ahead(3, [1])[0] == np.datetime64("2006-03-31")
    first = Axis.of(coord(pd.date_range("2005-11-01", periods=6, freq="MS").values), 2, "months")
    assert first.ahead(0, [1, 2])[1] == np.datetime64("2006-03-01")
    assert first.window(4, 3) == [0, 2, 4]
    assert first.leads(2).values.tolist() == [2, 4] and first.leads(2).attrs["units"] == "months"
    lone = Axis.of(coord(np.array(["2024-01-31T12"], "M8[ns]")), 1, "months")
    assert lone.ahead(0, [1, 2, 13]).tolist() == np.array(
        ["2024-02-29T12", "2024-03-31T12", "2025-02-28T12"], "M8[ns]").tolist()  # fmt: skip


def test_months_of_a_daily_axis_are_of_the_same_day() -> None:
    daily = coord(pd.date_range("2005-01-01", periods=200).values)
    axis = Axis.of(daily, 1, "months")
    frames = axis.window(axis.find("2005-04-10"), 3)
    assert [str(t)[:10] for t in daily.values[frames]] == ["2005-02-10", "2005-03-10", "2005-04-10"]


@pytest.mark.parametrize(("kind", "last"), [
    (cftime.Datetime360Day, 30), (cftime.DatetimeNoLeap, 28), (cftime.DatetimeGregorian, 29),
])  # fmt: skip
def test_model_calendars_keep_their_days(kind: type, last: int) -> None:
    days = coord(np.array([kind(2000, 2, d) for d in range(20, last + 1)], dtype=object))
    axis = Axis.of(days, 1, "days")
    assert axis.ahead(len(days) - 1, [1])[0] == kind(2000, 3, 1)
    assert axis.find("2000-02-21") == axis.find(kind(2000, 2, 21)) == 1
    months = Axis.of(
        coord(np.array([kind(2000, m, 16) for m in range(1, 13)], object)), 1, "months"
    )
    assert months.ahead(10, [1, 2, 14])[-1] == kind(2002, 1, 16)
    assert months.window(months.find("2000-05-16"), 4) == [1, 2, 3, 4]


def test_years_are_counted_though_their_dates_move() -> None:
    moved = np.array(["1890-07-11T22", "1891-07-11T22", "1892-07-10T22", "1893-07-10T22"], "M8[ns]")
    axis = Axis.of(coord(moved), 1, "years")
    assert axis.window(3, 3) == [1, 2, 3]
    assert axis.ahead(3, [500])[0] == np.datetime64("2393-07-10T22")
    june = np.array([cftime.Datetime360Day(y, 6, 1) for y in range(1860, 1870)], object)
    assert Axis.of(coord(june), 1, "years").ahead(9, [3])[0] == cftime.Datetime360Day(1872, 6, 1)


def refused(axis: xr.DataArray, step: float, unit: str) -> str:
    with pytest.raises(InputError) as fault:
        Axis.of(axis, step, unit)
    assert "\n" not in str(fault.value)
    return str(fault.value)


def test_what_is_no_axis_of_the_lead_is_refused() -> None:
    assert "twice" in refused(coord(hours().values[[0, 1, 1, 2]]), 1, "hours")
    assert "goes back" in refused(coord(hours().values[[0, 2, 1]]), 1, "hours")
    assert "NaT" in refused(coord(np.array(["2019-01-01", "NaT"], "M8[ns]")), 1, "hours")
    assert "expected dates" in refused(coord([1.0, 2.0]), 6, "hours")
    assert "holds dates" in refused(hours(), 1, "1")
    assert "whole months" in refused(coord(middles("2006-01", 3)), 0.5, "months")
    assert "falls" in refused(coord([3.0, 2.0]), 1, "1")
    for units, unit in (("s", "seconds"), ("months", "months")):
        plain = Axis.of(coord([0.0, 2.0, 4.0], units=units), 2, unit)
        assert plain.window(2, 3) == [0, 1, 2] and plain.ahead(2, [3])[0] == 10.0


def test_a_start_that_is_not_there_is_refused_with_the_nearest() -> None:
    axis = Axis.of(hours(), 6, "hours")
    for start, words in [("2019-03-01T05:20", "nearest is 2019-03-01T05:00"),
                         ("2020-01-01", "2019-03-02T23:00"), ("soon", "expected a date"),
                         (3.0, "expected a date"), ("2019-02-30", "no date")]:  # fmt: skip
        with pytest.raises(InputError, match=words):
            axis.find(start)


def test_a_gap_and_a_short_past_are_told_apart() -> None:
    gappy = coord(np.delete(hours().values, 20))
    with pytest.raises(InputError, match="No frame at 2019-03-01T20:00: a gap"):
        Axis.of(gappy, 6, "hours").window(Axis.of(gappy, 6, "hours").find("2019-03-02T02"), 3)
    with pytest.raises(InputError, match="with 2 of the 3 frames"):
        Axis.of(gappy, 6, "hours").window(7, 3)
    mid = coord(np.delete(middles("2006-01", 12), 4))
    with pytest.raises(InputError, match="a gap"):
        Axis.of(mid, 1, "months").window(5, 3)


def test_times_of_another_axis_are_found_by_what_they_mean() -> None:
    starts = coord(np.array(["2006-01-01", "2006-02-01", "2006-04-01"], "M8[ns]"))
    assert Axis.of(starts, 1, "months").indices(middles("2006-01", 4)).tolist() == [0, 1, -1, 2]


def test_a_time_is_said_as_short_as_it_can_be() -> None:
    assert said(np.datetime64("2019-03-01T00:00:00", "ns")) == "2019-03-01"
    assert said(np.datetime64("2019-03-01T06:30:00", "ns")) == "2019-03-01T06:30"
    assert said(cftime.Datetime360Day(2000, 2, 30, 6)) == "2000-02-30T06:00"
    assert said(0.30000000000000004) == "0.3"


def test_starts_that_can_be_forecast_and_checked_have_everything_around_them() -> None:
    axis = Axis.of(coord(np.delete(hours(40).values, 20)), 2, "hours")
    whole = set(range(40)) - {20}
    want = [h for h in sorted(whole) if {h - 4, h - 2, h, h + 2, h + 4, h + 6} <= whole]
    assert [int(str(axis.times[i])[11:13]) + 24 * (i >= 23) for i in axis.served(3, 3)] == want
    assert axis.reached([19], 40) == 10 and axis.reached([0, 19], 40) == 9
    assert axis.reached([0], 4) == 4
