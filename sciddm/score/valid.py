"""When a forecast is valid, and what the record says then.

References:
    The names init_time, lead_time and valid_time, and their sum, are those of WeatherBench 2,
    Rasp et al., 2024, doi:10.1029/2023MS004019.
"""

from __future__ import annotations

from datetime import timedelta

import cftime
import numpy as np
import pandas as pd
import xarray as xr

from sciddm.data.schema import find
from sciddm.errors import InputError, nearest
from sciddm.score.weights import label

VALID = "valid_time"
SPANS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 604800}


def at_leads(truth: xr.DataArray, ens: xr.DataArray) -> xr.DataArray:
    """A record at the valid times of a forecast: its time dim becomes starts and leads.

    The valid time is the coordinate ``valid_time`` where there is one, else start + lead: dates of
    any calendar and time differences, dates and leads in units (``hours`` .. ``years``), or numbers
    in one unit.

    Args:
        truth: ``(time, *dims)``; what has the dim of leads already is given back as it is.
        ens: The forecast; its values are not read.

    Returns:
        ``(*starts, lead, *dims)`` with the starts and leads of ``ens``.

    Raises:
        InputError: No dim of leads or of time, leads without units on dates, or a valid time that
            the record lacks, with its start and lead.
    """
    lead = lead_dim(ens)
    if lead in truth.dims:
        return truth
    time = find(truth, "time")
    if time is None or time not in truth.dims or time not in truth.coords:
        raise InputError(
            f"the truth of {label(truth)} has dims {tuple(truth.dims)}; expected a time axis with "
            f"dates or numbers, to be read at the valid times of the forecast"
        )
    valid = valid_time(ens)
    index = _index(truth[time], valid)
    if (index < 0).any():
        first = np.unravel_index(int(np.argmax(index < 0)), index.shape)
        at = zip(valid.dims, first, strict=True)
        spot = ", ".join(f"{d}={_plain(ens[d].values[i])}" for d, i in at if d in ens.coords)
        raise InputError(
            f"{label(ens)} is valid at {_plain(valid.values[first])} ({spot}), which the truth "
            f"lacks ({int((index < 0).sum())} of {index.size} valid times; it runs from "
            f"{_plain(truth[time].values[0])} to {_plain(truth[time].values[-1])}); select starts "
            f"and leads within it"
        )
    clash = [c for c in truth.coords if c in valid.dims or (c != time and time in truth[c].dims)]
    taken = truth.drop_vars(clash).isel({time: xr.DataArray(index, dims=valid.dims)})
    here = {n: c for n, c in ens.coords.items() if n in (*valid.dims, find(ens, "init"))}
    return taken.drop_vars(time).assign_coords({**here, VALID: valid.variable})


def valid_time(ens: xr.DataArray) -> xr.DataArray:
    """When each start and lead of a forecast is valid: its coordinate, or start + lead.

    Raises `InputError` for leads and starts that do not add up.
    """
    if VALID in ens.coords:
        return ens[VALID].drop_vars([c for c in ens[VALID].coords if c != VALID])
    lead, init = lead_dim(ens), find(ens, "init")
    if init is None or init not in ens.coords or lead not in ens.coords:
        raise InputError(
            f"{label(ens)} has coordinates {tuple(map(str, ens.coords))}; expected 'valid_time', "
            f"or 'init_time' and {lead!r}, which add up to it"
        )
    start, step = ens[init], ens[lead]
    unit = str(step.attrs.get("units", "")).lower().removesuffix("s")
    first, after = start.values.reshape(-1), step.values
    if after.dtype.kind == "m":
        after = pd.to_timedelta(after).to_pytimedelta()
        unit = "exact"
    elif first.dtype.kind in "MO" and unit in SPANS:
        after = np.array([timedelta(seconds=float(v) * SPANS[unit]) for v in after])
        unit = "exact"
    if first.dtype.kind in "fiu" and unit != "exact":
        sums = [a + b for a in first.astype(float) for b in after.astype(float)]
    elif first.dtype.kind in "MO" and unit == "exact":
        begun = first if first.dtype.kind == "O" else pd.to_datetime(first)
        sums = [a + b for a in begun for b in after]
    elif first.dtype.kind in "MO" and unit in ("month", "year"):
        begun = first if first.dtype.kind == "O" else pd.to_datetime(first)
        months = np.rint(after.astype(float) * (12 if unit == "year" else 1)).astype(int)
        sums = [_months(a, int(b)) for a in begun for b in months]
    else:
        raise InputError(
            f"{label(ens)}: starts {init!r} of {first.dtype} and leads {lead!r} of "
            f"{step.dtype} in units {step.attrs.get('units')!r} do not add up; expected dates and "
            f"time differences, dates and leads in hours, days, months or years, or numbers"
        )
    shape = (*start.shape, *step.shape)
    kind = "datetime64[ns]" if first.dtype.kind == "M" else None
    values = np.array(sums, dtype=kind).reshape(shape)
    return xr.DataArray(values, dims=(*start.dims, *step.dims), name=VALID)


def _months(date: pd.Timestamp | cftime.datetime, months: int) -> pd.Timestamp | cftime.datetime:
    year, month = divmod(date.year * 12 + date.month - 1 + months, 12)
    try:
        return date.replace(year=year, month=month + 1)
    except ValueError as error:
        raise InputError(
            f"{date} has no equal {months} months later; expected starts on days 1 to 28, or a "
            f"coordinate 'valid_time'"
        ) from error


def _index(axis: xr.DataArray, valid: xr.DataArray) -> np.ndarray:
    """Where each valid time stands on a time axis; -1 where it does not."""
    wanted = valid.values.reshape(-1)
    if axis.dtype.kind in "fiu" and wanted.dtype.kind in "fiu":
        known = axis.values.astype(np.float64)
        step = np.abs(np.diff(known)).min(initial=np.inf)
        reach = 1e-6 * (step if np.isfinite(step) else 1.0)
        gap = np.abs(known[None] - wanted.astype(np.float64)[:, None])
        return np.where(gap.min(1) <= reach, gap.argmin(1), -1).reshape(valid.shape)
    if axis.dtype.kind != wanted.dtype.kind:
        raise InputError(
            f"the forecast is valid at times of {wanted.dtype}, the truth has {axis.dtype}; "
            f"expected one calendar: decode both, or convert_calendar one"
        )
    return axis.to_index().get_indexer(pd.Index(wanted)).reshape(valid.shape)


def lead_dim(ens: xr.DataArray | xr.Dataset) -> str:
    """The dim of leads. Raises `InputError` where there is none."""
    lead = find(ens, "lead")
    if lead is None or lead not in ens.dims:
        who = label(ens) if isinstance(ens, xr.DataArray) else "the Dataset"
        raise InputError(
            f"{who} has dims {tuple(map(str, ens.dims))}; expected one of leads, such as "
            f"'lead_time'.{nearest('lead_time', map(str, ens.dims))}"
        )
    return lead


def _plain(value: object) -> str:
    if isinstance(value, np.datetime64):
        return str(value.astype("datetime64[s]"))
    if isinstance(value, np.timedelta64):
        return str(pd.Timedelta(value))
    return f"{value:g}" if isinstance(value, float | np.floating) else str(value)
