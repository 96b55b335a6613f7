"""Carbon dioxide over Mauna Loa by the week, 1958 to 2001, with the weeks that were never measured.

Equation or source
    Keeling's record of the Scripps Institution of Oceanography. Fetched as published with
    statsmodels (34 kB), or read from a local copy given as `source`.
Grid and units
    One record of 2,284 weeks, Saturdays from 1958-03-29 to 2001-12-29. `co2`, parts per million by
    volume, float32, dims (time,). NaN in the 59 weeks without a value: 47 before 1965, the longest
    gap 18 weeks from January 1964. Both sizes, toy and full, are the whole record.
Splits
    By time: up to 1987 train, 1988 to 1994 validate, 1995 to 2001 test (365 weeks). No gap is left
    out: forecasts begin from what came before.
What is hard
    The trend bends upwards: a straight line from the training years is 7.6 ppm low at the end of
    the test, and a cubic 1.1 ppm high. The yearly cycle is 6.2 ppm wide and no sine; about both the
    s.d. is 0.5 ppm, from week to week 0.3, so a spread that ignores either is far too wide.
    Dates in the file are integers such as 19580329, which pandas reads as nanoseconds of 1970.
Licence
    Public domain, as stated with the file.
Cite
    Keeling and Whorf, Atmospheric CO2 concentrations derived from flask air samples at sites in the
    SIO network, Oak Ridge National Laboratory, 2004. https://www.statsmodels.org
"""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pandas as pd
import xarray as xr

from sciddm.data import items, public, records
from sciddm.errors import InputError, nearest

URL = (
    "https://github.com/statsmodels/statsmodels/raw/82c59e378bdfb5ae324006c477954879ad3e24be/"
    "statsmodels/datasets/co2/co2.csv"
)
SHA256 = "16695fa2786e53414e5a6b54767a3fdf5de99cfbc68617f69d1362d92776a92f"
SIZES = ("toy", "full")
SPLITS = {"train": [0, 1553], "validation": [1553, 1919], "test": [1919, 2284]}


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
    if size not in SIZES:
        raise InputError(f"Got size {size!r}, expected a known one.{nearest(size, SIZES)}")
    records.free(store, overwrite)
    frame = pd.read_csv(io.BytesIO(public.read(URL, SHA256, source)))
    found = items.of(frame, time_format="%Y%m%d")
    found = replace(found, units={"co2": "1e-6"}, attrs={"sciddm_sample_dim": "time"})
    return records.save(
        found, store, SPLITS, name="co2", title="Carbon dioxide at Mauna Loa by the week",
        generator={"version": 1},
        attribution="Keeling and Whorf, Scripps Institution of Oceanography",
        about={"co2": {
            "standard_name": "mole_fraction_of_carbon_dioxide_in_air",
            "long_name": "carbon dioxide, parts per million",
        }}, overwrite=overwrite,
    )  # fmt: skip
