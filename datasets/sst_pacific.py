"""Annual sea surface temperature of the eastern Pacific, and decadal forecasts to be beaten.

Equation or source
    FOSI, an ocean simulation driven by the observed atmosphere of 1948 to 2015 (CESM): the truth of
    CESM-DP-LE, decadal forecasts started from it every November of 1954 to 2017. Fetched from the
    data of climpred (0.3 and 2.5 MB), or read from a folder that holds both, given as `source`.
Grid and units
    68 years x 37 x 26 cells of a curvilinear ocean grid, 10 S to the equator, 251 E to 279 E: 2-D
    latitude, longitude and cell area; degC, float32, dims (time, nlat, nlon), calendar noleap,
    every year dated 2 July. NaN on land, 1 % of the cells. Both sizes are the whole record.
    `hindcasts(source)` gives the forecasts: anomalies (init_time, lead_time of 1 to 10 years, nlat,
    nlon), the mean of an ensemble, with valid_time.
Splits
    By time: the last 12 years (2004 to 2015) are the test years, the 8 before them the validation
    years, the first 46 train; two years are left out at the end of train.
What is hard
    46 maps to train on, and El Nino in them: the s.d. of a year is 0.61 K, nearly the same pattern
    in all cells, so there is one number to forecast and few years to learn it from. The forecasts
    have skill in the first year only (RMSE 0.52 K, climatology 0.61 K; 0.63 K in the second). They
    are anomalies of another mean: take the mean of every lead from both before comparing. `init` is
    the year of a November: lead 1 is the year after it, though its attribute can be read otherwise
    (the correlations with the truth are 0.52, 0.10 and 0.03 for that reading and one year to either
    side). Neither file says its units.
Licence
    MIT, the licence of the repository that publishes the files.
Cite
    Yeager et al., Predicting near-term changes in the Earth System, BAMS 99, 2018,
    https://doi.org/10.1175/BAMS-D-17-0098.1. Brady and Spring, climpred, JOSS 6, 2021,
    https://doi.org/10.21105/joss.02781.
"""

from __future__ import annotations

from pathlib import Path

import cftime
import numpy as np
import xarray as xr

from sciddm.data import public, schema, split
from sciddm.errors import InputError, nearest

URL = (
    "https://github.com/pangeo-data/climpred-data/raw/14ee1046dc9ec32753db85ad15ce8a2e428238d9/"
    "{name}.SST.eastern_pacific.nc"
)
TRUTH = "5566b81d9f271c30f3e715ef2d5f988138df8fdcf9d40e0fee883674a2f78b8d"
FORECASTS = "eed4e77c47c374d7e26ff274bfe23b8d7c115b75757fcf05356fef58a1d3d59f"
SIZES = ("toy", "full")


def make(
    store: str | Path,
    *,
    size: str = "toy",
    seed: int = 0,
    source: str = "",
    overwrite: bool = False,
) -> xr.Dataset:
    """Write the record to the zarr ``store`` and open it; ``seed`` changes nothing.

    ``source`` is the folder of local copies, or the copy itself; without it, it is fetched.
    """
    from sciddm.data import store as zarr_store

    if size not in SIZES:
        raise InputError(f"Got size {size!r}, expected a known one.{nearest(size, SIZES)}")
    if Path(store).exists() and not overwrite:
        raise InputError(f"{store} exists; expected a new name, or overwrite=True to replace it.")
    ds = public.dataset(public.read(URL.format(name="FOSI"), TRUTH, source))
    out = xr.Dataset(
        {"sst": (("time", "nlat", "nlon"), ds.SST.values.astype(np.float32), named())},
        {"time": ("time", july(ds.time.values), {"standard_name": "time"}), **places(ds)},
        {
            "Conventions": "CF-1.10",
            "title": "Annual sea surface temperature of the eastern Pacific, FOSI",
            "sciddm_dataset": "sst_pacific",
            "sciddm_generator": {"version": 1},
        },
    )
    schema.check_field(out)
    out = split.attach(out, {"train": [0, 46], "validation": [48, 56], "test": [56, 68]}, "time")
    return zarr_store.open(zarr_store.write(out, store, chunks={"time": 12}, overwrite=overwrite))


def hindcasts(source: str = "") -> xr.Dataset:
    """The decadal forecasts ``sst (init_time, lead_time, nlat, nlon)``, anomalies in K."""
    ds = public.dataset(public.read(URL.format(name="CESM-DP-LE"), FORECASTS, source))
    years, leads = ds.init.values.astype(int), ds.lead.values.astype(int)
    november = np.array([cftime.DatetimeNoLeap(int(year), 11, 1) for year in years])
    lead = {"standard_name": "forecast_period", "long_name": "lead time", "units": "years"}
    return xr.Dataset(
        {
            "sst": (
                ("init_time", "lead_time", "nlat", "nlon"), ds.SST.values.astype(np.float32),
                {**named(), "long_name": "anomaly of the sea surface temperature", "units": "K"},
            )
        },
        {
            "init_time": ("init_time", november, {"standard_name": "forecast_reference_time"}),
            "lead_time": ("lead_time", leads, lead),
            "valid_time": (("init_time", "lead_time"), july(years[:, None] + leads)),
            **places(ds),
        },
        {"Conventions": "CF-1.10", "title": "Decadal forecasts of CESM-DP-LE, ensemble mean"},
    )  # fmt: skip


def named() -> dict[str, str]:
    """Name and units, which the files do not give."""
    name = "sea_surface_temperature"
    return {"standard_name": name, "long_name": name.replace("_", " "), "units": "degC"}


def july(years: np.ndarray) -> np.ndarray:
    """The middle of each year in the calendar without leap years."""
    return np.vectorize(lambda year: cftime.DatetimeNoLeap(int(year), 7, 2), otypes="O")(years)


def places(ds: xr.Dataset) -> dict[str, tuple[tuple[str, str], np.ndarray, dict[str, str]]]:
    """Latitude, longitude and area (m2) of the cells, 2-D."""
    at = ("nlat", "nlon")
    return {
        "latitude": (at, ds.TLAT.values, {"standard_name": "latitude", "units": "degrees_north"}),
        "longitude": (at, ds.TLONG.values, {"standard_name": "longitude", "units": "degrees_east"}),
        "area": (at, ds.TAREA.values * 1e-4, {"standard_name": "cell_area", "units": "m2"}),
    }
