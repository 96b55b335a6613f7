"""What every picture shares: colours, scales, the names on axes, and how a file is written."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axis import Axis
from matplotlib.colors import Colormap, Normalize
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from sciddm.errors import InputError, nearest

FIELD: Colormap = mpl.colormaps["viridis"].with_extremes(bad="0.82")
SPREAD: Colormap = mpl.colormaps["magma"].with_extremes(bad="0.82")
# Okabe and Ito, Color Universal Design, 2008: eight colours that colour-blind readers tell apart.
LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", "-.", ":")
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "axes.formatter.useoffset": False,
}


def save(fig: Figure, path: Path | str, *, dpi: int = 150) -> Path:
    """Write a figure in the format of the suffix; a whole file or none. Replaces what is there.

    Raises:
        InputError: Matplotlib cannot write the suffix.
    """
    path = Path(path)
    known = fig.canvas.get_supported_filetypes()
    if path.suffix[1:].lower() not in known:
        raise InputError(
            f"cannot write a picture to {path.name!r}: unknown suffix {path.suffix!r}."
            f"{nearest(path.suffix[1:], known)}"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        fig.savefig(part, dpi=dpi)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return path


def scale_of(*fields: xr.DataArray, low: float | None = None) -> Normalize:
    least = min(float(f.min()) for f in fields) if low is None else low
    most = max(float(f.max()) for f in fields)
    return Normalize(least, most if most > least else least + 1.0)


def line(i: int) -> dict[str, Any]:
    return {"color": LINES[i % len(LINES)], "ls": DASHES[i % len(DASHES)], "lw": 1.6}


def axis_of(field: xr.DataArray | xr.Dataset, dim: str) -> tuple[np.ndarray, str]:
    """Numbers (or dates) to draw along a dim, and its name with units."""
    if dim not in field.coords or field[dim].dtype.kind in "US":
        return np.arange(field.sizes[dim]), dim
    coord = field[dim]
    values, units = coord.values, coord.attrs.get("units")
    if values.dtype.kind == "m":
        values, units = values / np.timedelta64(1, "h"), "h"
    elif values.dtype.kind == "O":
        # Calendars without leap years have no dates in matplotlib.
        values, units = coord.dt.decimal_year.values, "year"
    short = {"degrees_north": "°N", "degrees_east": "°E"}
    return values, named(coord.assign_attrs(units=short.get(str(units), units)))


def dates(axis: Axis, values: np.ndarray) -> None:
    if values.dtype.kind == "M":
        locator = AutoDateLocator()
        axis.set_major_locator(locator)
        axis.set_major_formatter(ConciseDateFormatter(locator))


def named(field: xr.DataArray) -> str:
    known = field.attrs.get("long_name") or field.attrs.get("standard_name") or field.name or ""
    return f"{str(known).replace('_', ' ')}{unit(field)}".strip()


def unit(field: xr.DataArray, form: str = " [{}]") -> str:
    units = field.attrs.get("units")
    return "" if units in (None, "", "1") else form.format(units)


def need(fields: Mapping[str, xr.DataArray], dim: str, source: str) -> xr.DataArray:
    """The first of some fields along ``dim`` and at most one dim more."""
    if not fields:
        raise InputError(f"nothing to draw; expected a mapping of names to fields from {source}")
    for name, field in fields.items():
        if dim not in field.dims or field.ndim > 2:
            raise InputError(
                f"{name!r} has dims {tuple(field.dims)}; expected {dim!r} and at most one "
                f"more, from {source}; average over the others"
            )
    return next(iter(fields.values()))
