"""Station tables: positions, values and errors found by name; every broken row said in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from sciddm.data import stations, store
from sciddm.errors import InputError

DATA = Path(__file__).parents[3] / "shared" / "data" / "stations"
real = pytest.mark.skipif(not DATA.is_dir(), reason="the shared data are not here")

TABLE = """station,lat,lon,t2m,t2m_std,wind,time,remark
A1,51.5,-0.12,281.25,0.5,3,2019-03-01T06:00:00Z,fine
B2,55.95,-3.19,279.5,0.25,,2019-03-01T06:20:00Z,rain
C3,57.0,358.0,NA,0.5,7.5,2019-03-01T06:00:00Z,
"""


def written(folder: Path, text: str, name: str = "table.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_table_is_read_as_it_says(tmp_path: Path) -> None:
    ds = stations.read(written(tmp_path, TABLE))
    assert list(ds.data_vars) == ["t2m", "t2m_std", "wind"] and dict(ds.sizes) == {"station": 3}
    assert set(ds.coords) == {"station", "lat", "lon", "time"}
    assert np.array_equal(ds.t2m, [281.25, 279.5, np.nan], equal_nan=True)
    assert np.array_equal(ds.wind, [3, np.nan, 7.5], equal_nan=True)
    assert ds.lon.values.tolist() == [-0.12, -3.19, 358.0]
    assert ds.time.values[1] == np.datetime64("2019-03-01T06:20")
    assert ds.station.values.tolist() == ["A1", "B2", "C3"]


def test_chosen_variables_bring_their_errors(tmp_path: Path) -> None:
    path = written(tmp_path, TABLE)
    assert list(stations.read(path, ["t2m"]).data_vars) == ["t2m", "t2m_std"]
    assert list(stations.read(path, ["wind"]).data_vars) == ["wind"]


def test_csv_and_netcdf_are_one(tmp_path: Path) -> None:
    """The same table through NetCDF, on a dim of another name: the same Dataset."""
    from_csv = stations.read(written(tmp_path, TABLE), ["t2m"])
    plain = from_csv.rename(station="report").reset_index("report").reset_coords()
    plain = plain.rename(report="id") if "report" in plain else plain
    plain.lat.attrs["units"] = "degrees_north"
    plain.to_netcdf(tmp_path / "table.nc", engine="h5netcdf")
    back = stations.read(tmp_path / "table.nc", ["t2m"])
    for name in ("t2m", "t2m_std", "lat", "lon", "time", "station"):
        assert np.array_equal(back[name], from_csv[name], equal_nan=name != "station"), name
    assert back.lat.attrs["units"] == "degrees_north"


def test_points_in_the_plane_and_named_positions(tmp_path: Path) -> None:
    path = written(tmp_path, "y,x,a\n0.25,0.5,1\n0.75,0.125,2\n")
    ds = stations.read(path)
    assert ds.y.values.tolist() == [0.25, 0.75] and ds.a.values.tolist() == [1, 2]
    other = written(tmp_path, "north,east,a\n1,2,3\n", "other.csv")
    assert set(stations.read(other, positions=("north", "east")).coords) == {"north", "east"}
    with pytest.raises(InputError, match="no columns for the position"):
        stations.read(other)


def test_gridded_values_pass_through(tmp_path: Path) -> None:
    ds = xr.Dataset(
        {"a": (("y", "x"), np.array([[1.0, np.nan], [3.0, 4.0]], "f4"))},
        coords={"y": [0.0, 1.0], "x": [0.0, 1.0]},
    )
    path = store.write(ds, tmp_path / "seen.zarr")
    xr.testing.assert_equal(stations.read(path).load(), ds)
    with pytest.raises(InputError, match="No variable 'b'"):
        stations.read(path, ["b"])


def test_declared_missing_values(tmp_path: Path) -> None:
    path = written(tmp_path, "lat,lon,a\n1,2,-9999\n1,3,M\n1,4,5\n1,4,5\n")
    with pytest.raises(InputError, match=r"column 'a' holds 'M' in row 3.*na_values=\('M',\)"):
        stations.read(path)
    ds = stations.read(path, na_values=["M"], missing_values=[-9999])
    assert np.array_equal(ds.a, [np.nan, np.nan, 5, 5], equal_nan=True)


def test_unplaced_stations_are_left_out_only_when_said(tmp_path: Path) -> None:
    path = written(tmp_path, "lat,lon,a\n1,2,3\n,3,4\n5,6,7\n")
    with pytest.raises(InputError, match="1 of 3 stations have no position, first at station 1"):
        stations.read(path)
    with pytest.warns(UserWarning, match="1 of 3 stations have no position; they are left out"):
        ds = stations.read(path, drop_unplaced=True)
    assert ds.a.values.tolist() == [3, 7]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lat,lon,a,a\n1,2,3,4\n", "two columns 'a'"),
        ("1,2,3\n4,5,6\n", "no header"),
        ("lat,lon,a\n", "no rows"),
        ("", "cannot be read as CSV"),
        ("lat,lon,a\n1,2,3,4,5\n1,2\n", "cannot be read as CSV"),
        ("lat,lon,a\n1,2,3\n91,2,3\n", "'lat' reaches 91; expected a latitude within 90"),
        ("lat,lon,a\n1,2,3\n1,400,3\n", "'lon' reaches 400"),
        ("lat,lon,a\n1,2,inf\n", "'a' is infinite at station 0"),
        ("lat,lon,a,a_std\n1,2,3,1\n1,3,3,0\n", "'a_std' is 0 at station 1"),
        ("lat,lon,a,a_std\n1,2,3,-1\n", "'a_std' is -1 at station 0"),
        ("lat,lon,a,a_std\n1,2,3,\n", "'a_std' is nan at station 0"),
        ("lat,lon,name\n1,2,x\n", "no numbers beside them"),
        ("lat,latitude,lon,a\n1,1,2,3\n", "Both 'lat' and 'latitude'"),
        ("where,lon,a\n1,2,3\n", "no columns for the position"),
        ("lat,lon,a\nnorth,2,3\n", "the position 'lat' holds"),
    ],
)
def test_a_broken_table_is_one_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as error:
        stations.read(written(tmp_path, text))
    assert "\n" not in str(error.value)


def test_a_missing_error_of_a_missing_value_is_no_fault(tmp_path: Path) -> None:
    ds = stations.read(written(tmp_path, "lat,lon,a,a_std\n1,2,3,1\n1,3,,\n"))
    assert np.isfinite(ds.a.values).tolist() == [True, False]


def test_names_asked_for_must_be_there(tmp_path: Path) -> None:
    path = written(tmp_path, TABLE)
    with pytest.raises(InputError, match="no column 't2n'. Did you mean 't2m'"):
        stations.read(path, ["t2n"])
    with pytest.raises(InputError, match="'remark' holds .* expected numbers"):
        stations.read(path, ["remark"])
    with pytest.raises(InputError, match="No position 'lta'. Did you mean 'lat'"):
        stations.read(path, positions=("lta", "lon"))
    empty = written(tmp_path, "lat,lon,a,b\n1,2,,1\n", "empty.csv")
    assert stations.read(empty).b.values.tolist() == [1]
    with pytest.raises(InputError, match="'a' has no value at any station"):
        stations.read(empty, ["a"])
    with pytest.raises(InputError, match="does not exist"):
        stations.read(tmp_path / "no.csv")


@real
def test_real_reports() -> None:
    """METAR reports of January 2020, gzipped CSV: positions and times by their own names."""
    ds = stations.read(DATA / "metar_2020-01.csv.gz", ["temperature", "windSpeed"])
    assert ds.sizes["station"] == 12549 and ds.station.values[0] == "NZCM"
    assert float(ds.temperature[0]) == 274.15 and float(ds.latitude[0]) == -77.87
    assert ds.timeObs.values[0] == np.datetime64("2019-12-31T23:55")


@real
@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("479615.NorthDakota.csv", "no columns for the position"),
        ("CO-OPS_9415020_wl.csv", "no columns for the position"),
        ("95031800_sao.cdf", "529 of 2084 stations have no position, first at station 69"),
    ],
)
def test_real_traps_are_refused(file: str, said: str) -> None:
    with pytest.raises(InputError, match=said) as error:
        stations.read(DATA / file)
    assert "\n" not in str(error.value)


@real
def test_a_real_longitude_of_790_degrees_is_found() -> None:
    with (
        pytest.warns(UserWarning, match="529 of 2084"),
        pytest.raises(InputError, match="'lon' reaches 790.2"),
    ):
        stations.read(DATA / "95031800_sao.cdf", ["T"], drop_unplaced=True)
