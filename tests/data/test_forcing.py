"""What is known ahead: the calendar as angles on every calendar, fields in their own order."""

from __future__ import annotations

import cftime
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from sciddm.data.codec import Grid, Normaliser
from sciddm.data.forcing import Forcings
from sciddm.errors import InputError


def dates(values: object) -> xr.DataArray:
    return xr.Dataset(coords={"time": ("time", np.asarray(values))})["time"]


def angles(known: np.ndarray) -> np.ndarray:
    """Shares of a turn, from sine and cosine (2, T)."""
    return np.arctan2(known[0], known[1]) / (2 * np.pi) % 1


def test_the_day_and_the_year_are_angles() -> None:
    times = dates(pd.date_range("2019-01-01", periods=8760, freq="h").values)
    known = Forcings(day=True, year=True).at(times)
    assert known is not None and known.shape == (4, 8760) and known.dtype == np.float32
    assert np.allclose(angles(known[:2]), np.arange(8760) % 24 / 24, atol=1e-6)
    assert np.allclose(angles(known[2:]), np.arange(8760) / 8760, atol=1e-6)


@pytest.mark.parametrize(("kind", "length", "last"), [
    (cftime.Datetime360Day, 360, 30), (cftime.DatetimeNoLeap, 365, 31),
    (cftime.DatetimeAllLeap, 366, 31),
])  # fmt: skip
def test_the_year_of_a_model_calendar_closes(kind: type, length: int, last: int) -> None:
    """The first and the last day of the year are one day apart, and July is in the middle."""
    days = np.array([kind(2001, 1, 1), kind(2001, 12, last), kind(2001, 7, 1)], dtype=object)
    known = Forcings(year=True).at(dates(days))
    assert known is not None
    first, end, _ = angles(known)
    assert first == 0 and 1 - end == pytest.approx(1 / length, abs=1e-6)


def forced() -> tuple[Forcings, xr.Dataset]:
    times = pd.date_range("2000-01-01", periods=6, freq="MS")
    grid = Grid(("y", "x"), {"y": np.arange(2.0), "x": np.arange(3.0)})
    values = np.random.default_rng(0).normal(280, 5, (6, 2, 3)).astype("f4")
    ds = xr.Dataset(
        {"sst": (("x", "time", "y"), np.moveaxis(values, 2, 0), {"units": "K"})},
        {"time": times, "y": [0.0, 1.0], "x": [0.0, 1.0, 2.0]},
    )
    codec = Normaliser(grid, ("sst",), {"sst": {"units": "K"}}, np.full((1, 1, 1), 280.0),
                       np.array([5.0]))  # fmt: skip
    return Forcings(year=True, fields=codec), ds


def test_fields_come_normalised_at_the_times_asked_in_any_order_of_dims() -> None:
    forcings, ds = forced()
    times = ds["time"][[4, 1]]
    known = forcings.at(times, ds)
    assert known is not None and known.shape == (3, 2, 2, 3) and forcings.channels == 3
    want = (ds["sst"].transpose("time", "y", "x").values[[4, 1]] - 280) / 5
    assert np.allclose(known[2], want, atol=1e-5)
    year = forcings.at(ds["time"], ds)
    assert year is not None and np.ptp(year[0], axis=(1, 2)).max() == 0


def test_what_is_missing_is_named() -> None:
    forcings, ds = forced()
    later = dates(pd.date_range("2000-05-01", periods=4, freq="MS").values)
    gaps = ds.copy(deep=True)
    gaps["sst"][0, 2, 0] = np.nan
    for times, given, words in [
        (later, ds, "no values at 2000-07-01"),
        (ds["time"], None, "'sst' is missing"),
        (ds["time"], ds.rename(sst="sts"), "Did you mean 'sts'"),
        (ds["time"], gaps, "NaN or infinite at 2000-03"),
        (dates(np.arange(6.0)), ds, "expected dates"),
    ]:
        with pytest.raises(InputError, match=words) as fault:
            forcings.at(times, given)
        assert "\n" not in str(fault.value)


def test_nothing_known_is_none() -> None:
    assert Forcings().at(dates(np.arange(3.0))) is None
