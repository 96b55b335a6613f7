"""Splits: whole stretches in order, apart from each other, in the calendar of the data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from sciddm.data import split, store
from sciddm.errors import InputError


def hours(n: int = 744, calendar: str = "standard") -> xr.Dataset:
    time = xr.date_range("2019-02-28", periods=n, freq="h", calendar=calendar)
    return xr.Dataset(
        {"a": ("time", np.arange(n, dtype="f4"))},
        coords={"time": time},
        attrs={"sciddm_sample_dim": "time"},
    )


@given(
    n=st.integers(3, 400),
    validation=st.floats(0.01, 0.6),
    test=st.floats(0.01, 0.6),
    gap=st.integers(0, 10),
)
def test_splits_are_apart_ordered_and_within(
    n: int, validation: float, test: float, gap: int
) -> None:
    """Either all three are non-empty, in order, with the gap between; or it is refused."""
    try:
        got = split.by_order(n, validation, test, gap)
    except InputError:
        return
    bounds = [got["train"], got["validation"], got["test"]]
    assert all(lo < hi for lo, hi in bounds)
    assert bounds[0][0] == 0 and bounds[2][1] == n
    assert bounds[1][0] - bounds[0][1] == gap == bounds[2][0] - bounds[1][1]
    assert abs((n - bounds[2][0]) - n * test) <= 0.5


def test_a_thousand_samples() -> None:
    assert split.by_order(1000) == {
        "train": [0, 800], "validation": [800, 900], "test": [900, 1000]
    }  # fmt: skip


def test_dates_decide_and_no_later_time_is_trained_on() -> None:
    ds = split.attach(hours(), split.by_time(hours(), validation="2019-03-22", test="2019-03-25"))
    train, held, test = (split.select(ds, n) for n in ("train", "validation", "test"))
    assert str(held.time.values[0]) == "2019-03-22T00:00:00.000000000"
    assert str(test.time.values[0]) == "2019-03-25T00:00:00.000000000"
    assert train.time.values[-1] < held.time.values[0] < held.time.values[-1] < test.time.values[0]
    assert train.sizes["time"] + held.sizes["time"] + test.sizes["time"] == 744


@pytest.mark.parametrize("calendar", ["360_day", "noleap", "standard"])
def test_the_calendar_is_that_of_the_data(calendar: str) -> None:
    """From 28 February to 20 March: in a 360-day year February itself has 30 days."""
    ds = hours(calendar=calendar)
    got = split.by_time(ds, "time", validation="2019-03-20", test="2019-03-25", gap=6)
    days = 20 + 2 if calendar == "360_day" else 20
    assert got["validation"][0] == 24 * days
    assert got["train"] == [0, 24 * days - 6]
    if calendar == "360_day":
        assert split.by_time(ds, validation="2019-02-30", test="2019-03-02")["train"] == [0, 48]


@pytest.mark.parametrize(
    ("validation", "test", "said"),
    [
        ("2019-13-01", "2019-03-25", "validation='2019-13-01' is no date"),
        ("next week", "2019-03-25", "is no date on 'time'"),
        ("2019-03-22", "2020-01-01", "test='2020-01-01' leaves nothing"),
        ("2018-01-01", "2019-03-25", "validation='2018-01-01' leaves nothing"),
        ("2019-03-25", "2019-03-22", "validation split is empty"),
        ("2019-03-22", "2019-03-22", "validation split is empty"),
    ],
)
def test_wrong_dates_are_one_line(validation: str, test: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as error:
        split.by_time(hours(), "time", validation=validation, test=test)
    assert "\n" not in str(error.value)


def test_other_refusals() -> None:
    with pytest.raises(InputError, match="No time dim 'tim'.*'time'"):
        split.by_time(hours(), "tim", validation="2019-03-20", test="2019-03-25")
    with pytest.raises(InputError, match="validation=0.0"):
        split.by_order(10, validation=0.0)
    with pytest.raises(InputError, match="gap=-1"):
        split.by_order(10, gap=-1)
    with pytest.raises(InputError, match="train split is empty"):
        split.by_order(10, 0.5, 0.5)


@pytest.mark.parametrize(
    ("splits", "said"),
    [
        ({"train": [0, 500], "test": [499, 744]}, "'test' .* shares samples"),
        ({"train": [0, 745]}, "within the 744 samples"),
        ({"train": [-1, 5]}, "within"),
        ({"train": [5, 5]}, "within"),
        ({"train": [5]}, "within"),
    ],
)
def test_ranges_that_cannot_be_are_refused(splits: dict[str, list[int]], said: str) -> None:
    with pytest.raises(InputError, match=said):
        split.attach(hours(), splits)
    with pytest.raises(InputError, match=said):
        split.select(hours().assign_attrs(sciddm_splits=splits), "train")


def test_select_says_what_it_took_and_is_not_taken_again(tmp_path: Path) -> None:
    """Through a store and back: ranges are plain numbers in its attributes."""
    ds = split.attach(hours(), split.by_order(744, gap=3))
    ds = store.open(store.write(ds, tmp_path / "s.zarr"))
    held = split.select(ds, "validation")
    assert held.attrs["sciddm_range"] == ds.attrs["sciddm_splits"]["validation"]
    assert held.a.values[0] == held.attrs["sciddm_range"][0]
    with pytest.raises(InputError, match="No split 'tset'. Did you mean 'test'"):
        split.select(ds, "tset")
    with pytest.raises(InputError, match="already the 'validation' split"):
        split.select(held, "train")
