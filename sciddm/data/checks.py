"""What a field must be before any work: finite, gapped in a known way, on sane axes, in time.

Every check either passes, raises :class:`~sciddm.errors.InputError` in one line, or warns with
:class:`DataWarning` where the data may be right. Values are read in blocks along the sample dim, so
a data set larger than memory can be checked.

Convention: a *valid* mask is True where a cell has data.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt
import xarray as xr

from sciddm.data.names import is_model_date
from sciddm.errors import InputError

BLOCK_BYTES = 1 << 26
"""Bytes of one block that is read at a time while checking."""

FILL = 9.969209968386869e36
"""The default fill of the NetCDF library."""

SENTINELS = (-9999.0, -999.0, -99.0, -99.9, 9999.0, 99999.0, 1e15, 1e20, 1e30, 1e35, 1e36, FILL)
"""Values that stand for "missing" in so many files that one at an extreme is suspicious."""

FAR = 10.0
"""An extreme further from all else than this many times the range of all else is no measurement."""


class DataWarning(UserWarning):
    """Something in the data looks wrong, and may be right."""


def warn(message: str) -> None:
    """Warn about the data, once for each place and message."""
    warnings.warn(message, DataWarning, stacklevel=3)


@dataclass(frozen=True, slots=True)
class Scan:
    """What one pass over a variable found.

    ``valid`` has the shape of one sample and is True for cells with data at least once;
    ``changed`` is the first sample whose gaps differ from those of sample 0 (-1 for none);
    ``low`` and ``high`` are the two smallest and two largest distinct values with their counts.
    """

    valid: npt.NDArray[np.bool_]
    missing: float
    changed: int
    low: tuple[tuple[float, int], ...]
    high: tuple[tuple[float, int], ...]
    count: int
    rounding: float


def name_index(da: xr.DataArray, index: Sequence[int]) -> str:
    """``time=2019-03-01T05, y=3``: a position in words, by coordinate along the sample dim."""
    said = []
    for dim, i in zip(da.dims, index, strict=True):
        at = da.indexes[dim][int(i)] if dim in da.indexes else int(i)
        said.append(f"{dim}={at}")
    return ", ".join(said)


def blocks(da: xr.DataArray) -> Iterator[tuple[int, npt.NDArray[np.generic]]]:
    """``(start, values)`` along the first dim, each at most about ``BLOCK_BYTES``, in order."""
    if da.ndim == 0 or da.nbytes <= BLOCK_BYTES:
        yield 0, da.values
        return
    rows = max(1, BLOCK_BYTES * da.shape[0] // da.nbytes)
    for lo in range(0, da.shape[0], rows):
        yield lo, da.isel({da.dims[0]: slice(lo, lo + rows)}).values


def as_float32(
    values: npt.NDArray[np.generic], missing_values: Sequence[float] = ()
) -> npt.NDArray[np.float32]:
    """Native float32 with NaN for every declared missing value; one rounding, any byte order.

    Comparison is done in float32: a float32 file that holds 1e20 does not hold the float64 1e20.
    """
    with np.errstate(over="ignore"):
        out = np.array(values, dtype=np.float32)
    for bad in missing_values:
        out[out == np.float32(bad)] = np.nan
    return out


def check_dtype(da: xr.DataArray, continuous: bool) -> None:
    """Refuse what is no real field: text, complex numbers, codes not declared continuous."""
    kind = da.dtype.kind
    if kind == "c":
        raise InputError(
            f"{da.name!r} is complex ({da.dtype}); expected real numbers: give its real and "
            "imaginary parts as two variables."
        )
    if kind not in "fiub":
        raise InputError(
            f"{da.name!r} holds {da.dtype} values, not numbers; expected a float field: "
            "choose another variable or convert it with .astype(float)."
        )
    if kind != "f" and not continuous:
        raise InputError(
            f"{da.name!r} is {da.dtype}: a code or a mask, perhaps; expected a float field. "
            f"If it is a continuous quantity, declare it: continuous=({da.name!r},)."
        )


def _extremes(values: npt.NDArray[np.float64]) -> tuple[tuple[float, int], ...]:
    """The two smallest distinct values of a non-empty array, each with its count."""
    low = values.min()
    rest = values[values > low]
    first = (float(low), int(values.size - rest.size))
    if not rest.size:
        return (first,)
    return first, (float(rest.min()), int(np.count_nonzero(rest == rest.min())))


def _merge(
    a: tuple[tuple[float, int], ...], b: tuple[tuple[float, int], ...]
) -> tuple[tuple[float, int], ...]:
    """The two smallest of two such lists; counts of the same value add."""
    counts: dict[float, int] = {}
    for value, n in (*a, *b):
        counts[value] = counts.get(value, 0) + n
    return tuple(sorted(counts.items())[:2])


def scan(da: xr.DataArray, missing_values: Sequence[float] = ()) -> Scan:
    """Read a variable once, block by block, and say what it holds; ``dims[0]`` is the sample dim.

    Raises:
        InputError: at the first infinite value, by position.
    """
    reference: npt.NDArray[np.bool_] | None = None
    valid = np.zeros(da.shape[1:], bool)
    gaps, changed, rounding, count = 0, -1, 0.0, 0
    low: tuple[tuple[float, int], ...] = ()
    high: tuple[tuple[float, int], ...] = ()
    for start, raw in blocks(da):
        block = np.array(raw, dtype=np.float64)
        for bad in missing_values:
            block[block.astype(np.float32) == np.float32(bad)] = np.nan
        with np.errstate(over="ignore"):
            narrow = block.astype(np.float32)
        infinite = np.isinf(narrow)
        if infinite.any():
            first = np.argwhere(infinite)[0]
            got = block[tuple(first)]
            first[:1] += start
            why = "is infinite" if np.isinf(got) else f"is {got:g}, too large for float32,"
            raise InputError(
                f"{da.name!r} {why} at {name_index(da, first)}; expected finite numbers: "
                "mask it, or declare missing_values."
            )
        empty = np.isnan(block)
        reference = empty[0] if reference is None else reference
        valid |= (~empty).any(axis=0)
        differs = (empty != reference).reshape(len(empty), -1).any(axis=1)
        if changed < 0 and differs.any():
            changed = start + int(np.argmax(differs))
        gaps += int(empty.sum())
        full = block[~empty]
        if full.size:
            rounding = max(rounding, float(np.abs(full - narrow[~empty]).max()))
            low = _merge(low, _extremes(full))
            high = _merge(high, _extremes(-full))
            count += full.size
    high = tuple((-value, n) for value, n in high)
    return Scan(valid, gaps / max(1, da.size), changed, low, high, count, rounding)


def check_scan(
    da: xr.DataArray, found: Scan, *, gappy: bool, max_missing: float, strict: bool
) -> None:
    """Judge what a scan found: gaps, sentinels, outliers, constants, lost digits.

    Raises:
        InputError: all missing, more missing than allowed, gaps that change and are not declared,
            and in strict mode a value that looks like a missing-value code.
    """
    if found.missing > max_missing or not found.count:
        raise InputError(
            f"{da.name!r} is {100 * found.missing:.3g} % missing (NaN); expected at most "
            f"{max_missing:.0%}: choose another variable, or raise max_missing."
        )
    if found.changed >= 0 and not gappy:
        where = name_index(da[(slice(None),) + (0,) * (da.ndim - 1)], [found.changed])
        raise InputError(
            f"{da.name!r} has gaps (NaN) that change: {100 * found.missing:.3g} % of all values, "
            f"first at {where}; expected none, or the same cells always: fill them, or declare "
            f"missing=({da.name!r},)."
        )
    (least, _), (most, _) = found.low[0], found.high[0]
    if least == most:
        warn(f"{da.name!r} is {least:g} everywhere: a constant field teaches nothing.")
        return
    for (value, n), *rest in (found.low, found.high):
        _check_extreme(da, value, n, rest[0][0], most if value == least else least, found, strict)
    # Two-valued fields have a range but no digits to lose.
    if found.rounding > 1e-6 * (most - least):
        warn(
            f"{da.name!r} loses digits in float32: rounding {found.rounding:.2g} in a range of "
            f"{most - least:.3g}; subtract a constant reference first."
        )


def _check_extreme(
    da: xr.DataArray, value: float, n: int, near: float, far: float, found: Scan, strict: bool
) -> None:
    """One extreme value against the range from its neighbour ``near`` to the other end ``far``."""
    span = abs(far - near)
    gap = abs(value - near)
    known = any(np.float32(value) == np.float32(s) for s in SENTINELS) and gap > span / FAR
    if not (known or 0 < FAR * span < gap):
        return
    share = n / found.count
    if n < 3 and not known:
        warn(f"{da.name!r} has an outlier {value:g} ({n} times); all else is within {span:.3g}.")
        return
    message = (
        f"{da.name!r} holds {value:g} in {share:.2%} of its values, far from all else: it looks "
        f"like a code for missing data; declare missing_values=({value:g},)."
    )
    if strict:
        raise InputError(message)
    warn(message)


def check_axis(name: str, values: npt.NDArray[np.generic], *, kind: str = "") -> None:
    """A 1-D space coordinate must be finite, without repeats, and in one direction.

    Args:
        kind: ``"latitude"`` or ``"longitude"`` adds the range of degrees.

    Raises:
        InputError: naming the dim and the first index or value.
    """
    if values.dtype.kind not in "fiu":
        return
    axis = values.astype(np.float64)
    if not np.isfinite(axis).all():
        first = int(np.argmax(~np.isfinite(axis)))
        raise InputError(f"Coordinate {name!r} is not finite at index {first}; expected numbers.")
    check_degrees(name, axis, kind)
    unique, counts = np.unique(axis, return_counts=True)
    if unique.size < axis.size:
        worst = int(np.argmax(counts))
        raise InputError(
            f"Coordinate {name!r} holds {unique[worst]:g} {counts[worst]} times; expected distinct "
            f"values: ds.drop_duplicates({name!r})."
        )
    step = np.diff(axis)
    turned = np.sign(step) != np.sign(step[:1])
    if turned.any():
        raise InputError(
            f"Coordinate {name!r} turns round at index {int(np.argmax(turned)) + 1}; expected "
            f"values that only rise or only fall: ds.sortby({name!r})."
        )


def check_degrees(name: str, values: npt.NDArray[np.float64], kind: str) -> None:
    """Latitudes within 90 degrees and longitudes within 360, of any shape; NaN passes."""
    limit = {"latitude": 90.0, "longitude": 360.0}.get(kind, np.inf)
    top = float(np.nanmax(np.abs(values), initial=0.0))
    if top > limit + 1e-3:
        raise InputError(
            f"Coordinate {name!r} reaches {top:g}; expected a {kind} within {limit:g} degrees: "
            "check its units."
        )


def check_uniform(ds: xr.Dataset, dims: Sequence[str], limit: float = 2.0) -> None:
    """Equal steps along each dim, as a Fourier layer assumes: warn from 1 %, refuse from ``limit``.

    Raises:
        InputError: the largest step is over ``limit`` times the smallest.
    """
    for dim in dims:
        if dim not in ds.coords or ds.sizes[dim] < 3:
            continue
        step = np.abs(np.diff(ds[dim].values.astype(np.float64)))
        ratio = float(step.max() / step.min())
        message = f"Coordinate {dim!r} has uneven steps: the largest is {ratio:.3g} x the smallest"
        if ratio > limit:
            raise InputError(
                f"{message}; expected at most {limit:g}: interpolate to an even grid "
                f"with ds.interp({dim}=...)."
            )
        if ratio > 1.01:
            warn(f"{message}; layers that assume an even grid will see it stretched.")


def decode_times(coord: xr.DataArray, time_format: str) -> xr.DataArray:
    """Integer or text dates, such as 189701 read with ``"%Y%m"``, as datetime64.

    Raises:
        InputError: at the first value that does not fit the format.
    """
    values = coord.values
    text = [str(int(v)) if values.dtype.kind in "fiu" else str(v) for v in values]
    stamps = []
    for i, word in enumerate(text):
        try:
            stamps.append(np.datetime64(datetime.strptime(word, time_format), "ns"))
        except ValueError:
            raise InputError(
                f"{coord.name!r} holds {word!r} at index {i}; expected dates of the form "
                f"{time_format!r}: correct time_format."
            ) from None
    attrs = {k: v for k, v in coord.attrs.items() if k not in ("units", "calendar")}
    out = coord.copy(data=np.array(stamps))
    out.attrs = {**attrs, "standard_name": "time"}
    return out


def seconds(times: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
    """The steps between consecutive times, in seconds of their own calendar."""
    if times.dtype.kind == "M":
        return np.diff(times) / np.timedelta64(1, "s")
    return np.array([step.total_seconds() for step in np.diff(times)], dtype=np.float64)


def check_time(coord: xr.DataArray) -> tuple[int, ...]:
    """A time axis must hold decoded dates that rise, without repeats, at one frequency.

    Returns:
        Every index ``i`` with a step missing between ``i - 1`` and ``i``: a gap that no window
        of consecutive steps may cross. Months and years of unequal length are one frequency.

    Raises:
        InputError: numbers or text in place of dates, NaT, repeats, falling times, or a frequency
            that changes; each with the first place.
    """
    check_dates(coord)
    name, values = coord.name, coord.values
    step = seconds(values)
    if not step.size:
        return ()
    usual = float(np.sort(step)[(step.size - 1) // 2])
    long = step > 1.5 * usual
    if (step < 0.5 * usual).any() or long.mean() > 0.1:
        odd = (step < 0.5 * usual) if (step < 0.5 * usual).any() else long
        first = int(np.argmax(odd)) + 1
        raise InputError(
            f"{name!r} changes its frequency at index {first} ({values[first]}): a step of "
            f"{step[first - 1]:g} s where {usual:g} s is usual; expected one frequency: "
            f"ds.resample({name}=...)."
        )
    return tuple(int(i) + 1 for i in np.flatnonzero(long))


def check_dates(coord: xr.DataArray) -> None:
    """A time axis must hold decoded dates that rise, without repeats.

    Raises:
        InputError: numbers or text in place of dates, NaT, repeats or falling times; each with the
            first place.
    """
    name, values = coord.name, coord.values
    if values.dtype.kind not in "MO" or not (values.dtype.kind == "M" or is_model_date(values)):
        units = f" with units {coord.attrs['units']!r}" if "units" in coord.attrs else ""
        raise InputError(
            f"{name!r} holds {values.dtype} values{units} (first: {values.flat[0]}), not dates; "
            "expected decoded times: give time_format, such as '%Y%m' for 189701, or set "
            f"ds[{name!r}] to dates before."
        )
    lost = np.isnat(values) if values.dtype.kind == "M" else np.array([v is None for v in values])
    if lost.any():
        raise InputError(
            f"{name!r} has {int(lost.sum())} missing times (NaT), first at index "
            f"{int(np.argmax(lost))}; expected a date for every step: "
            f"ds.sel({name}=ds[{name!r}].notnull())."
        )
    step = seconds(values)
    if (step < 0).any():
        first = int(np.argmax(step < 0)) + 1
        raise InputError(
            f"{name!r} goes back at index {first} ({values[first]}); expected rising times: "
            f"ds.sortby({name!r})."
        )
    if (step == 0).any():
        first = int(np.argmax(step == 0)) + 1
        raise InputError(
            f"{name!r} holds {values[first]} twice ({int((step == 0).sum())} repeats in all); "
            f"expected distinct times: ds.drop_duplicates({name!r}), once you know which to keep."
        )
