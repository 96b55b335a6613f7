"""Values seen along a forecast, brought to the frames that are forecast.

`Observed` has places; along a forecast it has times too: a coordinate named like the time dim, or
any of dates. Of the values of all times a start takes those that lie after it, up to its last lead;
times between two leads are met by interpolating the frames.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import cftime
import numpy as np
import xarray as xr

from sciddm.data import checks
from sciddm.data.axis import said
from sciddm.data.codec import Codec
from sciddm.data.filmed import Filmed
from sciddm.data.names import find
from sciddm.errors import InputError
from sciddm.evidence import Evidence, Together
from sciddm.observe import Observation
from sciddm.task import Observed


def along(
    seen: Evidence,
    codec: Codec,
    time: str,
    start: Any,  # noqa: ANN401 (a date of any calendar, or a number)
    leads: np.ndarray,
    film: Mapping[str, tuple[int, str]] | None = None,
) -> Observation | None:
    """What is seen in one forecast: of normalised films (B, C, N, *grid), whitened; or None.

    Parameters
    ----------
    codec : of one frame. time : name of the time dim.
    start, leads : the time of the newest frame of the past, and those of the N leads.
    film : name of the dim of films, and the number and label of the one that is forecast; values
        along that dim are taken of it alone.

    Raises `InputError` for evidence other than `Observed`, values without times, times of another
    kind than the forecast's, and what `Observed` refuses.
    """
    filmed = Filmed(codec, time, np.arange(1.0, len(leads) + 1))
    clock = np.array([_number(t, start) for t in (start, *leads)])
    parts = seen.parts if isinstance(seen, Together) else (seen,)
    found: Observation | None = None
    for part in parts:
        if not isinstance(part, Observed):
            raise InputError(
                f"Got a {type(part).__name__} along a forecast; expected values seen "
                "(sciddm.Observed)."
            )
        own = _moved(part, filmed, start, clock, film or {})
        if own is None:
            continue
        _, _, observation = next(iter(own.cases(filmed)))
        if observation is not None:
            found = observation if found is None else found & observation
    return found


def _moved(
    part: Observed,
    filmed: Filmed,
    start: object,
    clock: np.ndarray,
    film: Mapping[str, tuple[int, str]],
) -> Observed | None:
    """The values of one forecast, their times counted in leads; None where there are none."""

    def moved(array: xr.DataArray) -> xr.DataArray:
        for dim, (number, label) in film.items():
            if dim in array.dims:
                array = _of_film(array, dim, number, label)
        return _counted(array, filmed, start, clock)

    values = part.values
    std: Any = part.std
    if isinstance(values, xr.Dataset):
        kept: Any = values.map(moved) if len(values.data_vars) else values
    else:
        kept = moved(values)
    if not kept.sizes or 0 in kept.sizes.values():
        return None
    if isinstance(std, xr.DataArray):
        like = values if isinstance(values, xr.DataArray) else values[next(iter(values.data_vars))]
        std = moved(_beside(std, like))
    elif isinstance(std, Mapping):  # a Dataset is one too
        std = {
            str(name): moved(_beside(s, values[name] if isinstance(values, xr.Dataset) else values))
            if isinstance(s, xr.DataArray)
            else s
            for name, s in std.items()
        }
    return replace(part, values=kept, std=std)


def _beside(std: xr.DataArray, like: xr.DataArray) -> xr.DataArray:
    """Errors in the shape of their values."""
    return std.broadcast_like(like) if set(std.dims) <= set(like.dims) else std


def _of_film(array: xr.DataArray, dim: str, number: int, label: str) -> xr.DataArray:
    known = [str(v) for v in array[dim].values] if dim in array.coords else []
    if label in known:
        return array.isel({dim: known.index(label)}, drop=True)
    if known or number >= array.sizes[dim]:
        raise InputError(
            f"Observed {array.name!r} has nothing of {dim} {label}; expected values of every film, "
            f"or no dim {dim!r}."
        )
    return array.isel({dim: number}, drop=True)


def _counted(array: xr.DataArray, filmed: Filmed, start: object, clock: np.ndarray) -> xr.DataArray:
    """``array`` at the times of the forecast alone, which are counted in leads."""
    time, grid = filmed.time, filmed.inner.grid
    own = time if time in array.coords else find(array, "time") or ""
    if own not in array.coords:
        raise InputError(
            f"Observed {array.name!r} along a forecast has no times; expected a coordinate "
            f"{time!r} that says when each value was seen."
        )
    coord = array[own]
    if coord.ndim > 1:
        raise InputError(
            f"The times of observed {array.name!r} have dims {coord.dims}; expected 1."
        )
    if coord.ndim == 0:
        array, coord = array.expand_dims(own), array[own].expand_dims(own)
    dim = str(coord.dims[0])
    at = np.array([_number(t, start) for t in coord.values], dtype=np.float64)
    lead = np.interp(at, clock, np.arange(len(clock)), left=-1, right=-1)
    early = (lead > 0) & (lead < 1 - 1e-6)
    if early.any():
        checks.warn(
            f"{int(early.sum())} times of observed {array.name!r} lie between the start "
            f"{said(start)} and the first lead; they are left out."
        )
    kept = lead >= 1 - 1e-6
    array = array.isel({dim: kept}).assign_coords({own: (dim, np.clip(lead[kept], 1, None))})
    if own != time:
        array = array.rename({own: time})
        dim = time if dim == own else dim
    rest = [str(d) for d in array.dims if d != dim]
    if dim == time and set(rest) <= set(grid.dims):
        whole = np.round(array[time].values)
        full = np.arange(1.0, len(clock))
        if np.allclose(array[time].values, whole, atol=1e-6) and len(set(whole)) == len(whole):
            array = array.assign_coords({time: whole}).reindex({time: full})
        return array
    if dim == time and len(rest) == 1:  # stations that report at several times
        array = array.stack({"_value": (time, rest[0])}, create_index=False)
        return array.drop_vars([rest[0]], errors="ignore")
    return array


def _number(when: Any, start: Any) -> float:  # noqa: ANN401
    """The time from ``start``, in seconds or the unit of the axis."""
    model = isinstance(start, cftime.datetime)
    if model and isinstance(when, cftime.datetime):
        return float((when - start).total_seconds())
    if isinstance(start, np.datetime64) and isinstance(when, np.datetime64):
        return float((when - start) / np.timedelta64(1, "s"))
    plain = int | float | np.integer | np.floating
    if isinstance(start, plain) and isinstance(when, plain):
        return float(when) - float(start)
    raise InputError(
        f"Got a value seen at {said(when)} along a forecast from {said(start)}; expected times of "
        "one kind and calendar."
    )
