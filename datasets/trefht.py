"""A century of annual temperature of the globe, three members of one climate model.

Equation or source
    NCAR Climate System Model 1.4, runs B06.57, B06.59 and B06.60 of the twentieth century: annual
    mean temperature at reference height. Fetched from the data files of GeoCAT (three files of
    3.6 MB), or read from a folder that holds them, given as `source`.
Grid and units
    Runs x 110 years (1890 to 1999, calendar noleap) x 64 Gaussian latitudes (88 S to 88 N) x 128
    longitudes, kelvin, float32, dims (sample, time, latitude, longitude). Sizes: full is that grid,
    small and toy are means by area over 2 x 2 and 4 x 4 cells; `area` is that of a row's cells, the
    globe 2 in all. `years` cuts the record, ends included.
Splits
    By member: 57 trains, 59 validates, 60 tests. The members share their forcing: for a test that
    knows neither the member nor the decades, train on a store of years = (1890, 1969) and score on
    one of (1970, 1999).
What is hard
    109 training pairs of years for 8192 values. A year hardly knows the last one (lag correlation
    0.27, most of it mean and trend): climatology is the baseline, and the spread between members
    is 0.61 K of 0.66 K in all. The trend is 0.6 K a century and lies outside the training years
    when the split is by time. The files count days from three different dates and do not name their
    calendar: read as they are, each member drifts by 26 days and no two agree; here every year is
    16 July of a calendar without leap years. Rows near the poles are tiny: weigh by area.
Licence
    Apache-2.0, the licence of the repository that publishes the files.
Cite
    Boville, Kiehl, Rasch and Bryan, Improvements to the NCAR CSM-1 for transient climate
    simulations, 2001, https://doi.org/10.1175/1520-0442(2001)014<0164:ITTNCF>2.0.CO;2.
    GeoCAT data files, https://github.com/NCAR/geocat-datafiles.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from sciddm.data import public, schema, split
from sciddm.errors import InputError, nearest
from sciddm.score import cell_weights

URL = (
    "https://github.com/NCAR/geocat-datafiles/raw/c06ec3ec6d1c38711c6d4ac6c327c680a0a8aced/"
    "netcdf_files/TREFHT.B06.{run}.atm.1890-1999ANN.nc"
)
RUNS = {
    57: "47d0377633703d8a98183ac24a6cdf87335f862dcc67bd5d05a61c02e4238d21",
    59: "be94d956dc5ac072170e3c4284de9e89e1944476a75ca1a084ec739839f81aaf",
    60: "f02a4eead00b7bd7ca571dd304794c0b07ef340aec97e797d030a7103bbf98bc",
}
SIZES = {"toy": 4, "small": 2, "full": 1}
YEARS = (1890, 1999)


def make(
    store: str | Path,
    *,
    size: str = "toy",
    seed: int = 0,
    source: str = "",
    years: tuple[int, int] = YEARS,
    overwrite: bool = False,
) -> xr.Dataset:
    """Write the three runs to the zarr ``store`` and open it; ``seed`` changes nothing.

    ``source`` is the folder of local copies under their published names; without it, they are
    fetched. ``years`` are the first and the last one kept.
    """
    from sciddm.data import store as zarr_store

    if size not in SIZES:
        raise InputError(f"Got size {size!r}, expected a known one.{nearest(size, SIZES)}")
    first, last = (int(year) for year in years)
    if not YEARS[0] <= first <= last <= YEARS[1]:
        raise InputError(
            f"Got years {first} to {last}; expected two from {YEARS[0]} to {YEARS[1]}."
        )
    if Path(store).exists() and not overwrite:
        raise InputError(f"{store} exists; expected a new name, or overwrite=True to replace it.")
    runs = [member(run, source) for run in RUNS]
    area = cell_weights(runs[0]).coarsen(lat=SIZES[size]).sum()
    runs = [coarse(field, SIZES[size]) for field in runs]
    for run, field in zip(RUNS, runs, strict=True):
        if not (field.time.values == runs[0].time.values).all():
            raise InputError(f"Run {run} has other years than run {next(iter(RUNS))}.")
    kept = runs[0].time.dt.year.isin(range(first, last + 1)).values
    values = np.stack([field.values[kept] for field in runs]).astype(np.float32)
    names = {"standard_name": "air_temperature", "units": "K", "cell_methods": "time: mean"}
    names["long_name"] = "temperature at reference height"
    dims = ("sample", "time", "latitude", "longitude")
    out = xr.Dataset(
        {"trefht": (dims, values, names)},
        {
            "sample": ("sample", np.arange(len(RUNS)), {"long_name": "sample number"}),
            "run": ("sample", list(RUNS), {"long_name": "number of the run B06"}),
            "time": ("time", runs[0].time.values[kept], {"standard_name": "time"}),
            "latitude": ("latitude", runs[0].lat.values, {"units": "degrees_north"}),
            "longitude": ("longitude", runs[0].lon.values, {"units": "degrees_east"}),
            "area": ("latitude", area.values, {"standard_name": "cell_area", "units": "1"}),
        },
        {
            "Conventions": "CF-1.10",
            "title": "Annual temperature of the twentieth century, NCAR CSM",
            "sciddm_dataset": "trefht",
            "sciddm_sample_dim": "sample",
            "sciddm_generator": {"version": 1, "size": size, "years": [first, last]},
        },
    )
    schema.check_field(out)
    parts = {"train": [0, 1], "validation": [1, 2], "test": [2, 3]}
    out = split.attach(out, parts, "sample")
    return zarr_store.open(zarr_store.write(out, store, chunks={"sample": 1}, overwrite=overwrite))


def member(run: int, source: str = "") -> xr.DataArray:
    """One run ``(time, lat, lon)``, its years dated in the calendar without leap years."""
    url = URL.format(run=run)
    ds = public.dataset(public.read(url, RUNS[run], source), decode_times=False)
    time = ds.time.assign_attrs(calendar="noleap")
    field: xr.DataArray = xr.decode_cf(ds.assign_coords(time=time)).TREFHT
    return field


def coarse(field: xr.DataArray, factor: int) -> xr.DataArray:
    """Area means over ``factor`` x ``factor`` cells; a row lies at the mean latitude by area."""
    if factor == 1:
        return field
    area, blocks = cell_weights(field), {"lat": factor, "lon": factor}
    rows = {"lat": factor}
    total = area.coarsen(rows).sum()
    lat = ((area * field.lat).coarsen(rows).sum() / total).values
    mean = (field.astype(np.float64) * area).coarsen(blocks).sum() / (factor * total)
    lon = field.lon.coarsen({"lon": factor}).mean().values
    out: xr.DataArray = mean.assign_coords(lat=("lat", lat), lon=("lon", lon))
    return out.transpose("time", "lat", "lon")
