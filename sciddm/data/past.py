"""The past that a forecast starts from: the user's own data in the layout of the training data.

Names, dims, units and grid are held to a template; the time dim is found by its CF attributes, then
by its usual names. How the user's data lay is remembered, and forecasts are given back that way:
dims by their names, latitudes and longitudes in their order and convention.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr

from sciddm.data import checks
from sciddm.data.alike import on_grid
from sciddm.data.axis import Axis, said
from sciddm.data.names import find, is_date
from sciddm.errors import InputError, nearest

TAKEN = ("member", "lead_time", "init_time", "valid_time")
"""Names of a forecast, which no coordinate of the past may have."""
_MARK = "_sciddm_place_"


@dataclass(frozen=True, eq=False)
class Past:
    """Frames of one record, dims (time, *grid), or of several films, (sample, time, *grid).

    ds : in the layout of the template. axis : its times. time, sample : its dims; ``sample`` is ""
    for one record. label : of the one film that a record was taken from, or "". given : the user's
    data. places : for each dim of the grid, the user's dim and the index there of each point.
    """

    ds: xr.Dataset
    axis: Axis
    time: str
    sample: str
    label: str
    given: xr.Dataset
    places: Mapping[str, tuple[str, np.ndarray]]

    @property
    def labels(self) -> list[str]:
        """Of each film, a word that is its own wherever it stands."""
        if not self.sample:
            return [self.label]
        count = self.ds.sizes[self.sample]
        known = self.ds[self.sample].values if self.sample in self.ds.coords else np.arange(count)
        return [str(v) for v in known]

    def read(self, frames: np.ndarray, valid: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Values by variable name at indices ``frames`` (n, T) of the times: (S, n, T, *grid), S
        films or 1.

        valid : (*grid) where each variable has values. Raises `InputError` for NaN and infinite
        values there.
        """
        used, inverse = np.unique(frames, return_inverse=True)
        out = {}
        for name, where in valid.items():
            da = self.ds[name].isel({self.time: used})
            values = da.values if self.sample else da.values[None]
            bad = ~np.isfinite(values) & where
            if bad.any():
                first = np.argwhere(bad)[0].tolist()
                at = checks.name_index(da, first if self.sample else first[1:])
                raise InputError(
                    f"{name!r} is NaN or infinite at {at} ({int(bad.sum())} values of "
                    f"{int(where.sum()) * bad.shape[0] * len(used)}), where the model has values; "
                    "fill the gaps, or take another start."
                )
            out[name] = values[:, inverse.reshape(frames.shape)]
        return out

    def back(self, name: str, values: np.ndarray) -> np.ndarray:
        """Values (..., *grid) of a variable in the order of the user's own grid."""
        dims = [d for d in self.ds[name].dims if d in self.places]
        for axis, dim in enumerate(dims, start=values.ndim - len(dims)):
            place = self.places[str(dim)][1]
            if (np.diff(place) != 1).any():
                values = np.take(values, np.argsort(place), axis=axis)
        return values

    @property
    def coords(self) -> dict[str, xr.Variable]:
        """The user's coordinates of the grid, their bounds, and those without a dim."""
        own = {d for d, _ in self.places.values()}
        every = {str(n): v.variable for n, v in self.given.coords.items()}
        bounds = {str(v.attrs.get("bounds", "")) for v in every.values() if set(v.dims) & own}
        every |= {n: self.given[n].variable for n in bounds if n in self.given.data_vars}
        out = {d: self.ds[m].variable.to_base_variable() for m, (d, _) in self.places.items()}
        out = {d: xr.Variable((d,), v.values, v.attrs) for d, v in out.items()}
        out |= {
            n: v
            for n, v in every.items()
            if n not in TAKEN and n != self.time and (set(v.dims) <= own or n in bounds)
        }
        return {n: v.copy(deep=False) for n, v in out.items()}


def conform(
    given: xr.Dataset | xr.DataArray,
    template: xr.Dataset,
    *,
    time: str,
    sample: str,
    step: float,
    unit: str,
) -> Past:
    """The past ``given`` in the layout of ``template``, whose dims are those of the grid alone.

    Args:
        time: the time dim of the training data; the user's may have another name.
        sample: the dim of films, or ``time`` where training was on one record.
        step, unit: of a lead.

    Raises:
        InputError: names, dims, units or a grid other than in training; no time dim; a time axis
            that leads cannot be counted on.
    """
    ds = _dataset(given, template)
    ds = _timed(ds, time, step if unit == "1" else None)
    films = sample if sample != time and sample in ds.dims else ""
    label = str(ds[sample].item()) if not films and _scalar(ds, sample) else ""
    known = [str(n) for n in template.data_vars if n in ds.data_vars]
    if not known:
        wanted = ", ".join(map(str, template.data_vars))
        hint = nearest(wanted, map(str, ds.data_vars))
        raise InputError(f"The past holds no variable of the model ({wanted}).{hint}")
    leading = {films: ds.sizes[films]} if films else {}
    leading |= {time: ds.sizes[time]}
    like = template[known].drop_attrs(deep=False).expand_dims(leading)
    for name in known:
        if time not in ds[name].dims:
            raise InputError(
                f"{name!r} has dims {ds[name].dims} without the time {time!r}; expected frames."
            )
    marks = {_MARK + str(d): (d, np.arange(n)) for d, n in ds[known].sizes.items()}
    out = on_grid(ds[known].assign_coords(marks), like)
    places = {}
    for mark in marks:
        dims = out[mark].dims if mark in out.coords else ()
        if dims and dims[0] in template.dims:
            places[str(dims[0])] = (mark.removeprefix(_MARK), out[mark].values)
    axis = Axis.of(ds[time], step, unit)
    return Past(out.drop_vars(marks), axis, time, films, label, ds, places)


def _dataset(given: xr.Dataset | xr.DataArray, template: xr.Dataset) -> xr.Dataset:
    names = [str(n) for n in template.data_vars]
    if isinstance(given, xr.DataArray):
        if given.name is None and len(names) > 1:
            raise InputError(
                f"The past is an array without a name; expected one of {', '.join(names)}: "
                "da.rename(...)."
            )
        return given.to_dataset(name=names[0] if given.name is None else given.name)
    if not isinstance(given, xr.Dataset):
        raise InputError(
            f"The past is a {type(given).__name__}; expected a Dataset or a DataArray with a time "
            "axis."
        )
    return given


def _timed(ds: xr.Dataset, time: str, spacing: float | None) -> xr.Dataset:
    """``ds`` with its times along the dim ``time``."""
    found = time if time in ds.dims else find(ds, "time")
    if found is None or (found not in ds.dims and found not in ds.coords):
        raise InputError(
            f"The past has no time dimension by CF attributes or usual names; expected {time!r}."
            + nearest(time, map(str, ds.dims))
        )
    if found in ds.coords and ds[found].ndim == 0:
        ds = ds.expand_dims(found)  # one frame
    if found in ds.coords and ds[found].ndim > 1:
        raise InputError(f"The times {found!r} have dims {ds[found].dims}; expected one dim.")
    dim = str(ds[found].dims[0]) if found in ds.coords else found
    if found == dim:  # dates may lie beside an axis that only counts
        other = find(ds.drop_vars(dim), "time") if dim in ds.coords else None
        if other is not None and not is_date(ds[dim]) and other in ds.coords:
            found = other if is_date(ds[other]) and ds[other].dims == (dim,) else found
    if found != dim:
        ds = ds.assign_coords({dim: (dim, ds[found].values, ds[found].attrs)}).drop_vars(found)
    if dim not in ds.coords:
        if spacing is None:
            raise InputError(f"The time dim {dim!r} has no dates; set ds[{dim!r}] to dates.")
        ds = ds.assign_coords({dim: np.arange(ds.sizes[dim]) * spacing})
    if dim != time and time in ds.variables:
        ds = ds.drop_vars(time)
    return ds if dim == time else ds.rename({dim: time})


def _scalar(ds: xr.Dataset, name: str) -> bool:
    return name in ds.coords and ds[name].ndim == 0


def forcing(
    given: xr.Dataset,
    template: xr.Dataset,
    times: np.ndarray,
    needed: np.ndarray,
    axis: Axis,
    time: str,
) -> xr.Dataset:
    """The forcing variables of ``template`` at the rising ``times`` (U,); where they are not
    ``needed`` (U,) and not known, the last ones before are held.

    axis : of the past. time : its dim in ``template``'s training data.

    Raises:
        InputError: variables, a grid or units other than in training, a needed time without
            values, and values that are NaN or infinite.
    """
    names = [str(name) for name in template.data_vars]
    ds = _timed(given, time, axis.step if axis.unit == "1" else None)
    for name in names:
        if name not in ds.data_vars:
            hint = nearest(name, map(str, ds.data_vars))
            raise InputError(f"The forcing {name!r} is missing; expected it at every lead.{hint}")
    like = template.drop_attrs(deep=False).expand_dims({time: ds.sizes[time]})
    out = on_grid(ds[names], like)
    index = Axis.of(ds[time], axis.step, axis.unit).indices(times)
    lost = needed & (index < 0)
    if lost.any():
        raise InputError(
            f"The forcings {', '.join(names)} have no values at {said(times[int(lost.argmax())])}; "
            "expected them at the times of the past and of every lead that is asked for: give a "
            "longer file, or ask fewer steps."
        )
    latest = np.maximum.accumulate(np.where(index < 0, -1, np.arange(len(index))))
    return out.isel({time: index[latest]}).assign_coords({time: times})
