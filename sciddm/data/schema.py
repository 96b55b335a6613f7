"""What the names in a file mean, and one layout for all files: names, dims, units, grids.

A user's file says ``lat`` or ``nav_lat``, puts longitude first, counts it from 0 to 360, packs it
into int16. The rest of the house sees one layout: the sample dim first (time, or the number of
the sample), then members, levels, and the two dims of the grid, rows before columns; decoded,
unpacked, still lazy. Meaning is read from CF attributes first (``standard_name``, ``units``,
``axis``), from a short list of usual names then. Names of variables and dims stay as they came.

    open_any      a file or store, opened and decoded
    find          the dim or coordinate that is the latitude, the time, ...
    variables     the chosen variables and nothing else
    conform       those variables in the one layout
    check_field   one pass over the values: what is wrong, where the mask is
    match         a user's data in the layout of the data a model was trained on
    on_grid       ... and on its very grid
"""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import xarray as xr

from sciddm.data import checks, manifest, store
from sciddm.data.alike import match, on_grid
from sciddm.data.checks import DataWarning, as_float32, warn
from sciddm.data.names import EAST, NORTH, find, is_date, rank, same_units
from sciddm.errors import InputError, nearest

__all__ = [
    "DataWarning",
    "Report",
    "as_float32",
    "check_field",
    "conform",
    "find",
    "match",
    "on_grid",
    "open_any",
    "same_units",
    "variables",
]


def variables(ds: xr.Dataset, names: Sequence[str]) -> xr.Dataset:
    """The variables asked for, with the coordinates that belong to them.

    Raises:
        InputError: no names, or one that is not there (with the nearest; case counts).
    """
    if isinstance(names, str) or not names:
        hint = nearest("", map(str, ds.data_vars))
        raise InputError(f"Expected a list of variable names, got {names!r}.{hint}")
    for name in names:
        if name not in ds.data_vars:
            raise InputError(f"No variable {name!r}.{nearest(name, map(str, ds.data_vars))}")
    return ds[list(names)]


def open_any(path: Path | str, *, group: str | None = None) -> xr.Dataset:
    """Open a NetCDF file (3 or 4) or a zarr store (2 or 3), decoded, without reading its values.

    A store of ours is checked as :func:`sciddm.data.store.open` does. Latitudes and longitudes that
    a file keeps as plain variables become the coordinates of the dims they run along.

    Raises:
        InputError: nothing there, another format, or something inside that cannot be decoded,
            such as times in "months since".
    """
    path = Path(path)
    if group is None and (path / manifest.MANIFEST).is_file():
        return store.open(path)
    engine = _engine(path)
    marks = ("zarr.json", ".zgroup", ".zmetadata")
    if engine == "zarr" and not any((path / (group or "") / mark).exists() for mark in marks):
        raise InputError(f"{path} is a folder without a zarr group; expected NetCDF or zarr.")
    options = {"consolidated": False} if engine == "zarr" else {}
    try:
        with warnings.catch_warnings():
            # Dates beyond the year 2262 stay cftime: that is what is wanted.
            warnings.filterwarnings("ignore", "Unable to decode time axis into full numpy")
            ds = xr.open_dataset(
                path, engine=engine, group=group, backend_kwargs=options, cache=False
            )
    except Exception as error:  # every backend has its own exceptions for a broken file
        raise InputError(_undecodable(path, engine, group, options, error)) from error
    return _placed(ds)


def _engine(path: Path) -> str:
    """The reader for a path, told by its first bytes, never by its name."""
    if path.is_dir():
        return "zarr"
    if not path.exists():
        raise InputError(f"{path} does not exist; expected a NetCDF file or a zarr store.")
    with path.open("rb") as file:
        start = file.read(8)
    if start[:4] in (b"CDF\x01", b"CDF\x02"):
        return "scipy"
    if start == b"\x89HDF\r\n\x1a\n":
        return "h5netcdf"
    kind = {b"GRIB": "a GRIB file", b"CDF\x05": "a NetCDF file of the 64-bit data format"}
    raise InputError(
        f"{path} is {kind.get(start[:4], 'no NetCDF file')}; expected NetCDF 3 or 4, or a zarr "
        "store: convert it first."
    )


def _undecodable(
    path: Path, engine: str, group: str | None, options: dict[str, bool], error: Exception
) -> str:
    """One line on a file that does not open: the time that cannot be decoded, or the error."""
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    plain = f"{path} cannot be opened: {reason}"
    try:
        raw = xr.open_dataset(
            path, engine=engine, group=group, backend_kwargs=options, decode_times=False
        )
    except Exception:
        return plain
    for name, da in raw.variables.items():
        units = str(da.attrs.get("units", ""))
        if " since " not in units:
            continue
        try:
            xr.decode_cf(xr.Dataset({name: da}))
        except Exception:
            return (
                f"{path}: the times of {name!r} cannot be decoded: units {units!r}, calendar "
                f"{da.attrs.get('calendar', 'standard')!r}; expected days, hours or seconds "
                f"since a date: open it with decode_times=False, set {name!r} to dates, save it."
            )
    return plain


def _placed(ds: xr.Dataset) -> xr.Dataset:
    """Plain variables that are really coordinates, given their place."""
    for name, da in {str(n): v for n, v in ds.data_vars.items()}.items():
        units = str(da.attrs.get("units", "")).lower()
        standard = da.attrs.get("standard_name", "")
        if standard in ("latitude", "longitude") or units in (*NORTH, *EAST):
            ds = ds.set_coords(name)
            dim = da.dims[0] if da.ndim == 1 else None
            # A dim without a coordinate of its own takes the only one that runs along it.
            if dim is not None and dim not in ds.variables:
                others = [n for n in ds.coords if ds[n].dims == (dim,) and n != name]
                if not others and not _shared(ds, dim):
                    ds = ds.assign_coords({dim: (dim, da.values, da.attrs)}).drop_vars(name)
    return ds


def _shared(ds: xr.Dataset, dim: Hashable) -> bool:
    """Whether several positions run along ``dim``: a list of places, not an axis."""
    places = [
        n for n, v in ds.variables.items()
        if v.dims == (dim,) and str(v.attrs.get("units", "")).lower() in (*NORTH, *EAST)
    ]  # fmt: skip
    return len(places) > 1


def conform(
    ds: xr.Dataset, names: Sequence[str], *, sample_dim: str = "", time_format: str = ""
) -> xr.Dataset:
    """The chosen variables in the one layout, still lazy: nothing but coordinates is read.

    Dims of size 1 are squeezed (kept as scalar coordinates), dims are ordered by meaning,
    integer dates are decoded if ``time_format`` says how, a doubled longitude (0 and 360) is
    dropped with a warning, and every coordinate is checked.

    Args:
        sample_dim: the dim that counts the samples; default the attribute
            ``sciddm_sample_dim``, else ``sample``, else the dim of the time.

    Returns:
        A Dataset with dims (sample dim, ..., rows, columns) and the attribute
        ``sciddm_sample_dim``.

    Raises:
        InputError: names, dims or coordinates that do not make a set of fields.
    """
    out = variables(ds, names)
    lead = _sample_dim(out, sample_dim)
    out = out.squeeze([d for d in out.dims if out.sizes[d] == 1 and d != lead])
    out = _dated(out, lead, time_format)
    for name, da in out.data_vars.items():
        if lead not in da.dims:
            raise InputError(
                f"{name!r} has dims {da.dims} without the sample dim {lead!r}; expected it in "
                "every variable: choose variables that change, or name another sample_dim."
            )
        if 0 in da.shape:
            raise InputError(f"{name!r} is empty: sizes {dict(da.sizes)}; widen the selection.")
    out = _without_seam(out)
    order = _order(out, lead)
    out = out.transpose(*order)
    _check_grid(out, order[1:])
    if out[lead].dtype.kind in "MO" or find(out, "time") == lead:
        checks.check_time(out[lead])
    for name, da in out.data_vars.items():
        if "units" not in da.attrs:
            warn(f"{name!r} has no units; they are unknown from here on: set attrs['units'].")
    return out.assign_attrs({**ds.attrs, "sciddm_sample_dim": lead})


def _sample_dim(ds: xr.Dataset, asked: str) -> str:
    given = asked or str(ds.attrs.get("sciddm_sample_dim", ""))
    if given:
        if given not in ds.dims:
            raise InputError(f"No dim {given!r}.{nearest(given, map(str, ds.dims))}")
        return given
    if "sample" in ds.dims:
        return "sample"
    time = find(ds, "time")
    dims = ds[time].dims if time is not None and time in ds.coords else (time,)
    if len(dims) == 1 and dims[0] in ds.dims:
        return str(dims[0])
    raise InputError(
        "No time dimension by CF attributes or usual names; expected one: name the dim that counts "
        f"the samples as sample_dim.{nearest('time', map(str, ds.dims))}"
    )


def _dated(ds: xr.Dataset, lead: str, time_format: str) -> xr.Dataset:
    """The sample dim with its dates: decoded by the format, or taken from an auxiliary time."""
    if time_format:
        if lead not in ds.coords:
            raise InputError(f"{lead!r} has no values that time_format={time_format!r} could read.")
        return ds.assign_coords({lead: checks.decode_times(ds[lead], time_format)})
    time = find(ds, "time")
    if time not in (None, lead) and ds[time].dims == (lead,) and is_date(ds[time]):
        # NEMO numbers its own time axis from zero and keeps the dates beside it.
        return ds.assign_coords({lead: (lead, ds[time].values, ds[time].attrs)}).drop_vars(time)
    return ds if lead in ds.coords else ds.assign_coords({lead: np.arange(ds.sizes[lead])})


def _order(ds: xr.Dataset, lead: str) -> tuple[str, ...]:
    """Dims by meaning: samples, starts, members, leads, levels, the unknown, rows, columns."""
    place: dict[str, int] = {lead: 0}
    for number, word in ((1, "init"), (2, "member"), (3, "lead"), (4, "level")):
        dim = find(ds, word)
        if dim in ds.dims:
            place.setdefault(str(dim), number)
    for number, words in ((6, ("latitude", "y")), (7, ("longitude", "x"))):
        for word in words:
            dim = find(ds, word)
            if dim in ds.dims:
                place.setdefault(str(dim), number)
    # A trajectory has a time axis inside its sample; two time axes side by side have no meaning.
    unknown = [str(d) for d in ds.dims if str(d) not in place]
    times = [d for d in unknown if rank(ds, d, "time") and rank(ds, lead, "time")]
    if times:
        raise InputError(
            f"Both {lead!r} and {times[0]!r} are time dims of one variable; expected one: select "
            f"one step of the other with ds.isel({times[0]}=0)."
        )
    return tuple(sorted((str(d) for d in ds.dims), key=lambda d: place.get(d, 5)))


def _without_seam(ds: xr.Dataset) -> xr.Dataset:
    """A longitude that closes the circle twice (0 and 360) without its last column."""
    lon = find(ds, "longitude")
    if lon not in ds.dims or lon not in ds.coords or ds.sizes[lon] < 3:
        return ds
    values = ds[lon].values.astype(np.float64)
    step = abs(values[1] - values[0])
    if abs(abs(values[-1] - values[0]) - 360.0) > 1e-3 * step:
        return ds
    warn(f"{lon!r} holds {values[0]:g} and {values[-1]:g}, one meridian: the last is dropped.")
    return ds.isel({lon: slice(0, -1)})


def _check_grid(ds: xr.Dataset, space: Sequence[str]) -> None:
    """Every space coordinate on a sane axis, positions along two dims or in two."""
    where = {}
    for kind in ("latitude", "longitude"):
        name = find(ds, kind)
        if name is None or name not in ds.coords:
            continue
        where[kind] = name
        if name not in ds.dims:
            checks.check_degrees(name, np.atleast_1d(ds[name].values).astype(np.float64), kind)
    lat, lon = where.get("latitude"), where.get("longitude")
    if lat and lon and ds[lat].ndim == 1 and ds[lat].dims == ds[lon].dims:
        raise InputError(
            f"{lat!r} and {lon!r} both run along {ds[lat].dims[0]!r}: a list of places, not a "
            "grid; expected two space dims: interpolate to a grid, or read it as stations."
        )
    for dim in space:
        if dim in ds.coords:
            kind = next((k for k, name in where.items() if name == dim), "")
            checks.check_axis(dim, ds[dim].values, kind=kind)


@dataclass(frozen=True, slots=True)
class Report:
    """What one pass over a data set found.

    Attributes:
        sample_dim: the dim that counts the samples.
        masks: for each variable with land or other cells that never hold data, a boolean array
            over the space dims, True where there is data.
        units: of each variable, "" where unknown.
        gaps: every index of the sample dim before which a time step is missing.
    """

    sample_dim: str
    masks: Mapping[str, xr.DataArray]
    units: Mapping[str, str]
    gaps: tuple[int, ...]


def check_field(
    ds: xr.Dataset,
    *,
    missing: Sequence[str] = (),
    missing_values: Sequence[float] = (),
    continuous: Sequence[str] = (),
    max_missing: float = 0.95,
    strict: bool = False,
) -> Report:
    """Read a conformed data set once, block by block, and refuse what cannot be right.

    Args:
        ds: as :func:`conform` gives it; a Dataset without a sample dim is one sample.
        missing: variables whose gaps may change from sample to sample.
        missing_values: numbers that mean NaN, such as -9999.
        continuous: integer variables that are quantities, not codes.
        max_missing: the largest share of NaN allowed.
        strict: refuse, rather than warn about, values that look like missing-value codes.

    Raises:
        InputError: infinite, all-missing or wrongly typed variables; gaps that change and are not
            declared; a broken time axis.
    """
    for name in (*missing, *continuous):
        if name not in ds.data_vars:
            hint = nearest(name, map(str, ds.data_vars))
            raise InputError(f"No variable {name!r} to declare.{hint}")
    lead = str(ds.attrs.get("sciddm_sample_dim", "")) or (find(ds, "time") or "sample")
    dated = lead in ds.dims and lead in ds.coords and ds[lead].dtype.kind in "MO"
    gaps = checks.check_time(ds[lead]) if dated else ()
    masks = {}
    for name, da in {str(n): v for n, v in ds.data_vars.items()}.items():
        checks.check_dtype(da, continuous=name in continuous)
        whole = da.transpose(lead, ...) if lead in da.dims else da.expand_dims(sample=1)
        found = checks.scan(whole, missing_values)
        checks.check_scan(
            whole, found, gappy=name in missing, max_missing=max_missing, strict=strict
        )
        if not found.valid.all():
            masks[name] = xr.ones_like(whole[0], dtype=bool).copy(data=found.valid)
    units = {str(n): str(da.attrs.get("units", "")) for n, da in ds.data_vars.items()}
    return Report(lead, masks, units, gaps)
