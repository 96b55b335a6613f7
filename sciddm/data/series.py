"""Series with labels to panels of cells, and back.

A `SeriesCodec` knows the variables with their units, the clock, and the statistics of the training
data. `encode` makes a panel of an item: what has a value is known, what is NaN is wanted. `decode`
puts drawn cells back into rows and columns, in physical units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sciddm.data.clock import Clock
from sciddm.data.items import Item, Items
from sciddm.data.masks import Mask
from sciddm.data.measure import Numbers, Scale, Warp
from sciddm.data.names import same_units
from sciddm.errors import InputError, nearest
from sciddm.series.panel import Panel


@dataclass(frozen=True, eq=False)
class Coded:
    """A panel of one item, and what it takes to read it.

    row, channel : (m,) of each cell; rows of filling are negative. rows : n of the item.
    location, scale : (C,) of the item.
    """

    panel: Panel
    row: np.ndarray
    channel: np.ndarray
    rows: int
    location: Numbers
    scale: Numbers


@dataclass(frozen=True, eq=False)
class SeriesCodec:
    """Items of series <-> normalised panels; made by `SeriesCodec.fit`.

    Parameters
    ----------
    names : variables, in the order of the channels. units : of any of them, and of covariates.
    mean, std : (C,) of the training data, after ``warps`` and ``item``. clock : of all items.
    window : most rows of a panel, None for any number; panels of a regular clock have exactly so
        many, filled up in front. item : location and scale of each window by what is known of it,
        or None. typical : (2, C), those of a window of which nothing is known.
    warps : one a variable, None for none; () for none at all.
    covariates, static : names. covariate_mean, covariate_std : (K,); static_mean, static_std : (S,)
    periods : in units of the clock; the model is told the sine and cosine of each after the
        covariates, so the hour and the season.
    masks : what is hidden in training.
    """

    names: tuple[str, ...]
    units: Mapping[str, str]
    mean: Numbers
    std: Numbers
    clock: Clock
    window: int | None = None
    item: Scale | None = None
    typical: Numbers | None = None
    warps: tuple[Warp | None, ...] = ()
    covariates: tuple[str, ...] = ()
    covariate_mean: Numbers | None = None
    covariate_std: Numbers | None = None
    static: tuple[str, ...] = ()
    static_mean: Numbers | None = None
    static_std: Numbers | None = None
    periods: tuple[float, ...] = ()
    masks: Mask | None = field(default=None)

    def __post_init__(self) -> None:
        if self.warps and len(self.warps) != len(self.names):
            raise InputError(
                f"Got {len(self.warps)} transforms for {len(self.names)} variables; expected one "
                "each, None for none."
            )
        if self.window is not None and self.window < 2:
            raise InputError(f"Got windows of {self.window} rows; expected at least 2.")

    @staticmethod
    def fit(
        items: Items,
        clock: Clock,
        *,
        window: int | None = None,
        item: Scale | None = None,
        warps: Sequence[Warp | None] = (),
        periods: Sequence[float] = (),
        masks: Mask | None = None,
    ) -> SeriesCodec:
        """The codec of training items; see the class.

        Raises `InputError` for a variable without a value, and values outside a transform's range.
        """
        count = len(items.variables)
        raw = SeriesCodec(
            items.variables, dict(items.units), np.zeros(count), np.ones(count), clock, window,
            item, None, tuple(warps), items.covariates, static=items.static,
            periods=tuple(float(p) for p in periods), masks=masks,
        )  # fmt: skip
        parts = [raw._warped(part.values) for i in items for part in _pieces(i, window)]
        typical, scaled = None, parts
        if item is not None:
            found = np.array([item(part) for part in parts])
            typical = np.stack([_middle(found[:, 0], 0.0), _middle(found[:, 1], 1.0)])
            scaled = [(p - loc) / size for p, (loc, size) in zip(parts, found, strict=True)]
        mean, std = _moments(np.concatenate(scaled), items.variables)
        known = (
            None if not items.covariates else np.concatenate([_given(i.covariates) for i in items])
        )
        fixed = None if not items.static else np.stack([_given(i.static) for i in items])
        k = (None, None) if known is None else _moments(known, items.covariates, strict=False)
        s = (None, None) if fixed is None else _moments(fixed, items.static, strict=False)
        return replace(
            raw, mean=mean, std=std, typical=typical, covariate_mean=k[0], covariate_std=k[1],
            static_mean=s[0], static_std=s[1],
        )  # fmt: skip

    @property
    def channels(self) -> int:
        """C."""
        return len(self.names)

    @property
    def told(self) -> int:
        """K of a panel: covariates, and two for each period."""
        return len(self.covariates) + 2 * len(self.periods)

    def conform(self, items: Items) -> Items:
        """Items with the model's variables in the model's order, at every step of its clock.

        One variable may have another name. Raises `InputError` for those that are missing, units
        that differ, times of another kind, and missing covariates or static values.
        """
        if not items.items:
            raise InputError("Got no items; expected at least one series.")
        one = len(self.names) == len(items.variables) == 1
        names = items.variables if one else self.names
        order = [_place(n, items.variables, "variable") for n in names]
        beside = [_place(n, items.covariates, "covariate") for n in self.covariates]
        fixed = [_place(n, items.static, "static value") for n in self.static]
        for said, name in zip(names, self.names, strict=True):
            got, want = items.units.get(said, ""), self.units.get(name, "")
            if got and want and not same_units(got, want):
                raise InputError(
                    f"{said!r} is in {got!r}, the model in {want!r}; convert it first."
                )
        if not items.dated and not self.clock.dated and items.time_units not in ("", "1"):
            own = Clock.of(items, regular=False).unit if max(map(len, items)) > 1 else ""
            if self.clock.unit != "1" and own and own != self.clock.unit:
                raise InputError(
                    f"Times are in {own!r}, the model counts {self.clock.unit!r}; convert them."
                )

        def chosen(item: Item) -> Item:
            known = None if item.covariates is None else item.covariates[:, beside]
            still = None if item.static is None else item.static[fixed]
            return self.clock.regular(
                Item(item.name, item.time, item.values[:, order],
                     known if beside else None, still if fixed else None)
            )  # fmt: skip

        return replace(
            items, variables=names, items=tuple(map(chosen, items)),
            covariates=self.covariates, static=self.static,
        )  # fmt: skip

    def encode(
        self, item: Item, wanted: np.ndarray | None = None, std: np.ndarray | None = None
    ) -> Coded:
        """A panel of one row: cells with values are known, ``wanted`` ones are to be drawn.

        Parameters
        ----------
        item : of `conform`, or a part of it, of at most ``window`` rows.
        wanted : (n, C) bool, or None for every cell without a value. Of a regular series all
            others without a value are drawn too.
        std : (n, C), errors of the known values in physical units, or None: they are exact.
        """
        known = np.isfinite(item.values)
        if self.clock.step is not None:
            real = np.ones_like(known)
        else:
            real = known | (~known if wanted is None else wanted & ~known)
        return self.coded(item, known, real, std)

    def coded(
        self,
        item: Item,
        known: np.ndarray,
        real: np.ndarray,
        std: np.ndarray | None = None,
        *,
        scattered: bool = False,
    ) -> Coded:
        """A panel of one row in which ``known`` cells (n, C) are known and the other ``real`` ones
        hold the truth, if the item has it; ``scattered`` cells alone, whatever the clock."""
        dense = self.clock.step is not None and not scattered
        if dense and self.window is not None and len(item) > self.window:
            raise InputError(
                f"Item {item.name!r} has {len(item)} rows; the model takes {self.window} at a time."
            )
        warped = self._warped(item.values)
        location, scale = self._measured(np.where(known, warped, np.nan))
        x = ((warped - location) / scale - self.mean) / self.std
        t = self.clock.numbers(item.time)
        beside = self._beside(item, t)
        if dense:
            front = 0 if self.window is None else self.window - len(item)
            row = np.tile(np.arange(-front, len(item)), self.channels)
            channel = np.repeat(np.arange(self.channels), len(item) + front)
        else:
            row, channel = np.nonzero(real)
        inside = row >= 0
        at = np.maximum(row, 0)
        time = t[at] if len(t) else np.zeros(len(at))
        if dense and self.clock.step is not None and len(t):
            time = t[0] + row * self.clock.step
        value = np.where(inside, np.nan_to_num(x[at, channel]), 0.0)
        error = None
        if std is not None:
            slope = self._slope(item.values) / (scale * self.std)
            here = known[at, channel] & inside
            error = _row(np.where(here, (std * slope)[at, channel], 0.0))
        still = None
        if self.static_mean is not None and self.static_std is not None:
            assert item.static is not None
            still = _row(np.nan_to_num((item.static - self.static_mean) / self.static_std)).float()
        panel = Panel(
            _row(time), _row(channel.astype(np.int64)), _row(value),
            _row(known[at, channel] & inside), _row(real[at, channel] & inside), error,
            None if beside is None else _row(np.where(inside, beside[:, at], 0.0)).float(),
            still, (self.channels, len(row) // self.channels) if dense else None,
        )  # fmt: skip
        return Coded(panel, row, channel, len(item), location, scale)

    def decode(self, x: Tensor | np.ndarray, coded: Coded) -> Numbers:
        """Cells (M, m) -> (M, n, C) in physical units, NaN where the panel has no cell."""
        cells = np.asarray(x, dtype=np.float64)
        c, live = coded.channel, (coded.row >= 0) & coded.panel.real[0].numpy()
        y = (cells * self.std[c] + self.mean[c]) * coded.scale[c] + coded.location[c]
        out = np.full((len(cells), coded.rows, self.channels), np.nan)
        out[:, coded.row[live], c[live]] = y[:, live]
        for k, warp in enumerate(self.warps):
            if warp is not None:
                out[:, :, k] = warp.back(out[:, :, k])
        return out

    def _warped(self, values: Numbers) -> Numbers:
        out = np.array(values, dtype=np.float64, order="C")  # one order of sums
        for k, warp in enumerate(self.warps):
            if warp is not None:
                try:
                    out[:, k] = warp.forward(out[:, k])
                except InputError as fault:
                    raise InputError(f"{self.names[k]!r}: {fault}") from None
        return out

    def _slope(self, values: Numbers) -> Numbers:
        out = np.ones_like(values)
        for k, warp in enumerate(self.warps):
            if warp is not None:
                out[:, k] = warp.slope(values[:, k])
        return out

    def _measured(self, known: Numbers) -> tuple[Numbers, Numbers]:
        if self.item is None or self.typical is None:
            return np.zeros(self.channels), np.ones(self.channels)
        location, scale = self.item(known)
        return (
            np.where(np.isfinite(location), location, self.typical[0]),
            np.where(np.isfinite(scale), scale, self.typical[1]),
        )

    def _beside(self, item: Item, t: Numbers) -> Numbers | None:
        """(K, n) covariates and the sine and cosine of each period."""
        parts: list[Any] = []
        if self.covariate_mean is not None and self.covariate_std is not None:
            assert item.covariates is not None
            known = (item.covariates - self.covariate_mean) / self.covariate_std
            parts += list(np.nan_to_num(known).T)
        for period in self.periods:
            angle = 2 * np.pi * t / period
            parts += [np.sin(angle), np.cos(angle)]
        return np.stack(parts) if parts else None


def stacked(coded: Sequence[Coded]) -> Panel:
    """Panels of one row as one, rows filled up to the longest."""
    panels = [c.panel for c in coded]
    most = max(p.cells for p in panels)

    def joined(parts: Sequence[Tensor]) -> Tensor:
        return torch.cat([torch.nn.functional.pad(x, (0, most - x.shape[-1])) for x in parts])

    first = panels[0]
    known = [p.covariates for p in panels if p.covariates is not None]
    errors = [p.error for p in panels if p.error is not None]
    fixed = [p.static for p in panels if p.static is not None]
    return Panel(
        joined([p.time for p in panels]), joined([p.channel for p in panels]),
        joined([p.value for p in panels]), joined([p.known for p in panels]),
        joined([p.real for p in panels]), joined(errors) if errors else None,
        joined(known) if known else None, torch.cat(fixed) if fixed else None, first.dense,
    )  # fmt: skip


def _row(x: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(x))[None]


def _pieces(item: Item, window: int | None) -> list[Item]:
    """An item in stretches of at most a window."""
    if window is None or len(item) <= window:
        return [item]
    return [item.rows(slice(a, a + window)) for a in range(0, len(item), window)]


def _middle(found: Numbers, otherwise: float) -> Numbers:
    """The median of each column, without NaN."""
    out = np.full(found.shape[1], otherwise)
    for c in range(found.shape[1]):
        known = found[np.isfinite(found[:, c]), c]
        if known.size:
            out[c] = np.median(known)
    return out


def _moments(rows: Numbers, names: Sequence[str], strict: bool = True) -> tuple[Numbers, Numbers]:
    """Mean and s.d. of each column without NaN; 1 for the s.d. of a constant."""
    count = np.isfinite(rows).sum(0)
    if strict and not count.all():
        name = names[int(np.argmin(count > 0))]
        raise InputError(f"{name!r} has no value in the training data; leave the variable out.")
    mean = np.nansum(rows, 0) / np.maximum(count, 1)
    gap = np.where(np.isfinite(rows), rows - mean, 0.0)
    std = np.sqrt((gap**2).sum(0) / np.maximum(count, 1))
    return mean, np.where(std > 1e-12 * (1 + np.abs(mean)), std, 1.0)


def _given(values: Numbers | None) -> Numbers:
    assert values is not None
    return values


def _place(name: str, there: Sequence[str], kind: str) -> int:
    if name not in there:
        raise InputError(f"The series have no {kind} {name!r}.{nearest(name, there)}")
    return list(there).index(name)
