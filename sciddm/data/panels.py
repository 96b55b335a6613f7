"""Training panels: windows of items with values hidden, a function of the seed and the step."""

from __future__ import annotations

import numpy as np

from sciddm.data.checks import warn
from sciddm.data.items import Item, Items
from sciddm.data.masks import Mask, Share
from sciddm.data.series import SeriesCodec, stacked
from sciddm.errors import InputError
from sciddm.series.panel import Panel

TRIES = 20
"""Windows that are drawn until one has a value."""


class Panels:
    """Windows of the items of one split, by step number or evenly spread.

    A window is drawn evenly from all of them: long items give more. What is hidden says the codec's
    ``masks``, or a random share where it has none; at least one value is. Known cells hold values,
    the other real ones the truth, and cells without a value are not real.

    rank, world : this process, of how many. Raises `InputError` where no item is as long as a
    forecast needs, or has values.
    """

    def __init__(
        self,
        items: Items,
        codec: SeriesCodec,
        *,
        batch: int = 1,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        mask: Mask = Share(0.1, 0.9) if codec.masks is None else codec.masks
        self.codec, self.mask, self.batch, self.seed, self.rank = codec, mask, batch, seed, rank
        least = 2 if mask.ahead is None else mask.ahead + 1
        every = codec.conform(items).items
        self.items = [i for i in every if len(i) >= least and i.seen > 1]
        lost = [i.name for i in every if not (len(i) >= least and i.seen > 1)]
        if not self.items:
            raise InputError(
                f"Got {len(every)} items, none of {least} rows or more with values; expected longer"
                " series, or a shorter horizon."
            )
        if lost:
            names = ", ".join(map(repr, lost[:5])) + (", .." if len(lost) > 5 else "")
            warn(f"{len(lost)} of {len(every)} items have no values or fewer than {least} rows, and"
                 f" are left out of training: {names}.")  # fmt: skip
        self.window = codec.window or max(map(len, self.items))
        self.ends = np.cumsum([max(1, len(i) - self.window + 1) for i in self.items])

    def __len__(self) -> int:
        """How many windows there are."""
        return int(self.ends[-1])

    def at(self, step: int) -> Panel:
        """The panel of a step, ``batch`` rows."""
        key = np.random.SeedSequence([self.seed, step, self.rank, 17])
        rng = np.random.Generator(np.random.Philox(key))
        return self._panel([self._drawn(rng) for _ in range(self.batch)], rng)

    def spread(self, limit: int) -> Panel:
        """Up to ``limit`` windows, evenly spread, with one mask each: the same at every call."""
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([0, 19])))
        numbers = np.unique(np.linspace(0, len(self) - 1, min(limit, len(self))).astype(int))
        parts = [self._cut(int(n)) for n in numbers]
        return self._panel([p for p in parts if p.seen] or parts[:1], rng)

    def _drawn(self, rng: np.random.Generator) -> Item:
        part = self._cut(int(rng.integers(len(self))))
        for _ in range(TRIES):
            if part.seen:
                break
            part = self._cut(int(rng.integers(len(self))))
        return part

    def _cut(self, number: int) -> Item:
        which = int(np.searchsorted(self.ends, number, side="right"))
        item = self.items[which]
        first = number - (int(self.ends[which - 1]) if which else 0)
        return item if len(item) <= self.window else item.rows(slice(first, first + self.window))

    def _panel(self, parts: list[Item], rng: np.random.Generator) -> Panel:
        coded = []
        for part in parts:
            seen = np.isfinite(part.values)
            hidden = self.mask(len(part), self.codec.channels, rng) & seen
            if seen.any() and not hidden.any():
                row, channel = np.argwhere(seen)[int(rng.integers(seen.sum()))]
                hidden[row, channel] = True
            coded.append(self.codec.coded(part, seen & ~hidden, seen))
        return stacked(coded)
