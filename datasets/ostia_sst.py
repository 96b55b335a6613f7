"""Sea surface temperature of the tropics by month, with its land: 54 months of OSTIA.

Equation or source
    OSTIA, the analysis of the UK Met Office from satellites and buoys: monthly means, April 2006 to
    September 2010. Fetched from the sample data of Iris (1.7 MB), or read from a local copy given
    as `source`.
Grid and units
    54 months x 18 latitudes (5 S to 4.4 N) x 432 longitudes round the globe (0 to 359.2 E), steps
    of 0.56 and 0.83 degrees, kelvin, float32, dims (time, latitude, longitude). NaN on land, 26.4 %
    of the cells, the same in every month. Both sizes, toy and full, are the whole record.
Splits
    By time: the last 12 months (October 2009 to September 2010) are the test months, the 10 before
    them the validation months, the first 31 train; one month is left out at the end of train.
What is hard
    Land must be given to no network as NaN and to no score as a number. Longitude is a circle cut
    through Africa. A year and a half of El Nino and La Nina is all there is: the test holds the
    fall from El Nino to La Nina, the training two weak ones. Months are of unequal length and dated
    by their middles, so time steps are 29.5 to 31 days: a lead of one month, not of 30 days. The
    file says `surface_temperature` and carries a forecast reference time and a forecast period of
    an analysis: they mean nothing here and are left out.
Licence
    Open Government Licence 3.0: contains public sector information of the UK Met Office, Crown
    copyright.
Cite
    Donlon et al., The Operational Sea Surface Temperature and Sea Ice Analysis (OSTIA) system,
    Remote Sensing of Environment 116, 2012, https://doi.org/10.1016/j.rse.2010.10.017.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from sciddm.data import public, schema, split
from sciddm.errors import InputError, nearest

URL = (
    "https://github.com/SciTools/iris-sample-data/raw/bb32d396a0d41c9790c8d69dbe59e03a3936e56a/"
    "iris_sample_data/sample_data/ostia_monthly.nc"
)
SHA256 = "e40d33fef22eabae985dae0fcee7643e127394195cef55a2e40e1f5416d57f98"
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

    ``source`` is a local copy, or the folder that holds it; without it, it is fetched.
    """
    from sciddm.data import store as zarr_store

    if size not in SIZES:
        raise InputError(f"Got size {size!r}, expected a known one.{nearest(size, SIZES)}")
    if Path(store).exists() and not overwrite:
        raise InputError(f"{store} exists; expected a new name, or overwrite=True to replace it.")
    ds = public.dataset(public.read(URL, SHA256, source))
    names = {
        "standard_name": "sea_surface_temperature",
        "long_name": "sea surface temperature",
        "units": "K",
        "cell_methods": "time: mean",
    }
    values = ds.surface_temperature.values.astype(np.float32)
    # float32 degrees: the steps are put right, 360 / 432 and 5 / 9.
    longitude, latitude = np.arange(432) * 360.0 / 432, -5.0 + np.arange(18) * 5.0 / 9
    out = xr.Dataset(
        {"sst": (("time", "latitude", "longitude"), values, names)},
        {
            "time": ("time", ds.time.values, {"standard_name": "time"}),
            "latitude": ("latitude", latitude, {"units": "degrees_north"}),
            "longitude": ("longitude", longitude, {"units": "degrees_east"}),
        },
        {
            "Conventions": "CF-1.10",
            "title": "OSTIA sea surface temperature of the tropics by month",
            "attribution": "Contains public sector information licensed under the Open Government "
            "Licence v3.0, Met Office",
            "sciddm_dataset": "ostia_sst",
            "sciddm_generator": {"version": 1},
        },
    )
    schema.check_field(out)
    out = split.attach(out, {"train": [0, 31], "validation": [32, 42], "test": [42, 54]}, "time")
    return zarr_store.open(zarr_store.write(out, store, chunks={"time": 12}, overwrite=overwrite))
