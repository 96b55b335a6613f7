"""What a coordinate means: CF attributes first, usual names then; and when two units are one.

References:
    CF metadata conventions 1.10, sections 3 and 4, 2022, https://cfconventions.org
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import cftime
import numpy as np
import numpy.typing as npt
import xarray as xr

from sciddm.errors import InputError, nearest


@dataclass(frozen=True, slots=True)
class _Concept:
    """How one kind of coordinate is recognised: CF standard names, units, axis, usual names."""

    standard: tuple[str, ...]
    units: tuple[str, ...] = ()
    axis: str = ""
    usual: tuple[str, ...] = ()


NORTH = ("degrees_north", "degree_north", "degrees_n", "degree_n", "degreesn", "degreen")
EAST = ("degrees_east", "degree_east", "degrees_e", "degree_e", "degreese", "degreee")

_CONCEPTS: Mapping[str, _Concept] = {
    "time": _Concept(
        ("time",), axis="T", usual=("time", "valid_time", "date", "datetime", "time_counter")
    ),
    "latitude": _Concept(("latitude",), NORTH, usual=("latitude", "lat", "nav_lat", "tlat")),
    "longitude": _Concept(("longitude",), EAST, usual=("longitude", "lon", "nav_lon", "tlong")),
    "member": _Concept(
        ("realization",), usual=("member", "member_id", "realization", "ensemble", "number")
    ),
    "lead": _Concept(
        ("forecast_period",), usual=("lead", "lead_time", "prediction_timedelta", "step")
    ),
    "init": _Concept(("forecast_reference_time",), usual=("init", "init_time")),
    "level": _Concept(
        ("air_pressure", "height", "depth", "altitude", "model_level_number"),
        axis="Z",
        usual=("level", "lev", "plev", "depth", "height", "z"),
    ),
    "y": _Concept(
        ("projection_y_coordinate", "grid_latitude"),
        axis="Y",
        usual=("y", "nlat", "rlat", "j", "nj", "grid_latitude"),
    ),
    "x": _Concept(
        ("projection_x_coordinate", "grid_longitude"),
        axis="X",
        usual=("x", "nlon", "rlon", "i", "ni", "grid_longitude"),
    ),
}
_STANDARD = {name for concept in _CONCEPTS.values() for name in concept.standard}


def is_model_date(values: npt.NDArray[np.generic]) -> bool:
    """Whether an object array holds dates of one of the model calendars."""
    return all(v is None or isinstance(v, cftime.datetime) for v in values.flat)


def is_date(da: xr.DataArray) -> bool:
    """Whether a coordinate holds decoded dates of any calendar."""
    if da.dtype.kind == "O":
        return da.size > 0 and is_model_date(da.values)
    return da.dtype.kind == "M"


def rank(obj: xr.Dataset | xr.DataArray, name: Hashable, word: str) -> tuple[int, int] | None:
    """How surely ``name`` is ``word``: (0 standard name .. 3 usual name, 0 dim .. 2 scalar)."""
    concept = _CONCEPTS[word]
    usual = str(name).lower() in concept.usual
    if name not in obj.coords:
        return (3, 0) if usual else None
    coord = obj[name]
    place = 0 if name in obj.dims else 1 if coord.ndim == 1 else 2
    standard = str(coord.attrs.get("standard_name", ""))
    if standard in _STANDARD:
        return (0, place) if standard in concept.standard else None
    if str(coord.attrs.get("units", "")).lower() in concept.units:
        return 1, place
    dated = is_date(coord) or " since " in str(coord.attrs.get("units", ""))
    if word == "time" and dated and str(name).lower() not in _CONCEPTS["init"].usual:
        return 1, place
    if concept.axis and coord.attrs.get("axis") == concept.axis:
        return 2, place
    return (3, place) if usual else None


def find(obj: xr.Dataset | xr.DataArray, standard_name: str) -> str | None:
    """The dim or coordinate of ``obj`` that means ``standard_name``, or None.

    Args:
        standard_name: ``time``, ``latitude``, ``longitude``, ``member``, ``lead``, ``init``,
            ``level``, ``y`` or ``x``. A 1-D coordinate is preferred to a 2-D one.

    Returns:
        Its name as it came; a dim may have no coordinate.

    Raises:
        InputError: another word, or two names that fit equally well.
    """
    if standard_name not in _CONCEPTS:
        raise InputError(
            f"{standard_name!r} is no kind of coordinate.{nearest(standard_name, _CONCEPTS)}"
        )
    names = [*obj.coords, *(d for d in obj.dims if d not in obj.coords)]
    ranked = {n: r for n in names if (r := rank(obj, n, standard_name)) is not None}
    if not ranked:
        return None
    best = min(ranked.values())
    first = [str(n) for n, r in ranked.items() if r == best]
    if len(first) > 1:
        raise InputError(
            f"Both {first[0]!r} and {first[1]!r} look like {standard_name}; expected one: choose "
            f"variables that share one, or drop the other with ds.drop_vars({first[1]!r})."
        )
    return first[0]


_SPELLINGS = {
    "kelvin": "k",
    "degk": "k",
    "deg_k": "k",
    "celsius": "degc",
    "c": "degc",
    "deg_c": "degc",
    "degree_c": "degc",
    "degrees_c": "degc",
    "degree_celsius": "degc",
    "degrees_celsius": "degc",
    "dimensionless": "1",
    "unitless": "1",
    "percent": "%",
    "millibars": "hpa",
    "millibar": "hpa",
    "mbar": "hpa",
}


def same_units(a: str, b: str) -> bool:
    """Whether two units are one: ``m**2 s**-2`` and ``m2 s-2``, ``K`` and ``kelvin``."""
    plain = [re.sub(r"[*^ .]", "", u.strip().lower()) for u in (a, b)]
    first, second = (_SPELLINGS.get(u, u) for u in plain)
    return first == second
