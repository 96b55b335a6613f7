"""Stores: zarr v3 groups that are whole, or refused.

A missing zarr chunk reads as NaN or zero and, without a checksum, most flipped bits read as data.
So every array here has a checksum in its codec, every chunk is written even when it is empty, and
a finished store carries a manifest, ``sciddm.json``, that lists each array with its shape, type,
chunks, stored bytes and a sha256 of its decoded values. A store without it is unfinished.

Nothing unfinished ever stands under the final name. Beside it, while a run goes on::

    NAME.partial/plan.json     what is being written; a run that plans otherwise is refused
    NAME.partial/store/        the arrays
    NAME.partial/done/         one small file for each finished region

``write`` does it all at once. ``create``, ``put``, ``finalize`` do it region by region, from any
number of processes and in any order, as long as no two write one region at the same time; what
was killed is put again, what is done is kept.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import xarray as xr
import zarr
from zarr.codecs import ZstdCodec

from sciddm.data import disk, manifest
from sciddm.data.names import is_date
from sciddm.errors import InputError, RunError, nearest

CHUNK_BYTES = 1 << 20
"""Size of a default chunk: large enough to compress and read well, small enough to shuffle by."""


def write(
    ds: xr.Dataset,
    path: Path | str,
    *,
    chunks: Mapping[str, int] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a whole Dataset; the final name appears only when every value is on disk.

    Packing, compression and chunks that the Dataset brings from its source are dropped.

    Args:
        chunks: dim to length; other dims stay whole. Default: chunks of about 1 MiB along the
            sample dim.
        overwrite: replace a store that is there, after the new one is complete.

    Raises:
        InputError: something is there already, or the Dataset cannot be stored.
        RunError: the disk refused.
    """
    path = Path(path)
    plan = _start(ds, path, chunks, overwrite, fresh=True)
    streamed = plan["streamed"]
    if streamed:
        lead = _lead(ds, plan)
        step = next(v["chunks"][v["dims"].index(lead)] for v in streamed.values())
        for lo in range(0, ds.sizes[lead], step):
            region = {lead: slice(lo, min(lo + step, ds.sizes[lead]))}
            put(path, ds[list(streamed)].isel(region), region)
    return finalize(path)


def create(
    template: xr.Dataset,
    path: Path | str,
    *,
    chunks: Mapping[str, int] | None = None,
    overwrite: bool = False,
) -> None:
    """Begin a store to be filled with :func:`put`, or go on with one that was begun alike.

    Args:
        template: a Dataset of the final shape; its coordinates, attributes and variables without
            a chunked dim are stored now, the values of the others are not read.
            ``np.broadcast_to(np.float32(0), shape)`` makes one without memory.
        chunks: as for :func:`write`; the dims along which regions are put.

    Raises:
        InputError: a finished store is there (and ``overwrite`` is not said), or an unfinished
            one of another shape.
    """
    _start(template, Path(path), chunks, overwrite, fresh=False)


def put(path: Path | str, ds: xr.Dataset, region: Mapping[str, slice]) -> None:
    """Write one region of whole chunks, read it back, and leave its done record.

    Args:
        ds: every variable that has all the dims of ``region``, with the region's sizes; its
            coordinates along them must be those of the template.
        region: dim to ``slice(start, stop)``; other dims are whole.

    Raises:
        InputError: before anything is written: unknown names, wrong sizes or coordinates, or a
            region that cuts a chunk.
        RunError: the disk refused, or gave back something else.
    """
    path = Path(path)
    partial = _partial(path)
    plan = _plan(path)
    _check_region(plan, ds, region)
    _check_coords(partial / "store", ds, region)
    group = zarr.open_group(partial / "store", mode="r+", use_consolidated=False)
    with disk.one_line(path), zarr.config.set({"array.write_empty_chunks": True}):
        for name, spec in _filled(plan, region).items():
            values = ds[name].transpose(*spec["dims"]).values.astype(spec["dtype"], copy=False)
            where = tuple(region.get(dim, slice(None)) for dim in spec["dims"])
            array = _array(group, name)
            array[where] = values
            if np.asarray(array[where]).tobytes() != np.ascontiguousarray(values).tobytes():
                raise RunError(
                    f"{path}: {name!r} reads back other than written in {region_key(region)}."
                )
        record = {dim: [s.start, s.stop] for dim, s in region.items()}
        disk.write_json(partial / "done" / f"{region_key(region)}.json", record)


def region_key(region: Mapping[str, slice]) -> str:
    """The name of a region in :func:`done`, such as ``member=0-64,time=3-4``."""
    return ",".join(f"{dim}={region[dim].start}-{region[dim].stop}" for dim in sorted(region))


def chunk_of(path: Path | str, dim: str) -> int:
    """The chunk length along ``dim`` of an unfinished store; regions are multiples of it.

    Raises:
        InputError: nothing was begun, or no variable has that dim.
    """
    streamed = _plan(Path(path))["streamed"].values()
    lengths = [v["chunks"][v["dims"].index(dim)] for v in streamed if dim in v["dims"]]
    if not lengths:
        raise InputError(f"No variable of {path} is put along {dim!r}.")
    return math.lcm(*lengths)


def done(path: Path | str) -> frozenset[str]:
    """The regions that an unfinished store holds for good; empty where nothing was begun."""
    return frozenset(f.stem for f in (_partial(Path(path)) / "done").glob("*.json"))


def discard(path: Path | str) -> None:
    """Take an unfinished store away, with all that it holds; a finished one stays."""
    shutil.rmtree(_partial(Path(path)), ignore_errors=True)


def finalize(path: Path | str) -> Path:
    """Check that every region and chunk is there, write the manifest, and take the final name.

    Raises:
        InputError: nothing was begun.
        RunError: regions or chunks are missing; put them and call again.
    """
    path = Path(path)
    partial = _partial(path)
    store = partial / "store"
    if not store.is_dir() and (path / manifest.MANIFEST).exists():
        shutil.rmtree(partial, ignore_errors=True)
        return path
    plan = _plan(path)
    for name, spec in plan["streamed"].items():
        open_cells = ~manifest.covered(partial / "done", spec)
        if open_cells.any():
            at = np.argwhere(open_cells)[0].tolist()
            raise RunError(
                f"{path} is not complete: {int(open_cells.sum())} of {open_cells.size} chunks of "
                f"{name!r} were never put, first {at}; put their regions, then finalize again."
            )
    with disk.one_line(path), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*[Zz]arr.*(specification|format 3).*")
        (store / manifest.MANIFEST).unlink(missing_ok=True)
        zarr.consolidate_metadata(store)
        arrays = {
            str(f.parent.name): manifest.entry_of(f.parent)
            for f in sorted(store.glob("*/zarr.json"))
        }
        for name, entry in arrays.items():
            lost = manifest.missing(store / name, entry)
            if lost:
                raise RunError(f"{path}: {name!r} lacks chunk {lost[0]} ({len(lost)} in all).")
        disk.write_json(
            store / manifest.MANIFEST,
            {
                "format": manifest.FORMAT,
                "metadata": manifest.file_digest(store / "zarr.json"),
                "arrays": arrays,
            },
        )
        disk.swap(store, path)
        shutil.rmtree(partial, ignore_errors=True)
    return path


def open(path: Path | str) -> xr.Dataset:
    """Open a finished store, lazily, after checking that nothing is missing or replaced.

    Every chunk must be there and the stored bytes must add up; the values themselves are checked
    by their codec as they are read, and by :func:`verify` all at once.

    Raises:
        InputError: nothing there, unfinished, written by something else, or altered.
    """
    path = Path(path)
    listed = manifest.read(path)
    problems = manifest.listing(path, listed)
    if problems:
        more = f" ({len(problems)} problems in all)" if len(problems) > 1 else ""
        raise InputError(f"{path} is not whole: {problems[0]}{more}; copy or make it again.")
    return xr.open_zarr(path, consolidated=True, chunks=None)


def verify(path: Path | str) -> list[str]:
    """Read every chunk of a finished store; every problem in a line of its own, [] when whole."""
    path = Path(path)
    try:
        listed = manifest.read(path)
    except InputError as error:
        return [str(error)]
    problems = manifest.listing(path, listed)
    for name, entry in listed["arrays"].items():
        if any(p.startswith(f"{name!r}") and "chunk" in p for p in problems):
            continue
        try:
            if manifest.digest(path / name) != entry["digest"]:
                problems.append(f"{name!r} holds other values than the manifest says")
        except RunError as error:
            problems.append(str(error))
    return problems


def _partial(path: Path) -> Path:
    return path.with_name(path.name + ".partial")


def _plan(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((_partial(path) / "plan.json").read_text()))
    except FileNotFoundError:
        raise InputError(f"No store was begun at {path}; call create first.") from None


def _start(
    ds: xr.Dataset,
    path: Path,
    chunks: Mapping[str, int] | None,
    overwrite: bool,
    *,
    fresh: bool,
) -> dict[str, Any]:
    """Make (or find again) the unfinished store; its plan is written last."""
    _check_place(path, overwrite)
    plan = _make_plan(ds, chunks)
    partial = _partial(path)
    if (partial / "plan.json").exists() and (partial / "store").exists() and not fresh:
        if _plan(path) != plan:
            raise InputError(
                f"{partial} holds an unfinished store of another shape, attributes or "
                "coordinates; finish that run, or delete the folder."
            )
        return plan
    with disk.one_line(path):
        shutil.rmtree(partial, ignore_errors=True)
        (partial / "done").mkdir(parents=True)
        _write_arrays(ds, partial / "store", plan)
        disk.write_json(partial / "plan.json", plan)
    return plan


def _check_place(path: Path, overwrite: bool) -> None:
    if os.path.lexists(path):
        if not overwrite:
            raise InputError(
                f"{path} exists; expected a new name, or overwrite=True to replace it."
            )
        if not ((path / "zarr.json").exists() or (path / ".zgroup").exists()):
            raise InputError(f"{path} exists and is no zarr store; it is not replaced.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path.parent} cannot be made: {error.strerror}.") from error
    if not os.access(path.parent, os.W_OK):
        raise InputError(f"{path.parent} cannot be written to; choose another folder.")


def _make_plan(ds: xr.Dataset, chunks: Mapping[str, int] | None) -> dict[str, Any]:
    """Shapes, types, chunks and a digest of all else that the store will hold."""
    for name in map(str, ds.variables):
        if "/" in name or name.startswith((".", "__")) or name == manifest.MANIFEST:
            raise InputError(f"{name!r} cannot name a stored variable; rename it.")
    asked = dict(_default_chunks(ds) if chunks is None else chunks)
    for dim, length in asked.items():
        if dim not in ds.dims:
            raise InputError(f"No dim {dim!r} to chunk.{nearest(dim, map(str, ds.dims))}")
        if length < 1:
            raise InputError(f"A chunk of {length} along {dim!r}; expected 1 or more.")
    streamed: dict[str, Any] = {}
    fixed = hashlib.sha256(json.dumps(ds.attrs, sort_keys=True, default=_plain).encode())
    for name, da in sorted((str(n), ds[n]) for n in ds.variables):
        if name in ds.data_vars and set(da.dims) & set(asked):
            if da.dtype.kind not in "fiub":
                raise InputError(f"{name!r} holds {da.dtype} values; expected numbers.")
            streamed[name] = {
                "dims": [str(d) for d in da.dims],
                "shape": list(da.shape),
                "chunks": [min(asked.get(str(d), n), n) for d, n in da.sizes.items()],
                "dtype": da.dtype.newbyteorder("=").name,
            }
            if 0 in da.shape:
                raise InputError(f"{name!r} is empty: sizes {dict(da.sizes)}.")
        else:
            fixed.update(f"{name}{da.dims}{da.dtype}".encode())
            fixed.update(manifest.plain_bytes(da.values))
        fixed.update(json.dumps(da.attrs, sort_keys=True, default=_plain).encode())
    return {"format": manifest.FORMAT, "streamed": streamed, "fixed": fixed.hexdigest()}


def _default_chunks(ds: xr.Dataset) -> dict[str, int]:
    """About ``CHUNK_BYTES`` along the sample dim, or the first dim of the largest variable."""
    if not any(da.ndim for da in ds.data_vars.values()):
        return {}
    largest = max(ds.data_vars.values(), key=lambda da: da.nbytes)
    lead = str(ds.attrs.get("sciddm_sample_dim", largest.dims[0]))
    if lead not in largest.dims:
        lead = str(largest.dims[0])
    row = largest.nbytes // max(1, largest.sizes[lead])
    return {lead: max(1, min(largest.sizes[lead], CHUNK_BYTES // max(1, row)))}


def _lead(ds: xr.Dataset, plan: dict[str, Any]) -> str:
    """A dim that every streamed variable has, to write along."""
    shared = set.intersection(*(set(v["dims"]) for v in plan["streamed"].values()))
    lead = str(ds.attrs.get("sciddm_sample_dim", ""))
    if not shared:
        raise InputError("The variables share no chunked dim; write them to stores of their own.")
    first = next(d for v in plan["streamed"].values() for d in v["dims"] if d in shared)
    return lead if lead in shared else first


def _write_arrays(ds: xr.Dataset, store: Path, plan: dict[str, Any]) -> None:
    """Metadata of all arrays, and the values of those that are not streamed."""
    out = ds.drop_vars(plan["streamed"]).compute().drop_encoding()
    encoding: dict[str, dict[str, Any]] = {
        str(name): {"compressors": [ZstdCodec(checksum=True)]} for name in ds.variables
    }
    for name, spec in plan["streamed"].items():
        # One dask chunk, never computed: the graph of a petabyte is one task.
        empty = dask.array.zeros(spec["shape"], dtype=spec["dtype"], chunks=-1)
        out[name] = (spec["dims"], empty, ds[name].attrs)
        encoding[name]["chunks"] = tuple(spec["chunks"])
    for name in set(out.variables) - set(plan["streamed"]):
        encoding[str(name)]["chunks"] = out[name].shape
        if is_date(out[name]):
            # How dates are counted is the store's choice; what the source said would clash with it.
            out[name].attrs = {
                k: v for k, v in out[name].attrs.items() if k not in ("units", "calendar")
            }
    with warnings.catch_warnings():
        # Text labels have no final zarr v3 type yet; they are read back with this same zarr.
        warnings.filterwarnings("ignore", ".*does not have a Zarr V3 specification.*")
        out.to_zarr(
            store,
            mode="w",
            zarr_format=3,
            consolidated=False,
            compute=False,
            encoding=encoding,
            write_empty_chunks=True,
        )


def _filled(plan: dict[str, Any], region: Mapping[str, slice]) -> dict[str, Any]:
    """The variables that a put of this region must bring."""
    return {n: s for n, s in plan["streamed"].items() if set(region) <= set(s["dims"])}


def _check_region(plan: dict[str, Any], ds: xr.Dataset, region: Mapping[str, slice]) -> None:
    wanted = _filled(plan, region)
    if not region or not wanted:
        known = sorted({d for s in plan["streamed"].values() for d in s["dims"]})
        raise InputError(f"No variable has the dims {list(region)}.{nearest('', known)}")
    if set(map(str, ds.data_vars)) != set(wanted):
        raise InputError(
            f"The region brings {sorted(map(str, ds.data_vars))}; expected {sorted(wanted)}."
        )
    for name, spec in wanted.items():
        if set(map(str, ds[name].dims)) != set(spec["dims"]):
            raise InputError(f"{name!r} has dims {ds[name].dims}; expected {spec['dims']}.")
        for dim, size, chunk in zip(spec["dims"], spec["shape"], spec["chunks"], strict=True):
            part = region.get(dim, slice(0, size))
            if part.step not in (None, 1) or not 0 <= part.start < part.stop <= size:
                raise InputError(f"{part} is no region of {dim!r}, whose size is {size}.")
            if part.start % chunk or (part.stop % chunk and part.stop != size):
                raise InputError(
                    f"Region {dim}={part.start}:{part.stop} cuts a chunk of {name!r}; expected "
                    f"multiples of {chunk}: two writers in one chunk lose data."
                )
            if ds.sizes[dim] != part.stop - part.start:
                raise InputError(
                    f"{name!r} brings {ds.sizes[dim]} along {dim!r} for the region "
                    f"{part.start}:{part.stop}."
                )


def _check_coords(store: Path, ds: xr.Dataset, region: Mapping[str, slice]) -> None:
    """Refuse a region whose own coordinates say that it belongs elsewhere."""
    stored = xr.open_zarr(store, consolidated=False, chunks=None)
    for dim in ds.dims:
        if dim not in ds.coords or dim not in stored.coords:
            continue
        expected = stored[dim].isel({dim: region.get(str(dim), slice(None))}).values
        if not np.array_equal(ds[dim].values, expected):
            raise InputError(
                f"The coordinate {dim!r} of the region {region_key(region)} is not the store's "
                "there; expected the same values: select the region from the same Dataset."
            )


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    found = group[name]
    assert isinstance(found, zarr.Array)
    return found


def _plain(value: object) -> object:
    """numpy scalars and arrays for JSON."""
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else str(value)
