"""From a file of sensors to what a model observes: a table (CSV, NetCDF) or gridded values.

A table has the position in columns named like the dims of the model's grid, and values either in
columns named like its variables, with their errors beside them (``solution``, ``solution_std``), or
one a row (``variable``, ``value``, ``std``, ``units``). A variable that the model does not have is
refused where it looks like one of the model's, and wherever each row names its own.
"""

from __future__ import annotations

import difflib
from pathlib import Path

import numpy as np
import xarray as xr

import sciddm
from sciddm.data import stations
from sciddm.data.codec import Codec
from sciddm.data.filmed import Filmed
from sciddm.data.names import find
from sciddm.errors import InputError, nearest
from sciddm.task import Observed


def read(
    codec: Codec,
    path: str | Path,
    *,
    variable: str | None = None,
    std: float | None = None,
    freedom: float | None = None,
    limits: tuple[float | None, float | None] = (None, None),
) -> Observed:
    """The values in ``path`` of the variables of ``codec``, or of one of them.

    Parameters
    ----------
    variable : the only one that is taken. std : the error of each, in the place of the file's own.
    freedom, limits : of the errors, see `sciddm.Observed`.

    Raises `InputError` for a file without such a variable, a name that is nearly one, and values
    without an error.
    """
    known = [variable] if variable is not None else list(codec.variables)
    if variable is not None and variable not in codec.variables:
        raise InputError(
            f"Got the variable {variable!r}, which the model does not have."
            + nearest(variable, codec.variables)
        )
    seen = stations.read(path, grid=codec.grid.dims)
    names = [name for name in known if name in seen.data_vars]
    _check_names(seen, list(codec.variables), path)
    if not names:
        hint = nearest(known[0], [str(name) for name in seen.data_vars])
        raise InputError(f"Got {str(path)!r} without {' or '.join(map(repr, known))}.{hint}")
    for name in names:
        if std is None and f"{name}_std" not in seen:
            raise InputError(
                f"Got {str(path)!r} without an error of {name!r}; say --std, or add a column "
                f"{name}_std (std where each row names its variable)."
            )
    if std is not None:
        return sciddm.Observed(seen[names], std=std, freedom=freedom, limits=limits)
    beside = {f"{name}_std": name for name in names}
    errors = seen[list(beside)].rename(beside)
    return sciddm.Observed(seen[names], std=errors, freedom=freedom, limits=limits)


def along(codec: Codec, time: str, path: str | Path, *, std: float | None = None) -> Observed:
    """The values in ``path`` seen along a forecast: `read`, each with its time in the column
    ``time``, or in any column of dates."""
    seen = read(codec, path, std=std)
    if time in seen.values.coords or find(seen.values, "time"):
        return seen
    return read(Filmed(codec, time, np.zeros(1)), path, std=std)  # times are numbers


def _check_names(seen: xr.Dataset, known: list[str], path: str | Path) -> None:
    """Refuse names that are nearly the model's: their values would be lost without a word."""
    expected = {*known, *(f"{name}_std" for name in known)}
    for name in seen.attrs.get("words", ()):
        if name in expected:
            raise InputError(
                f"Got {str(path)!r} with words in the column {name!r}; expected numbers, with a "
                "decimal point, or an empty cell for no value."
            )
    for name in map(str, seen.data_vars):
        rows = name in seen.attrs.get("variables", ())
        alike = difflib.get_close_matches(name, expected, n=1, cutoff=0.85)
        if name not in expected and (rows or alike):
            raise InputError(
                f"Got {str(path)!r} with {name!r}, which the model does not have."
                f"{nearest(name, expected if alike else known)} Rename it, or leave it out."
            )
