"""Every way a file of fields is known to be wrong or merely odd: refused, warned about or handled.

The numbers are rows of the project's list of bad inputs, one a case.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from sciddm.data import checks, schema
from sciddm.errors import InputError


def field(n: int = 24, ny: int = 4, nx: int = 6) -> xr.Dataset:
    """Temperatures that are smooth, all distinct, on a global grid."""
    rng = np.random.default_rng(0)
    values = 280 + 5 * rng.standard_normal((n, ny, nx))
    return xr.Dataset(
        {"t": (("time", "lat", "lon"), values.astype("f4"), {"units": "K"})},
        coords={
            "time": xr.date_range("2001-01-01", periods=n, freq="6h"),
            "lat": ("lat", np.linspace(-60, 60, ny), {"units": "degrees_north"}),
            "lon": ("lon", np.arange(nx) * 360.0 / nx, {"units": "degrees_east"}),
        },
    )


def changed(at: tuple[int, ...] | slice, value: float, dtype: str = "f4") -> xr.Dataset:
    ds = field()
    ds["t"] = ds.t.astype(dtype)
    ds.t.values[at] = value
    return ds


def with_time(values: object) -> xr.Dataset:
    return field().assign_coords(time=("time", np.asarray(values)))


def hours(*steps: float) -> xr.Dataset:
    """The field with these steps, in hours, between its times."""
    at = np.concatenate([[0], np.cumsum(steps)])
    return field(len(at)).assign_coords(
        time=np.datetime64("2001-01-01", "ns") + (at * 3600).astype("m8[s]")
    )


def both(ds: xr.Dataset, name: str = "t", sample_dim: str = "", strict: bool = False) -> None:
    schema.check_field(schema.conform(ds, [name], sample_dim=sample_dim), strict=strict)


NAT = field().time.values.copy()
NAT[[5, 9]] = np.datetime64("NaT")
TWICE = field().time.values.copy()
TWICE[10] = TWICE[9]

REFUSED: list[tuple[str, Callable[[], xr.Dataset], str]] = [
    ("1", lambda: field().rename(t="tt"), r"No variable 't'\. Did you mean 'tt'"),
    ("7", lambda: field().rename(t="T"), r"No variable 't'.*T"),
    ("10", lambda: changed((5, 0, 0), np.nan), r"'t' has gaps .* 0\.174 %.*time=2001-01-02 06"),
    ("11", lambda: changed(slice(None), np.nan), r"'t' is 100 % missing \(NaN\).*at most 95%"),
    ("11 share", lambda: changed((slice(1, None),), np.nan), r"'t' is 95.8 % missing"),
    (
        "12",
        lambda: changed((7, 2, 3), np.inf),
        r"'t' is infinite at time=2001-01-02 18:00:00, lat=20.0, lon=180.0",
    ),
    ("12 minus", lambda: changed((7, 2, 3), -np.inf), r"'t' is infinite at time=2001-01-02 18"),
    (
        "12 float32",
        lambda: changed((7, 2, 3), 1e300, "f8"),
        r"'t' is 1e\+300, too large for float32",
    ),
    ("20 int", lambda: field().astype("i4"), r"'t' is int32.*continuous=\('t',\)"),
    ("20 bool", lambda: field().assign(t=field().t > 280), r"'t' is bool"),
    ("20 text", lambda: field().assign(t=field().t.astype(str)), r"'t' holds <U.*not numbers"),
    ("21", lambda: field().astype("c8"), r"'t' is complex.*two variables"),
    ("37", lambda: field().isel(lon=[0, 1, 3, 2, 4, 5]), r"'lon' turns round at index 3.*sortby"),
    ("38", lambda: field().isel(lat=[0, 1, 1, 2]), r"'lat' holds -20 2 times"),
    (
        "38 NaN",
        lambda: field().assign_coords(lat=[1, 2, np.nan, 3]),
        r"'lat' is not finite at index 2",
    ),
    (
        "40 lat",
        lambda: field().assign_coords(lat=("lat", [0.0, 30, 60, 91], {"units": "degrees_north"})),
        r"'lat' reaches 91; expected a latitude within 90",
    ),
    ("40 lon", lambda: field().assign_coords(lon=field().lon + 200), r"'lon' reaches 500"),
    (
        "44",
        lambda: field().stack(cell=["lat", "lon"]).reset_index("cell"),
        r"'lat' and 'lon' both run along 'cell': a list of places",
    ),
    (
        "51",
        lambda: with_time(200101 + np.arange(24)),
        r"'time' holds int64 values .*first: 200101.*time_format",
    ),
    ("51 text", lambda: with_time([f"day {i:02}" for i in range(24)]), r"'time' holds <U6 values"),
    ("53", lambda: with_time(NAT), r"'time' has 2 missing times \(NaT\), first at index 5"),
    ("54", lambda: with_time(TWICE), r"'time' holds 2001-01-03T06.* twice \(1 repeats"),
    ("54 back", lambda: with_time(field().time.values[::-1]), r"'time' goes back at index 1"),
    ("58", lambda: hours(*[1] * 12, *[24] * 12), r"'time' changes its frequency at index 13 "),
    (
        "58 late",
        lambda: hours(*[24] * 20, 1, 1),
        r"frequency at index 21 .*step of 3600 s where 86400",
    ),
    (
        "63",
        lambda: field(5).expand_dims(run=field(3).time.values),
        "Both 'run' and 'time' look like time",
    ),
    (
        "63 names",
        lambda: field(5).expand_dims(TIME=3).assign_coords(TIME=[1, 2, 3]),
        "Both 'time' and 'TIME' are time dims",
    ),
    ("no time", lambda: field().rename(time="k").drop_vars("k"), r"No time dimension.*k, lat, lon"),
    ("empty", lambda: field().isel(lat=slice(0, 0)), r"'t' is empty"),
    (
        "static",
        lambda: field().assign(z=field().t[0].drop_vars("time")),
        r"'z' has dims \('lat', 'lon'\) without",
    ),
]


@pytest.mark.parametrize(("make", "said"), [pytest.param(*r[1:], id=r[0]) for r in REFUSED])
def test_refused_in_one_line(make: Callable[[], xr.Dataset], said: str) -> None:
    ds = make()
    with pytest.raises(InputError, match=said) as error:
        schema.check_field(schema.conform(ds, ["t", "z"] if "z" in ds else ["t"]))
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


SENTINEL = [(i, 0, 0) for i in range(12)]

WARNED: list[tuple[str, Callable[[], xr.Dataset], str]] = [
    (
        "13 -9999",
        lambda: _scattered(-9999),
        r"'t' holds -9999 in 2\.08% .*missing_values=\(-9999,\)",
    ),
    ("13 1e20", lambda: _scattered(1e20), r"'t' holds 1e\+20 in 2\.08%"),
    ("13 fill", lambda: changed((0, 0, 0), 9.96921e36), r"'t' holds 9\.96921e\+36"),
    ("13 own", lambda: _scattered(-7777), r"'t' holds -7777 in 2\.08%"),
    (
        "18",
        lambda: field().assign(t=101325.0 + 1e-3 * field().t.astype("f8").assign_attrs(units="Pa")),
        r"'t' loses digits in float32",
    ),
    ("24", lambda: field() * 0 + 3, r"'t' is 3 everywhere"),
    ("25", lambda: changed((3, 1, 1), 1e7), r"'t' has an outlier 1e\+07 \(1 times\)"),
    ("28", lambda: field().assign(t=field().t.drop_attrs()), r"'t' has no units"),
    (
        "36",
        lambda: field().pad(lon=(0, 1), mode="wrap").assign_coords(lon=np.arange(7) * 60.0),
        r"'lon' holds 0 and 360, one meridian",
    ),
]


def _scattered(value: float) -> xr.Dataset:
    ds = field()
    for at in SENTINEL:
        ds.t.values[at] = value
    return ds


@pytest.mark.parametrize(("make", "said"), [pytest.param(*r[1:], id=r[0]) for r in WARNED])
def test_warned_about(make: Callable[[], xr.Dataset], said: str) -> None:
    with xr.set_options(keep_attrs=True):
        ds = make()
    if "lon" in said:
        ds.lon.attrs["units"] = "degrees_east"
    with pytest.warns(checks.DataWarning, match=said):
        both(ds)


def test_a_clean_field_raises_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        both(field())


@pytest.mark.parametrize(
    "values",
    [
        np.where(np.random.default_rng(0).random((24, 4, 6)) < 0.7, 0.0, 3.5),
        np.where(np.random.default_rng(0).random((24, 4, 6)) < 0.5, 3.0, 12.0),
        np.random.default_rng(0).lognormal(0, 2, (24, 4, 6)),
        np.random.default_rng(0).standard_normal((24, 4, 6)) - 100.0,
    ],
    ids=["rain", "two-phase", "lognormal", "near -99"],
)
def test_ordinary_repeats_and_tails_are_no_sentinels(values: np.ndarray) -> None:
    ds = field()
    ds["t"] = ds.t.copy(data=values.astype("f4"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        both(ds)


def test_13_strict_refuses_and_declared_is_masked() -> None:
    with pytest.raises(InputError, match="code for missing data"):
        both(_scattered(-9999), strict=True)
    ds = schema.conform(_scattered(-9999), ["t"])
    with pytest.raises(InputError, match="has gaps"):
        schema.check_field(ds, missing_values=[-9999])
    report = schema.check_field(ds, missing_values=[-9999], missing=["t"])
    assert not report.masks
    clean = schema.as_float32(ds.t.values, [-9999])
    assert np.isnan(clean[:12, 0, 0]).all() and np.isnan(clean).sum() == 12


@given(order=st.permutations(["time", "lat", "lon"]), flip=st.booleans(), swap=st.booleans())
def test_2_the_order_of_dims_changes_nothing(order: list[str], flip: bool, swap: bool) -> None:
    """One layout whatever the order; and names of rows and columns may come swapped."""
    ds = field().transpose(*order)
    out = schema.conform(ds, ["t"])
    assert out.t.dims == ("time", "lat", "lon")
    xr.testing.assert_identical(out.t.drop_attrs(), field().t.drop_attrs())


def test_2_index_grids_levels_and_members_have_their_place() -> None:
    a = (("x", "number", "y", "sample", "plev"), np.zeros((2, 3, 4, 5, 6), "f4"), {"units": "1"})
    ds = xr.Dataset({"a": a})
    assert schema.conform(ds, ["a"]).a.dims == ("sample", "number", "plev", "y", "x")


def test_4_dims_of_size_one_are_squeezed_and_remembered() -> None:
    ds = field().expand_dims(height=[2.0], band=1)
    out = schema.conform(ds, ["t"])
    assert out.t.dims == ("time", "lat", "lon") and float(out.height) == 2.0
    assert schema.conform(field(1), ["t"]).sizes["time"] == 1


def test_6_coordinates_beside_dims_of_another_name(tmp_path: Path) -> None:
    ds = field().rename(lat="rows", lon="cols")
    ds = ds.reset_index(["rows", "cols"]).reset_coords(["rows", "cols"])
    ds = ds.rename(rows="lat", cols="lon")
    ds.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    out = schema.conform(schema.open_any(tmp_path / "a.nc"), ["t"])
    place = schema.find(out, "latitude"), schema.find(out, "longitude")
    assert out.t.dims == ("time", *place)
    assert np.array_equal(out[place[0]], field().lat) and np.array_equal(out.t, field().t)


def test_9_a_land_mask_is_kept() -> None:
    ds = changed((slice(None), 1, slice(2, 4)), np.nan)
    mask = schema.check_field(schema.conform(ds, ["t"])).masks["t"]
    assert mask.dims == ("lat", "lon") and (~mask.values).sum() == 2
    assert not mask.values[1, 2:4].any()


def test_10_a_declared_gap_is_no_mask() -> None:
    """Cells that hold data once are valid; cells that never do are masked."""
    ds = changed((slice(None), 1, 2), np.nan)
    ds.t.values[3] = np.nan
    mask = schema.check_field(schema.conform(ds, ["t"]), missing=["t"]).masks["t"]
    assert (~mask.values).sum() == 1 and not mask.values[1, 2]
    with pytest.raises(InputError, match="No variable 'tt' to declare"):
        schema.check_field(schema.conform(ds, ["t"]), missing=["tt"])


@pytest.mark.parametrize("block", [1, 7 * 4 * 6 * 4, 1 << 20])
def test_checks_do_not_depend_on_the_blocks(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(checks, "BLOCK_BYTES", block)
    ds = _scattered(-9999)
    ds.t.values[:, 3, 3] = np.nan
    found = checks.scan(ds.t)
    finite = ds.t.values[np.isfinite(ds.t.values)].astype("f8")
    values, counts = np.unique(finite, return_counts=True)
    assert found.low == ((values[0], counts[0]), (values[1], counts[1]))
    assert found.high == ((values[-1], counts[-1]), (values[-2], counts[-2]))
    assert found.count == finite.size and found.changed == -1
    assert np.array_equal(found.valid, np.isfinite(ds.t.values[0]))
    ds.t.values[13, 0, 1] = np.nan
    assert checks.scan(ds.t).changed == 13
    ds.t.values[17, 1, 1] = np.inf
    with pytest.raises(InputError, match="time=2001-01-05 06:00:00, lat=-20.0, lon=60.0"):
        checks.scan(ds.t)


def test_14_15_packing_and_both_fills_are_decoded(tmp_path: Path) -> None:
    """int16, negative scale, and two values that mean missing."""
    raw = np.arange(24, dtype="i2").reshape(4, 6)
    attrs = {"scale_factor": -0.5, "add_offset": 10.0, "_FillValue": np.int16(3)}
    attrs["missing_value"] = np.int16(7)
    xr.Dataset({"a": (("time", "x"), raw, attrs)}).to_netcdf(tmp_path / "p.nc", engine="scipy")
    with pytest.warns(xr.SerializationWarning, match="multiple fill values"):
        a = schema.open_any(tmp_path / "p.nc").a.load()
    expected = 10.0 - 0.5 * raw.astype("f8")
    expected[(raw == 3) | (raw == 7)] = np.nan
    assert np.allclose(a.values, expected, equal_nan=True)


@pytest.mark.parametrize("dtype", [">f4", ">f8", "<f8", "f2"])
def test_19_byte_order(dtype: str) -> None:
    """Whatever the bytes, the values are the nearest float32."""
    values = field().t.values.astype(dtype)
    out = schema.as_float32(values)
    assert out.dtype == np.dtype("f4") and out.dtype.isnative
    assert np.array_equal(out, values.astype("f8").astype("f4"))


def test_20_declared_integers_pass() -> None:
    ds = schema.conform(field().astype("i4"), ["t"])
    assert schema.check_field(ds, continuous=["t"]).units == {"t": "K"}


# Time.


@pytest.mark.parametrize("calendar", ["360_day", "noleap", "all_leap", "julian"])
def test_48_model_calendars_stay_as_they_are(calendar: str, tmp_path: Path) -> None:
    time = xr.date_range("2000-02-27", periods=24, calendar=calendar, use_cftime=True)
    field().assign_coords(time=time).to_netcdf(tmp_path / "c.nc", engine="h5netcdf")
    out = schema.conform(schema.open_any(tmp_path / "c.nc"), ["t"])
    assert out.time.dt.calendar == calendar and (out.time.values == time.values).all()
    assert schema.check_field(out).gaps == ()
    assert (checks.seconds(out.time.values) == 86400).all()


def test_49_the_year_3000_is_a_year(tmp_path: Path) -> None:
    time = xr.date_range("2999-12-01", periods=24, freq="MS", use_cftime=True)
    field().assign_coords(time=time).to_netcdf(tmp_path / "far.nc", engine="h5netcdf")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out = schema.conform(schema.open_any(tmp_path / "far.nc"), ["t"])
    assert out.time.values[1].year == 3000
    assert schema.check_field(out).gaps == ()


def test_51_integer_dates_with_their_format() -> None:
    ds = field(4).assign_coords(time=[200112, 200201, 200202, 200203])
    out = schema.conform(ds, ["t"], time_format="%Y%m")
    assert out.time.values.astype("M8[M]").astype(str).tolist() == [
        "2001-12", "2002-01", "2002-02", "2002-03"
    ]  # fmt: skip
    with pytest.raises(InputError, match="'200112' at index 0; expected dates of the form '%Y%m%d"):
        schema.conform(ds, ["t"], time_format="%Y%m%d%H")


def test_57_gaps_are_counted_not_crossed() -> None:
    assert checks.check_time(hours(*[1] * 30, 5, *[1] * 30, 2).time) == (31, 62)


def test_59_months_and_years_are_regular() -> None:
    for freq in ("MS", "YS", "QS", "ME"):
        time = xr.date_range("1999-01-01", periods=40, freq=freq)
        assert checks.check_time(xr.DataArray(time, dims="time", name="time")) == ()


def test_62_starts_and_leads_are_known() -> None:
    ds = xr.Dataset(
        {"a": (("L", "S", "M"), np.zeros((3, 4, 2), "f4"), {"units": "1"})},
        coords={
            "S": ("S", field(4).time.values, {"standard_name": "forecast_reference_time"}),
            "L": ("L", [1, 2, 3], {"standard_name": "forecast_period", "units": "days"}),
            "M": ("M", [0, 1], {"standard_name": "realization"}),
        },
    )
    assert schema.find(ds, "time") is None
    assert [schema.find(ds, w) for w in ("init", "lead", "member")] == ["S", "L", "M"]
    assert schema.conform(ds, ["a"], sample_dim="S").a.dims == ("S", "M", "L")


def test_a_trajectory_has_its_time_inside_the_sample() -> None:
    time = ("time", np.linspace(0, 1, 5), {"units": "1"})
    a = (("y", "time", "sample"), np.random.default_rng(0).random((4, 5, 6)), {"units": "1"})
    ds = xr.Dataset({"a": a}, coords={"time": time})
    out = schema.conform(ds, ["a"])
    assert out.a.dims == ("sample", "time", "y") and schema.check_field(out).gaps == ()


def test_nemo_numbers_its_axis_and_keeps_the_dates_beside_it() -> None:
    ds = field().rename(time="time_counter")
    dates = ds.time_counter.values
    ds = ds.assign_coords(
        time_counter=("time_counter", np.zeros(24), {"axis": "T"}),
        time_centered=("time_counter", dates, {"standard_name": "time"}),
    )
    out = schema.conform(ds, ["t"])
    assert out.t.dims[0] == "time_counter" and (out.time_counter.values == dates).all()


# Names.


@pytest.mark.parametrize(
    ("word", "coord", "attrs"),
    [
        ("latitude", "foo", {"standard_name": "latitude"}),
        ("latitude", "foo", {"units": "degrees_N"}),
        ("latitude", "Latitude", {}),
        ("longitude", "foo", {"units": "degree_east"}),
        ("time", "foo", {"axis": "T"}),
        ("time", "foo", {"units": "days since 1900-01-01"}),
        ("member", "number", {}),
        ("lead", "foo", {"standard_name": "forecast_period"}),
        ("level", "foo", {"axis": "Z"}),
        ("x", "foo", {"standard_name": "projection_x_coordinate"}),
    ],
)
def test_find_by_attributes_then_by_name(word: str, coord: str, attrs: dict[str, str]) -> None:
    ds = xr.Dataset(coords={coord: (coord, [1.0, 2.0], attrs), "other": ("other", [0.0])})
    assert schema.find(ds, word) == coord


def test_attributes_win_over_names() -> None:
    ds = xr.Dataset(
        coords={"lat": ("a", [1.0, 2.0]), "b": ("b", [1.0], {"standard_name": "latitude"})}
    )
    assert schema.find(ds, "latitude") == "b"
    wrong = xr.Dataset(coords={"lat": ("lat", [1.0], {"standard_name": "longitude"})})
    assert schema.find(wrong, "latitude") is None and schema.find(wrong, "longitude") == "lat"
    with pytest.raises(InputError, match="'latitud' is no kind.*Did you mean 'latitude'"):
        schema.find(ds, "latitud")
    with pytest.raises(InputError, match="Both 'lat' and 'nav_lat' look like latitude"):
        schema.find(xr.Dataset(coords={"lat": ("i", [1.0]), "nav_lat": ("j", [1.0])}), "latitude")


def test_1_variables_needs_a_list() -> None:
    for bad in ("t", [], ()):
        with pytest.raises(InputError, match="Expected a list of variable names"):
            schema.variables(field(), bad)


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("K", "kelvin", True),
        ("degC", "degrees_Celsius", True),
        ("m**2 s**-2", "m2 s-2", True),
        ("m^2/s^2", "m2/s2", True),
        ("K", "degC", False),
        ("m", "mm", False),
        ("Pa", "hPa", False),
    ],
)
def test_units_that_are_one(a: str, b: str, same: bool) -> None:
    assert schema.same_units(a, b) is same


# Other data in the layout of these.


def template() -> xr.Dataset:
    return schema.conform(field(), ["t"])


@given(
    west=st.booleans(),
    flip=st.booleans(),
    order=st.permutations(["time", "lat", "lon"]),
    names=st.booleans(),
    shift=st.integers(0, 5),
)
def test_35_the_same_field_told_otherwise_is_the_same_field(
    west: bool, flip: bool, order: list[str], names: bool, shift: int
) -> None:
    """-180..180, north first, columns first, long names, rolled: to the bit the same."""
    ds = field().roll(lon=shift, roll_coords=True)
    if west:
        ds = ds.assign_coords(lon=("lon", (ds.lon.values + 180) % 360 - 180, ds.lon.attrs))
    if flip:
        ds = ds.isel(lat=slice(None, None, -1))
    ds = ds.transpose(*order)
    if names:
        ds = ds.rename(lat="latitude", lon="longitude")
    out = schema.on_grid(ds, template())
    assert out.t.dims == ("time", "lat", "lon")
    assert np.array_equal(out.t.values, field().t.values)
    assert np.array_equal(out.lon, field().lon) and np.array_equal(out.lat, field().lat)


def test_one_field_without_the_sample_dim_matches() -> None:
    one = field().isel(time=3)
    assert np.array_equal(schema.on_grid(one, template()).t, field().t[3])
    assert schema.match(field(5), template()).sizes["time"] == 5


UNLIKE: list[tuple[str, Callable[[], xr.Dataset], str]] = [
    ("1", lambda: field().rename(t="t2"), "No variable 't'; expected it. Did you mean 't2'"),
    (
        "27",
        lambda: field().assign(t=field().t.assign_attrs(units="degC")),
        "'t' is in 'degC'; expected 'K'",
    ),
    ("33", lambda: field(ny=8), "'lat' has 8 points; expected 4"),
    (
        "46",
        lambda: field().assign_coords(lat=field().lat + [0, 0, 1, 0]),
        "'lat' is another grid, first at index 2: got 21, expected 20",
    ),
    (
        "46 lon",
        lambda: field().assign_coords(lon=field().lon + 20),
        "'lon' is another grid, first at index 0",
    ),
    ("dim lost", lambda: field().isel(lat=0, drop=True), "No dim 'lat' in the data"),
    (
        "dim too many",
        lambda: field().expand_dims(member=3),
        r"'t' has a dim 'member' \(size 3\) too many",
    ),
    ("no coords", lambda: field(nx=7).drop_vars("lon"), "'lon' has 7 points; expected 6"),
]


@pytest.mark.parametrize(("make", "said"), [pytest.param(*r[1:], id=r[0]) for r in UNLIKE])
def test_unlike_data_are_refused(make: Callable[[], xr.Dataset], said: str) -> None:
    with pytest.raises(InputError, match=said):
        schema.on_grid(make(), template())


def test_45_rounded_coordinates_are_one_grid() -> None:
    """float32 longitudes of a fine grid: the template's coordinates come back, nothing is lost."""
    fine = field(nx=1000)
    rounded = fine.assign_coords(lon=fine.lon.astype("f4"))
    assert not np.array_equal(rounded.lon.astype("f8"), fine.lon)
    # The first meridian, a rounding error west of Greenwich, is still the first.
    rounded.lon.values[0] = -1e-5
    out = schema.on_grid(rounded, schema.conform(fine, ["t"]))
    assert np.array_equal(out.lon, fine.lon) and np.array_equal(out.t, fine.t)
    off = field().assign_coords(lat=field().lat + 0.1)
    with pytest.warns(checks.DataWarning, match="'lat' differs from the grid expected by 2.5e-03"):
        schema.on_grid(off, template())


def test_28_missing_units_are_said() -> None:
    bare = field().assign(t=field().t.drop_attrs())
    with pytest.warns(checks.DataWarning, match="'t' has no units; expected 'K'"):
        schema.match(bare, template())


def test_41_uneven_steps() -> None:
    ds = field(nx=6)
    checks.check_uniform(ds, ["lat", "lon"])
    uneven = ds.assign_coords(lat=[-60.0, -20, 21, 60])
    with pytest.warns(checks.DataWarning, match="'lat' has uneven steps: the largest is 1.05 x"):
        checks.check_uniform(uneven, ["lat"])
    with pytest.raises(InputError, match="'lat' has uneven steps: the largest is 5 x"):
        checks.check_uniform(ds.assign_coords(lat=[0.0, 10, 20, 70]), ["lat"])


# Files.


@pytest.mark.parametrize("engine", ["scipy", "h5netcdf", "zarr2", "zarr3"])
def test_one_dataset_through_every_format(engine: str, tmp_path: Path) -> None:
    path = tmp_path / "data"
    if engine.startswith("zarr"):
        field().to_zarr(path, zarr_format=int(engine[-1]), consolidated=engine == "zarr2")
    else:
        field().to_netcdf(path, engine=engine)
    ds = schema.open_any(path)
    xr.testing.assert_equal(ds.load(), field())
    assert schema.find(ds, "latitude") == "lat"


def test_102_stale_consolidated_metadata_are_not_believed(tmp_path: Path) -> None:
    field().to_zarr(tmp_path / "z", zarr_format=2, consolidated=True)
    extra = field().rename(t="late").drop_vars(["time", "lat", "lon"])
    extra.to_zarr(tmp_path / "z", mode="a", zarr_format=2, consolidated=False)
    assert set(schema.open_any(tmp_path / "z").data_vars) == {"t", "late"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no NetCDF file"),
        (b"CDF\x01", "cannot be opened"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "cannot be opened"),
        (b"GRIB....", "a GRIB file"),
        (b"CDF\x05" + bytes(50), "64-bit data"),
        (b"PK\x03\x04", "no NetCDF file"),
    ],
)
def test_a_broken_file_is_one_line(content: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.nc"
    path.write_bytes(content)
    with pytest.raises(InputError, match=said) as error:
        schema.open_any(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        schema.open_any(tmp_path / "no.nc")
    with pytest.raises(InputError, match="without a zarr group"):
        schema.open_any(tmp_path)


@pytest.mark.parametrize("cut", [0.1, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("engine", ["scipy", "h5netcdf"])
def test_a_truncated_file_never_reads_as_data(engine: str, cut: float, tmp_path: Path) -> None:
    path = tmp_path / "cut.nc"
    field().to_netcdf(path, engine=engine)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(cut * len(whole))])
    with pytest.raises((InputError, OSError, ValueError)):
        schema.conform(schema.open_any(path), ["t"]).load()
