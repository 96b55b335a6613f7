"""Files of the user's own, one or many, as one store.

Each file is brought to the one layout, the later ones onto the grid and the units of the first,
and joined along the sample dim in order of time. Nothing is joined by an outer union, and nothing
but one block of samples is in memory at a time.
"""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xarray as xr

from sciddm.data import checks, schema, store
from sciddm.errors import InputError

KEPT = ("units", "long_name", "standard_name", "axis", "positive", "cell_methods")
"""Attributes that stay true whatever wrote the file; packing, grid mappings and bounds do not."""


@dataclass(frozen=True)
class Source:
    """Conformed parts of one data set, in order of time; ``dim`` counts the samples."""

    parts: tuple[xr.Dataset, ...]
    names: tuple[str, ...]
    dim: str

    def __len__(self) -> int:
        """Samples in all."""
        return sum(p.sizes[self.dim] for p in self.parts)

    def template(self) -> xr.Dataset:
        """A float32 Dataset of the whole, with every coordinate and without memory for values."""
        first = self.parts[0]
        axis = np.concatenate([p[self.dim].values for p in self.parts])
        coords = {
            str(n): (c.dims, c.values, _kept(c))
            for n, c in first.coords.items()
            if self.dim not in c.dims
        }
        coords[self.dim] = ((self.dim,), axis, _kept(first[self.dim]))
        data = {}
        for name in self.names:
            shape = (len(self), *first[name].shape[1:])
            values = np.broadcast_to(np.float32(0), shape)
            data[name] = (first[name].dims, values, _kept(first[name]))
        return xr.Dataset(data, coords).assign_attrs(sciddm_sample_dim=self.dim)

    def rows(self, lo: int, hi: int, missing_values: Sequence[float] = ()) -> xr.Dataset:
        """Samples ``lo`` to ``hi`` as float32, read now."""
        pieces: dict[str, list[npt.NDArray[np.float32]]] = {name: [] for name in self.names}
        start = 0
        for part in self.parts:
            stop = start + part.sizes[self.dim]
            window = slice(max(lo - start, 0), max(min(hi, stop) - start, 0))
            if window.stop > window.start:
                for name in self.names:
                    block = part[name].isel({self.dim: window}).values
                    pieces[name].append(checks.as_float32(block, missing_values))
            start = stop
        dims = {name: self.parts[0][name].dims for name in self.names}
        return xr.Dataset({n: (dims[n], np.concatenate(p)) for n, p in pieces.items()})


def _kept(da: xr.DataArray) -> dict[str, object]:
    return {k: v for k, v in da.attrs.items() if k in KEPT}


def files(source: str) -> list[Path]:
    """The file or store of that name, or everything that matches it as a pattern.

    Raises:
        InputError: nothing there.
    """
    found = [Path(source)]
    if not found[0].exists() and glob.has_magic(source):
        found = [Path(f) for f in sorted(glob.glob(source))]
    if not found or not found[0].exists():
        raise InputError(
            f"Nothing at {source!r}; expected a NetCDF file, a zarr store, or a pattern."
        )
    return found


def read(
    paths: Sequence[Path], names: Sequence[str], *, sample_dim: str = "", time_format: str = ""
) -> Source:
    """Open the files lazily and line them up.

    Raises:
        InputError: naming the file: variables, dims, coordinates or units unlike the first file's,
            another calendar, or times that overlap.
    """
    parts: list[xr.Dataset] = []
    for path in paths:
        try:
            ds = schema.open_any(path)
            part = schema.conform(ds, names, sample_dim=sample_dim, time_format=time_format)
            if parts:
                dim = str(parts[0].attrs["sciddm_sample_dim"])
                part = schema.on_grid(part, parts[0])
                _same_calendar(part[dim], parts[0][dim])
            parts.append(part)
        except InputError as error:
            said = str(error) if str(path) in str(error) else f"{path}: {error}"
            raise InputError(said) from error
    dim = str(parts[0].attrs["sciddm_sample_dim"])
    if len(parts) > 1 and parts[0][dim].dtype.kind in "MO":
        parts.sort(key=lambda p: p[dim].values[0])
    out = Source(tuple(parts), tuple(names), dim)
    axis = out.template()[dim]
    if axis.dtype.kind in "MO":
        checks.check_time(axis)
    return out


def _same_calendar(axis: xr.DataArray, first: xr.DataArray) -> None:
    if axis.dtype.kind != first.dtype.kind:
        raise InputError(
            f"{axis.name!r} holds {axis.dtype} values, in the first file {first.dtype}."
        )
    if axis.dtype.kind == "O" and axis.dt.calendar != first.dt.calendar:
        raise InputError(
            f"{axis.name!r} is in the calendar {axis.dt.calendar!r}, in the first file "
            f"{first.dt.calendar!r}; expected one: ds.convert_calendar(...)."
        )


def check(
    source: Source,
    *,
    missing: Sequence[str] = (),
    missing_values: Sequence[float] = (),
    continuous: Sequence[str] = (),
    strict: bool = False,
) -> None:
    """Read every value once; refuse what :func:`schema.check_field` refuses, and a land mask that
    differs between files."""
    first: dict[str, xr.DataArray] | None = None
    for part in source.parts:
        report = schema.check_field(
            part,
            missing=missing,
            missing_values=missing_values,
            continuous=continuous,
            strict=strict,
        )
        masks = {n: m for n, m in report.masks.items() if n not in missing}
        first = masks if first is None else first
        for name in {*first, *masks}:
            a, b = first.get(name), masks.get(name)
            if a is None or b is None or not np.array_equal(a.values, b.values):
                at = part[source.dim].values[0]
                raise InputError(
                    f"{name!r} has gaps (NaN) in other cells from {source.dim}={at} on; expected "
                    f"the land mask of the samples before: declare missing=({name!r},)."
                )


def write(
    source: Source,
    template: xr.Dataset,
    path: Path | str,
    *,
    chunk: int = 0,
    missing_values: Sequence[float] = (),
    overwrite: bool = False,
) -> Path:
    """Write block by block; a run that was killed goes on where it stopped.

    Args:
        template: :meth:`Source.template` with the attributes wanted.
        chunk: samples in a chunk; default about 1 MiB.
    """
    chunks = {source.dim: chunk} if chunk else None
    store.create(template, path, chunks=chunks, overwrite=overwrite)
    step = store.chunk_of(path, source.dim)
    for lo in range(0, len(source), step):
        region = {source.dim: slice(lo, min(lo + step, len(source)))}
        if store.region_key(region) not in store.done(path):
            store.put(path, source.rows(lo, lo + step, missing_values), region)
    return store.finalize(path)
