"""Data sets of series as stores: dense where the times of all items are one, else CF ragged.

What a recipe of the shelf hands over are items and words about them; the store holds float32
values in the layout of `data.ragged`, with splits by item or, for one long record, by time.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from sciddm.data import ragged, split, store
from sciddm.data.items import Items
from sciddm.errors import InputError, nearest


def sized(sizes: Mapping[str, int], size: str, items: int | None) -> int:
    """How many items a size has, or ``items`` where it is not None.

    Raises:
        InputError: no such size, or less than 3 items: one for each split.
    """
    if size not in sizes:
        raise InputError(f"Got size {size!r}, expected a known one.{nearest(size, sizes)}")
    count = sizes[size] if items is None else items
    if count < 3:
        raise InputError(f"Got {count} items; expected 3 or more, one for each split.")
    return count


def free(path: str | Path, overwrite: bool) -> None:
    """Refuse a store that exists, before anything is fetched or made."""
    if Path(path).exists() and not overwrite:
        raise InputError(f"{path} exists; expected a new name, or overwrite=True to replace it.")


def save(
    items: Items,
    path: str | Path,
    splits: Mapping[str, list[int]],
    *,
    name: str,
    title: str,
    generator: Mapping[str, Any],
    attribution: str = "",
    about: Mapping[str, Mapping[str, str]] | None = None,
    overwrite: bool = False,
) -> xr.Dataset:
    """Write the items to a zarr store and open it.

    Args:
        splits: ranges of items; of times where there is one time axis and no choice of items is
            meant: see ``items.attrs["sciddm_sample_dim"]``, "item" by default.
        name, title, attribution: of the data set. generator: the numbers that made it.
        about: attributes of variables beside their units.
    """
    lead = str(items.attrs.get("sciddm_sample_dim", "item"))
    one = len(items) == 1 and lead == "time"
    form = ragged.Labelled(item="" if one else "item", attrs=about or {})
    ds = ragged.dataset(items, form)
    if lead in ds.dims:
        ds = ds.transpose(lead, ...)
    for variable in ds.data_vars.values():
        if variable.dtype.kind == "f":
            variable.data = variable.values.astype(np.float32)
            variable.attrs.setdefault("units", "1")
    words = {"attribution": attribution} if attribution else {}
    ds.attrs = {
        "Conventions": "CF-1.10", "title": title, **words, "sciddm_dataset": name,
        "sciddm_generator": dict(generator),
        "sciddm_variables": [*items.variables, *items.covariates, *items.static],
    }  # fmt: skip
    ds = split.attach(ds, splits, lead)
    return store.open(store.write(ds, path, overwrite=overwrite))
