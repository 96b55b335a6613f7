"""An electricity transformer by the hour: its load in six parts and the temperature of its oil.

Equation or source
    ETTh1 of the Electricity Transformer Dataset: two years of one transformer in China, July 2016
    to June 2018. Fetched as published (2.6 MB), or read from a local copy given as `source`.
Grid and units
    One record of 14,400 hours from 2016-07-01T00, of the 17,420 of the file: 20 months of 30 days,
    the official part. Channels in the official order: `HUFL`, `HULL`, `MUFL`, `MULL`, `LUFL`,
    `LULL` (high, middle and low load, useful and useless, whose unit is not published) and `OT`,
    oil temperature, degrees Celsius. float32, dims (time,), nothing missing, no hour absent.
    `hours` takes other lengths, up to 17,420. Both sizes, toy and full, are this record.
Splits
    By time, the official ones: 8,640 hours (12 months of 30 days) train, 2,880 validate, 2,880
    test. The official test windows reach back into the validation hours for their context.
What is hard
    The day is in every channel and changes with the season; loads jump and stay. Oil temperature
    drifts: its mean falls from 17.1 degrees in the training hours to 4.9 in the test. 4 to 14 % of
    the values repeat the hour before and up to 410 of a channel are exactly 0, where a meter may
    have been off: the file marks nothing.
    Scores printed elsewhere mix channels, horizons and normalisations: compare like with like.
Licence
    CC BY-ND 4.0: the file may be given on unchanged only. This recipe reads it; do not publish the
    store.
Cite
    Zhou et al., Informer: beyond efficient transformer for long sequence time-series forecasting,
    AAAI 2021. https://github.com/zhouhaoyi/ETDataset
"""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pandas as pd
import xarray as xr

from sciddm.data import items, public, records
from sciddm.errors import InputError

URL = (
    "https://github.com/zhouhaoyi/ETDataset/raw/1d16c8f4f943005d613b5bc962e9eeb06058cf07/"
    "ETT-small/ETTh1.csv"
)
SHA256 = "f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066"
SIZES = {"toy": 14_400, "full": 14_400}
CHANNELS = ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")
MONTH = 30 * 24


def make(
    store: str | Path,
    *,
    size: str = "toy",
    seed: int = 0,
    source: str = "",
    hours: int | None = None,
    overwrite: bool = False,
) -> xr.Dataset:
    """Write the record to the zarr ``store`` and open it; ``seed`` changes nothing.

    ``source`` is a local copy, or the folder that holds it; without it, it is fetched. ``hours`` is
    the length of the record, the test from hour 11,520 to its end.
    """
    length = records.sized(SIZES, size, hours)
    records.free(store, overwrite)
    if not 16 * MONTH < length <= 17_420:
        raise InputError(f"Got hours={length}; expected more than {16 * MONTH}, up to 17420.")
    frame = pd.read_csv(io.BytesIO(public.read(URL, SHA256, source)))
    found = items.of(frame.iloc[:length], target=CHANNELS)
    found = replace(
        found, units=dict.fromkeys(CHANNELS, "1") | {"OT": "degree_Celsius"},
        attrs={"sciddm_sample_dim": "time"},
    )  # fmt: skip
    splits = {"train": [0, 12 * MONTH], "validation": [12 * MONTH, 16 * MONTH]}
    return records.save(
        found, store, splits | {"test": [16 * MONTH, length]}, name="etth1",
        title="Electricity transformer 1 by the hour", generator={"version": 1, "hours": length},
        attribution="Electricity Transformer Dataset, Zhou et al., CC BY-ND 4.0",
        about={
            **{name: {"long_name": f"load {name}"} for name in CHANNELS},
            "OT": {"long_name": "oil temperature"},
        }, overwrite=overwrite,
    )  # fmt: skip
