"""Temperature and salinity down the water column: profiles of three Argo floats.

Equation or source
    Floats 13857 (tropical Atlantic, 1997-2001), 1900857 (south of Africa to the Indian Ocean,
    2008-2013) and 2902696 (South China Sea, 2016-17) of the Argo programme. Fetched as published
    (three files, 2.7 MB), or read from a folder that holds them, given as `source`.
Grid and units
    385 profiles, a series each along pressure (decibar, about metres of depth), at the float's own
    levels: `temp` (degrees Celsius) and `psal` (practical salinity), NaN where a value is not good.
    CF ragged arrays, dims (obs,) and (item,), float32. `latitude`, `longitude` and `days` since
    1997-01-01 are one value a profile. Both sizes, toy and full, are all profiles.
Splits
    By profile, in order of time, so by float: the last float tests (51 profiles), the last 50 of
    the one before validate.
What is hard
    Only flags 1 and 2 (good, probably good) are kept, of pressure and of the value: adjusted values
    where the file has them (delayed mode), raw ones else. Float 13857 has no salinity at all and
    was never adjusted. Levels are dense above and sparse below; the deepest differ from 1,000 to
    2,000 dbar; the thermocline is steep and each ocean has its own. The test is another ocean.
Licence
    Argo data are free with attribution; the repository that publishes these copies is EUPL-1.2.
Cite
    These data were collected and made freely available by the International Argo Program and the
    national programs that contribute to it (https://argo.ucsd.edu). Argo float data and metadata
    from Global Data Assembly Centre, SEANOE, https://doi.org/10.17882/42182.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from sciddm.data import public, records
from sciddm.data.items import Item, Items
from sciddm.errors import InputError, nearest

URL = (
    "https://github.com/euroargodev/argopy-data/raw/cf7732329c444929f5ff38db6d012ed5233b7874/"
    "ftp/dac/{name}_prof.nc"
)
FLOATS = {
    "aoml/13857/13857": "f24efaf19bc799cb29b86c02ff902172c7fc209397b3ee8b2e8a7872cd1372cb",
    "coriolis/1900857/1900857": "2afe334c747f6671d7740f34a58323ff3080ed9e7df2f227cfb7a524972bdc6b",
    "csio/2902696/2902696": "3bcb072da4c1553f76effe6ca1c6e47cb220c8c548e1d7bd9a80463cebb567c7",
}
SIZES = ("toy", "full")
UNITS = {
    "temp": "degree_Celsius", "psal": "1e-3", "latitude": "degrees_north",
    "longitude": "degrees_east", "days": "day",
}  # fmt: skip
BEGIN = np.datetime64("1997-01-01", "ns")
GOOD = ("1", "2")


def make(
    store: str | Path,
    *,
    size: str = "toy",
    seed: int = 0,
    source: str = "",
    overwrite: bool = False,
) -> xr.Dataset:
    """Write the profiles to the zarr ``store`` and open it; ``seed`` changes nothing.

    ``source`` is the folder of local copies, under their published names or with ``argo_`` before;
    without it, they are fetched.
    """
    if size not in SIZES:
        raise InputError(f"Got size {size!r}, expected a known one.{nearest(size, SIZES)}")
    records.free(store, overwrite)
    every = [p for number in FLOATS for p in profiles(number, source)]
    every.sort(key=lambda dated: dated[0])
    made = tuple(profile for _, profile in every)
    last = len(made) - sum(p.name.startswith("2902696") for p in made)
    return records.save(
        Items(("temp", "psal"), made, (), ("latitude", "longitude", "days"), UNITS, "dbar"),
        store,
        {"train": [0, last - 50], "validation": [last - 50, last], "test": [last, len(made)]},
        name="argo_profiles", title="Profiles of three Argo floats", generator={"version": 1},
        attribution="International Argo Program, https://doi.org/10.17882/42182",
        about={"time": {"standard_name": "sea_water_pressure", "axis": "Z", "positive": "down"}},
        overwrite=overwrite,
    )  # fmt: skip


def profiles(number: str, source: str) -> list[tuple[float, Item]]:
    """The profiles of one float that hold a good value, from the surface down, with their days."""
    url = URL.format(name=number)
    copy = Path(source) / f"argo_{url.rsplit('/', 1)[-1]}"
    raw = public.read(url, FLOATS[number], copy if source and copy.is_file() else source)
    ds = public.dataset(raw)
    pressure = trusted(ds, "PRES")
    values = np.stack([trusted(ds, name) for name in ("TEMP", "PSAL")], -1)
    days = (ds.JULD.values.astype("datetime64[ns]") - BEGIN) / np.timedelta64(1, "D")
    static = np.stack([ds.LATITUDE.values, ds.LONGITUDE.values, days], -1)
    out = []
    for row, way in enumerate(ds.DIRECTION.values.astype(str)):
        deep, first = np.unique(pressure[row], return_index=True)
        kept = np.isfinite(deep) & np.isfinite(values[row, first]).any(1)
        if kept.any() and np.isfinite(static[row]).all():
            name = f"{number.rsplit('/', 1)[-1]}_{int(ds.CYCLE_NUMBER[row]):03d}{way.strip()}"
            profile = Item(name, deep[kept], values[row, first][kept], None, static[row])
            out.append((float(days[row]), profile))
    return out


def trusted(ds: xr.Dataset, name: str) -> np.ndarray:
    """Values (profile, level) whose flag is good, adjusted where the file adjusts; NaN others."""
    if name not in ds:
        return np.full(ds.PRES.shape, np.nan)
    adjusted = np.isin(ds.DATA_MODE.values.astype(str), ["A", "D"])[:, None]
    flag, raw = (ds[f"{name}{a}"].values for a in ("_QC", ""))
    flag_, raw_ = (ds[f"{name}_ADJUSTED{a}"].values for a in ("_QC", ""))
    good = np.isin(np.where(adjusted, flag_, flag).astype(str), GOOD)
    return np.where(good, np.where(adjusted, raw_, raw), np.nan).astype(np.float64)
