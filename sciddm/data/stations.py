"""Station tables: values at scattered places, from CSV or NetCDF, each with its own error.

A table has a row a station: a position, values, and perhaps a column ``<name>_std`` with the
error of ``<name>`` in its units. Read, it is a Dataset with the one dim ``station``::

    t2m       (station)    values, NaN where nothing was seen
    t2m_std   (station)    their errors, where the table gives them
    latitude  (station)    coordinates, named as in the table
    longitude (station)

A table may also have one value a row, whatever its variable, in the columns ``variable``,
``value`` and perhaps ``std`` and ``units`` beside the position; it becomes the same Dataset.

A NetCDF file or zarr store of gridded values passes through as it is: a grid with gaps is seen
values too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from sciddm.data import checks, schema
from sciddm.data.names import find
from sciddm.errors import InputError, nearest

LABELS = ("station", "station_id", "station_name", "stationname", "name", "id", "site", "icao")
TABLES = (".csv", ".csv.gz", ".txt", ".tsv", ".dat")
MISSING = ("", "NaN", "nan", "NA", "N/A", "null")
"""What stands for "no value" in a CSV table without being declared."""


def read(
    path: Path | str,
    variables: Sequence[str] = (),
    *,
    positions: Sequence[str] = (),
    grid: Sequence[str] = (),
    na_values: Sequence[str] = (),
    missing_values: Sequence[float] = (),
    drop_unplaced: bool = False,
) -> xr.Dataset:
    """The values of a table, or of a grid, and where they are.

    Args:
        variables: columns wanted; default every number column that is no position.
        positions: columns that say where; default latitude and longitude, or y and x, or x, by
            CF attributes and usual names.
        grid: dims of a model's grid, which are the positions where each of them is a column.
        na_values: further words for "no value" in a CSV table, such as ``"-"`` or ``"M"``.
        missing_values: numbers for "no value", such as -9999.
        drop_unplaced: leave out stations without a position, with a warning, not an error.

    Returns:
        Dims ``(station,)``; a time column becomes the coordinate of its name.

    Raises:
        InputError: a file that is no table, a column that is not there, a word among numbers
            (with its row), a station without a position, an error that is not positive.
    """
    path = Path(path)
    table = (
        _from_csv(path, na_values) if path.name.lower().endswith(TABLES) else schema.open_any(path)
    )
    table = _widened(table, path)
    placed = bool(grid) and all(name in table.variables for name in grid)
    places = _places(table, positions or (grid if placed else ()))
    if not places or not all(table[p].ndim == 1 for p in places) or _is_grid(table, places):
        return _gridded(table, path, variables)
    return _stations(table, places, variables, missing_values, drop_unplaced, path)


def _from_csv(path: Path, na_values: Sequence[str]) -> xr.Dataset:
    """Every column of a CSV file: numbers where all of it are numbers, else text."""
    if not path.is_file():
        raise InputError(f"{path} does not exist; expected a CSV table.")
    separator = "\t" if ".tsv" in path.name.lower() else ","
    try:
        frame = pd.read_csv(path, sep=separator, dtype=str, header=None, keep_default_na=False)
    except (ValueError, UnicodeDecodeError, OSError) as error:
        said = str(error).splitlines()[0].rstrip(".")
        hint = " Separate columns by commas and write numbers with a decimal point."
        raise InputError(
            f"{path} cannot be read as CSV: {said}.{hint if 'Expected' in said else ''}"
        ) from error
    header = [str(h).strip() for h in frame.iloc[0]]
    if len(header) == 1 and ";" in header[0]:
        raise InputError(
            f"{path} is separated by semicolons; expected commas and decimal points: "
            "pandas.read_csv(path, sep=';', decimal=',').to_csv(new_path, index=False)."
        )
    if len(frame) < 2:
        raise InputError(f"{path} has no rows below its header.")
    twice = [h for h in header if header.count(h) > 1]
    if twice:
        raise InputError(f"{path} has two columns {twice[0]!r}; expected distinct names.")
    if any(_number(h) is not None for h in header):
        raise InputError(
            f"{path} has no header: its first line is {', '.join(header[:4])}; expected the names "
            "of the columns."
        )
    words = {*MISSING, *na_values}
    columns = {h: _column(frame[i].iloc[1:], h, words, path) for i, h in enumerate(header)}
    return xr.Dataset({h: ("station", values) for h, values in columns.items()})


def _widened(table: xr.Dataset, path: Path) -> xr.Dataset:
    """A table of one value a row, with a column a variable; another table as it is."""
    kinds = {name: table[name].dtype.kind for name in ("variable", "value") if name in table}
    if len(kinds) < 2 or any(table[name].ndim != 1 for name in kinds):
        return table
    if kinds["value"] not in "fiu":
        raise InputError(
            f"{path}: the column 'value' holds no numbers.{_comma(table['value'].values)}"
        )
    named = np.char.strip(table["variable"].values.astype(str))
    nameless = (named == "") | (kinds["variable"] in "fiu")
    if nameless.any():
        raise InputError(
            f"{path}: the variable in row {int(np.argmax(nameless)) + 2} has no name; expected "
            "one in every row."
        )
    beside = {n: table[n] for n in ("std", "units") if n in table}
    out = table.drop_vars(["variable", "value", *beside])
    every = list(dict.fromkeys(named.tolist()))
    for name in every:
        mine = xr.DataArray(named == name, dims=table["value"].dims)
        out[name] = table["value"].where(mine)
        error = beside.get("std")
        numbers = error is not None and error.dtype.kind in "fiu"
        if error is not None and numbers and bool(error.where(mine).notnull().any()):
            out[f"{name}_std"] = error.where(mine)
        units = [""]
        if "units" in beside:
            units = np.unique(beside["units"].values[mine.values].astype(str)).tolist()
        if len(units) > 1:
            raise InputError(f"{path}: {name!r} is in {units[0]!r} and {units[1]!r}; convert it.")
        out[name].attrs["units"] = str(units[0]).replace("nan", "")
    return out.assign_attrs(variables=every)


def _comma(values: np.ndarray) -> str:
    """A hint where numbers are written with a decimal comma."""
    texts = [str(v) for v in values if str(v).strip()]
    good = texts and all(
        t.count(",") == 1 and _number(t.replace(",", ".")) is not None for t in texts
    )
    return " Write them with a decimal point, not a comma." if good else ""


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _column(text: pd.Series, name: str, missing: set[str], path: Path) -> np.ndarray:
    """One column as float64, datetime64 or text.

    Raises:
        InputError: more than half numbers, and yet a word that is none, with its row.
    """
    words = [str(w).strip() for w in text]
    filled = [w for w in words if w not in missing]
    numbers = [_number(w) for w in filled]
    good = sum(n is not None for n in numbers)
    if good == len(filled):
        return np.array([np.nan if w in missing else float(w) for w in words])
    if 2 * good > len(filled):
        row = next(i for i, w in enumerate(words) if w not in missing and _number(w) is None)
        raise InputError(
            f"{path}: column {name!r} holds {words[row]!r} in row {row + 2}; expected a number: "
            f"declare na_values=({words[row]!r},) if it means none."
        )
    dates = pd.to_datetime(pd.Series(words), errors="coerce", utc=True, format="ISO8601")
    if filled and dates.notna().sum() == len(filled):
        return dates.dt.tz_localize(None).to_numpy(dtype="datetime64[ns]")
    return np.array(words)


def _places(table: xr.Dataset, positions: Sequence[str]) -> tuple[str, ...]:
    """The names that say where: those given, or found by meaning."""
    for name in positions:
        if name not in table.variables:
            raise InputError(f"No position {name!r}.{nearest(name, map(str, table.variables))}")
    if positions:
        return tuple(positions)
    # Columns have no attributes: as coordinates, their names are looked at.
    named = table.set_coords([n for n in table.data_vars if table[n].ndim == 1])
    for pair in (("latitude", "longitude"), ("y", "x"), ("x",)):
        found = [find(named, word) for word in pair]
        if all(f is not None and f in named.coords for f in found):
            return tuple(str(f) for f in found)
    return ()


def _is_grid(table: xr.Dataset, places: Sequence[str]) -> bool:
    """Positions along dims of their own make a grid; along one shared dim, a list of stations."""
    return len({table[p].dims for p in places}) > 1 or table[places[0]].dims == (places[0],)


def _gridded(table: xr.Dataset, path: Path, variables: Sequence[str]) -> xr.Dataset:
    if path.name.lower().endswith(TABLES):
        raise InputError(
            f"{path} has no columns for the position; expected latitude and longitude, or y and x, "
            f"or name them as positions.{nearest('latitude', map(str, table.variables))}"
        )
    return schema.variables(table, variables) if variables else table


def _stations(
    table: xr.Dataset,
    places: Sequence[str],
    variables: Sequence[str],
    missing_values: Sequence[float],
    drop_unplaced: bool,
    path: Path,
) -> xr.Dataset:
    """The chosen columns along ``station``, checked."""
    dim = str(table[places[0]].dims[0])
    columns = {str(n): da for n, da in table.variables.items() if da.dims == (dim,)}
    for name in variables:
        if name not in columns:
            raise InputError(f"{path}: no column {name!r}.{nearest(name, columns)}")
    chosen = list(variables) or [
        n for n, da in columns.items()
        if da.dtype.kind in "fiu" and n not in places and n.lower() not in LABELS and n != dim
    ]  # fmt: skip
    chosen += [f"{n}_std" for n in chosen if f"{n}_std" in columns and f"{n}_std" not in chosen]
    if not chosen:
        hint = _comma(np.concatenate([columns[p].values.astype(str) for p in places]))
        raise InputError(
            f"{path} has positions and no numbers beside them; expected a value.{hint}"
        )
    data, coords = {}, {}
    for name in chosen:
        if columns[name].dtype.kind not in "fiu":
            raise InputError(
                f"{path}: {name!r} holds {columns[name].dtype} values; expected numbers."
                + _comma(columns[name].values)
            )
        values = columns[name].values.astype(np.float64)
        for bad in missing_values:
            values[values == bad] = np.nan
        data[name] = ("station", values, columns[name].attrs)
    for name, da in columns.items():
        label = name.lower() in LABELS or name == dim
        time = da.dtype.kind == "M"
        if name in places or ((label or time) and name not in chosen):
            wanted = "station" if label and "station" not in coords else name
            text = np.char.decode(da.values) if da.dtype.kind == "S" else da.values
            coords[wanted] = ("station", text, da.attrs)
    named = {k: v for k, v in table.attrs.items() if k == "variables"}
    named["words"] = [n for n, da in columns.items() if da.dtype.kind in "OSU" and n not in coords]
    out = _placed(xr.Dataset(data, coords, named), places, drop_unplaced, path)
    _check_values(out, chosen, path)
    for name in variables:
        if np.isnan(out[name].values).all():
            raise InputError(f"{path}: {name!r} has no value at any station.")
    return out


def _placed(ds: xr.Dataset, places: Sequence[str], drop: bool, path: Path) -> xr.Dataset:
    """Every station at a finite position on the Earth, or in the plane."""
    lost = np.zeros(ds.sizes["station"], bool)
    for name in places:
        if ds[name].dtype.kind not in "fiu":
            raise InputError(
                f"{path}: the position {name!r} holds {ds[name].dtype} values; expected numbers."
                + _comma(ds[name].values)
            )
        lost |= ~np.isfinite(ds[name].values.astype(np.float64))
    if lost.any():
        said = f"{path}: {int(lost.sum())} of {lost.size} stations have no position"
        if not drop or lost.all():
            raise InputError(
                f"{said}, first at station {int(np.argmax(lost))}; expected numbers in "
                f"{', '.join(places)}: say drop_unplaced=True to leave them out."
            )
        checks.warn(f"{said}; they are left out.")
        ds = ds.isel(station=~lost)
    for kind in ("latitude", "longitude"):
        where = find(ds, kind)
        if where is not None and where in places:
            checks.check_degrees(where, ds[where].values.astype(np.float64), kind)
    return ds


def _check_values(ds: xr.Dataset, names: Sequence[str], path: Path) -> None:
    """Finite or NaN, and every error of a value seen positive."""
    for name in names:
        values = ds[name].values
        if np.isinf(values).any():
            raise InputError(
                f"{path}: {name!r} is infinite at station {int(np.argmax(np.isinf(values)))}."
            )
        error = f"{name}_std"
        if error in names:
            bad = ~np.isnan(values) & ~(ds[error].values > 0)
            if bad.any():
                row = int(np.argmax(bad))
                raise InputError(
                    f"{path}: the error {error!r} is {ds[error].values[row]:g} at station {row}; "
                    "expected a positive s.d. for every value."
                )
