"""Daily exchange rates of eight currencies, 1990 to 2016: the set on which nobody beats a walk.

Equation or source
    Rates against the US dollar of Australia, Britain, Canada, Switzerland, China, Japan, New
    Zealand and Singapore, collected by Lai et al. Fetched as published (0.5 MB), or read from a
    local copy given as `source`.
Grid and units
    One record of 7,588 rows in order, one a trading day; the file has no dates, and none fit its
    length, so the times are the numbers of the rows, in days of trade. `aud`, `gbp`, `cad`, `chf`,
    `cny`, `jpy`, `nzd`, `sgd`: US dollars for one unit. float32, dims (time,), nothing missing.
    Both sizes, toy and full, are the whole record.
Splits
    By time: 60 % train (4,552 rows), 20 % validate, the last 20 % test (1,518 rows).
What is hard
    The honest forecast is today's rate with the spread of past changes: a bootstrap of the last 60
    changes of the logarithm scores as well as any published network, and better than most. Use the
    set to see that a model does no harm. The spread changes with the years; a third of China's days
    and a twentieth of the others' repeat the day before: pegs, and holidays that were filled.
Licence
    Apache-2.0, the licence of the repository that publishes this copy.
Cite
    Lai, Chang, Yang and Liu, Modeling long- and short-term temporal patterns with deep neural
    networks, SIGIR 2018, https://doi.org/10.1145/3209978.3210006. The copy:
    https://github.com/unit8co/darts
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
    "https://github.com/unit8co/darts/raw/2be8e43fbdc1265209f33bbe8bae81f3e4d9146f/"
    "datasets/exchange_rate.csv"
)
SHA256 = "f790284d51ac8c3918d4c9754a4779744c5de287b492e9267ed6a2aa60fb70c5"
SIZES = ("toy", "full")
CURRENCIES = {
    "aud": "Australian dollar", "gbp": "British pound", "cad": "Canadian dollar",
    "chf": "Swiss franc", "cny": "Chinese yuan", "jpy": "Japanese yen",
    "nzd": "New Zealand dollar", "sgd": "Singapore dollar",
}  # fmt: skip
SPLITS = {"train": [0, 4552], "validation": [4552, 6070], "test": [6070, 7588]}


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
    found = items.of(frame.set_axis(list(CURRENCIES), axis=1), step=1.0)
    found = replace(
        found, units=dict.fromkeys(CURRENCIES, "USD"), time_units="1",
        attrs={"sciddm_sample_dim": "time"},
    )  # fmt: skip
    return records.save(
        found, store, SPLITS, name="exchange_rate", title="Exchange rates of eight currencies",
        generator={"version": 1}, attribution="Lai et al. 2018, copy of unit8co/darts, Apache-2.0",
        about={
            **{name: {"long_name": f"US dollars a {said}"} for name, said in CURRENCIES.items()},
            "time": {"standard_name": "time", "long_name": "number of the day of trade"},
        }, overwrite=overwrite,
    )  # fmt: skip
