"""Generation: 1,000 Poisson fields at 128 x 128, and the same bytes by any number of workers.

Processes are started here whatever the work; by default they are where it takes 10 s or more. A
digest is of the decoded arrays of the store, name by name, so that it depends on the values alone
and not on how the store is cut.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from pathlib import Path

import numpy as np
import xarray as xr
from _report import Report

from sciddm import recipe
from sciddm.data import generate

ROOT = Path(__file__).resolve().parents[2]


def run(report: Report, quick: bool) -> None:
    """1, 2 and 4 workers; --quick has 200 fields and 1 and 2 workers."""
    samples, grid = (200 if quick else 1000), 128
    make = recipe.load(ROOT / "datasets" / "poisson.py", "datasets").make
    rows, worth = [], generate.WORTH
    generate.WORTH = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for workers in (1, 2) if quick else (1, 2, 4):
            store = Path(folder, f"poisson{workers}.zarr")
            start = time.monotonic()
            ds = make(store, samples=samples, grid=grid, seed=0, workers=workers)
            seconds = time.monotonic() - start
            rows.append(
                {
                    "workers": workers,
                    "fields": samples,
                    "seconds": seconds,
                    "fields_a_second": samples / seconds,
                    "sha256": digest(ds)[:16],
                }
            )
    generate.WORTH = worth
    report.table("Poisson fields at 128 x 128", rows)
    two = next(r for r in rows if r["workers"] == 2)
    name = f"seconds of {samples} fields at 128 x 128, 2 workers"
    report.claim(name, two["seconds"], 0, 60)
    report.claim("different bytes by workers", len({r["sha256"] for r in rows}) - 1, 0, 0)


def digest(ds: xr.Dataset) -> str:
    """Of every variable and coordinate: name, dims, type, values; block by block."""
    found = hashlib.sha256()
    for name in sorted(map(str, ds.variables)):
        array = ds[name]
        found.update(f"{name} {array.dims} {array.shape} {array.dtype}".encode())
        step = max(1, (1 << 22) // max(1, array[0].size)) if array.ndim else 1
        for first in range(0, len(array), step) if array.ndim else ():
            values = np.ascontiguousarray(array[first : first + step].values)
            found.update(values.tobytes())
    return found.hexdigest()
