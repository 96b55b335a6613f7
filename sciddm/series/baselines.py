"""Samplers of series without a network: the rows that every table begins with.

Most are a point estimate of every cell (`points`) and a residual about it: `Floor`. Residuals are
those that the same estimate made on training panels, pooled by channel and, where asked for, by
the distance to the nearest known cell. `Walk` and `SeasonalBlocks` resample what the series itself
did before, so they need no training at all.

    naive, seasonal naive       Floor(Held(), ...), Floor(Held(period), ...)
    linear interpolation        Floor(Line(), pooled(Line(), panels))
    training marginal           Floor(Level(), pooled(Level(), panels))
    point forecast + Gaussian   Floor(MeanOf(sampler), spread(MeanOf(sampler), panels))

Hyndman, Athanasopoulos. Forecasting: principles and practice. 2021, sections 5.2 and 5.5.
Kuensch. The jackknife and the bootstrap for general stationary observations. 1989.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from sciddm.errors import InputError
from sciddm.random import Streams
from sciddm.series.base import SeriesSampler
from sciddm.series.panel import Panel
from sciddm.series.points import Held, Level, Line, MeanOf, Point, near, season

__all__ = [
    "Floor", "Held", "Level", "Line", "MeanOf", "Point", "Pooled", "Residual", "SeasonalBlocks",
    "Spread", "Walk", "pooled", "spread",
]  # fmt: skip


class Residual(nn.Module, ABC):
    """What is added to a point estimate, independently at each cell.

    edges : increasing distances to the nearest known cell, in the unit of time, that part the
        classes: K - 1 of them. A channel without a known cell is infinitely far.
    """

    edges: tuple[float, ...]

    def kind(self, distance: Tensor) -> Tensor:
        """The class of each cell."""
        return torch.bucketize(distance, torch.tensor(self.edges, dtype=distance.dtype), right=True)

    @abstractmethod
    def forward(self, channel: Tensor, kind: Tensor, white: Tensor) -> Tensor:
        """(B, M, m) from white noise of that shape; ``channel`` and ``kind`` are (B, m)."""


class Pooled(Residual):
    """Residuals as they came in training.

    quantiles : (C, K, Q) float64, at Q equally spaced levels from 0 to 1.
    """

    def __init__(self, quantiles: Tensor, edges: tuple[float, ...] = ()) -> None:
        super().__init__()
        self.quantiles, self.edges = quantiles, tuple(edges)

    def forward(self, channel: Tensor, kind: Tensor, white: Tensor) -> Tensor:
        table = self.quantiles.to(white)
        place = torch.special.ndtr(white) * (table.shape[-1] - 1)
        low = place.floor().long().clamp(0, table.shape[-1] - 2)
        rows = (channel * table.shape[1] + kind)[:, None].expand_as(low)
        first, last = (table.flatten(0, 1)[rows, i] for i in (low, low + 1))
        return first + (place - low) * (last - first)


class Spread(Residual):
    """Gaussian residuals: std is (C, K)."""

    def __init__(self, std: Tensor, edges: tuple[float, ...] = ()) -> None:
        super().__init__()
        self.std, self.edges = std, tuple(edges)

    def forward(self, channel: Tensor, kind: Tensor, white: Tensor) -> Tensor:
        return self.std.to(white)[channel, kind][:, None] * white


def pooled(
    point: Point, panels: Iterable[Panel], edges: tuple[float, ...] = (), levels: int = 1001
) -> Pooled:
    """Residuals of ``point`` at the wanted cells of training panels, which hold the truth.

    A class that has none of a channel takes the channel's residuals, a channel without any those
    of all channels. Raises `InputError` where no panel has a wanted cell.
    """
    rows = _rows(point, panels, edges)
    at = torch.linspace(0, 1, levels, dtype=torch.float64)
    return Pooled(torch.stack([torch.stack([_quantile(r, at) for r in c]) for c in rows]), edges)


def spread(point: Point, panels: Iterable[Panel], edges: tuple[float, ...] = ()) -> Spread:
    """The s.d. about 0 of the same residuals; raises as `pooled`."""
    rows = _rows(point, panels, edges)
    return Spread(torch.stack([torch.stack([r.square().mean().sqrt() for r in c]) for c in rows]),
                  edges)  # fmt: skip


class Floor(SeriesSampler):
    """A point estimate and its residuals, drawn anew for every cell and member; without residuals
    every member is the point."""

    def __init__(self, point: Point, residual: Residual | None = None) -> None:
        super().__init__()
        self.point, self.residual = point, residual

    @property
    def evaluations(self) -> float:
        return self.point.evaluations

    def draw(self, panel: Panel, rng: Streams) -> Tensor:
        mean = self.point(panel)
        members = len(rng.members) // max(1, len(panel))
        out = mean[:, None].expand(-1, members, -1)
        if self.residual is not None:
            white = rng.at("residual").normal(mean.repeat_interleave(members, 0))
            kind = self.residual.kind(near(panel).distance(panel.time))
            noise = self.residual(panel.channel, kind, white.unflatten(0, (-1, members)))
            out = out + torch.where(panel.wanted[:, None], noise, 0.0)
        return torch.where(panel.real[:, None], out, 0.0).to(panel.value.dtype)


class Walk(SeriesSampler):
    """Random walk of the last increments that the channel made, their mean taken off.

    An increment over a time dt is scaled by 1 / sqrt(dt) and, where it is drawn, by the square root
    of the time that it bridges, so that times need no equal steps and the variance grows linearly.
    Cells at one time share the draw: channels that moved together go on so. Between known cells
    the walk is tied to both (a bridge), after the last one it is free.

    window : how many of the last increments. shift, scale : (C,) with which shift + scale value is
    positive, for increments of its logarithm; None: of the values themselves.
    """

    def __init__(
        self, window: int = 60, shift: Tensor | None = None, scale: Tensor | None = None
    ) -> None:
        super().__init__()
        self.window, self.shift, self.scale = window, shift, scale

    evaluations = 0.0

    def draw(self, panel: Panel, rng: Streams) -> Tensor:
        value, c = panel.value.double(), panel.channel
        if self.shift is not None and self.scale is not None:
            shift, scale = self.shift.to(value)[c], self.scale.to(value)[c]
            positive = torch.where(panel.known, shift + scale * value, 1.0)
            if bool((positive <= 0).any()):
                raise InputError(
                    "Got values that are not positive for a walk of logarithms; expected positive "
                    "ones: leave out shift and scale."
                )
            value = positive.log()
        members = len(rng.members) // max(1, len(panel))
        white = rng.at("walk").normal(value.repeat_interleave(members, 0))
        share = torch.special.ndtr(white).unflatten(0, (-1, members))
        share = share.gather(2, _moments(panel.time)[:, None].expand_as(share))
        walk = torch.zeros_like(share)
        for i in range(len(panel)):
            for channel in c[i][panel.wanted[i]].unique():
                cells = torch.nonzero(panel.real[i] & (c[i] == channel))[:, 0]
                cells = cells[panel.time[i, cells].argsort(stable=True)]
                steps = self._increments(panel.time[i], value[i], cells[panel.known[i, cells]])
                chosen = (share[i][:, cells] * len(steps)).long().clamp_max(len(steps) - 1)
                dt = panel.time[i, cells].diff(prepend=panel.time[i, cells[:1]])
                walk[i][:, cells] = (steps[chosen] * dt.clamp_min(0).sqrt()).cumsum(-1)
        found = near(panel)
        tied = walk - found.line(panel.time, walk)
        out = found.line(panel.time, value)[:, None] + tied
        if self.shift is not None and self.scale is not None:
            out = (out.exp() - shift[:, None]) / scale[:, None]
        out = torch.where(panel.known[:, None], panel.value.double()[:, None], out)
        return torch.where(panel.real[:, None], out, 0.0).to(panel.value.dtype)

    def _increments(self, time: Tensor, value: Tensor, known: Tensor) -> Tensor:
        """The last ones a unit of time to the power one half, the newest first."""
        if len(known) < 3:
            raise InputError(
                f"Got {len(known)} known values of a channel; a walk of its increments needs at "
                "least 3: give a longer context."
            )
        known = known[-self.window - 1 :]
        dt, dx = time[known].diff(), value[known].diff()
        rate = dx.sum() / dt.sum()
        return ((dx - rate * dt) / dt.clamp_min(1e-300).sqrt()).flip(0)


class SeasonalBlocks(SeriesSampler):
    """The last season over again, plus seasons of its past changes, drawn whole.

    A block holds one period of x(t) - x(t - period), all channels together, at the phases of the
    forecast, its mean over the blocks taken off; the blocks of later seasons add up. For what lies
    after the last known time, at equal steps; gaps before it are filled by lines.
    """

    def __init__(self, period: float, window: int = 60) -> None:
        super().__init__()
        self.period, self.window = period, window

    evaluations = 0.0

    def draw(self, panel: Panel, rng: Streams) -> Tensor:
        steps = season(panel, self.period)
        assert panel.dense is not None
        members = len(rng.members) // max(1, len(panel))
        filled = Line()(panel).unflatten(1, panel.dense)
        out = filled[:, None].repeat(1, members, 1, 1)
        white = rng.at("blocks").normal(out[:, :, 0].flatten(0, 1).clone())
        share = torch.special.ndtr(white).unflatten(0, (-1, members))
        for i, known in enumerate(panel.known.unflatten(1, panel.dense)):
            seen = torch.nonzero(known.any(0))[:, 0]
            start = int(seen[-1]) + 1 if len(seen) else 0
            blocks = min(start // steps - 1, self.window)
            if blocks < 2:
                raise InputError(
                    f"Got {start} steps before the forecast; blocks of a season of {steps} need at "
                    f"least {3 * steps}."
                )
            past = filled[i, :, start - (blocks + 1) * steps : start]
            past = past.unflatten(1, (blocks + 1, steps))
            change = past.diff(dim=1)
            change = change - change.mean(1, keepdim=True)
            horizon = panel.dense[1] - start
            count = -(-horizon // steps)
            chosen = (share[i][:, :count] * blocks).long().clamp_max(blocks - 1)
            later = past[:, -1] + change.movedim(1, 0)[chosen].cumsum(1)
            out[i, :, :, start:] = later.movedim(2, 1).flatten(2)[..., :horizon]
        out = out.flatten(2)
        out = torch.where(panel.known[:, None], panel.value.double()[:, None], out)
        return torch.where(panel.real[:, None], out, 0.0).to(panel.value.dtype)


def _moments(time: Tensor) -> Tensor:
    """(B, m): the number of each cell's time among the times of its row."""
    ordered, order = time.sort(dim=1, stable=True)
    number = (ordered.diff(dim=1) > 0).long().cumsum(1)
    number = torch.cat([torch.zeros_like(number[:, :1]), number], 1)
    return torch.empty_like(order).scatter_(1, order, number)


def _rows(point: Point, panels: Iterable[Panel], edges: tuple[float, ...]) -> list[list[Tensor]]:
    """Residuals by channel and class, none of them empty."""
    parts: list[tuple[Tensor, ...]] = []
    channels = 0
    for panel in panels:
        miss = panel.value.double() - point(panel)
        kind = torch.bucketize(
            near(panel).distance(panel.time), torch.tensor(edges, dtype=torch.float64), right=True
        )
        parts.append(tuple(x[panel.wanted] for x in (miss, panel.channel, kind)))
        channels = max(channels, int(panel.channel.max()) + 1)
    if not parts or not sum(len(p[0]) for p in parts):
        raise InputError(
            "Got no wanted cell to take residuals from; expected panels that hide some."
        )
    miss, channel, kind = (torch.cat(x) for x in zip(*parts, strict=True))
    rows = []
    for c in range(channels):
        own = miss[channel == c]
        own = own if len(own) else miss
        found = [miss[(channel == c) & (kind == k)] for k in range(len(edges) + 1)]
        rows.append([f if len(f) else own for f in found])
    return rows


def _quantile(values: Tensor, levels: Tensor) -> Tensor:
    """Linear between the ordered values; `torch.quantile` refuses long rows."""
    ordered = values.sort().values
    place = levels * (len(ordered) - 1)
    low = place.floor().long().clamp_max(max(0, len(ordered) - 2))
    high = (low + 1).clamp_max(len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])
