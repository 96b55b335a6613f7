"""Your own fields: any NetCDF file, set of files or zarr store, as a store to train on.

Equation or source
    Whatever `source` names: a NetCDF file (3 or 4), a zarr store (2 or 3), or a pattern such as
    `"era5/*.nc"` for files that follow one another in time. Nothing is fetched.
Grid and units
    Those of the source, unpacked to float32, dims (time, ..., rows, columns) by their own names.
    Units, calendars, 2-D coordinates and a constant land mask (NaN) are kept. Sizes toy and full
    are both the whole source: choose less by choosing files.
Splits
    By order: shares of the time axis, the last one to test, the one before it to validation; or by
    date, when `validation` and `test` are the dates at which they start. `gap` steps are left out
    at the end of train and validation. Never at random.
What is hard
    Files that are nearly right: infinities, gaps that come and go, undeclared -9999, times that
    are not dates, repeated hours, files in different units or on different grids. Each is refused
    in one line that says where it is and how to declare or mend it.
Licence
    That of your source; it is not recorded here. See that you may use it.
Cite
    Your source.
"""

from __future__ import annotations

from pathlib import Path

import xarray as xr

from sciddm.data import ingest, split
from sciddm.errors import InputError, nearest

SIZES = ("toy", "full")


def make(
    store: str | Path,
    *,
    source: str,
    variables: tuple[str, ...],
    size: str = "toy",
    seed: int = 0,
    validation: float | str = 0.1,
    test: float | str = 0.1,
    gap: int = 0,
    sample_dim: str = "",
    time_format: str = "",
    missing: tuple[str, ...] = (),
    missing_values: tuple[float, ...] = (),
    continuous: tuple[str, ...] = (),
    strict: bool = False,
    chunk: int = 0,
    overwrite: bool = False,
) -> xr.Dataset:
    """Write the chosen variables to the zarr ``store`` and open it; ``seed`` changes nothing.

    ``missing`` names variables whose gaps may change in time, ``missing_values`` are numbers that
    mean NaN, ``continuous`` names integer variables that are quantities, ``time_format`` reads
    integer dates (``"%Y%m"``), ``strict`` refuses suspicious values, ``chunk`` counts samples.
    """
    from sciddm.data import store as zarr_store

    if size not in SIZES:
        raise InputError(f"Got size {size!r}, expected a known one.{nearest(size, SIZES)}")
    if Path(store).exists() and not overwrite:
        raise InputError(f"{store} exists; expected a new name, or overwrite=True to replace it.")
    paths = ingest.files(source)
    if Path(store).resolve() in [p.resolve() for p in paths]:
        raise InputError(f"Got output {str(store)!r}, which is the source; choose another name.")
    data = ingest.read(paths, variables, sample_dim=sample_dim, time_format=time_format)
    template = data.template()
    if isinstance(validation, str) and isinstance(test, str):
        splits = split.by_time(template, data.dim, validation=validation, test=test, gap=gap)
    elif not isinstance(validation, str) and not isinstance(test, str):
        splits = split.by_order(len(data), validation, test, gap)
    else:
        raise InputError(
            f"Got validation={validation!r} and test={test!r}; expected two dates or two shares."
        )
    ingest.check(
        data,
        missing=missing,
        missing_values=missing_values,
        continuous=continuous,
        strict=strict,
    )
    template = split.attach(template, splits, data.dim).assign_attrs(
        Conventions="CF-1.10",
        sciddm_dataset="netcdf",
        sciddm_source=[p.name for p in paths],
        sciddm_generator={
            "version": 1,
            "variables": list(variables),
            "validation": validation,
            "test": test,
            "gap": gap,
            "missing": list(missing),
            "missing_values": list(missing_values),
            "time_format": time_format,
        },
    )
    path = ingest.write(
        data, template, store, chunk=chunk, missing_values=missing_values, overwrite=overwrite
    )
    return zarr_store.open(path)
