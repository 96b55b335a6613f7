"""What series lack, drawn: gaps, times to come, whole series, item by item and window by window.

A long series is cut into windows around its gaps, so that every gap is drawn by one window, with
known rows on both sides where there are any. Members are drawn in blocks of one size, and the noise
of a member is addressed by its item, the first time of its window and its number: it is the same
whatever else is drawn with it.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from sciddm.data.items import Draws, Item, Items, covered, said
from sciddm.data.measure import Numbers
from sciddm.data.series import SeriesCodec
from sciddm.errors import InputError, RunError
from sciddm.model import Model
from sciddm.random import SCHEME, Streams
from sciddm.series.base import SeriesSampler

BLOCK = 32
"""Members of a draw."""
CELLS = 2048
"""Cells of a window of a model that sets no limit of its own: laws of any panel cost their cube."""
FAR = 1000.0
"""Training s.d. beyond which a drawn value is none: the member diverged."""

Progress = Callable[[int, int], None]
Std = float | Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Completion:
    """What is to be drawn, checked when it is made: `InputError` before any draw.

    model : one of series. items : any, brought into the model's order; rows that are wanted are
    there, with NaN. wanted : for each item (n, C) bool, or None for every value that is missing.
    std : error of the known values in physical units, one number or one a variable; None keeps them
    as they are.
    """

    model: Model
    items: Items
    wanted: tuple[np.ndarray, ...] | None = None
    members: int = 64
    seed: int = 0
    std: Std | None = None

    def __post_init__(self) -> None:
        for name, number, least in (("members", self.members, 1), ("seed", self.seed, 0)):
            whole = isinstance(number, int | np.integer) and not isinstance(number, bool)
            if not whole or number < least:
                raise InputError(
                    f"Got {number!r} for {name}; expected a whole number of at least {least}."
                )
        self.model.series  # noqa: B018 (of series, or refused)
        ready = self.model.cells.conform(self.items)
        if self.wanted is None:
            wanted = tuple(~np.isfinite(i.values) for i in ready)
        else:
            wanted = self.wanted
            for item, want in zip(ready, wanted, strict=True):
                if want.shape != item.values.shape:
                    raise InputError(
                        f"Item {item.name!r}: got {want.shape} wanted cells for values of shape "
                        f"{item.values.shape}; expected one each, of the conformed items."
                    )
        after = {i.name: i.time[w.any(1)][0] for i, w in zip(ready, wanted, strict=True) if w.any()}
        for item in ready:
            if item.name in after:
                covered(ready.only([item]), after)
        object.__setattr__(self, "items", ready)
        object.__setattr__(self, "wanted", wanted)
        self._errors(ready.items[0])

    def parts(self) -> list[tuple[int, slice, np.ndarray]]:
        """(item, rows, own): every window, and which of its cells are given out."""
        assert self.wanted is not None
        codec, found = self.model.cells, []
        rows = longest(codec)
        for k, (item, want) in enumerate(zip(self.items, self.wanted, strict=True)):
            found += [(k, *part) for part in windows(item, want, rows, self.std is not None)]
        return found

    def draw(self, progress: Progress = lambda done, total: None) -> Draws:
        """All members of all items. Raises `RunError` for a member that diverged."""
        shape = [(self.members, *i.values.shape) for i in self.items]
        out = [np.full(s, np.nan) for s in shape]
        parts = self.parts()
        for done, (k, rows, own) in enumerate(parts, start=1):
            drawn = self.window(self.items.items[k].rows(rows), own)
            out[k][:, rows] = np.where(own, drawn, out[k][:, rows])
            progress(done, len(parts))
        for item, values in zip(self.items, out, strict=True):
            kept = np.isfinite(item.values) & np.isnan(values)
            np.copyto(values, item.values, where=kept)
        return Draws(self.items, tuple(out), self.attrs)

    def window(self, part: Item, own: np.ndarray) -> Numbers:
        """(M, n, C) of one window; cells that are neither known nor wanted are NaN."""
        codec, sampler = self.model.cells, self.model.series
        coded = codec.encode(part, own, self._errors(part))
        case, blocks = address(part), []
        for first in range(0, self.members, BLOCK):
            rng = Streams.of(self.seed, range(first, first + BLOCK), case)
            x = sampler.draw(coded.panel, rng)[0, : self.members - first].double()
            self._check(x, first, part)
            blocks.append(codec.decode(x, coded))
        return np.concatenate(blocks)

    @property
    def attrs(self) -> dict[str, str | int | float]:
        """How the draws were made."""
        sampler: SeriesSampler = self.model.series
        return {
            "engine": type(sampler).__name__,
            "network_evaluations": sampler.evaluations,
            "known_values": "exact" if self.std is None else "within their error",
            "seed": int(self.seed),
            "noise_scheme": SCHEME,
        }

    def _errors(self, item: Item) -> Numbers | None:
        if self.std is None:
            return None
        names, std = self.items.variables, self.std
        if isinstance(std, Mapping):
            missing = [n for n in names if n not in std]
            if missing:
                raise InputError(f"No error is given for {missing[0]!r}; expected one a variable.")
            row = np.array([float(std[n]) for n in names])
        else:
            row = np.full(len(names), float(std))
        if not (np.isfinite(row) & (row > 0)).all():
            raise InputError(f"Got errors {row.tolist()}; expected positive numbers, in the units "
                             "of the variables.")  # fmt: skip
        return np.broadcast_to(row, item.values.shape).copy()

    def _check(self, x: torch.Tensor, first: int, part: Item) -> None:
        bad = ~(x.abs().amax(1) <= FAR)  # NaN too
        if bool(bad.any()):
            member = first + int(bad.nonzero()[0])
            raise RunError(
                f"Member {member} of item {part.name!r} diverged between {said(part.time[0])} and "
                f"{said(part.time[-1])}: a value is not finite or more than {FAR:g} training s.d. "
                "from the mean. Nothing was kept; look at the known values, or train longer."
            )


def longest(codec: SeriesCodec) -> int:
    """Rows of a window of a model."""
    return codec.window or max(16, CELLS // codec.channels)


def windows(
    item: Item, wanted: np.ndarray, rows: int, every: bool = False
) -> list[tuple[slice, np.ndarray]]:
    """Windows of at most ``rows`` rows around the gaps of an item, and the cells each gives out.

    A gap is a stretch of wanted values of one variable: one window draws all of it. A quarter of a
    window on either side is known rows or gaps of others, where there is room. With ``every`` known
    values are given out too (they have errors).

    Raises `InputError` for a gap that no window holds.
    """
    n = len(item)
    gaps = sorted(_runs(wanted))
    if every:
        known = np.argwhere(~wanted & np.isfinite(item.values))
        gaps = sorted([*gaps, *((int(r), int(r) + 1, int(c)) for r, c in known)])
    if not gaps:
        return []
    if n <= rows:
        return [(slice(0, n), _own(gaps, n, wanted.shape[1]))]
    core, out, left = rows - 2 * (rows // 4), [], deque(gaps)
    while left:
        start, stop, _ = left[0]
        end = max(start + core, stop)
        if stop - start > rows - 1:
            raise InputError(
                f"Item {item.name!r}: a gap of {stop - start} rows from {said(item.time[start])} to"
                f" {said(item.time[stop - 1])}; the model's windows hold {rows}, one known row "
                "among them: take a model of longer windows."
            )
        mine: list[tuple[int, int, int]] = []
        later: list[tuple[int, int, int]] = []
        while left and left[0][0] < end:
            gap = left.popleft()
            (mine if gap[1] <= end else later).append(gap)
        left.extendleft(reversed(later))
        last = max(g[1] for g in mine)
        first = min(max(0, start - (rows - (last - start)) // 2), n - rows)
        moved = [(a - first, b - first, c) for a, b, c in mine]
        out.append((slice(first, first + rows), _own(moved, rows, wanted.shape[1])))
    return out


def address(part: Item) -> int:
    """The number of a window: of its item and first time, wherever they stand among others."""
    time = part.time[0]
    when = str(np.datetime_as_string(time)) if part.time.dtype.kind == "M" else repr(float(time))
    return int.from_bytes(hashlib.sha256(f"{part.name}|{when}".encode()).digest()[:8], "big") >> 1


def extended(items: Items, at: np.ndarray) -> Items:
    """Items with a row of missing values at each of the times ``at`` where they have none."""

    def with_rows(item: Item) -> Item:
        times = np.asarray(at).astype(item.time.dtype)
        new = np.setdiff1d(times, item.time)
        order = np.argsort(np.concatenate([item.time, new]), kind="stable")

        def filled(x: np.ndarray) -> np.ndarray:
            return np.concatenate([x, np.full((len(new), x.shape[1]), np.nan)])[order]

        known = None if item.covariates is None else filled(item.covariates)
        return replace(
            item, time=np.concatenate([item.time, new])[order], values=filled(item.values),
            covariates=known,
        )  # fmt: skip

    return items.only([with_rows(i) for i in items])


def _runs(wanted: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """(first, last + 1, channel) of every stretch of wanted values of one channel."""
    for c in range(wanted.shape[1]):
        edge = np.diff(np.concatenate([[0], wanted[:, c].astype(int), [0]]))
        starts, stops = np.flatnonzero(edge == 1), np.flatnonzero(edge == -1)
        yield from ((int(a), int(b), c) for a, b in zip(starts, stops, strict=True))


def _own(gaps: list[tuple[int, int, int]], rows: int, channels: int) -> np.ndarray:
    own = np.zeros((rows, channels), bool)
    for start, stop, c in gaps:
        own[start:stop, c] = True
    return own
