"""Point estimates of the cells of a series: the last value, a line, the value a season ago.

What `sciddm.series.baselines` puts residuals about, and the known neighbours of each cell, which
are found for all series of a panel at once, at any times.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from sciddm.errors import InputError
from sciddm.random import Streams
from sciddm.series.base import SeriesSampler
from sciddm.series.panel import Panel


class Near(NamedTuple):
    """Of each cell the nearest known ones of its group, as indices (B, m), -1 where there is none.
    A known cell is its own neighbour."""

    before: Tensor
    after: Tensor

    def line(self, time: Tensor, value: Tensor) -> Tensor:
        """``value`` (B, ..., m) of the known cells, linear in time between them and held beyond;
        0 where the group has none."""
        ends = torch.where(self.before < 0, self.after, self.before)
        ends = torch.stack([ends, torch.where(self.after < 0, self.before, self.after)])
        some, (i, j) = ends[0] >= 0, ends.clamp_min(0)
        t0, t1 = time.gather(1, i), time.gather(1, j)
        share = ((time - t0) / (t1 - t0).clamp_min(1e-300)).clamp(0, 1)
        shape = (len(time), *(1,) * (value.ndim - 2), time.shape[1])
        first, last = (value.gather(-1, k.view(shape).expand(value.shape)) for k in (i, j))
        return torch.where(some.view(shape), first + share.view(shape) * (last - first), 0.0)

    def distance(self, time: Tensor) -> Tensor:
        """(B, m), to the nearer of the two; infinite where the group has none."""
        ends = [
            torch.where(i >= 0, (time - time.gather(1, i.clamp_min(0))).abs(), math.inf)
            for i in self
        ]
        return torch.minimum(*ends)


def near(panel: Panel, group: Tensor | None = None) -> Near:
    """The known neighbours of every cell within ``group`` (B, m), by default its channel."""
    group = panel.channel if group is None else group
    group = torch.where(panel.real, group, group.max() + 1)
    order = panel.time.argsort(dim=1, stable=True)
    order = order.gather(1, group.gather(1, order).argsort(dim=1, stable=True))
    known, sorted_group = panel.known.gather(1, order), group.gather(1, order)
    at = torch.arange(panel.cells, device=order.device).expand_as(order)
    before = torch.where(known, at, -1).cummax(1).values
    after = torch.where(known, at, panel.cells).flip(1).cummin(1).values.flip(1)

    def own(i: Tensor) -> Tensor:
        """Cell numbers in the panel's order, of neighbours within the same group only."""
        i = i.masked_fill(i >= panel.cells, -1)
        safe = i.clamp_min(0)
        same = (i >= 0) & (sorted_group.gather(1, safe) == sorted_group)
        return torch.empty_like(i).scatter_(1, order, torch.where(same, order.gather(1, safe), -1))

    return Near(own(before), own(after))


def season(panel: Panel, period: float) -> int:
    """Steps of one period. Raises `InputError` unless the steps are equal and divide it."""
    if panel.dense is None or panel.dense[1] < 2:
        raise InputError(
            "Got a series without equal steps; a season needs them: give a regular step to the "
            "codec, or take a baseline without a season."
        )
    time = panel.time.unflatten(1, panel.dense)[:, 0]
    step = float((time[0, -1] - time[0, 0]) / (panel.dense[1] - 1))
    count = round(period / step)
    if count < 1 or abs(count * step - period) > 1e-6 * period:
        raise InputError(
            f"Got a season of {period:g} for steps of {step:g}; expected a whole number of steps."
        )
    return count


class Point(nn.Module, ABC):
    """A point estimate of every cell from the known ones."""

    evaluations: float = 0.0

    @abstractmethod
    def forward(self, panel: Panel) -> Tensor:
        """(B, m) float64, known cells as they are; 0 where nothing is known of a channel."""


class Held(Point):
    """The last value of the channel; before the first one, that. With a ``period`` the value of
    the last season at the same phase: the seasonal naive forecast."""

    def __init__(self, period: float | None = None) -> None:
        super().__init__()
        self.period = period

    def forward(self, panel: Panel) -> Tensor:
        before, after = near(panel, _phases(panel, self.period))
        value = panel.value.double()
        first = value.gather(1, after.clamp_min(0))
        held = torch.where(before >= 0, value.gather(1, before.clamp_min(0)), first)
        return torch.where((before >= 0) | (after >= 0), held, 0.0)


class Line(Point):
    """Linear in time between the known neighbours of the channel, held at the edges. With a
    ``period`` between those at the same phase of the seasons before and after."""

    def __init__(self, period: float | None = None) -> None:
        super().__init__()
        self.period = period

    def forward(self, panel: Panel) -> Tensor:
        found = near(panel, _phases(panel, self.period))
        return found.line(panel.time, panel.value.double())


class Level(Point):
    """A constant of each channel, 0 for the mean of normalised values: the training marginal."""

    def __init__(self, level: Tensor | None = None) -> None:
        super().__init__()
        self.level = level

    def forward(self, panel: Panel) -> Tensor:
        value = panel.value.double()
        level = (
            torch.zeros_like(value) if self.level is None else self.level.to(value)[panel.channel]
        )
        return torch.where(panel.known, value, level)


class MeanOf(Point):
    """The mean of some draws of another sampler, the same for every member."""

    def __init__(self, sampler: SeriesSampler, members: int = 32, seed: int = 0) -> None:
        super().__init__()
        self.sampler, self.members, self.seed = sampler, members, seed

    @property
    def evaluations(self) -> float:  # type: ignore[override]
        return self.sampler.evaluations * self.members

    def forward(self, panel: Panel) -> Tensor:
        rng = Streams(self.seed, (0,) * (len(panel) * self.members),
                      tuple(range(self.members)) * len(panel), "point")  # fmt: skip
        return self.sampler.draw(panel, rng).double().mean(1)


def _phases(panel: Panel, period: float | None) -> Tensor | None:
    """Groups of one channel and one phase."""
    if period is None:
        return None
    steps = season(panel, period)
    assert panel.dense is not None
    step = torch.arange(panel.dense[1], device=panel.channel.device).repeat(panel.dense[0])
    return panel.channel * steps + step % steps
