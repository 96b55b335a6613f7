"""Films: windows of consecutive frames out of one long record, or out of every sample.

A record has the dims (time, *space) and ``task.sample == task.time``; a set of films has (sample,
time, *space). Windows never cross a missing time step and never leave their split or their film.
"""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sciddm.data.codec import Codec
from sciddm.data.forcing import Forcings
from sciddm.data.window import Batches, starts
from sciddm.denoise import Context
from sciddm.errors import InputError, nearest
from sciddm.task import Task


def frames(ds: xr.Dataset, task: Task) -> xr.Dataset:
    """Every frame of ``ds`` as a sample of its own, along the dim ``task.sample``: what statistics
    of single frames are taken from."""
    if task.sample == task.time:
        return ds
    bare = ds.drop_vars([task.sample, task.time], errors="ignore")
    flat = bare.stack({"frame": (task.sample, task.time)}, create_index=False)
    return flat.transpose("frame", ...).rename({"frame": task.sample}).drop_attrs(deep=False)


def encode(ds: xr.Dataset, codec: Codec) -> Tensor:
    """Films (n, time, *space) of ``ds``, its two leading dims in this order: (n, C, T, *grid)."""
    names = [n for n in codec.variables if n in ds]
    lead = [str(d) for d in ds[names[0]].dims if d not in codec.grid.dims]
    order = (*lead, *codec.grid.dims)
    arrays = {n: ds[n].transpose(*order).values for n in names}
    return _film(arrays, codec)


def _film(arrays: dict[str, np.ndarray], codec: Codec) -> Tensor:
    """Films (n, T, *grid) by variable name -> (n, C, T, *grid)."""
    rows = len(next(iter(arrays.values())))
    x = codec.encode({n: v.reshape(-1, *v.shape[2:]) for n, v in arrays.items()})
    return x.unflatten(0, (rows, -1)).transpose(1, 2).contiguous()


class Films:
    """Windows of ``window`` frames of one split, by step number or evenly spread.

    forcings : what is known beside the frames, or None. rank, world : this process, of how many.
    Raises `InputError` for a record or films shorter than a window.
    """

    def __init__(
        self,
        ds: xr.Dataset,
        codec: Codec,
        task: Task,
        window: int,
        forcings: Forcings | None = None,
        *,
        batch: int = 1,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if task.time not in ds.dims:
            raise InputError(
                f"The data have no time dim {task.time!r}.{nearest(task.time, map(str, ds.dims))}"
            )
        self.ds, self.codec, self.task, self.window = ds, codec, task, window
        self.seed, self.record = seed, task.sample == task.time
        names = [n for n in codec.variables if n in ds]
        if ds.sizes[task.time] < window:
            raise InputError(
                f"The data have {ds.sizes[task.time]} frames along {task.time!r}; expected at "
                f"least {window}, the past and the future of one training film."
            )
        if not self.record:  # batches want the time axis next to the sample dim
            ds = ds.transpose(task.sample, task.time, ...)
        self._batches = Batches(
            ds,
            names,
            sample_dim=task.sample,
            batch=batch,
            seed=seed,
            length=window if self.record else 1,
            rank=rank,
            world=world,
        )
        self._rank, self._starts = rank, starts(ds, task.time, window)
        given = None if forcings is None else forcings.at(ds[task.time], _record(ds, task))
        self._forcings = None if given is None else torch.from_numpy(np.ascontiguousarray(given))
        self._fields = static(forcings)

    def at(self, step: int) -> tuple[Tensor, Context]:
        """The films (B, C, window, *grid) of a step, and what was known beside them."""
        where, arrays = self._batches.index(step), self._batches.at(step)
        first = where
        if not self.record:
            first = self._crop(step, len(where))
            arrays = {
                n: np.stack([v[i, a : a + self.window] for i, a in enumerate(first)])
                for n, v in arrays.items()
            }
        return _film(arrays, self.codec), self._context(first, torch.from_numpy(where))

    def spread(self, limit: int) -> tuple[Tensor, Context]:
        """Up to ``limit`` windows, evenly spread over the split: the same at every call."""
        time, window = self.task.time, self.window
        if self.record:
            where = first = self._starts[_even(len(self._starts), limit)]
            parts = [self.ds.isel({time: slice(a, a + window)}) for a in first]
        else:
            chosen = _even(self.ds.sizes[self.task.sample] * len(self._starts), limit)
            where, place = np.divmod(chosen, len(self._starts))
            first = self._starts[place]
            parts = [
                self.ds.isel({self.task.sample: i, time: slice(a, a + window)})
                for i, a in zip(where, first, strict=True)
            ]
        names, dims = list(self.codec.variables), (time, *self.codec.grid.dims)
        arrays = {
            n: np.stack([p[n].transpose(*dims).values for p in parts])
            for n in names
            if n in self.ds
        }
        return _film(arrays, self.codec), self._context(first, torch.from_numpy(where))

    def _crop(self, step: int, rows: int) -> np.ndarray:
        key = np.random.SeedSequence([self.seed, step, self._rank, 11])
        share = np.random.Generator(np.random.Philox(key)).random(rows)
        return self._starts[(share * len(self._starts)).astype(int)]

    def _context(self, first: np.ndarray, where: Tensor) -> Context:
        known = None
        if self._forcings is not None:
            parts = [self._forcings[:, a : a + self.window] for a in first]
            known = on_grid(torch.stack(parts), len(self.codec.grid.dims))
        return Context(fields=self._fields, index=where, forcings=known)


def static(forcings: Forcings | None) -> Tensor | None:
    """The fields that never change, (1, S, *grid), or None."""
    if forcings is None or forcings.static is None:
        return None
    return torch.from_numpy(np.asarray(forcings.static, dtype=np.float32))[None]


def on_grid(known: Tensor, dims: int) -> Tensor:
    """Forcings (B, K, T) or (B, K, T, *grid) with ones in the place of a grid that is missing."""
    return known if known.ndim > 3 else known.reshape(*known.shape, *[1] * dims)


def _record(ds: xr.Dataset, task: Task) -> xr.Dataset:
    """The forcing variables of a record; films share those of their time axis."""
    return ds if task.sample == task.time else ds.drop_dims(task.sample)


def _even(count: int, limit: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, min(limit, count)).astype(int))
