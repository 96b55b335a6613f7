"""Series from frames, files and Datasets and back; every fault of a table said in one line."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import cftime
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from sciddm.data import items, ragged, split, stamps, store
from sciddm.data.checks import DataWarning
from sciddm.errors import InputError

DATA = Path(__file__).parents[3] / "shared" / "data"
real = pytest.mark.skipif(not DATA.is_dir(), reason="the shared data are not here")


def long(sizes: dict[str, int], seed: int = 0) -> pd.DataFrame:
    """A long frame of items at irregular times of their own."""
    rng = np.random.default_rng(seed)
    begin = pd.Timestamp("2020-01-01")
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "item_id": name,
                    "timestamp": begin + pd.to_timedelta(np.sort(rng.uniform(0, 100, n)), "h"),
                    "target": rng.standard_normal(n),
                }
            )
            for name, n in sizes.items()
        ],
        ignore_index=True,
    )


def equal(a: items.Items, b: items.Items) -> None:
    assert (a.variables, a.covariates, a.static, a.names) == (
        b.variables, b.covariates, b.static, b.names,
    )  # fmt: skip
    for one, other in zip(a, b, strict=True):
        assert np.array_equal(one.time, other.time)
        for x, y in (
            (one.values, other.values), (one.covariates, other.covariates),
            (one.static, other.static),
        ):  # fmt: skip
            assert (x is None and y is None) or np.array_equal(x, y, equal_nan=True)


def repeated(found: items.Items, members: int = 3) -> items.Draws:
    """Members that are the items' values plus their own number."""
    rise = np.arange(members, dtype=float)[:, None, None]
    return items.Draws(found, tuple(i.values + rise for i in found))


def test_a_long_frame_is_items_and_back() -> None:
    frame = long({"b": 5, "a": 7, "c": 4})
    frame.loc[3, "target"] = np.nan
    frame["lat"] = frame.item_id.map({"a": 1.0, "b": 2.0, "c": np.nan})
    frame["sun"] = np.arange(len(frame), dtype=float)
    found = items.of(frame, static=["lat"], covariates=["sun"])
    assert found.names == ("b", "a", "c") and found.variables == ("target",)
    assert [len(i) for i in found] == [5, 7, 4] and found["b"].seen == 4
    assert found["a"].static == [1.0] and found["a"].covariates[:, 0].tolist() == list(range(5, 12))
    pd.testing.assert_frame_equal(found.back(), frame)
    equal(items.of(found.back(), static=["lat"], covariates=["sun"]), found)


def test_names_of_other_libraries_and_numbers_as_names() -> None:
    frame = long({"b": 5, "a": 7}).rename(
        columns={"item_id": "unique_id", "timestamp": "ds", "target": "y"}
    )
    frame["unique_id"] = frame.unique_id.map({"a": 10, "b": 7})
    found = items.of(frame[["ds", "y", "unique_id"]])
    assert found.names == ("7", "10") and found.variables == ("y",)
    pd.testing.assert_frame_equal(found.back(), frame[["ds", "y", "unique_id"]])
    indexed = frame.rename(columns={"unique_id": "item_id", "ds": "timestamp"}).set_index(
        ["item_id", "timestamp"]
    )
    equal(items.of(indexed), found)
    pd.testing.assert_frame_equal(items.of(indexed).back(), indexed)


def test_interleaved_rows_are_the_same_items() -> None:
    frame = long({"a": 6, "b": 6})
    mixed = frame.sort_values("timestamp", kind="stable").sort_values("timestamp")
    a = {i.name: i.values for i in items.of(frame)}
    assert all(np.array_equal(a[i.name], i.values) for i in items.of(mixed))


def test_wide_frames_of_variables_and_of_items() -> None:
    index = pd.date_range("2020", periods=6, freq="h", name="time")
    frame = pd.DataFrame(np.arange(18.0).reshape(6, 3), index, ["x", "y", "z"])
    frame.iloc[2, 1] = np.nan
    one = items.of(frame)
    assert len(one) == 1 and one.variables == ("x", "y", "z")
    pd.testing.assert_frame_equal(one.back(), frame, check_freq=False)
    three = items.of(frame, columns_are_items=True)
    assert three.names == ("x", "y", "z") and three.variables == ("value",)
    assert np.array_equal(three["y"].values[:, 0], frame.y, equal_nan=True)
    pd.testing.assert_frame_equal(three.back(), frame, check_freq=False)
    series = items.of(frame.x)
    assert series.variables == ("x",) and series.items[0].values[:, 0].tolist() == list(frame.x)


def test_draws_come_back_as_the_items_came() -> None:
    frame = long({"a": 3, "b": 2})
    out = repeated(items.of(frame)).back()
    assert out.columns.tolist() == ["item_id", "timestamp", "target", "member"] and len(out) == 15
    second = out[(out.item_id == "b") & (out.member == 2)].reset_index(drop=True)
    assert np.allclose(second.target, frame.target[3:] + 2)
    assert (second.timestamp.values == frame.timestamp[3:].values).all()
    wide = pd.DataFrame({"x": [1.0, 2.0], "y": [3.0, 4.0]}, pd.date_range("2020", periods=2))
    across = repeated(items.of(wide, columns_are_items=True)).back()
    assert across.index.names[0] == "member" and across.loc[1, "y"].tolist() == [4.0, 5.0]
    down = repeated(items.of(wide)).back()
    assert np.allclose(down[down.member == 1][["x", "y"]], wide + 1)


def test_interval_columns_are_quantiles_of_the_members() -> None:
    found = items.of(long({"a": 4, "b": 3}))
    rng = np.random.default_rng(1)
    draws = items.Draws(found, tuple(rng.standard_normal((400, len(i), 1)) for i in found))
    out = draws.back([90, 50])
    assert out.columns.tolist() == [
        "item_id", "timestamp", "target", "target-median", "target-lo-90", "target-hi-90",
        "target-lo-50", "target-hi-50",
    ]  # fmt: skip
    both = np.concatenate([d[:, :, 0] for d in draws.values], 1)
    assert np.allclose(out.target, both.mean(0)) and np.allclose(
        out["target-median"], np.median(both, 0)
    )
    inside = (both >= out["target-lo-90"].values) & (both <= out["target-hi-90"].values)
    assert np.allclose(inside.mean(0), 0.9, atol=0.006)
    with pytest.raises(InputError, match=r"level 0\.9|level 120"):
        draws.back([120])


def test_items_of_their_own_times_are_ragged_arrays(tmp_path: Path) -> None:
    frame = long({"a": 5, "b": 7, "c": 4})
    frame["lat"] = frame.item_id.map({"a": 1.0, "b": 2.0, "c": 3.0})
    frame["sun"] = np.arange(len(frame), dtype=float)
    found = items.of(frame, static=["lat"], covariates=["sun"])
    ds = ragged.dataset(found).assign_attrs(
        sciddm_sample_dim="item", sciddm_splits={"train": [0, 2], "test": [2, 3]}
    )
    assert ds.row_size.values.tolist() == [5, 7, 4]
    assert ds.row_size.attrs["sample_dimension"] == "obs"
    path = store.write(ds, tmp_path / "r.zarr")
    assert store.verify(path) == []
    opened = store.open(path)
    back = items.of(opened)
    equal(back, found)
    xr.testing.assert_identical(back.back().load(), opened.load())
    equal(items.of(split.select(opened, "test")), back.split("test"))
    assert back.split("test").names == ("c",)
    draws = repeated(back).back()
    assert dict(draws.sizes) == {"member": 3, "obs": 16, "item": 3}
    assert np.allclose(draws.target[1], found.back().target + 1)
    assert "target-lo-90" in repeated(back).back([90])


@pytest.mark.parametrize("model_year", [False, True])
def test_dense_datasets_of_one_and_of_many(model_year: bool) -> None:
    time: Any = np.datetime64("2001-01-01", "ns") + np.arange(5) * np.timedelta64(1, "D")
    if model_year:
        time = xr.date_range("2001-02-26", periods=5, calendar="360_day", use_cftime=True)
    values = np.arange(10.0).reshape(2, 5)
    ds = xr.Dataset(
        {"t": (("place", "time"), values, {"units": "K"}), "h": ("time", np.arange(5.0))},
        {"time": time, "place": ["p", "q"]},
    )
    two = items.of(ds, target="t", covariates=["h"])
    assert two.names == ("p", "q") and two.units["t"] == "K"
    assert two["q"].covariates[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert two.dated != model_year and (two.calendar == "360_day") == model_year
    assert np.array_equal(np.diff(two["p"].time).astype("m8[D]").astype(int) if two.dated
                          else np.diff(two["p"].time), np.ones(4))  # fmt: skip
    xr.testing.assert_equal(items.of(ds[["t"]]).back(), ds[["t"]])
    xr.testing.assert_equal(items.of(ds.t.transpose()).back(), ds[["t"]])
    one = ds.t.isel(place=0, drop=True)
    xr.testing.assert_equal(items.of(one).back(), one.to_dataset())
    draws = repeated(two).back()
    assert draws.t.dims == ("member", "place", "time") and draws.t.attrs["units"] == "K"
    assert np.allclose(draws.t.sel(member=2), values + 2)
    part = items.of(ds.assign_attrs(sciddm_sample_dim="time", sciddm_splits={"test": [3, 5]}),
                    target="t").split("test")  # fmt: skip
    assert part["q"].values[:, 0].tolist() == [8, 9]


def test_zones_become_utc() -> None:
    frame = pd.DataFrame(
        {
            "ds": ["2020-03-29T00:30:00+01:00", "2020-03-29T03:30:00+02:00"],
            "y": [1.0, 2.0],
        }
    )
    (one,) = items.of(frame)
    assert one.time.tolist() == pd.DatetimeIndex(["2020-03-28T23:30", "2020-03-29T01:30"]).to_numpy(
        "datetime64[ns]"
    ).tolist()  # fmt: skip
    aware = frame.assign(ds=pd.to_datetime(frame.ds, utc=True).dt.tz_convert("Europe/Berlin"))
    assert np.array_equal(items.of(aware).items[0].time, one.time)


@pytest.mark.parametrize(
    ("keep", "values"), [("first", [1, 3]), ("last", [2, 3]), ("mean", [1.5, 3])]
)
def test_repeats_are_kept_as_said(keep: str, values: list[float]) -> None:
    frame = pd.DataFrame({"ds": ["2020-01-02", "2020-01-01", "2020-01-01"], "y": [3.0, 1.0, 2.0]})
    found = items.of(frame, sort=True, keep=keep)
    assert found.items[0].values[:, 0].tolist() == values
    rows = frame.assign(v="a").rename(columns={"y": "value"})
    assert items.of(rows, variable="v", keep=keep).items[0].values[:, 0].tolist() == values


def test_one_value_a_row_is_columns() -> None:
    table = pd.DataFrame(
        {
            "id": [1, 1, 1, 1, 2],
            "Time": ["00:00", "00:00", "01:30", "47:30", "00:15"],
            "Parameter": ["Age", "HR", "HR", "BP", "HR"],
            "Value": [50, 80, 90, 120, 70.0],
        }
    )
    found = items.of(table, item="id", variable="Parameter", time_format="%H:%M", static=["Age"])
    assert found.variables == ("HR", "BP") and found.time_units == "hours"
    assert found["1"].time.tolist() == [0, 1.5, 47.5] and found["1"].static == [50]
    assert np.array_equal(found["1"].values, [[80, np.nan], [90, np.nan], [np.nan, 120]], True)
    assert np.isnan(found["2"].static).all()


def test_absent_rows_of_a_regular_record_are_said_and_can_be_added() -> None:
    months = pd.to_datetime([f"2001-{m:02d}-01" for m in (1, 2, 3, 6, 7, 8, 12)])
    with pytest.warns(DataWarning, match="5 rows of a regular record are absent"):
        found = items.of(pd.DataFrame({"date": months, "y": np.arange(7.0)}))
    full = found.filled().items[0]
    assert full.time.astype("datetime64[M]").astype(int).tolist() == list(range(372, 384))
    assert np.array_equal(full.values[[0, 1, 2, 5, 6, 7, 11], 0], np.arange(7.0))
    assert full.seen == 7
    hours = np.array([0.0, 0.1, 0.2, 0.5, 0.6])
    item = items.Item("a", hours, np.arange(5.0)[:, None], hours[:, None])
    one = items.Items(("y",), (item,), ("k",)).filled().items[0]
    assert len(one) == 7 and np.isnan(one.covariates[3:5]).all() and one.time[5] == 0.5


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        (np.arange("2001-01", "2003-01", dtype="M8[M]").astype("M8[ns]"), stamps.Cadence(months=1)),
        (np.arange("1950", "1960", dtype="M8[Y]").astype("M8[ns]"), stamps.Cadence(months=12)),
        (np.arange("2001-01-01", "2001-03-01", dtype="M8[h]").astype("M8[ns]"),
         stamps.Cadence(3600.0)),
        (np.array([0.0, 0.1, 0.35, 0.4]), None),
        (np.array([0.0, 1.0]), None),
    ],
)  # fmt: skip
def test_equal_steps_are_found(time: np.ndarray, expected: stamps.Cadence | None) -> None:
    assert stamps.cadence(time) == expected


def test_short_and_empty_items_are_counted_and_named() -> None:
    frame = long({"a": 8, "b": 3, "c": 9})
    frame.loc[frame.item_id == "c", "target"] = np.nan
    found = items.of(frame)
    with pytest.warns(
        DataWarning, match=r"2 of 3 items .* 4 \+ 2 rows, or empty: 'b' \(3 rows\), 'c' \(no val"
    ):
        assert items.long_enough(found, 4, 2).names == ("a",)
    with pytest.raises(InputError, match="3 of 3 items .* expected at least one"):
        items.long_enough(found, 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert items.long_enough(found.only([found["a"]]), 8).names == ("a",)


def test_covariates_must_reach_over_the_horizon() -> None:
    frame = long({"a": 4, "b": 4}).assign(sun=1.0)
    frame.loc[7, ["target", "sun"]] = np.nan
    found = items.of(frame, covariates=["sun"])
    with pytest.raises(InputError, match=r"Item 'b': the covariate 'sun' is missing at 2020-01-0"):
        items.covered(found)
    late = {"b": found["b"].time[3] + np.timedelta64(1, "s")}
    assert items.covered(found, late) is found


BEGUN = "item_id,timestamp,target\n"
ROWS = BEGUN + "a,2020-01-01,1\na,2020-01-02,2\n"
CODE = "date,y\n" + "".join(f"2020-01-{d:02d},{v}\n" for d, v in enumerate(range(10, 30), 1))
FAULTS: list[tuple[str, dict[str, Any], str]] = [
    (ROWS + "a,2020-01-02,3\n", {}, r"item 'a': the time 2020-01-02 stands twice, in row 3 and ro"),
    (ROWS + "a,2019-01-02,3\n", {}, r"item 'a': time goes back, first in row 4 .* say sort=True"),
    (BEGUN + "a,2020-01-03,1\na,2020-01-02,2\n", {}, r"every row goes back, first in row 3"),
    (ROWS + "a,2020-01-03T00:00:00Z,3\n", {}, r"'timestamp' has a time zone in some rows .* row 4"),
    (ROWS + "a,,3\n", {}, r"'timestamp' is missing in 1 rows, first in row 4"),
    (ROWS + "a,NaT,3\n", {}, r"'timestamp' is missing in 1 rows, first in row 4"),
    (ROWS + "a,yesterday,3\n", {}, r"'timestamp' holds 'yesterday' in row 4; expected an ISO date"),
    (ROWS + "a,2020-01-03,M\n", {}, r"'target' holds 'M' in row 4; .* na_values=\('M',\)"),
    (ROWS + "a,2020-01-03,inf\n", {}, r"'target' is infinite in row 4"),
    (ROWS + ",2020-01-03,3\n", {"na_values": ("",)}, r"the item 'item_id' is missing in r"),
    (BEGUN, {}, "no rows below its header"),
    (BEGUN + "a,2020-01-01,x\n", {}, "no column of numbers beside the times"),
    (BEGUN + "a,2020-01-01,x\n", {"target": "target"}, r"'target' holds 'x' in row 2; exp"),
    (BEGUN + "a,2020-01-01,\n", {}, "'target' has no value in any row"),
    (ROWS, {"target": "tarket"}, "no column 'tarket'. Did you mean 'target'"),
    (ROWS, {"item": "id"}, "no column 'id'"),
    (ROWS, {"keep": "some"}, "keep='some'; expected 'first', 'last' or 'mean'"),
    ("item_id,timestamp,target,target\na,2020-01-01,1,2\n", {}, "two columns are named 'target'"),
    ("item_id;timestamp;target\na;2020-01-01;1\n", {}, "separated by semicolons"),
    ("item_id;timestamp;target\na;2020-01-01;1,5\n", {}, "are there semicolons, or decimal comm"),
    (BEGUN + 'a,2020-01-01,"1,5"\na,2020-01-02,"2,5"\n', {"target": "target"},
     r"holds '1,5' in row 2; expected a number: write decimal points"),
    (BEGUN + "a,2020-01-01,1\na,2020-01-02,2\na,2020-01-03,\"2,5\"\n", {},
     r"holds '2,5' in row 4; expected a number: write decimal points"),
    ("date,y\n195803,1\n195804,2\n", {}, r"integers such as 195803, .* say time_format='%Y%m'"),
    ("date,y\n19580301,1\n19580402,2\n", {}, r"such as 19580301, .* time_format='%Y%m%d'"),
    ("date,y\n19580301,1\n19581402,2\n", {"time_format": "%Y%m%d"}, r"'19581402' in row 3; expect"),
    ("date,y\n1/1/1981,1\n1/2/1981,2\n", {}, "say time_format, '%m/%d/%Y' or '%d/%m/%Y'"),
    ("date,y\n1/1/1981,1\n1/22/1981,2\n", {}, r"say time_format, '%m/%d/%Y'\."),
    ("year,month,y\n1981,1,1\n1981,2,2\n", {}, r"\['year', 'month'\] are parts of a time"),
    ("a,b\n1,2\n3,4\n", {}, "no column of times"),
    ("0,1\n1,2\n3,4\n", {}, "say step=1"),
    ("Time,y\n00:07,1\n25:30,2\n", {}, "say time_format='%H:%M'"),
    (CODE + "2020-02-01,-999\n", {}, r"'y' holds -999 1 times, first in row 22, far from all else"),
    (CODE + "2020-02-01,-9999\n2020-02-02,-9999\n", {}, r"say missing_values=\(-9999,\), or \(\)"),
    (CODE + "2020-02-01,9.96920996838687e36\n", {}, r"'y' holds 9.96920996839e\+36 1 times"),
    (CODE + "2020-02-01,-1\n2020-02-02,-1\n", {}, r"'y' holds -1 2 times, first in row 22"),
    ("item_id,ds,y,lat\na,2020-01-01,1,5\na,2020-01-02,2,6\n", {"static": ("lat",)},
     "item 'a': the static column 'lat' changes in row 3"),
    ("id,ds,v,x\n1,2020-01-01,a,1\n1,2020-01-01,a,2\n", {"item": "id", "variable": "v"},
     "item '1': 'a' stands twice at 2020-01-01, again in row 3"),
    ("id,ds,v,x\n1,2020-01-01,a,1\n", {"item": "id", "variable": "v", "static": ("Age",)},
     "no variable 'Age' in 'v'"),
    ("YEAR,JAN,FEB,MAR,APR,MAY,JUN,JUL,AUG,SEP,OCT,NOV,DEC\n1950,1,2,3,4,5,6,7,8,9,1,2,3\n", {},
     "a row holds a year and a column a month"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "how", "said"), FAULTS)
def test_a_fault_is_one_line(tmp_path: Path, text: str, how: dict[str, Any], said: str) -> None:
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=said) as error:
        items.of(path, **how)
    assert "\n" not in str(error.value) and (str(path) in str(error.value) or "keep" in how)


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (pd.DataFrame({"ds": [1, 2], "y": [1j, 2]}), "'y' holds complex128 values"),
        (pd.DataFrame({"ds": [pd.NaT, pd.Timestamp("2020")], "y": [1, 2]}), "missing in 1 rows"),
        (pd.DataFrame({"ds": [True, False], "y": [1, 2]}), "'ds' holds true and false"),
        (pd.DataFrame({"ds": [1.0, np.nan], "y": [1, 2]}), "'ds' is missing in 1 rows, first in r"),
        (pd.DataFrame({"ds": [], "y": []}), "the table has no rows"),
        (pd.DataFrame({"ds": [pd.Timestamp("2020"), pd.Timestamp("2021", tz="UTC")], "y": [1, 2]}),
         "a time zone in some rows and none in others, first in row 1"),
        (pd.DataFrame({"ds": [1, 2], "y": [[1], [2]]}), "no column of numbers beside"),
        ({"a": 1}, "Got dict; expected a pandas frame"),
        (xr.Dataset({"t": (("time", "y", "x"), np.zeros((2, 2, 2)))}, {"time": [1.0, 2.0]}),
         r"the dims \['time', 'x', 'y'\]; expected time, or item and time"),
        (xr.Dataset({"t": ("obs", np.ones(3)), "n": ("item", [1, 1], {"sample_dimension": "obs"})},
                    {"time": ("obs", [0.0, 1.0, 2.0])}), "'n' says 2 rows in all, 'obs' has 3"),
        (xr.Dataset({"t": ("time", [np.nan] * 2)}, {"time": [1.0, 2.0]}), "'t' has no value at"),
        (xr.Dataset({"t": ("time", [1.0, 2])}, {"time": [2.0, 1.0]}), "time every row goes back"),
    ],
)  # fmt: skip
def test_a_fault_in_memory_is_one_line(frame: Any, said: str) -> None:  # noqa: ANN401
    with pytest.raises(InputError, match=said) as error:
        items.of(frame)
    assert "\n" not in str(error.value)


def test_what_may_be_right_is_remarked() -> None:
    frame = pd.DataFrame({"ds": np.arange(4.0), "a": 5.0, "b": np.arange(4.0), "note": "x"})
    with pytest.warns(DataWarning) as found:
        items.of(frame)
    said = [str(w.message) for w in found]
    assert any("'a' is constant" in s for s in said) and any(
        "['note'] are left out" in s for s in said
    )


def test_codes_are_missing_once_declared_and_measurements_once_said() -> None:
    frame = pd.DataFrame({"ds": np.arange(9.0), "y": [1, 2, 3, 4, 5, -999, 6, 7, -999]})
    assert items.of(frame, missing_values=[-999]).items[0].seen == 7
    assert items.of(frame, missing_values={"y": [-999]}).items[0].seen == 7
    assert items.of(frame, missing_values=[]).items[0].seen == 9
    cold = pd.DataFrame({"ds": np.arange(9.0), "y": [-3, -1, -1, 0, 2, 4, 1, -2, 0.0]})
    assert items.of(cold).items[0].seen == 9


def test_two_items_of_one_name_and_misshapen_values() -> None:
    one = items.Item("a", np.arange(3.0), np.zeros((3, 1)))
    with pytest.raises(InputError, match="Two items are named 'a'"):
        items.Items(("y",), (one, one))
    with pytest.raises(InputError, match=r"values of shape \(3, 1\) for times of shape \(2,\)"):
        items.Item("a", np.arange(2.0), np.zeros((3, 1)))
    with pytest.raises(InputError, match="has 1 values; expected 2"):
        items.Items(("y", "z"), (one,))
    with pytest.raises(InputError, match="expected dates in all or numbers in all"):
        other = items.Item("b", np.zeros(3, "M8[ns]"), np.zeros((3, 1)))
        items.Items(("y",), (one, other))
    with pytest.raises(InputError, match=r"draws of shape \(2, 2, 1\)"):
        items.Draws(items.Items(("y",), (one,)), (np.zeros((2, 2, 1)),))


def test_model_dates_outside_pandas_are_kept(tmp_path: Path) -> None:
    time = np.array([cftime.DatetimeNoLeap(3001, 2, 28 + 0), cftime.DatetimeNoLeap(3001, 3, 1)])
    found = items.of(xr.Dataset({"t": ("time", [1.0, 2.0])}, {"time": time}))
    assert found.items[0].time.tolist() == [0, 1] and found.calendar == "noleap"
    assert (found.back().time.values == time).all()


REAL: list[tuple[str, dict[str, Any], str]] = [
    ("series/co2.csv", {}, "time_format='%Y%m%d'"),
    ("series/us_gasoline.csv", {}, "'%m/%d/%Y'"),
    ("series/us_gasoline.csv", {"time_format": "%m/%d/%Y"}, "every row goes back"),
    ("series/temps.csv", {}, "'%m/%d/%Y'"),
    ("series/elnino.csv", {}, "a column a month"),
    ("series/exchange_rate.csv", {}, "say step=1"),
    ("stations/nyc_weather_2013.csv", {"item": "origin"}, "are parts of a time"),
    ("stations/nyc_weather_2013.csv", {
        "item": "origin", "time": ("year", "month", "day", "hour"), "target": "temp",
        "time_format": "%Y %m %d %H"}, "2013-11-03T01:00:00 stands twice, in row 7320 and row 732"),
    ("stations/CO-OPS_9415020_wl.csv", {}, "2021-01-01 stands twice"),
    ("stations/CO-OPS_9415020_wl.csv", {
        "time": ("Date", "Time (GMT)"), "target": "Preliminary (ft)"}, "holds '-' in row 2"),
    ("stations/CO-OPS_9415020_wl.csv", {
        "time": ("Date", "Time (GMT)"), "na_values": ("-",)}, r"'Preliminary \(ft\)' has no value"),
    ("stations/479615.NorthDakota.csv", {}, "time_format='%Y%m'"),
    ("stations/479615.NorthDakota.csv", {"time_format": "%Y%m"}, "'CLDD' holds -9999 4786 times"),
    ("series/physionet2012_set-a_400.csv.gz", {
        "item": "RecordID", "variable": "Parameter", "time_format": "%H:%M"},
     "'Height' holds -1 177 times, first in row 4"),
    ("ensembles/RMM1.observed.interannual.1974-06.2017-07.nc", {}, "missing in 145 rows"),
    ("climate/ostia_monthly.nc", {}, "take one place of a field"),
]  # fmt: skip


@real
@pytest.mark.filterwarnings("ignore::sciddm.data.checks.DataWarning")
@pytest.mark.parametrize(("file", "how", "said"), REAL)
def test_real_traps_are_refused(file: str, how: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said) as error:
        items.of(DATA / file, **how)
    assert "\n" not in str(error.value)


@real
def test_a_fault_of_a_file_names_the_file() -> None:
    path = DATA / "stations" / "Boulder.temp.1897-2014.nc"
    with pytest.raises(InputError, match=r"Boulder.*time_format='%Y%m'"):
        items.of(path, target="temp")
    assert len(items.of(path, target="temp", time_format="%Y%m").items[0]) == 1416


@real
@pytest.mark.filterwarnings("ignore::sciddm.data.checks.DataWarning")
def test_real_files_are_read_right() -> None:
    co2 = items.of(DATA / "series/co2.csv", time_format="%Y%m%d").items[0]
    assert len(co2) == 2284 and co2.seen == 2225 and co2.time[0] == np.datetime64("1958-03-29")
    gas = items.of(DATA / "series/us_gasoline.csv", time_format="%m/%d/%Y", sort=True).items[0]
    assert gas.values[-1] == 8864 and gas.time[-1] == np.datetime64("2021-04-30")
    milk = items.of(DATA / "series/monthly-milk-incomplete.csv")
    assert [len(milk.items[0]), len(milk.filled().items[0])] == [155, 168]
    temps = items.of(DATA / "series/temps.csv", time_format="%m/%d/%Y").filled().items[0]
    assert len(temps) == 3652 and temps.seen == 3650
    ili = items.of(DATA / "series/ILINet.csv")
    assert len(ili.variables) == 11 and np.isnan(ili.items[0].values[0, 3])
    nyc = items.of(DATA / "stations/nyc_weather_2013.csv", item="origin", time="time_hour",
                   target=("temp", "pressure"))  # fmt: skip
    assert nyc.names == ("EWR", "JFK", "LGA") and [len(i) for i in nyc] == [8703, 8706, 8706]
    assert nyc["EWR"].time[0] == np.datetime64("2013-01-01T06:00") and nyc.units == {}
    metar = items.of(DATA / "stations/metar_2020-01.csv.gz", static=("latitude", "longitude"),
                     target=("temperature", "windSpeed"))  # fmt: skip
    assert len(metar) == 12 and sum(map(len, metar)) == 12549
    assert metar["NZCM"].static == pytest.approx([-77.87, 166.97])
    tide = items.of(DATA / "stations/CO-OPS_9415020_wl.csv", time=("Date", "Time (GMT)"),
                    target="Verified (ft)").items[0]  # fmt: skip
    assert tide.time[1] == np.datetime64("2021-01-01T00:06") and tide.values[0] == 0.33
    dakota = items.of(DATA / "stations/479615.NorthDakota.csv", time_format="%Y%m", sort=True,
                      missing_values=(-9999,), target=("TPCP", "MNTM"))  # fmt: skip
    assert len(dakota) == 10 and np.nanmin(dakota.items[0].values[:, 0]) >= 0
    rates = items.of(DATA / "series/exchange_rate.csv", step=1)
    assert rates.items[0].values.shape == (7588, 8)
    members = items.of(DATA / "climate/atm.20C.hourly6-1990-1995-TS.nc")
    assert len(members) == 40 and members.calendar == "noleap"
