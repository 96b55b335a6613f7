"""The first two days of 400 stays in intensive care: 35 vital signs and laboratory values.

Equation or source
    The first 400 records, by number, of set A of the PhysioNet/Computing in Cardiology Challenge
    2012, from a public copy without the type of the unit: 400 small files (3 MB in all), fetched
    one by one, or one table of them (RecordID, Time, Parameter, Value) given as `source`.
Grid and units
    400 stays, each at the minutes of its own reports, hours since admission up to 48: CF ragged
    arrays, dims (obs,) and (item,), float32, NaN where a report says nothing of a variable. Age,
    gender, height and weight (the first known) are one value a stay. Sizes: toy 40 stays, full 400.
Splits
    By stay: the first 70 % train (280), the next 10 % validate (40), the last 20 % test (80).
What is hard
    Nine of ten cells of times by variables are empty, and why a value was taken says something:
    values are not missing at random. Heart rate comes each hour, cholesterol in 26 reports of all.
    -1 means missing for height and weight (177 heights). Reports of one variable and minute that
    disagree (550 repeats) are the last. With `clean`, the default, what no patient can have is NaN:
    pH 95, -17.8 degrees, pressures and rates of 0; without it every number stands as it was typed.
    Published scores use 4,000 stays, hourly bins and the statistics of all of them.
Licence
    PhysioNet Challenge 2012 v1.0.0, open access, to our knowledge ODC-By 1.0: attribution.
    De-identified; do not try to identify anybody.
Cite
    Silva, Moody, Scott, Celi and Mark, Predicting in-hospital mortality of ICU patients: the
    PhysioNet/Computing in Cardiology Challenge 2012, Computing in Cardiology 39, 2012. Goldberger
    et al., PhysioBank, PhysioToolkit, and PhysioNet, Circulation 101, 2000.
"""

from __future__ import annotations

import gzip
import hashlib
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from sciddm.data import items, public, records
from sciddm.errors import InputError

URL = (
    "https://github.com/SamuelJoray/Predicting-Mortality-of-ICU-Patients/raw/"
    "7d004326132fddd268f645bf0b37217fd15bcedb/set-a/{stay}.txt"
)
LOCAL = "physionet2012_set-a_400.csv.gz"
SHA256 = "76293a9f836da1c85d2b5013538c6061130c413d0c071ef94a7b36d52afbbf84"
FIRST = 132539
# Differences of the 400 numbers, a digit of base 36 each.
STEPS = (
    "1122213311b12322521321132112135221214192111232312351311232921212613231132731143351612b71123112"
    "1312341151124141111525132311142132111222131116513371111341314422316412373911212422694315125714"
    "1111112213311j21225816516623831131143615113111361265213231133172133222121211144162111922114111"
    "1211212112212242121111446223111521524a222412232313424212221116151161121111253a315a323222113111"
    "22713211263216321423218"
)
UNITS = {
    "DiasABP": "mmHg", "HR": "min-1", "Na": "mmol L-1", "Lactate": "mmol L-1",
    "NIDiasABP": "mmHg", "PaO2": "mmHg", "WBC": "1e9 L-1", "pH": "1", "Albumin": "g dL-1",
    "ALT": "L-1", "Glucose": "mg dL-1", "SaO2": "%", "Temp": "degree_Celsius", "AST": "L-1",
    "Bilirubin": "mg dL-1", "HCO3": "mmol L-1", "BUN": "mg dL-1", "RespRate": "min-1",
    "Mg": "mmol L-1", "HCT": "%", "SysABP": "mmHg", "FiO2": "1", "K": "mmol L-1", "GCS": "1",
    "Cholesterol": "mg dL-1", "NISysABP": "mmHg", "TroponinT": "ug L-1", "MAP": "mmHg",
    "TroponinI": "ug L-1", "PaCO2": "mmHg", "Platelets": "1e9 L-1", "Urine": "mL",
    "NIMAP": "mmHg", "Creatinine": "mg dL-1", "ALP": "L-1",
}  # fmt: skip
STATIC = {"Age": "year", "Gender": "1", "Height": "cm", "Weight": "kg"}
LIMITS = {
    "pH": (6.5, 8.0), "Temp": (24, 45), "HR": (5, 400), "RespRate": (1, 120), "PaO2": (10, 700),
    **dict.fromkeys(("DiasABP", "SysABP", "MAP", "NIDiasABP", "NISysABP", "NIMAP"), (5, 400)),
    "Height": (90, 230), "Weight": (20, 350), "Age": (0, 120), "Gender": (0, 1),
}  # fmt: skip
SIZES = {"toy": 40, "full": 400}


def make(
    store: str | Path,
    *,
    size: str = "toy",
    seed: int = 0,
    source: str = "",
    clean: bool = True,
    overwrite: bool = False,
) -> xr.Dataset:
    """Write the stays to the zarr ``store`` and open it; ``seed`` changes nothing.

    ``source`` is the table, gzipped or not, or the folder that holds it under its usual name;
    without it, the files are fetched.
    """
    count = records.sized(SIZES, size, None)
    records.free(store, overwrite)
    frame = pd.read_csv(io.BytesIO(table(source)))
    stays = frame.RecordID.drop_duplicates().iloc[:count]
    frame = frame[frame.RecordID.isin(stays) & frame.Parameter.isin([*UNITS, *STATIC])]
    if clean:
        low, high = (frame.Parameter.map({k: v[i] for k, v in LIMITS.items()}) for i in (0, 1))
        frame = frame[~((frame.Value < low) | (frame.Value > high))]
    found = items.of(
        frame, item="RecordID", time="Time", time_format="%H:%M", variable="Parameter",
        static=tuple(STATIC), missing_values=() if clean else (-1,), keep="last",
    )  # fmt: skip
    order = [found.variables.index(n) for n in UNITS if n in found.variables]
    kept = tuple(replace(i, values=i.values[:, order]) for i in found)
    found = replace(
        found, variables=tuple(found.variables[k] for k in order), units=UNITS | STATIC,
        items=tuple(i.rows(np.isfinite(i.values).any(1)) for i in kept if i.seen),
    )  # fmt: skip
    middle, last = (round(share * len(found)) for share in (0.7, 0.8))
    splits = {"train": [0, middle], "validation": [middle, last], "test": [last, len(found)]}
    return records.save(
        found, store, splits, name="physionet2012", title="PhysioNet Challenge 2012, 400 stays",
        generator={"version": 1, "stays": count, "clean": clean},
        attribution="PhysioNet/CinC Challenge 2012 v1.0.0, Silva et al. 2012",
        overwrite=overwrite,
    )  # fmt: skip


def table(source: str = "") -> bytes:
    """All reports as one table: RecordID, Time, Parameter, Value."""
    if source:
        path = Path(source) / LOCAL if Path(source).is_dir() else Path(source)
        if not path.is_file():
            raise InputError(f"Nothing at {str(path)!r}; expected the table {LOCAL}.")
        raw = path.read_bytes()
        raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    else:
        numbers = np.cumsum([FIRST, *(int(step, 36) for step in STEPS)])
        rows = ["RecordID,Time,Parameter,Value\n"]
        for stay in numbers.tolist():
            text = public.fetched(URL.format(stay=stay)).decode()
            rows += [f"{stay},{line}\n" for line in text.splitlines()[2:] if line]
        raw = "".join(rows).encode()
    found = hashlib.sha256(raw).hexdigest()
    if found != SHA256:
        raise InputError(
            f"{source or 'what was fetched'} is not the table of 400 stays: sha256 {found[:12]}.., "
            f"expected {SHA256[:12]}.."
        )
    return raw
