"""A forecast under the names that other packages read, and back.

=============  ======================  ==========================  =========================
ours           WeatherBench 2          climpred                    CF standard name
=============  ======================  ==========================  =========================
init_time      time                    init                        forecast_reference_time
lead_time      prediction_timedelta    lead, a number with units   forecast_period
member         realization, number     member                      realization
valid_time     valid_time              valid_time                  time
=============  ======================  ==========================  =========================

Values and the order of dims stay; one start becomes a dim of length 1, which both packages expect.

References:
    Rasp et al. WeatherBench 2, JAMES 2024, https://weatherbench2.readthedocs.io (data guide)
    Brady, Spring. climpred, JOSS 2021, https://climpred.readthedocs.io (setting up your dataset)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import xarray as xr

from sciddm.data.axis import SECONDS
from sciddm.data.names import find
from sciddm.errors import InputError, nearest

_WEATHERBENCH2 = {"init_time": "time", "lead_time": "prediction_timedelta"}
_CLIMPRED = {"init_time": "init", "lead_time": "lead"}
_CALENDAR = ("months", "years")


def to_weatherbench2(ds: xr.Dataset, *, member: str = "realization") -> xr.Dataset:
    """A forecast as WeatherBench 2 reads it from disk, with ``latitude`` and ``longitude``.

    Args:
        member: the dim of members: ``realization`` or ``number``.

    Raises:
        InputError: no forecast of ours, or leads without a fixed length.
    """
    if member not in ("realization", "number"):
        raise InputError(f"Got member={member!r}; expected 'realization' or 'number'.")
    out = _started(ds)
    if out["lead_time"].dtype.kind != "m":
        raise InputError(
            f"The leads are in {out['lead_time'].attrs.get('units', 'no unit')!r}; expected "
            "durations, which WeatherBench 2 counts in: take to_climpred, or leads in days."
        )
    where = {name: found for name in ("latitude", "longitude") if (found := find(out, name))}
    places = {found: name for name, found in where.items() if found in out.dims and found != name}
    return out.rename({**_WEATHERBENCH2, "member": member, **places})


def from_weatherbench2(ds: xr.Dataset) -> xr.Dataset:
    """A forecast on WeatherBench 2's names under ours, with its valid times."""
    member = "number" if "number" in ds.dims else "realization"
    out = _renamed(ds, {v: k for k, v in _WEATHERBENCH2.items()} | {member: "member"})
    return _valid(_described(out))


def to_climpred(ds: xr.Dataset) -> xr.Dataset:
    """A forecast as climpred reads it: ``lead`` is a whole number with ``units``, the largest of
    days, hours, minutes and seconds that counts every lead, or months or years.

    Raises:
        InputError: no forecast of ours, or leads without a unit of time.
    """
    out = _started(ds)
    lead = out["lead_time"]
    if lead.dtype.kind == "m":
        ns = lead.values.astype("m8[ns]").astype(int)
        for unit in reversed(SECONDS):
            count, rest = np.divmod(ns, SECONDS[unit] * 10**9)
            if not rest.any():
                break
        else:
            raise InputError("The leads are parts of seconds; expected whole seconds for climpred.")
    elif lead.attrs.get("units") in _CALENDAR:
        count, unit = lead.values, lead.attrs["units"]
    else:
        raise InputError(
            f"The leads are in {lead.attrs.get('units', 'no unit')!r}; expected a unit of time."
        )
    attrs = {k: v for k, v in lead.attrs.items() if k != "units"} | {"units": unit}
    return out.assign_coords(lead_time=("lead_time", count, attrs)).rename(_CLIMPRED)


def from_climpred(ds: xr.Dataset) -> xr.Dataset:
    """A forecast on climpred's names under ours; leads of a fixed length become durations."""
    out = _renamed(ds, {v: k for k, v in _CLIMPRED.items()})
    lead = out["lead_time"]
    unit = str(lead.attrs.get("units", ""))
    if lead.dtype.kind != "m" and unit in SECONDS:
        ns = np.rint(lead.values.astype(float) * SECONDS[unit] * 1e9).astype(int)
        attrs = {k: v for k, v in lead.attrs.items() if k != "units"}
        out = out.assign_coords(lead_time=("lead_time", ns.astype("m8[ns]"), attrs))
    elif lead.dtype.kind != "m" and unit not in _CALENDAR:
        known = (*SECONDS, *_CALENDAR)
        raise InputError(f"The leads have the units {unit!r}.{nearest(unit, known)}")
    return _valid(_described(out))


LAYOUTS: Mapping[str, Callable[[xr.Dataset], xr.Dataset]] = {
    "weatherbench2": to_weatherbench2,
    "climpred": to_climpred,
}
"""What ``--names`` of the command line may say."""


def _started(ds: xr.Dataset) -> xr.Dataset:
    """A forecast with a dim of starts before its members."""
    for name in ("init_time", "lead_time", "member"):
        if name not in ds.coords:
            raise InputError(
                f"No coordinate {name!r}: this is no forecast of sd.forecast."
                + nearest(name, map(str, ds.coords))
            )
    if "init_time" in ds.dims:
        return ds
    order = [str(d) for d in ds.dims]
    valid = ds.get("valid_time")
    out = ds.drop_vars("valid_time", errors="ignore").expand_dims("init_time")
    at = order.index("member")
    out = out.transpose(*order[:at], "init_time", *order[at:])
    if valid is None:
        return out
    both = (("init_time", "lead_time"), valid.values[None], valid.attrs)
    return out.assign_coords(valid_time=both)


def _renamed(ds: xr.Dataset, words: Mapping[str, str]) -> xr.Dataset:
    for name in words:
        if name not in ds.dims and name not in ds.coords and words[name] != "member":
            raise InputError(f"No {name!r} to take for {words[name]!r}.{nearest(name, ds.coords)}")  # type: ignore[arg-type]
    return ds.rename({k: v for k, v in words.items() if k in ds.dims or k in ds.coords})


def _described(ds: xr.Dataset) -> xr.Dataset:
    """The CF standard names, where the other package has none."""
    names = {"init_time": "forecast_reference_time", "lead_time": "forecast_period"}
    for name, standard in (names | {"member": "realization"}).items():
        if name in ds.coords:
            attrs = {"standard_name": standard} | ds[name].attrs
            ds = ds.assign_coords({name: (ds[name].dims, ds[name].values, attrs)})
    return ds


def _valid(ds: xr.Dataset) -> xr.Dataset:
    """Valid times, where they are missing and leads are durations."""
    if "valid_time" in ds.coords or ds["lead_time"].dtype.kind != "m":
        return ds
    valid = (ds["init_time"] + ds["lead_time"]).drop_attrs()
    attrs = {"standard_name": "time", "long_name": "time that is forecast"}
    return ds.assign_coords(valid_time=(valid.dims, valid.values, attrs))
