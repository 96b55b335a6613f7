"""Hourly temperature over the United Kingdom, March 2019: small real weather, from a reanalysis.

Equation or source
    ERA5, the fifth reanalysis of ECMWF: 2 m temperature, every hour of March 2019. Fetched from
    the tutorial data of xarray (2.5 MB of GRIB), or read from a local copy given as `source`.
Grid and units
    744 hours x 33 latitudes (58 N to 50 N) x 49 longitudes (10 W to 2 E), 0.25 degrees, kelvin,
    float32, dims (time, latitude, longitude). Both sizes, toy and full, are the whole month.
Splits
    By time: the last 5 days (27 to 31 March) are the test hours, the 3 days before them the
    validation hours, the rest train; the last 6 hours of train and of validation are left out.
What is hard
    A month holds few independent weathers: 546 training hours are about 8 of them. Neighbouring
    hours are nearly equal, so a model, or a covariance, fitted on them is over-confident on new
    days: stop on validation, regularise. The coast is a step of kelvins that turns with the sun.
Licence
    Licence to use Copernicus Products: free, also for commerce, with attribution. Generated using
    Copernicus Climate Change Service information 2019, modified. Neither the European Commission
    nor ECMWF is responsible for any use of it.
Cite
    Hersbach et al., The ERA5 global reanalysis, QJRMS 146, 2020, https://doi.org/10.1002/qj.3803.
"""

from __future__ import annotations

import urllib.request
from datetime import datetime
from pathlib import Path

import numpy as np
import xarray as xr

from sciddm.data import schema, split
from sciddm.errors import InputError, nearest

URL = (
    "https://github.com/pydata/xarray-data/raw/58de68cb45bcbd1557df11a92827758495481b4e/"
    "era5-2mt-2019-03-uk.grib"
)
SIZES = ("toy", "full")
SHAPE = (744, 33, 49)
# Mean, standard deviation and the first and last value of the month: other data are refused.
KNOWN = (280.774059, 2.287916, 282.424805, 281.454834)


def make(
    store: str | Path,
    *,
    size: str = "toy",
    seed: int = 0,
    source: str = "",
    overwrite: bool = False,
) -> xr.Dataset:
    """Write the month to the zarr ``store`` and open it; ``seed`` changes nothing.

    ``source`` is a local copy, GRIB or NetCDF with variable ``t2m``; without it, it is fetched.
    """
    from sciddm.data import store as zarr_store

    if size not in SIZES:
        raise InputError(f"Got size {size!r}, expected a known one.{nearest(size, SIZES)}")
    if Path(store).exists() and not overwrite:
        raise InputError(f"{store} exists; expected a new name, or overwrite=True to replace it.")
    ds = schema.conform(_opened(source) if source else _grib(_fetched(), URL), ["t2m"])
    values = ds.t2m.values.astype(np.float64)
    if values.shape != SHAPE or not np.allclose(
        (values.mean(), values.std(), values[0, 0, 0], values[-1, -1, -1]), KNOWN, atol=1e-3
    ):
        raise InputError(
            f"{source or URL} is not ERA5 over the United Kingdom in March 2019: shape "
            f"{values.shape}, mean {values.mean():.3f}; expected {SHAPE} and {KNOWN[0]:.3f} K: use "
            "the data set 'netcdf' for other files."
        )
    names = {"standard_name": "air_temperature", "long_name": "2 metre temperature", "units": "K"}
    out = xr.Dataset(
        {"t2m": (ds.t2m.dims, values.astype(np.float32), names)},
        coords={
            "time": ("time", ds.time.values, {"standard_name": "time"}),
            "latitude": ("latitude", ds.latitude.values, {"units": "degrees_north"}),
            "longitude": ("longitude", ds.longitude.values, {"units": "degrees_east"}),
        },
        attrs={
            "Conventions": "CF-1.10",
            "attribution": "Generated using Copernicus Climate Change Service information 2019",
            "sciddm_dataset": "era5_t2m_uk",
            "sciddm_generator": {"version": 1},
        },
    )
    schema.check_field(out)
    dates = split.by_time(out, "time", validation="2019-03-24", test="2019-03-27", gap=6)
    out = split.attach(out, dates, "time")
    return zarr_store.open(zarr_store.write(out, store, chunks={"time": 24}, overwrite=overwrite))


def _fetched() -> bytes:
    """The public file."""
    try:
        with urllib.request.urlopen(URL, timeout=60) as answer:
            return bytes(answer.read())
    except OSError as error:
        raise InputError(
            f"{URL} cannot be fetched ({error}); expected a way to the internet: pass source= with "
            "a local copy, GRIB or NetCDF."
        ) from error


def _opened(source: str) -> xr.Dataset:
    path = Path(source)
    if path.is_file() and path.open("rb").read(4) == b"GRIB":
        return _grib(path.read_bytes(), source)
    return schema.open_any(path)


def _grib(raw: bytes, source: str) -> xr.Dataset:
    """Fields of GRIB edition 1 in simple packing on this grid: (R + X 2^E) / 10^D (WMO FM 92)."""
    times, fields, at = [], [], 0
    # Every message ends in 7777: what is cut off inside one is found before it is read.
    if raw[-4:] != b"7777":
        raise InputError(f"{source} is cut off; expected whole GRIB messages: copy it again.")
    while (at := raw.find(b"GRIB", at)) >= 0:
        product = at + 8
        grid = product + int.from_bytes(raw[product : product + 3])
        data = grid + int.from_bytes(raw[grid : grid + 3])
        shape = int.from_bytes(raw[grid + 8 : grid + 10]), int.from_bytes(raw[grid + 6 : grid + 8])
        # Edition 1; a grid section and no bitmap; rows from the north; simple packing.
        plain = raw[at + 7] == 1 and raw[product + 7] & 0xC0 == 0x80 and raw[grid + 27] == 0
        if not plain or shape != SHAPE[1:] or raw[data + 3] & 0xF0:
            raise InputError(
                f"{source} is GRIB of another edition, grid or packing; convert it to NetCDF and "
                "pass that as source."
            )
        year = 100 * (raw[product + 24] - 1) + raw[product + 12]
        times.append(datetime(year, *raw[product + 13 : product + 17]))
        bits, end = raw[data + 10], data + int.from_bytes(raw[data : data + 3])
        body = np.unpackbits(np.frombuffer(raw[data + 11 : end], np.uint8))
        words = body[: shape[0] * shape[1] * bits].reshape(*shape, bits).astype(np.float64)
        packed = words @ 2.0 ** np.arange(bits)[::-1]
        sign, exponent = 1 - 2 * (raw[data + 6] >> 7), (raw[data + 6] & 0x7F) - 64
        reference = sign * int.from_bytes(raw[data + 7 : data + 10]) * 16.0**exponent / 2**24
        scaled = reference + packed * 2.0 ** _signed(raw[data + 4 : data + 6])
        fields.append(scaled / 10.0 ** _signed(raw[product + 26 : product + 28]))
        at = end
    places = {"latitude": np.linspace(58, 50, 33), "longitude": np.linspace(-10, 2, 49)}
    coords = {"time": np.array(times, "datetime64[ns]"), **places}
    return xr.Dataset({"t2m": (tuple(coords), np.stack(fields), {"units": "K"})}, coords=coords)


def _signed(two: bytes) -> int:
    """A sign bit and 15 bits, as GRIB writes negative numbers."""
    return (-1 if two[0] & 0x80 else 1) * (int.from_bytes(two) & 0x7FFF)
