"""What every score shares: a matched pair of ensemble and truth, and the weights of its cells.

A score of a field is an average over cells, and a cell counts by its area. On a latitude axis
with cell edges ``phi_j`` the area of row ``j`` is proportional to ``sin(phi_{j+1}) - sin(phi_j)``
(exact on the sphere, unlike ``cos(phi_j)``, which differs at the poles and on coarse grids).
A coordinate with the CF standard name ``cell_area`` is taken as it is, on any grid. Without one,
and without a one-dimensional latitude axis, all cells count alike, and the result says so.

Before anything is averaged the two fields are matched by coordinate *value*: the same points in
another order are put in order, different points are an error (never an outer join), and gaps must
be the same in both, so that a diverged member is never averaged away in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
import pandas as pd
import xarray as xr

from sciddm.data.schema import find
from sciddm.errors import InputError, nearest

MEMBER = "member"
Labelled = TypeVar("Labelled", xr.DataArray, xr.Dataset)


def cell_weights(obj: xr.DataArray | xr.Dataset) -> xr.DataArray:
    """Relative areas of the cells, ``sin(upper edge) - sin(lower edge)`` along latitude.

    Edges lie midway between latitudes; the outermost reach half a step further, at most to a
    pole. A grid that covers the sphere therefore sums to 2.

    Args:
        obj: Anything labelled. Its latitude is found by CF attributes, then by name.

    Returns:
        The areas that are given, a 1-D array along latitude, or a scalar 1 where area cannot be
        told (no latitude, curvilinear latitude, scattered points). ``attrs["weights"]`` says which.

    Raises:
        InputError: Latitude is not strictly monotonic or leaves [-90, 90].
    """
    for name, area in obj.coords.items():
        if area.attrs.get("standard_name") == "cell_area" and area.notnull().all():
            bare = area.astype(np.float64).drop_vars(list(area.coords))
            return (bare / float(bare.mean())).assign_attrs(weights=f"cell area {name!r}")
    name = find(obj, "latitude")
    if name is None or name not in obj.coords:
        return _uniform("uniform: there is no latitude coordinate")
    latitude = obj.coords[name]
    if latitude.ndim != 1 or latitude.size < 2:
        return _uniform(f"uniform: latitude {name!r} has {latitude.ndim} dims")
    dim = latitude.dims[0]
    longitude = find(obj, "longitude")
    if longitude is not None and longitude in obj.coords and obj[longitude].dims == (dim,):
        return _uniform(f"uniform: {name!r} and {longitude!r} are scattered points along {dim!r}")
    phi = latitude.values.astype(np.float64)
    _check_latitude(name, phi)
    edges = np.concatenate(
        [[1.5 * phi[0] - 0.5 * phi[1]], (phi[1:] + phi[:-1]) / 2, [1.5 * phi[-1] - 0.5 * phi[-2]]]
    )
    area = np.abs(np.diff(np.sin(np.deg2rad(np.clip(edges, -90.0, 90.0)))))
    return xr.DataArray(area, dims=(dim,), attrs={"weights": f"cell area from latitude {name!r}"})


def _uniform(why: str) -> xr.DataArray:
    return xr.DataArray(1.0, attrs={"weights": why})


def _check_latitude(name: str, phi: np.ndarray) -> None:
    steps = np.diff(phi)
    if not (np.all(steps > 0) or np.all(steps < 0)):
        at = int(np.argmax(np.sign(steps) != np.sign(phi[-1] - phi[0]))) + 1
        raise InputError(
            f"latitude {name!r} is not strictly monotonic at index {at} ({phi[at]:g} after "
            f"{phi[at - 1]:g}); sort it with .sortby({name!r})"
        )
    if np.abs(phi).max() > 90.0 + 1e-6:
        raise InputError(
            f"latitude {name!r} reaches {phi[np.abs(phi).argmax()]:g}; expected degrees in "
            f"[-90, 90]; correct its values or its units"
        )


def averaged(field: xr.DataArray, over: Sequence[str] | None) -> tuple[str, ...]:
    """The dims of ``field`` to average over: ``over``, by default all but ``member``.

    Raises:
        InputError: A dim in ``over`` is not there, or is ``member``.
    """
    dims = [str(d) for d in field.dims if d != MEMBER]
    if over is None:
        return tuple(dims)
    wanted = (over,) if isinstance(over, str) else tuple(over)
    for dim in wanted:
        if dim not in dims:
            raise InputError(
                f"over: {dim!r} is no dim to average over in {label(field)}.{nearest(dim, dims)}"
            )
    return wanted


def average(field: xr.DataArray, over: Sequence[str] | None) -> xr.DataArray:
    """Area-weighted mean over ``over``, over the cells that are not NaN; NaN where none is.

    Sets ``attrs["weights"]``.
    """
    dims = averaged(field, over)
    weights = cell_weights(field)
    result = field.weighted(weights).mean(dims, skipna=True) if dims else field
    note = weights.attrs["weights"] if dims else "none: nothing was averaged"
    return result.assign_attrs(weights=note)


def finish(
    score: xr.DataArray, estimator: str, members: int | None, units: str | None
) -> xr.DataArray:
    """The score computed, with what a reader must know in its attrs."""
    attrs = {"estimator": estimator, "members": members, "weights": score.attrs.get("weights")}
    attrs = {key: value for key, value in attrs.items() if value is not None}
    done = score.compute()
    done.attrs = {**attrs, "units": units} if units is not None else attrs
    return done


def each(
    score: Callable[[xr.DataArray, xr.DataArray], xr.DataArray], ens: Labelled, truth: Labelled
) -> Labelled:
    """Apply a score of two arrays to two arrays, or variable by variable to two Datasets.

    Every variable of ``ens`` is scored; ``truth`` may hold more.

    Raises:
        InputError: One is a DataArray and the other a Dataset, or a variable is missing.
    """
    if isinstance(ens, xr.DataArray) and isinstance(truth, xr.DataArray):
        return score(ens, truth)
    if not (isinstance(ens, xr.Dataset) and isinstance(truth, xr.Dataset)):
        raise InputError(
            f"expected two DataArrays or two Datasets, got {type(ens).__name__} and "
            f"{type(truth).__name__}; pick the variable of the Dataset by its name"
        )
    if not ens.data_vars:
        raise InputError("the ensemble Dataset has no variables; expected at least one to score")
    for name in ens.data_vars:
        if name not in truth.data_vars:
            raise InputError(
                f"variable {name!r} is in the ensemble but not in the truth; score a selection "
                f"such as ens[[...]].{nearest(str(name), map(str, truth.data_vars))}"
            )
    scores = {name: score(ens[name], truth[name]) for name in ens.data_vars}
    return xr.Dataset(scores)


def pair(
    ens: xr.DataArray, truth: xr.DataArray, least: int = 1
) -> tuple[xr.DataArray, xr.DataArray]:
    """Match an ensemble with its truth, point by point.

    Args:
        ens: ``(member, *dims)`` in any order of dims.
        truth: ``(*dims)`` in any order; dims of size 1 may be missing or extra.
        least: Members that the score needs.

    Returns:
        ``ens`` with ``member`` first, and ``truth`` in the same order of dims and points, with the
        coordinates of ``ens``, so that arithmetic between the two can never join or drop points.

    Raises:
        InputError: Too few members, other dims or points, values that are no real numbers,
            infinities, or gaps that differ between the members and the truth.
    """
    if MEMBER not in ens.dims:
        raise InputError(
            f"{label(ens)} has dims {tuple(ens.dims)}; expected an ensemble with dim 'member'; "
            f"{_member_hint(ens)}"
        )
    if ens.sizes[MEMBER] < least:
        raise InputError(
            f"{label(ens)} has {ens.sizes[MEMBER]} member; this score needs at least {least}; "
            f"draw more members"
        )
    if MEMBER in truth.dims:
        raise InputError(
            f"the truth of {label(truth)} has a dim 'member'; expected none; take one with "
            f".isel(member=0), and check that ensemble and truth are not exchanged"
        )
    ens, truth = match(ens, truth)
    _check_gaps(ens, truth)
    return ens, truth


def match(ens: xr.DataArray, truth: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """The part of :func:`pair` that is about points alone; ``ens`` may be without members."""
    for what, field in (("ensemble", ens), ("truth", truth)):
        if field.dtype.kind not in "fiub":
            raise InputError(
                f"the {what} {label(field)} has dtype {field.dtype}; expected real numbers"
            )
        if field.size == 0:
            raise InputError(f"the {what} {label(field)} is empty: sizes {dict(field.sizes)}")
    dims = [d for d in ens.dims if d != MEMBER]
    truth = truth.squeeze([d for d in truth.dims if d not in dims and truth.sizes[d] == 1])
    truth = truth.expand_dims([d for d in dims if d not in truth.dims and ens.sizes[d] == 1])
    if set(truth.dims) != set(dims):
        raise InputError(
            f"{label(ens)}: the ensemble has dims {tuple(dims)} beside 'member' and the truth "
            f"{tuple(truth.dims)}; select or rename until they are the same; {_member_hint(ens)}"
        )
    for dim in dims:
        truth = _ordered(ens, truth, str(dim))
    _check_labels(ens, truth)
    ens = ens.transpose(MEMBER, ...) if MEMBER in ens.dims else ens
    truth = truth.transpose(*dims).drop_vars(list(truth.coords))
    shared = {name: c for name, c in ens.coords.items() if MEMBER not in c.dims}
    return ens, truth.assign_coords(shared)


def _member_hint(ens: xr.DataArray) -> str:
    known = find(ens, MEMBER)
    if known is None or known == MEMBER:
        return "the dim of the ensemble must be named 'member'"
    return f"name the dim of the ensemble with .rename({known}='member')"


def _ordered(ens: xr.DataArray, truth: xr.DataArray, dim: str) -> xr.DataArray:
    """``truth`` with the points along ``dim`` in the order of ``ens``."""
    if dim not in ens.indexes or dim not in truth.indexes:
        if ens.sizes[dim] != truth.sizes[dim]:
            raise InputError(
                f"{label(ens)}: dim {dim!r} has {ens.sizes[dim]} points in the ensemble and "
                f"{truth.sizes[dim]} in the truth; select the same points of both"
            )
        return truth
    ours, theirs = _same_precision(ens.indexes[dim], truth.indexes[dim])
    if ours.equals(theirs):
        return truth
    if len(ours) == len(theirs) and ours.is_unique and theirs.is_unique:
        order = theirs.get_indexer(ours)
        if np.all(order >= 0):
            return truth.isel({dim: order})
    shorter = min(len(ours), len(theirs))
    differ = (i for i in range(shorter) if not ours[i : i + 1].equals(theirs[i : i + 1]))
    at = next(differ, shorter)
    raise InputError(
        f"{label(ens)}: coordinate {dim!r} differs first at index {at}: {_shown(ours, at)} in the "
        f"ensemble ({len(ours)} points), {_shown(theirs, at)} in the truth ({len(theirs)} points); "
        f"select the same points of both, for instance truth.sel({dim}=ens[{dim!r}])"
    )


def _same_precision(ours: pd.Index, theirs: pd.Index) -> tuple[pd.Index, pd.Index]:
    """Both in the coarser float type: a coordinate stored as float32 is still the same point."""
    kinds = (ours.dtype.kind, theirs.dtype.kind)
    if kinds != ("f", "f") or ours.dtype == theirs.dtype:
        return ours, theirs
    coarser = min(ours.dtype, theirs.dtype, key=lambda dtype: dtype.itemsize)
    return ours.astype(coarser), theirs.astype(coarser)


def _shown(index: pd.Index, at: int) -> str:
    return "no point" if at >= len(index) else repr(index[at : at + 1].tolist()[0])


def _check_labels(ens: xr.DataArray, truth: xr.DataArray) -> None:
    """Refuse fields whose other coordinates (a scalar time, a 2-D latitude) contradict."""
    for name in ens.coords:
        if name in ens.dims or name not in truth.coords:
            continue
        ours, theirs = ens.coords[name], truth.coords[name]
        if set(ours.dims) != set(theirs.dims):
            continue
        theirs = theirs.transpose(*ours.dims)
        a, b = _narrowed(ours.values, theirs.values)
        if a.dtype.kind == b.dtype.kind == "f":
            same = np.array_equal(a, b, equal_nan=True)
        else:
            same = a.shape == b.shape and bool(np.all((a == b) | ((a != a) & (b != b))))
        if not same:
            shown = f": {a} in the ensemble, {b} in the truth" if a.ndim == 0 else ""
            raise InputError(
                f"{label(ens)}: coordinate {name!r} differs{shown}; compare the same case, or drop "
                f"the coordinate where the difference is meant: truth.drop_vars({name!r})"
            )


def _narrowed(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if a.dtype.kind == b.dtype.kind == "f" and a.dtype != b.dtype:
        coarser = min(a.dtype, b.dtype, key=lambda dtype: dtype.itemsize)
        return a.astype(coarser), b.astype(coarser)
    return a, b


def _check_gaps(ens: xr.DataArray, truth: xr.DataArray) -> None:
    """One pass over the values, chunk by chunk where they are lazy."""
    missing = ens.isnull()
    seen = xr.Dataset(
        {
            "some": missing.any(MEMBER),
            "every": missing.all(MEMBER),
            "gap": truth.isnull(),
            "infinite": (abs(ens) == np.inf).any(MEMBER) | (abs(truth) == np.inf),
        }
    ).compute()
    name = label(ens)
    faults = (
        (
            seen["infinite"],
            "the ensemble or the truth is infinite",
            "expected finite numbers or NaN; mask it with .where(...)",
        ),
        (
            seen["some"] & ~seen["every"],
            "NaN in some members but not in all",
            "they diverged; draw them again, or drop them with .dropna('member')",
        ),
        (
            seen["gap"] & ~seen["every"],
            "the truth is NaN where the ensemble is not",
            "mask the ensemble alike with ens.where(truth.notnull())",
        ),
        (
            seen["every"] & ~seen["gap"],
            "the ensemble is NaN where the truth is not",
            "mask the truth alike if that is meant",
        ),
    )
    for bad, fault, fix in faults:
        if bool(bad.any()):
            raise InputError(f"{name}: {fault}{where(bad)}; {fix}")
    if bool(seen["gap"].all()):
        raise InputError(f"{name} is NaN everywhere; expected at least one cell to score")


def where(bad: xr.DataArray) -> str:
    """``" at time=3, y=0 (17 of 2048 cells)"``: the first true cell, by index."""
    values = bad.values
    first = np.unravel_index(int(np.argmax(values)), values.shape)
    spot = ", ".join(f"{dim}={int(i)}" for dim, i in zip(bad.dims, first, strict=True))
    return f" at index {spot} ({int(values.sum())} of {values.size} cells)" if spot else ""


def label(field: xr.DataArray) -> str:
    """How a message names a field."""
    return repr(str(field.name)) if field.name is not None else "the field"


def units(field: xr.DataArray, power: int = 1) -> str | None:
    """The units attribute of a field, raised to a power, for the attrs of its score."""
    given = field.attrs.get("units")
    if given is None or power == 1 or str(given) == "1":
        return None if given is None else str(given)
    return f"({given})^{power}"
