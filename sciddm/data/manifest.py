"""The manifest of a finished store: what it holds, and whether it still holds it.

``sciddm.json`` lists each array with its shape, type, chunks, stored bytes, a sha256 of its
metadata and a sha256 of its decoded values, so two stores with equal values have equal digests
whatever compressed them.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from sciddm.errors import InputError, RunError

MANIFEST = "sciddm.json"
FORMAT = 1


def read(path: Path) -> dict[str, Any]:
    """The manifest of a finished store.

    Raises:
        InputError: nothing there, no manifest, or one that this version cannot read.
    """
    if not path.exists():
        begun = path.with_name(path.name + ".partial")
        hint = f": {begun} is unfinished; go on with that run" if begun.exists() else ""
        raise InputError(f"{path} does not exist{hint}.")
    try:
        manifest = dict(json.loads((path / MANIFEST).read_text()))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f"{path} has no {MANIFEST}: it is unfinished, or not written by sciddm; make a "
            "store of it with the data set 'netcdf'."
        ) from None
    except (ValueError, OSError) as error:
        raise InputError(f"{path / MANIFEST} cannot be read: {error}.") from error
    if manifest.get("format") != FORMAT:
        raise InputError(
            f"{path} has format {manifest.get('format')!r}; this version reads {FORMAT}."
        )
    wanted = {"shape", "chunk", "bytes", "metadata", "digest"}
    arrays = manifest.get("arrays")
    if not isinstance(arrays, dict) or not all(wanted <= set(a) for a in arrays.values()):
        raise InputError(f"{path / MANIFEST} was changed and lists no arrays; make it again.")
    return manifest


def entry_of(folder: Path) -> dict[str, Any]:
    """The manifest's line for one array."""
    meta = json.loads((folder / "zarr.json").read_text())
    shape = meta["shape"]
    chunks = meta["chunk_grid"]["configuration"]["chunk_shape"]
    return {
        "shape": shape,
        "dtype": meta["data_type"] if isinstance(meta["data_type"], str) else "text",
        "chunk": chunks,
        "chunks": math.prod(math.ceil(n / c) for n, c in zip(shape, chunks, strict=True)),
        "bytes": sum(f.stat().st_size for f in _chunk_files(folder)),
        "metadata": file_digest(folder / "zarr.json"),
        "digest": digest(folder),
    }


def _chunk_files(folder: Path) -> list[Path]:
    """Every stored chunk of one array: the file ``c`` of a scalar, or the files below it."""
    root = folder / "c"
    return [root] if root.is_file() else [f for f in root.rglob("*") if f.is_file()]


def _grid(entry: Mapping[str, Any]) -> Iterator[tuple[int, ...]]:
    """Every index of the chunk grid, in C order."""
    sizes = zip(entry["shape"], entry["chunk"], strict=True)
    return itertools.product(*(range(math.ceil(n / c)) for n, c in sizes))


def missing(folder: Path, entry: Mapping[str, Any]) -> list[list[int]]:
    """The index of every chunk without a file."""
    there = {f.relative_to(folder).as_posix() for f in _chunk_files(folder)}
    return [list(at) for at in _grid(entry) if "/".join(map(str, ("c", *at))) not in there]


def listing(path: Path, manifest: Mapping[str, Any]) -> list[str]:
    """What is missing or replaced, told without reading a value."""
    problems = []
    if file_digest(path / "zarr.json") != manifest.get("metadata"):
        problems.append("its attributes or metadata were changed")
    for name, entry in manifest["arrays"].items():
        folder = path / name
        if file_digest(folder / "zarr.json") != entry["metadata"]:
            problems.append(f"{name!r} has other metadata than the manifest says")
            continue
        lost = missing(folder, entry)
        problems += [f"{name!r} lacks chunk {at}" for at in lost]
        held = sum(f.stat().st_size for f in _chunk_files(folder))
        if not lost and held != entry["bytes"]:
            problems.append(f"{name!r} holds {held} bytes; expected {entry['bytes']}")
    return problems


def covered(folder: Path, spec: dict[str, Any]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which cells of an array's chunk grid the done records account for."""
    grid = tuple(math.ceil(n / c) for n, c in zip(spec["shape"], spec["chunks"], strict=True))
    cells = np.zeros(grid, bool)
    for file in folder.glob("*.json"):
        record = json.loads(file.read_text())
        if not set(record) <= set(spec["dims"]):
            continue
        where = []
        for dim, chunk in zip(spec["dims"], spec["chunks"], strict=True):
            lo, hi = record.get(dim, (0, None))
            where.append(slice(lo // chunk, None if hi is None else math.ceil(hi / chunk)))
        cells[tuple(where)] = True
    return cells


def digest(folder: Path) -> str:
    """sha256 of the decoded values, chunk by chunk in C order.

    Raises:
        RunError: at the first chunk that cannot be decoded.
    """
    array = zarr.open_array(folder, mode="r")
    total = hashlib.sha256()
    entry = {"shape": array.shape, "chunk": array.chunks}
    for at in _grid(entry):
        where = tuple(slice(i * c, (i + 1) * c) for i, c in zip(at, array.chunks, strict=True))
        try:
            values = np.asarray(array[where])
        except Exception as error:  # each codec has its own
            raise RunError(f"{folder.name!r} chunk {list(at)} cannot be read: {error}") from error
        total.update(plain_bytes(values))
    return total.hexdigest()


def plain_bytes(values: np.ndarray[Any, Any]) -> bytes:
    """Values as bytes that do not depend on the machine."""
    if values.dtype.kind in "OTU":
        return json.dumps([str(v) for v in values.flat]).encode()
    return np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<"))).tobytes()


def file_digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.exists() else ""
