"""Training batches: a pure function of (seed, step), read along the chunks of the store.

Reading samples one by one in random order decodes a whole chunk for each; shuffling only inside
chunks leaves neighbours together. So an epoch is drawn in two steps: the chunks are shuffled and
dealt into groups of ``mix``, then all windows of a group are shuffled together and the groups
joined. With ``mix`` of at least the number of chunks this is a plain shuffle of everything.

The order is fixed by (seed, epoch) alone: it depends neither on the cache, nor on what was read
before, nor on the platform, so a run resumed at step k sees what it would have seen.

    step -> epoch, position -> windows -> chunks, decoded once, from a cache of ``cache_bytes``
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import xarray as xr

from sciddm.data import checks, split
from sciddm.data.names import is_date
from sciddm.data.schema import variables as choose
from sciddm.errors import InputError, RunError

Chunk = dict[str, npt.NDArray[np.float32]]


class Batches:
    """Batches of windows of a Dataset, by step number.

    A window is ``length`` consecutive samples; it never crosses a missing time step, and never
    leaves the Dataset, which is one split. Within an epoch no window comes twice, on any rank.

    Args:
        ds: one split, as :func:`sciddm.data.split.select` gives it, or a Dataset without splits.
        variables: names, in the order wanted.
        sample_dim: the dim that counts the samples; default the attribute ``sciddm_sample_dim``.
        batch: windows in a batch, on each rank.
        seed: fixes the order, together with the epoch.
        length: samples in a window; 1 gives ``(batch, *space)``, more ``(batch, length, *space)``.
        mix: chunks that are shuffled together; more mix better and need more memory.
        cache_bytes: bound on the decoded chunks that are kept.
        rank, world: this process, of how many; each gets batches of its own.

    Raises:
        InputError: unknown variables, too few windows, a Dataset that is not one split, or a cache
            smaller than a group of chunks.
    """

    def __init__(
        self,
        ds: xr.Dataset,
        variables: Sequence[str],
        *,
        batch: int,
        seed: int,
        sample_dim: str = "",
        length: int = 1,
        mix: int = 16,
        cache_bytes: int = 1 << 30,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        for word, value in (("batch", batch), ("length", length), ("mix", mix), ("world", world)):
            if value < 1:
                raise InputError(f"{word}={value}; expected 1 or more.")
        if not 0 <= rank < world:
            raise InputError(f"rank={rank} of world={world}; expected 0 to {world - 1}.")
        if split.read(ds):
            raise InputError(
                "This Dataset holds several splits; expected one: "
                f"split.select(ds, {next(iter(split.read(ds)))!r})."
            )
        dim = sample_dim or str(ds.attrs.get("sciddm_sample_dim", ""))
        self._ds = _checked(choose(ds, variables), dim)
        self._dim, self._batch, self._seed, self._length = dim, batch, seed, length
        self._mix, self._rank, self._world, self._bytes = mix, rank, world, cache_bytes
        self._edges = _edges(self._ds, dim)
        self._starts = starts(self._ds, dim, length)
        self._cache: OrderedDict[int, Chunk] = OrderedDict()
        self._order: tuple[int, npt.NDArray[np.int64]] = (-1, self._starts)
        if len(self) < 1:
            raise InputError(
                f"{self._starts.size} windows of {length} samples are too few for {world} x {batch}"
                " at a time; expected at least one batch: use a smaller batch."
            )
        self._check_cache()

    def __len__(self) -> int:
        """Batches in an epoch, the same on every rank; what is left over waits for the next."""
        return self._starts.size // (self._batch * self._world)

    def at(self, step: int) -> Chunk:
        """The batch of this step: name to float32 of ``(batch, *space)``, newly allocated.

        Raises:
            RunError: a chunk that cannot be read.
        """
        starts = self.index(step)
        out: Chunk = {}
        shape = (self._batch, self._length)
        # Ordered by chunk, so that a batch that needs more chunks than fit reads each once.
        for row in np.argsort(starts, kind="stable"):
            for offset in range(self._length):
                chunk, inside = self._find(int(starts[row]) + offset)
                for name, values in self._chunk(chunk).items():
                    if name not in out:
                        out[name] = np.empty(shape + values.shape[1:], np.float32)
                    out[name][row, offset] = values[inside]
        return {n: v[:, 0] if self._length == 1 else v for n, v in out.items()}

    def index(self, step: int) -> npt.NDArray[np.int64]:
        """The first sample of each window of the batch, ``(batch,)``, counted in ``ds``."""
        if step < 0:
            raise InputError(f"step={step}; expected 0 or more.")
        epoch, place = divmod(step, len(self))
        if self._order[0] != epoch:
            self._order = (epoch, self._epoch(epoch))
        lo = (place * self._world + self._rank) * self._batch
        return self._order[1][lo : lo + self._batch].copy()

    def _epoch(self, epoch: int) -> npt.NDArray[np.int64]:
        """Every window of one epoch, in order."""
        chunk_of = np.searchsorted(self._edges, self._starts, side="right") - 1
        chunks = np.unique(chunk_of)
        shuffled = chunks[_permutation(self._seed, epoch, 0, chunks.size)]
        parts = []
        for number, lo in enumerate(range(0, chunks.size, self._mix)):
            group = self._starts[np.isin(chunk_of, shuffled[lo : lo + self._mix])]
            parts.append(group[_permutation(self._seed, epoch, number + 1, group.size)])
        return np.concatenate(parts)

    def _find(self, sample: int) -> tuple[int, int]:
        """The chunk that holds a sample, and where in it."""
        chunk = int(np.searchsorted(self._edges, sample, side="right")) - 1
        return chunk, sample - int(self._edges[chunk])

    def _chunk(self, chunk: int) -> Chunk:
        """All variables of one chunk along the sample dim, decoded, from the cache if there."""
        if chunk in self._cache:
            self._cache.move_to_end(chunk)
            return self._cache[chunk]
        lo, hi = int(self._edges[chunk]), int(self._edges[chunk + 1])
        part = self._ds.isel({self._dim: slice(lo, hi)})
        out: Chunk = {}
        for name in map(str, self._ds.data_vars):
            try:
                out[name] = checks.as_float32(part[name].values)
            except Exception as error:  # each codec has its own
                raise RunError(
                    f"{name!r} cannot be read at {self._dim} {lo}..{hi - 1}: {error}"
                ) from error
        self._cache[chunk] = out
        size = sum(v.nbytes for v in out.values())
        while len(self._cache) > 1 and size * len(self._cache) > self._bytes:
            self._cache.popitem(last=False)
        return out

    def _check_cache(self) -> None:
        """A group that does not fit would be decoded again for every batch."""
        row = sum(4 * da[{self._dim: 0}].size for da in self._ds.data_vars.values())
        largest = int(np.diff(self._edges).max()) * row
        # A batch may end one group and begin the next.
        needed = largest * min(2 * self._mix, self._edges.size - 1)
        if needed > self._bytes:
            raise InputError(
                f"Shuffling {self._mix} chunks of {largest} bytes together needs a cache of "
                f"{needed} bytes, got cache_bytes={self._bytes}; lower mix, raise cache_bytes, or "
                "write the store with smaller chunks."
            )


def _checked(ds: xr.Dataset, dim: str) -> xr.Dataset:
    """Every variable a number field with the sample dim first."""
    for name, da in ds.data_vars.items():
        if dim not in da.dims:
            raise InputError(
                f"{name!r} has dims {da.dims} without the sample dim {dim!r}; expected it in every "
                "variable of a batch."
            )
        checks.check_dtype(da, continuous=True)
    return ds.transpose(dim, ...)


def _edges(ds: xr.Dataset, dim: str) -> npt.NDArray[np.int64]:
    """Where the stored chunks begin along the sample dim, counted in ``ds``, and its end.

    A split starts anywhere in a chunk of the whole store: ``sciddm_range`` says where.
    """
    n = ds.sizes[dim]
    first = int(ds.attrs.get("sciddm_range", [0, n])[0])
    size = 0
    for da in ds.data_vars.values():
        chunks = da.encoding.get("preferred_chunks") or {}
        size = math.lcm(size or 1, int(chunks.get(dim, 1)))
    if size <= 1 or size > max(4 * n, 1):
        # Unchunked, or chunks that do not line up: blocks of our own.
        size, first = max(1, min(n, 64)), 0
    begin = np.arange(-(first % size), n, size, dtype=np.int64)
    return np.append(np.maximum(begin, 0), n)


def starts(ds: xr.Dataset, dim: str, length: int) -> npt.NDArray[np.int64]:
    """The first sample of every window that crosses no missing step."""
    n = ds.sizes[dim]
    starts = np.arange(max(0, n - length + 1), dtype=np.int64)
    if length > 1 and dim in ds.coords and is_date(ds[dim]):
        for gap in checks.check_time(ds[dim]):
            starts = starts[(starts >= gap) | (starts + length <= gap)]
    return starts


def _permutation(seed: int, epoch: int, group: int, n: int) -> npt.NDArray[np.int64]:
    """A permutation of ``n`` addressed by (seed, epoch, group), the same on every platform.

    The raw stream of Philox and the hash of SeedSequence are fixed by numpy's compatibility
    policy; the methods of Generator are not.
    """
    words = np.random.Philox(np.random.SeedSequence([seed, epoch, group])).random_raw(n)
    return np.argsort(words, kind="stable")
