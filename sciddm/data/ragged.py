"""Series in Datasets: dense (time,) or (item, time), or ragged, and back.

Items that have each their own times are stored as CF contiguous ragged arrays: the rows of all
items one after another along ``obs``, and how many are whose::

    value    (obs)     one variable each, NaN where missing
    time     (obs)     coordinate, rising within an item
    row_size (item)    rows of each item, with sample_dimension = "obs"
    item     (item)    their names

Reference: CF metadata conventions 1.10, section 9.3.3, https://cfconventions.org
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from sciddm.data import columns, rows, stamps
from sciddm.data.columns import How
from sciddm.data.items import Draws, Form, Item, Items
from sciddm.data.names import find, is_date
from sciddm.data.split import row_sizes
from sciddm.errors import InputError, nearest

OBS, SIZE = "obs", "row_size"


@dataclass(frozen=True)
class Labelled(Form):
    """A Dataset with the dims ``item`` ("" for one item) and ``time``, or with ``obs`` a ragged
    one."""

    item: str = "item"
    time: str = "time"
    obs: str = ""
    labels: Mapping[str, Any] = field(default_factory=dict)
    attrs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def items(self, items: Items) -> xr.Dataset:
        return dataset(items, self)

    def draws(self, draws: Draws, levels: Sequence[float] = ()) -> xr.Dataset:
        attrs = {k: v for k, v in draws.items.attrs.items() if not k.startswith("sciddm_s")}
        columns_of = [draws.columns(i, levels) for i in range(len(draws.items))] if levels else []
        if columns_of:
            names = tuple(columns_of[0])
            made = [
                Item(i.name, i.time, np.stack([c[n] for n in names], 1), None, i.static)
                for i, c in zip(draws.items, columns_of, strict=True)
            ]
            units = {n: u for n in names for v, u in draws.items.units.items() if n.startswith(v)}
            out = Items(
                names, tuple(made), (), draws.items.static, units, draws.items.time_units,
                draws.items.calendar, attrs, self,
            )  # fmt: skip
            return dataset(out, self).assign_attrs(draws.attrs)
        items = replace(draws.items, attrs=attrs)
        return dataset(items, self, draws.values).assign_attrs(draws.attrs)


def dataset(
    items: Items,
    form: Labelled | None = None,
    members: Sequence[npt.NDArray[np.float64]] | None = None,
) -> xr.Dataset:
    """Items as a Dataset: dims (item, time) where all have the same times and the form is not
    ragged, else CF ragged; with ``members``, (M, n, C) of each, a dim `member` first."""
    form = form or Labelled(obs=OBS)
    same = all(np.array_equal(i.time, items.items[0].time) for i in items)
    dense = same and not form.obs
    values = members if members is not None else [i.values[None] for i in items]
    obs = form.obs or OBS
    dims: tuple[str, ...]
    if dense and not form.item:
        dims, block = (form.time,), values[0]
    elif dense:
        dims, block = (form.item, form.time), np.stack(list(values), 1)
    else:
        dims, block = (obs,), np.concatenate(list(values), 1)
    lead = ("member",) if members is not None else ()
    time = items.items[0].time if dense else np.concatenate([i.time for i in items])
    data: dict[str, Any] = {
        name: (
            (*lead, *dims), block[..., c] if lead else block[0, ..., c], _attrs(items, form, name)
        )
        for c, name in enumerate(items.variables)
    }  # fmt: skip
    for k, name in enumerate(items.covariates if members is None else ()):
        known = [i.covariates[:, k] for i in items if i.covariates is not None]
        both = np.concatenate(known) if not dense else np.stack(known) if form.item else known[0]
        data[name] = (dims, both, {"sciddm_role": "covariate"} | _attrs(items, form, name))
    when = stamps.dates(time, items.time_units, items.calendar)
    about: dict[str, Any] = dict(form.attrs.get(form.time, {"standard_name": "time"}))
    if items.time_units and when.dtype.kind == "f":
        about.setdefault("units", items.time_units)
    item = form.item or "item"
    coords: dict[str, Any] = {form.time: ((form.time,) if dense else (obs,), when, about)}
    if form.item or not dense:
        labels = [form.labels.get(n, n) for n in items.names]
        coords[item] = ((item,), np.array(labels), {"cf_role": "timeseries_id"})
        for s, name in enumerate(items.static):
            fixed = np.array([np.nan if i.static is None else i.static[s] for i in items])
            data[name] = ((item,), fixed, {"sciddm_role": "static"} | _attrs(items, form, name))
    if not dense:
        sizes = np.array([len(i) for i in items], dtype=np.int64)
        data[SIZE] = ((item,), sizes, {"sample_dimension": obs, "long_name": "rows of the item"})
    if lead:
        coords["member"] = ("member", np.arange(len(values[0])), {"standard_name": "realization"})
    return xr.Dataset(data, coords, {"Conventions": "CF-1.10"} | dict(items.attrs))


def read(source: xr.Dataset | xr.DataArray, how: How) -> Items:
    """Items of a Dataset; see `items.of`."""
    ds = _named(source) if isinstance(source, xr.DataArray) else source
    for name in (*how.target, *how.covariates, *how.static):
        if name not in ds.variables:
            raise InputError(f"No variable {name!r}.{nearest(name, map(str, ds.data_vars))}")
    if how.target:
        ds = ds[[*how.target, *how.covariates, *how.static, *(row_sizes(ds) or ())[:1]]]
    found = row_sizes(ds)
    return _ragged(ds, how, *found) if found else _dense(ds, how)


def _named(array: xr.DataArray) -> xr.Dataset:
    return array.to_dataset(name=array.name or "value")


def _attrs(items: Items, form: Labelled, name: str) -> dict[str, Any]:
    units = {"units": items.units[name]} if items.units.get(name) else {}
    return {**form.attrs.get(name, {}), **units}


def _ragged(ds: xr.Dataset, how: How, size: str, obs: str) -> Items:
    item = str(ds[size].dims[0])
    sizes = ds[size].values
    if sizes.sum() != ds.sizes[obs] or (sizes < 0).any():
        raise InputError(
            f"{size!r} says {int(sizes.sum())} rows in all, {obs!r} has {ds.sizes[obs]}; expected "
            "as many: choose items with sciddm.data.split.select."
        )
    time = how.time[0] if how.time else _time(ds, (obs,))
    times = _times(ds[time], time, how)
    names, covariates, static = _roles(ds, how, [(obs,)], (item,), {time})
    got = {n: _values(ds, n, how) for n in (*names, *covariates, *static)}
    stops = np.cumsum(sizes)
    labels = _labels(ds, item)
    made = []
    for i, (name, stop) in enumerate(zip(labels, stops, strict=True)):
        part = slice(int(stop - sizes[i]), int(stop))
        made.append(_item(name, times.values[part], [got[n][part] for n in names],
                          [got[n][part] for n in covariates], [got[n][i] for n in static], how,
                          int(part.start)))  # fmt: skip
    form = Labelled(item, time, obs, labels, _about(ds))
    return _items(ds, names, made, covariates, static, times, form)


def _dense(ds: xr.Dataset, how: How) -> Items:
    dim = how.time[0] if how.time else _time(ds, tuple(map(str, ds.dims)))
    if dim not in ds.dims and dim in ds.coords:
        dim = str(ds[dim].dims[0])
    if dim not in ds.dims:
        raise InputError(f"No time dim {dim!r}.{nearest(dim, map(str, ds.dims))}")
    others = {str(d) for n in (how.target or ds.data_vars) for d in ds[n].dims} - {dim}
    item = how.item or next(iter(sorted(others)), "")
    if len(others) > 1:
        raise InputError(
            f"The variables have the dims {sorted({dim, *others})}; expected time, or item and "
            "time: take one place of a field, or stack its dims: ds.stack(item=[..])."
        )
    coord = ds[dim]
    times = _times(coord, dim, how)
    forms = [(dim,), (item, dim), (dim, item)] if item else [(dim,)]
    names, covariates, static = _roles(ds, how, forms, (item,), {dim})
    got = {}
    for name in (*names, *covariates):
        array = ds[name].transpose(..., dim)
        if item and item not in array.dims:
            array = array.expand_dims({item: ds.sizes[item]}).transpose(item, dim)
        got[name] = _values(array.to_dataset(name=name), name, how)
    fixed = {n: _values(ds, n, how) for n in static}
    labels = _labels(ds, item) if item else {"series": ""}
    made = []
    for i, name in enumerate(labels):

        def at(n: str, i: int = i) -> npt.NDArray[np.float64]:
            return got[n][i] if item else got[n]

        made.append(_item(name, times.values, [at(n) for n in names], [at(n) for n in covariates],
                          [fixed[n][i] for n in static], how, 0))  # fmt: skip
    form = Labelled(item, dim, "", labels if item else {}, _about(ds))
    return _items(ds, names, made, covariates, static, times, form)


def _items(
    ds: xr.Dataset,
    names: Sequence[str],
    made: Sequence[Item],
    covariates: Sequence[str],
    static: Sequence[str],
    times: stamps.Times,
    form: Labelled,
) -> Items:
    units = {
        n: str(ds[n].attrs["units"])
        for n in (*names, *covariates, *static)
        if "units" in ds[n].attrs
    }
    out = Items(
        tuple(names), tuple(made), tuple(covariates), tuple(static), units, times.units,
        times.calendar, dict(ds.attrs), form,
    )  # fmt: skip
    rows.remark(out)
    return out


def _item(
    name: str,
    time: npt.NDArray[Any],
    values: Sequence[npt.NDArray[np.float64]],
    covariates: Sequence[npt.NDArray[np.float64]],
    static: Sequence[float],
    how: How,
    start: int,
) -> Item:
    order = rows.in_order(time, name, how, lambda i: f"row {start + i}")
    block = np.stack([*values, *covariates], 1)[order]
    when, block = rows.merged(time[order], block, how.keep)
    known = block[:, len(values) :] if covariates else None
    return Item(
        name, when, block[:, : len(values)], known, np.array(static, float) if static else None
    )


def _time(ds: xr.Dataset, dims: tuple[str, ...]) -> str:
    found = find(ds, "time")
    if found and set(ds[found].dims if found in ds.variables else (found,)) <= set(dims):
        return found
    usual = [str(n) for n, v in ds.variables.items() if v.dims == dims[:1] and is_date(ds[n])]
    if len(usual) == 1:
        return usual[0]
    raise InputError(
        "No dates along a dim; expected a dim or coordinate 'time', or one of that standard_name: "
        f"name it by time.{nearest('time', map(str, ds.variables))}"
    )


def _times(coord: xr.DataArray, name: str, how: How) -> stamps.Times:
    values = coord.values
    out = stamps.read(values, name, lambda i: f"row {i}", how.time_format)
    units = str(coord.attrs.get("units", ""))
    if out.values.dtype.kind == "f" and not out.units and " since " not in units:
        return stamps.Times(out.values, units)
    return out


def _roles(
    ds: xr.Dataset,
    how: How,
    forms: Sequence[tuple[str, ...]],
    item: tuple[str, ...],
    taken: set[str],
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Variables, covariates and static values: as said, or by ``sciddm_role``; in the order of the
    attribute ``sciddm_variables``, which a store does not keep itself."""
    said = [str(n) for n in ds.attrs.get("sciddm_variables", ())]
    every = sorted(map(str, ds.data_vars), key=lambda n: said.index(n) if n in said else len(said))

    def role(word: str) -> tuple[str, ...]:
        return tuple(n for n in every if ds[n].attrs.get("sciddm_role") == word)

    covariates = how.covariates or role("covariate")
    static = how.static or role("static")
    names = how.target or tuple(
        n for n in every
        if ds[n].dims in forms and ds[n].dtype.kind in "fiu"
        and n not in (*covariates, *static, *taken)
    )  # fmt: skip
    if not names:
        raise InputError(
            f"No variable of numbers along {forms[0][-1]!r}.{nearest('', map(str, ds.data_vars))}"
        )
    for name in (*names, *covariates):
        if ds[name].dims not in forms:
            raise InputError(
                f"{name!r} has dims {ds[name].dims}; expected {' or '.join(map(str, forms))}."
            )
    for name in static:
        if ds[name].dims != item:
            raise InputError(f"{name!r} has dims {ds[name].dims}; expected {item}: one an item.")
    return names, covariates, static


def _values(ds: xr.Dataset, name: str, how: How) -> npt.NDArray[np.float64]:
    values = ds[name].values
    flat = columns.numbers(
        values.ravel(), name, lambda i: f"row {i}", how.na_values, how.missing_values
    )
    if np.isnan(flat).all():
        raise InputError(f"{name!r} has no value at all; expected some: name others as target.")
    return flat.reshape(values.shape)


def _labels(ds: xr.Dataset, item: str) -> dict[str, Any]:
    keys = ds[item].values.tolist() if item in ds.coords else list(range(ds.sizes[item]))
    names = [k.decode() if isinstance(k, bytes) else str(k) for k in keys]
    return dict(zip(names, keys, strict=True))


def _about(ds: xr.Dataset) -> dict[str, Mapping[str, Any]]:
    return {str(n): dict(v.attrs) for n, v in ds.variables.items()}
