"""Data in the layout of other data, such as a model was trained on: never guessed, never joined.

``match`` lines up names, dims and units; ``on_grid`` goes on to the very grid points. They are
apart because a model that runs at any resolution needs the first only.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import xarray as xr

from sciddm.data import checks
from sciddm.data.names import find, same_units
from sciddm.errors import InputError, nearest

NEAR = 0.01
"""Coordinates that differ by less than this part of a step are one grid, rounded differently."""

WORDS = ("time", "init", "member", "lead", "level", "latitude", "longitude", "y", "x")


def match(ds: xr.Dataset, template: xr.Dataset) -> xr.Dataset:
    """``ds`` with the variables, dim names and dim order of ``template``; values untouched, lazy.

    A dim of another name is taken for the one that means the same (``lat`` for ``latitude``);
    dims of size 1 that the template lacks are squeezed; a dim that the template has may be absent
    only if it is the sample dim.

    Raises:
        InputError: a variable or dim that is not there, a dim too many, or other units.
    """
    lead = template.attrs.get("sciddm_sample_dim", "")
    for name in template.data_vars:
        if name not in ds.data_vars:
            hint = nearest(str(name), map(str, ds.data_vars))
            raise InputError(f"No variable {name!r}; expected it.{hint}")
    out = ds[list(template.data_vars)]
    for dim in map(str, template.dims):
        if dim in out.dims:
            continue
        same = next(
            (o for w in WORDS if find(template, w) == dim and (o := find(out, w)) in out.dims), None
        )
        if same is not None and same not in template.dims:
            out = out.rename({same: dim})
        elif dim != lead:
            raise InputError(
                f"No dim {dim!r} in the data, whose dims are {tuple(map(str, out.dims))}; expected "
                f"{tuple(map(str, template.dims))}: rename them with ds.rename(...)."
            )
    out = out.squeeze([d for d in out.dims if d not in template.dims and out.sizes[d] == 1])
    for name, like in template.data_vars.items():
        extra = [str(d) for d in out[name].dims if d not in like.dims]
        if extra:
            raise InputError(
                f"{name!r} has a dim {extra[0]!r} (size {out.sizes[extra[0]]}) too many; expected "
                f"dims {like.dims}: select one with ds.isel({extra[0]}=0)."
            )
        out[name] = out[name].transpose(*(d for d in like.dims if d in out[name].dims))
        _check_units(str(name), out[name], like)
    return out


def _check_units(name: str, da: xr.DataArray, like: xr.DataArray) -> None:
    got, wanted = str(da.attrs.get("units", "")), str(like.attrs.get("units", ""))
    if not got and wanted:
        checks.warn(f"{name!r} has no units; expected {wanted!r}, taken to be so.")
    elif got and wanted and not same_units(got, wanted):
        raise InputError(
            f"{name!r} is in {got!r}; expected {wanted!r}: convert it, and set attrs['units'] = "
            f"{wanted!r}."
        )


def on_grid(ds: xr.Dataset, template: xr.Dataset) -> xr.Dataset:
    """``match``, and then the very grid points of the template, in its order.

    Longitudes are brought to the template's convention (0..360 or -180..180) and rolled with the
    data, a falling latitude is turned to a rising one or back, and coordinates equal up to
    rounding are replaced by the template's, so that no later join can lose a row.

    Raises:
        InputError: another number of points, or points elsewhere, with the first of them.
    """
    out = match(ds, template)
    lead = template.attrs.get("sciddm_sample_dim", "")
    lon = find(template, "longitude")
    for dim in map(str, template.dims):
        if dim == lead or dim not in template.coords or dim not in out.coords:
            continue
        wanted = template[dim].values
        if wanted.dtype.kind not in "fiu":
            continue
        if dim == lon:
            out = _turned(out, dim, wanted)
        got = out[dim].values
        if got.size != wanted.size:
            raise InputError(
                f"{dim!r} has {got.size} points; expected {wanted.size}: interpolate "
                f"with ds.interp({dim}=...)."
            )
        if got.size > 1 and (got[-1] - got[0]) * (wanted[-1] - wanted[0]) < 0:
            out = out.isel({dim: slice(None, None, -1)})
        _check_points(dim, out[dim].values.astype(np.float64), wanted.astype(np.float64))
        out = out.assign_coords({dim: template[dim]})
    for dim in map(str, template.dims):
        if dim != lead and dim in out.dims and out.sizes[dim] != template.sizes[dim]:
            raise InputError(
                f"{dim!r} has {out.sizes[dim]} points; expected {template.sizes[dim]}: "
                "interpolate to that grid."
            )
    return out


def _turned(ds: xr.Dataset, lon: str, wanted: npt.NDArray[np.generic]) -> xr.Dataset:
    """Longitudes within one turn of the template's lowest, sorted the way the template runs."""
    step = float(np.abs(np.diff(wanted)).min()) if wanted.size > 1 else 1.0
    # Half a step below the lowest, so that rounding cannot throw a column to the other end.
    low = float(wanted.min()) - step / 2
    values = (ds[lon].values.astype(np.float64) - low) % 360.0 + low
    order = np.argsort(values, kind="stable")
    if wanted[0] > wanted[-1]:
        order = order[::-1]
    turned = ds.assign_coords({lon: (lon, values, ds[lon].attrs)})
    return turned if (order == np.arange(order.size)).all() else turned.isel({lon: order})


def _check_points(dim: str, got: npt.NDArray[np.float64], wanted: npt.NDArray[np.float64]) -> None:
    step = float(np.abs(np.diff(wanted)).min()) if wanted.size > 1 else max(1.0, abs(wanted[0]))
    off = np.abs(got - wanted) / step
    if off.max() > NEAR:
        first = int(np.argmax(off > NEAR))
        raise InputError(
            f"{dim!r} is another grid, first at index {first}: got {got[first]:g}, expected "
            f"{wanted[first]:g}; interpolate with ds.interp({dim}=...)."
        )
    if off.max() > 1e-4:
        checks.warn(f"{dim!r} differs from the grid expected by {off.max():.1e} of a step.")
