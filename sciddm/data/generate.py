"""Generation: a data set made sample by sample, by any number of processes, to the same bytes.

A recipe of the shelf defines ``fields(samples, grid, seed, start, ...)``: samples ``start`` on of a
seed, labelled (:func:`labelled`), the same whatever else is made with them. Its ``make`` hands the
rest to :func:`make` here::

    the samples are cut into blocks of whole chunks;  a block is one dask task
    a task loads the recipe by its path, calls ``fields`` and puts the region into the store
    the store takes its final name when every region is there

So a run that was killed goes on where it stood, with finished blocks kept, and the bytes are those
of one process in one go. Numerical libraries have one thread in a process: how a sum is cut must
not depend on the machine.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import dask
import numpy as np
import xarray as xr
from dask.callbacks import Callback

from sciddm import recipe as recipes
from sciddm.data import store as stores
from sciddm.errors import InputError, RunError, nearest

CHUNK_VALUES = 1 << 20
"""Values in a chunk of the largest variable, at most: 4 MiB of float32."""
WORTH = 10.0
"""Seconds of work from which on workers are started: each spends seconds on its imports."""
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")

Variable = tuple[Sequence[str], np.ndarray, Mapping[str, Any]]


def machine() -> int:
    """How many workers this process may keep busy: its cores."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def sized(
    sizes: Mapping[str, tuple[int, int]], size: str, samples: int | None, grid: int | None
) -> tuple[int, int]:
    """Samples and points a side of ``size``, either of them replaced by what is not None.

    Raises `InputError` for a size that is not in ``sizes``.
    """
    if size not in sizes:
        raise InputError(f"Got size {size!r}, expected a known one.{nearest(size, sizes)}")
    known = sizes[size]
    return known[0] if samples is None else samples, known[1] if grid is None else grid


def square(
    grid: int, *, centres: bool = False
) -> dict[str, tuple[str, np.ndarray, dict[str, str]]]:
    """Coordinates of the nodes ``i / (grid - 1)`` of the unit square, or of its cell centres."""
    axis = (np.arange(grid) + 0.5) / grid if centres else np.linspace(0.0, 1.0, grid)
    return {
        "y": ("y", axis, {"units": "1", "long_name": "second coordinate", "axis": "Y"}),
        "x": ("x", axis, {"units": "1", "long_name": "first coordinate", "axis": "X"}),
    }


def labelled(
    variables: Mapping[str, Variable],
    coords: Mapping[str, Any],
    *,
    name: str,
    title: str,
    start: int,
    numbers: Mapping[str, object],
    seed: int,
    version: int = 1,
    validation: float = 0.05,
    test: float = 0.05,
) -> xr.Dataset:
    """Samples ``start`` on as a Dataset with all that a store says of itself.

    Args:
        variables: name to (dims, values, attributes); the first dim of each is ``sample``.
        coords: of the other dims, see :func:`square`.
        name: the recipe's.
        numbers: the parameters, the grid among them; with ``version`` and ``seed`` they say which
            bytes these are. A new version is a generator that makes other bytes.
        validation, test: shares held out, see :func:`splits`.
    """
    samples = len(next(iter(variables.values()))[1])
    index = ("sample", np.arange(start, start + samples), {"long_name": "sample number"})
    return xr.Dataset(
        {n: (tuple(dims), values, dict(attrs)) for n, (dims, values, attrs) in variables.items()},
        {"sample": index, **coords},
        {
            "Conventions": "CF-1.10",
            "title": title,
            "sciddm_dataset": name,
            "sciddm_sample_dim": "sample",
            "sciddm_splits": splits(samples, validation, test),
            "sciddm_generator": {"version": version, "seed": seed, "samples": samples, **numbers},
        },
    )


def splits(samples: int, validation: float = 0.05, test: float = 0.05) -> dict[str, list[int]]:
    """By order: the last share for the test, the one before for validation, the rest to train.

    The samples are independent, so no gap is needed; each share is one sample at least.
    """
    last = max(0, samples - max(1, round(test * samples)))
    middle = max(0, last - max(1, round(validation * samples)))
    return {"train": [0, middle], "validation": [middle, last], "test": [last, samples]}


def make(
    recipe: str | Path,
    store: str | Path,
    *,
    samples: int,
    grid: int,
    seed: int = 0,
    numbers: Mapping[str, object] | None = None,
    validation: float = 0.05,
    test: float = 0.05,
    workers: int = 1,
    resume: bool = False,
    overwrite: bool = False,
) -> xr.Dataset:
    """Fill the zarr ``store`` with the fields of a recipe, and open it.

    Progress goes to standard error. Interrupted or killed, the run leaves ``STORE.partial``, which
    ``resume`` completes to the bytes of an unbroken run.

    Args:
        recipe: path of the file that defines ``fields``; a recipe says ``__file__``.
        numbers: further keywords of ``fields``.
        validation, test: shares held out, as ``fields`` has them.
        workers: processes, at most; a few seconds of work are done in this one. More than 1 need
            what every script that spawns needs, the line ``if __name__ == "__main__":``.
        resume: go on with a store that was begun with the same numbers; open one that is finished.
        overwrite: replace a store that is there, when the new one is whole.

    Raises:
        InputError: before anything is written: fewer than 3 samples, numbers that ``fields``
            refuses, a store that is there, or that was begun otherwise.
        RunError: a worker died, or the disk refused; what is done is kept.
    """
    if samples < 3 or workers < 1:
        raise InputError(
            f"Got {samples} samples and {workers} workers; three splits need at least 3 samples, "
            "and the work at least 1 worker."
        )
    path, extra = Path(store), dict(numbers or {})
    head, seconds = _first(str(recipe), grid, seed, extra)
    template = _template(head, samples, splits(samples, validation, test))
    dim = str(template.attrs["sciddm_sample_dim"])
    if resume and path.exists():
        return _finished(path, template)
    partial = path.with_name(f"{path.name}.partial")
    if partial.exists() and not resume:
        if not overwrite:
            raise InputError(
                f"{path} was begun by an earlier run; say resume to go on with it, or overwrite "
                "to begin again."
            )
        stores.discard(path)
    chunk = _chunk(template, dim)
    stores.create(template, path, chunks={dim: chunk}, overwrite=overwrite)
    blocks = [(lo, min(lo + chunk, samples)) for lo in range(0, samples, chunk)]
    finished = stores.done(path)
    left = [b for b in blocks if stores.region_key({dim: slice(*b)}) not in finished]
    task = dask.delayed(_block, pure=False)
    tasks = [task(str(recipe), str(path), dim, b, grid, seed, extra) for b in left]
    sizes = [hi - lo for lo, hi in left]
    if seconds * sum(sizes) < WORTH:
        workers = 1
    with _progress(path, Path(recipe).stem, samples, sizes), _computing(workers, len(left)) as how:
        dask.compute(*tasks, traverse=False, optimize_graph=False, **how)
    return stores.open(stores.finalize(path))


def _block(
    recipe: str,
    store: str,
    dim: str,
    block: tuple[int, int],
    grid: int,
    seed: int,
    numbers: dict[str, Any],
) -> None:
    """One task: make the samples of a region and put them, whole chunks and nobody else's."""
    lo, hi = block
    ds = _load(recipe).fields(hi - lo, grid, seed, lo, **numbers)
    streamed = [name for name in ds.data_vars if dim in ds[name].dims]
    stores.put(store, ds[streamed], {dim: slice(lo, hi)})


@functools.lru_cache(maxsize=8)
def _load(recipe: str) -> ModuleType:
    module = recipes.load(recipe, "datasets")
    if not callable(getattr(module, "fields", None)):
        raise InputError(
            f"{recipe} defines no fields(samples, grid, seed, start); workers call it by that name."
        )
    return module


def _first(recipe: str, grid: int, seed: int, numbers: dict[str, Any]) -> tuple[xr.Dataset, float]:
    """The first sample, and the seconds that one takes when nothing has to be set up any more."""
    fields, best = _load(recipe).fields, np.inf
    while True:
        started = time.perf_counter()
        head = fields(1, grid, seed, 0, **numbers)
        last, best = best, time.perf_counter() - started
        if best > 0.5 or last < np.inf:
            return head, min(last, best)


def _template(head: xr.Dataset, samples: int, parts: dict[str, list[int]]) -> xr.Dataset:
    """The whole data set without memory for its values, from its first sample."""
    dim = str(head.attrs["sciddm_sample_dim"])
    out = head.drop_vars([n for n in head.variables if dim in head[n].dims])
    for name, first in head.data_vars.items():
        if dim in first.dims:
            shape = tuple(samples if d == dim else n for d, n in first.sizes.items())
            empty = np.broadcast_to(np.zeros((), first.dtype), shape)
            out[name] = (first.dims, empty, first.attrs)
    out = out.assign_coords({dim: (dim, np.arange(samples), head[dim].attrs)})
    made = {**head.attrs["sciddm_generator"], "samples": samples}
    return out[list(head.data_vars)].assign_attrs(sciddm_splits=parts, sciddm_generator=made)


def _chunk(template: xr.Dataset, dim: str) -> int:
    largest = max(v.size for v in template.data_vars.values() if dim in v.dims)
    row = largest // template.sizes[dim]
    return min(template.sizes[dim], max(1, CHUNK_VALUES // row))


def _finished(path: Path, template: xr.Dataset) -> xr.Dataset:
    """What stands there, if it is what was asked for."""
    ds = stores.open(path)
    for key in ("sciddm_dataset", "sciddm_generator"):
        if ds.attrs.get(key) != template.attrs[key]:
            raise InputError(
                f"{path} holds {ds.attrs.get(key)}, expected {template.attrs[key]}; name another "
                "store, or say overwrite without resume."
            )
    if not (path.with_name(f"{path.name}.partial") / "store").exists():
        stores.finalize(path)  # what a kill at the very end left behind
    return ds


@contextmanager
def _progress(path: Path, name: str, samples: int, sizes: list[int]) -> Iterator[None]:
    """A line on standard error at every tenth, and one that says what an interruption leaves."""
    todo, kept, started = sum(sizes), samples - sum(sizes), time.monotonic()
    # All blocks are of one size but the last; which one a task was, is not told.
    count, tenth = 0, 10 * kept // samples

    def after(*_: object) -> None:
        nonlocal count, tenth
        count += 1
        made = todo if count == len(sizes) else min(count * sizes[0], todo)
        if 10 * (kept + made) // samples > tenth:
            tenth = 10 * (kept + made) // samples
            spent = time.monotonic() - started
            left = f", {spent * (todo - made) / made:.0f} s left" if made < todo else ""
            print(f"{name}: {kept + made} of {samples} samples{left}", file=sys.stderr, flush=True)

    try:
        with Callback(posttask=after):
            yield
    except KeyboardInterrupt:
        done = len(stores.done(path))
        print(f"{name}: {done} blocks are kept; say --resume.", file=sys.stderr, flush=True)
        raise


@contextmanager
def _computing(workers: int, blocks: int) -> Iterator[dict[str, Any]]:
    """How dask computes: in this process, or in a pool whose processes end with this one."""
    if min(workers, blocks) <= 1:
        with _one_thread():
            yield {"scheduler": "sync"}
        return
    context = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    with _environment(dict.fromkeys(THREADS, "1")):
        pool = ProcessPoolExecutor(min(workers, blocks), context, _begin, (os.getpid(),))
        try:
            yield {"scheduler": "processes", "pool": pool, "chunksize": 1}
        except BrokenProcessPool as error:
            raise RunError(
                "A worker died, most likely out of memory; finished blocks are kept: go on with "
                "resume and fewer workers."
            ) from error
        except BaseException:
            # A block may take minutes, and what it has half put is put again.
            for child in set(multiprocessing.active_children()) - others:
                child.terminate()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def _begin(parent: int) -> None:
    """A worker leaves interrupts to its parent, and does not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread for the tensor library, where a recipe has brought it in."""
    torch: Any = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
