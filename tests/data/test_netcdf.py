"""The shelf of the user's own data: real files in, whole stores out, traps refused in one line."""

from __future__ import annotations

import importlib.util
import math
import struct
import warnings
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import xarray as xr

from sciddm.data import schema, split, store
from sciddm.errors import InputError

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
real = pytest.mark.skipif(not DATA.is_dir(), reason="the shared data are not here")


def shelf(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "datasets" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


make = shelf("netcdf").make
era5 = shelf("era5_t2m_uk")


def year(start: str, n: int = 30, seed: int = 0) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    return xr.Dataset(
        {
            "t": (("lat", "lon", "time"), rng.standard_normal((4, 6, n)), {"units": "K"}),
            "q": (("time", "lat", "lon"), rng.random((n, 4, 6)).astype(">f4"), {"units": "1"}),
        },
        coords={
            "time": xr.date_range(start, periods=n),
            "lat": ("lat", [30.0, 20, 10, 0], {"units": "degrees_north"}),
            "lon": ("lon", np.arange(6) * 60.0, {"units": "degrees_east"}),
            "height": ((), 2.0, {"units": "m"}),
        },
    )


def test_a_file_becomes_a_store(tmp_path: Path) -> None:
    year("2001-01-01").to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    ds = make(tmp_path / "a.zarr", source=str(tmp_path / "a.nc"), variables=("t", "q"), gap=1)
    assert ds.t.dims == ds.q.dims == ("time", "lat", "lon")
    assert ds.t.dtype == ds.q.dtype == np.dtype("f4")
    expected = year("2001-01-01").t.transpose("time", "lat", "lon").values.astype("f4")
    assert np.array_equal(ds.t, expected) and float(ds.height) == 2.0
    assert ds.attrs["sciddm_splits"] == {"train": [0, 23], "validation": [24, 26], "test": [27, 30]}
    assert ds.t.attrs == {"units": "K"} and ds.attrs["Conventions"] == "CF-1.10"
    assert ds.attrs["sciddm_source"] == ["a.nc"]
    assert store.verify(tmp_path / "a.zarr") == []


def test_files_are_joined_in_time_on_the_grid_of_the_first(tmp_path: Path) -> None:
    """Names out of order, packing of their own, longitudes told otherwise: one record."""
    whole = year("2001-01-01", 60)
    late, early = whole.isel(time=slice(30, 60)), whole.isel(time=slice(0, 30))
    late = late.assign_coords(lon=("lon", (late.lon.values + 180) % 360 - 180, late.lon.attrs))
    packed = {"t": {"dtype": "i4", "scale_factor": 1e-7, "_FillValue": -1}}
    late.sortby("lon").to_netcdf(tmp_path / "a.nc", engine="scipy", encoding=packed)
    early.to_netcdf(tmp_path / "b.nc", engine="h5netcdf")
    ds = make(
        tmp_path / "s.zarr",
        source=str(tmp_path / "*.nc"),
        variables=("t",),
        chunk=7,
        validation="2001-02-10",
        test="2001-02-20",
    )
    ds = ds.assign_coords(lon=ds.lon % 360).sortby("lon")
    expected = whole.t.transpose("time", "lat", "lon").values
    assert (ds.time.values == whole.time.values).all()
    assert np.allclose(ds.t, expected, atol=2e-7)
    assert str(split.select(ds, "test").time.values[0])[:10] == "2001-02-20"


def test_joined_files_must_be_of_one_kind(tmp_path: Path) -> None:
    first = year("2001-01-01")
    first.to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    second = year("2001-01-31", seed=1)
    celsius = second.assign(t=second.t.assign_attrs(units="degC"))
    shifted = second.assign_coords(lat=second.lat + 5)
    noleap = second.assign_coords(
        time=xr.date_range("2001-01-31", periods=30, calendar="noleap", use_cftime=True)
    )
    masked = second.assign(t=second.t.where(second.lat > 0))
    for bad, said in [
        (celsius, r"b\.nc: 't' is in 'degC'; expected 'K'"),
        (shifted, r"b\.nc: 'lat' is another grid, first at index 0"),
        (noleap, r"b\.nc: 'time' (holds|is in the calendar)"),
        (year("2001-01-20"), "'time' goes back at index 30"),
        (year("2001-01-30"), "'time' holds 2001-01-30.* twice"),
        (second.rename(t="tt"), r"b\.nc: No variable 't'"),
        (masked, "'t' has gaps .NaN. in other cells from time=2001-01-31"),
    ]:
        bad.to_netcdf(tmp_path / "b.nc", engine="h5netcdf")
        with pytest.raises(InputError, match=said):
            make(tmp_path / "s.zarr", source=str(tmp_path / "?.nc"), variables=("t",))
        assert not list(tmp_path.glob("s.zarr*"))


def test_a_land_mask_and_declared_gaps(tmp_path: Path) -> None:
    ds = year("2001-01-01")
    ds["t"] = ds.t.where(ds.lat > 0)
    ds["q"] = ds.q.where(ds.time != ds.time[4], -9999.0)
    ds.to_zarr(tmp_path / "in.zarr", consolidated=False)
    numbers = {"source": str(tmp_path / "in.zarr"), "missing_values": (-9999.0,)}
    with pytest.raises(InputError, match="'q' has gaps"):
        make(tmp_path / "s.zarr", variables=("t", "q"), **numbers)
    out = make(tmp_path / "s.zarr", variables=("t", "q"), missing=("q",), **numbers)
    assert np.isnan(out.q.values[4]).all() and np.isfinite(np.delete(out.q.values, 4, 0)).all()
    assert set(schema.check_field(out, missing=["q"]).masks) == {"t"}


def test_a_made_store_is_a_source_too(tmp_path: Path) -> None:
    year("2001-01-01").to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    make(tmp_path / "a.zarr", source=str(tmp_path / "a.nc"), variables=("t", "q"))
    again = make(tmp_path / "b.zarr", source=str(tmp_path / "a.zarr"), variables=("t",))
    assert np.array_equal(again.t, store.open(tmp_path / "a.zarr").t)


def test_a_killed_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    year("2001-01-01").to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    numbers = {"source": str(tmp_path / "a.nc"), "variables": ("t", "q"), "chunk": 5}
    reference = make(tmp_path / "calm.zarr", **numbers)
    put, calls = store.put, []

    def killed(path: Path, ds: xr.Dataset, region: dict[str, slice]) -> None:
        calls.append(region)
        if len(calls) == 4:
            raise KeyboardInterrupt
        put(path, ds, region)

    monkeypatch.setattr(store, "put", killed)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "s.zarr", **numbers)
    assert len(store.done(tmp_path / "s.zarr")) == 3 and not (tmp_path / "s.zarr").exists()
    out = make(tmp_path / "s.zarr", **numbers)
    assert len(calls) == 4 + 3
    xr.testing.assert_identical(out.load(), reference.load())


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ({"size": "tyo"}, "size 'tyo'.*Did you mean 'toy'"),
        ({"validation": "2001-01-20"}, "two dates or two shares"),
        ({"test": 1.5}, "test=1.5; expected each between"),
        ({"source": "nothing/*.nc"}, "Nothing at 'nothing/"),
        ({"source": "nothing.nc"}, "Nothing at 'nothing.nc'"),
        ({"variables": ("T",)}, "No variable 'T'"),
        ({"variables": ()}, "Expected a list of variable names"),
        ({"missing": ("z",)}, "No variable 'z' to declare"),
        ({"sample_dim": "tme"}, "No dim 'tme'. Did you mean 'time'"),
    ],
)
def test_wrong_numbers_write_nothing(tmp_path: Path, numbers: dict[str, object], said: str) -> None:
    year("2001-01-01").to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    given = {"source": str(tmp_path / "a.nc"), "variables": ("t",), **numbers}
    with pytest.raises(InputError, match=said):
        make(tmp_path / "s.zarr", **given)
    assert [f.name for f in tmp_path.iterdir()] == ["a.nc"]


def test_the_source_is_never_the_output(tmp_path: Path) -> None:
    year("2001-01-01").to_zarr(tmp_path / "in.zarr", consolidated=False)
    with pytest.raises(InputError, match="which is the source"):
        make(
            tmp_path / "in.zarr",
            source=str(tmp_path / "in.zarr"),
            variables=("t",),
            overwrite=True,
        )


# Real files: each opens, or is refused in the line given.

CLIMATE: list[tuple[str, str, dict[str, object], str]] = [
    ("A1B_north_america.nc", "air_temperature", {}, ""),
    ("TREFHT.B06.57.atm.1890-1999ANN.nc", "TREFHT", {}, ""),
    ("t_in_Celsius_1.nc", "tC", {}, ""),
    ("tas_rectilinear_grid_2D.nc", "tas", {}, ""),
    ("ostia_monthly.nc", "surface_temperature", {}, ""),
    ("ctorca.nc", "sosstsst", {"validation": 0.2, "test": 0.2}, ""),
    ("era5_t2m_uk_2019-03.nc", "t2m", {}, ""),
    ("era5_2022_2mtemp_spres_xyav.nc", "2T_GDS0_SFC", {}, ""),
    ("basin_mask.nc", "basin", {"sample_dim": "Z"}, "'basin' has gaps .* first at Z=10.0"),
    ("basin_mask.nc", "basin", {"sample_dim": "Z", "missing": ("basin",)}, ""),
    ("eraint_uvz.nc", "z", {"sample_dim": "level", "validation": 0.34, "test": 0.34}, ""),
    ("sstdata_netcdf.nc", "sst", {"time_format": "%m"}, ""),
    ("nemo_1m_2015*_grid-T.nc", "tos", {}, "validation split is empty"),
    ("atm.20C.hourly6-1990-1995-TS.nc", "TS", {}, "'TS' has gaps"),
    ("atm.20C.hourly6-1990-1995-TS.nc", "TS", {"missing": ("TS",)}, ""),
    ("b003_TS_200-299.nc", "TS", {}, "units 'days since 0000-00-00 00:00:00', calendar '365_days'"),
    ("hgt.nc", "HGT", {}, "the times of 'time' cannot be decoded: units 'months since 1958-1-1"),
    ("seam.nc", "ps", {}, r"'time' holds float64 values \(first: 9.969209968386869e\+36\)"),
    ("sstdata_netcdf.nc", "sst", {}, "'time' holds float32 values with units 'Month'"),
    ("chi200_ud_smooth.nc", "CHI", {}, "'time' holds int64 values with units 'days'"),
    ("eraint_uvz.nc", "z", {}, "No time dimension.*month, level, latitude, longitude"),
    ("rotated_pole.nc", "air_pressure_at_sea_level", {}, "No time dimension"),
    ("toa_brightness_stereographic.nc", "data", {}, "No time dimension"),
    ("tos_ocean_bipolar_grid.nc", "tos", {}, "validation split is empty"),
    ("SOI_Darwin.nc", "SOI_Darwin", {}, "0.676 % of all values, first at time=2013-01-01"),
    ("TREFHT*.nc", "TREFHT", {}, "'time' (goes back|changes its frequency)"),
]
STATIONS: list[tuple[str, str, dict[str, object], str]] = [
    ("Boulder.temp.1897-2014.nc", "temp", {}, "'time' holds int32 values with units 'YYYYMM'"),
    ("Boulder.temp.1897-2014.nc", "Temp", {}, "No variable 'Temp'. Did you mean 'temp'"),
    ("Boulder.temp.1897-2014.nc", "temp", {"time_format": "%Y%m", "missing": ("temp",)}, ""),
    ("climdiv_prcp_1899-1999.nc", "PRECT_AL_CD1", {}, "units 'months since jan 1899'"),
    ("sfbay_2020_met.nc", "__xarray_dataarray_variable__", {"sample_dim": "dim_0"}, "not numbers"),
    ("95031800_sao.cdf", "T", {"sample_dim": "report"}, "'lon' reaches 790.2"),
]
ENSEMBLES: list[tuple[str, str, dict[str, object], str]] = [
    ("RMM1.observed.interannual.1974-06.2017-07.nc", "rmm1", {}, "145 missing times .* index 1383"),
    ("PM_MPI-ESM-LR_control_mm.nc", "tos", {}, ""),
    ("ERSSTv4.global.mean.nc", "SST", {}, "'time' holds int64 values .first: 1955"),
    ("ERSSTv4.global.mean.nc", "SST", {"time_format": "%Y"}, ""),
    ("GMAO-GEOS-V2p1.RMM1.nc", "RMM1", {"sample_dim": "S"}, ""),
    ("CESM-DP-LE.SST.eastern_pacific.nc", "SST", {"sample_dim": "init"}, ""),
]
FILES = [
    pytest.param(folder, *row, id=f"{row[0]}-{row[3][:20] or 'opens'}")
    for folder, rows in (("climate", CLIMATE), ("stations", STATIONS), ("ensembles", ENSEMBLES))
    for row in rows
]


@real
@pytest.mark.parametrize(("folder", "file", "name", "numbers", "said"), FILES)
def test_real_files_open_or_are_refused(
    tmp_path: Path, folder: str, file: str, name: str, numbers: dict[str, object], said: str
) -> None:
    out, source = tmp_path / "s.zarr", str(DATA / folder / file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if said:
            with pytest.raises(InputError, match=said) as error:
                make(out, source=source, variables=(name,), **numbers)
            assert "\n" not in str(error.value)
            assert not list(tmp_path.iterdir())
            return
        ds = make(out, source=source, variables=(name,), **numbers)
        raw = xr.open_dataset(source, decode_times=False)[name].squeeze()
    # What the file says, by name, to the last bit of float32.
    renamed = {"lat": "latitude", "lon": "longitude"} if file == "sstdata_netcdf.nc" else {}
    expected = raw.isel(longitude=slice(0, -1)) if renamed else raw
    expected = expected.transpose(*ds[name].dims).values.astype("f4")
    assert np.array_equal(ds[name].values, expected, equal_nan=True)
    assert ds[name].attrs.get("units") == raw.attrs.get("units")
    assert store.verify(out) == []


@real
def test_a_real_calendar_goes_through_end_to_end(tmp_path: Path) -> None:
    ds = make(
        tmp_path / "s.zarr",
        source=str(DATA / "climate" / "A1B_north_america.nc"),
        variables=("air_temperature",),
        validation="2050-01-30",
        test="2075-02-30",
    )
    assert ds.time.dt.calendar == "360_day"
    assert split.select(ds, "test").time.values[0].year == 2075


# ERA5.


@real
def test_era5_is_the_month_it_says(tmp_path: Path) -> None:
    source = DATA / "climate" / "era5_t2m_uk_2019-03.nc"
    ds = era5.make(tmp_path / "s.zarr", source=str(source))
    raw = xr.open_dataset(source)
    assert ds.t2m.dims == ("time", "latitude", "longitude") and ds.t2m.shape == (744, 33, 49)
    assert np.array_equal(ds.t2m.values, raw.t2m.values)
    held, test = split.select(ds, "validation"), split.select(ds, "test")
    train = split.select(ds, "train")
    assert test.sizes["time"] == 5 * 24
    assert str(held.time.values[0])[:13] == "2019-03-24T00"
    for a, b in ((train, held), (held, test)):
        assert (b.time.values[0] - a.time.values[-1]) / np.timedelta64(1, "h") == 7
    assert store.verify(tmp_path / "s.zarr") == []
    with pytest.raises(InputError, match="is not ERA5 over the United Kingdom"):
        raw.assign(t2m=raw.t2m + 1).to_netcdf(tmp_path / "warm.nc", engine="h5netcdf")
        era5.make(tmp_path / "w.zarr", source=str(tmp_path / "warm.nc"))


def test_era5_says_what_to_do_without_the_internet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(url: str, timeout: float) -> None:
        raise OSError("no route")

    monkeypatch.setattr(era5.urllib.request, "urlopen", offline)
    with pytest.raises(InputError, match=r"cannot be fetched \(no route\).*pass source="):
        era5.make(tmp_path / "s.zarr")
    assert not list(tmp_path.iterdir())


def message(field: np.ndarray, hour: int, bits: int, scale: int, decimal: int) -> bytes:
    """One message of GRIB edition 1, octet by octet as WMO FM 92 lists them."""

    def signed(v: int) -> bytes:
        return struct.pack(">H", abs(v) | (0x8000 if v < 0 else 0))

    low = float(field.min()) * 10**decimal
    power = 64 + max(0, math.floor(math.log(abs(low), 16)) + 1) if low else 64
    mantissa = math.floor(abs(low) / 16.0 ** (power - 64) * 2**24)
    sign = 0x80 if low < 0 else 0
    ibm = bytes([sign | power]) + mantissa.to_bytes(3)
    reference = (-1 if low < 0 else 1) * mantissa * 16.0 ** (power - 64) / 2**24
    packed = np.rint((field * 10.0**decimal - reference) / 2.0**scale).astype(np.int64).ravel()
    stream = "".join(format(int(v), f"0{bits}b") for v in packed)
    stream += "0" * (-len(stream) % 8)
    body = int(stream, 2).to_bytes(len(stream) // 8)
    body += b"\0" * ((11 + len(body)) % 2)
    data = (11 + len(body)).to_bytes(3) + b"\0" + signed(scale) + ibm + bytes([bits]) + body
    product = bytearray(28)
    product[:3] = (28).to_bytes(3)
    product[7] = 0x80
    product[12:17] = bytes([19, 3, 1 + hour // 24, hour % 24, 0])
    product[24] = 21
    product[26:28] = signed(decimal)
    grid = bytearray(32)
    grid[:3] = (32).to_bytes(3)
    grid[6:10] = struct.pack(">HH", field.shape[1], field.shape[0])
    total = 8 + len(product) + len(grid) + len(data) + 4
    return b"GRIB" + total.to_bytes(3) + b"\1" + bytes(product) + bytes(grid) + data + b"7777"


@pytest.mark.parametrize(("bits", "scale", "decimal"), [(16, -9, 0), (13, -8, 0), (24, -9, 2)])
def test_grib_is_decoded_by_the_book(bits: int, scale: int, decimal: int) -> None:
    """Fields on the lattice of the packing come back exactly, hours and places with them."""
    rng = np.random.default_rng(0)
    lattice = 2.0**scale / 10.0**decimal
    fields = 256.0 + lattice * rng.integers(0, 2 ** min(bits, 12), (3, 33, 49))
    fields[:, 5, 5] = 256.0
    hours = zip((0, 1, 25), fields, strict=True)
    raw = b"".join(message(f, h, bits, scale, decimal) for h, f in hours)
    ds = era5._grib(raw, "test")
    assert np.allclose(ds.t2m.values, fields, rtol=1e-12, atol=0)
    assert [str(t)[8:13] for t in ds.time.values] == ["01T00", "01T01", "02T01"]
    assert float(ds.latitude[0]) == 58.0 and float(ds.longitude[-1]) == 2.0


def test_grib_below_zero_and_of_another_kind() -> None:
    field = np.linspace(-30, 10, 33 * 49).reshape(33, 49)
    got = era5._grib(message(field, 0, 16, -9, 0), "test").t2m.values[0]
    assert np.abs(got - field).max() <= 2.0**-9
    raw = message(field, 0, 16, -9, 0)
    for bad in (raw[:7] + b"\2" + raw[8:], raw[:-20], raw[:42] + b"\0\7" + raw[44:], b""):
        with pytest.raises(InputError, match="GRIB"):
            era5._grib(bad, "test")


@real
def test_the_month_as_grib_is_the_month(tmp_path: Path) -> None:
    """The whole month packed as the source packs it, in steps of 1/512 K: the same bytes."""
    raw = xr.open_dataset(DATA / "climate" / "era5_t2m_uk_2019-03.nc").t2m.values.astype("f8")
    path = tmp_path / "era5.grib"
    path.write_bytes(b"".join(message(f, h, 16, -9, 0) for h, f in enumerate(raw)))
    ds = era5.make(tmp_path / "s.zarr", source=str(path))
    assert np.abs(ds.t2m.values - raw).max() <= 2.0**-9
