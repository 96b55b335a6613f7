r"""Baselines that need no network: what every forecast has to beat.

Persistence says that nothing changes, climatology that nothing is known but the season and the
hour, and the damped anomaly lies between them. With c(p) the climatology of phase p of the cycle
(the hour of the day, the day of the year), lead n and phases p, p + n,

    x_n = c(p + n) + rho_n (x_0 - c(p)) + s_n N(0, 1),

rho_n and s_n measured at each point and lead. For a red noise about a cycle this is the exact law
of every lead, with rho_n = rho^n and s_n^2 = v (1 - rho^{2n}).

The phase comes from two channels of the forcings, sine and cosine of the cycle's angle, as
`sciddm.data.forcing.Forcings` gives them for the day and for the year.

References
----------
Lorenz. Empirical orthogonal functions and statistical weather prediction. MIT 1956 (climatology,
persistence). Murphy. Climatology, persistence, and their linear combination as standards of
reference in skill scores. Weather and Forecasting 7, 1992, eq. 12 (the damped anomaly).
https://doi.org/10.1175/1520-0434(1992)007<0692:CPATLC>2.0.CO;2
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from sciddm.denoise import Context
from sciddm.errors import InputError
from sciddm.forecasters.base import Forecaster, Known
from sciddm.random import Streams


@dataclass(frozen=True)
class Cycle:
    """A cycle of ``period`` frames, such as the 24 hours of a day.

    period : frames in it; 1 for none. sine, cosine : its two channels in the forcings.
    """

    period: int = 1
    sine: int = 0
    cosine: int = 1

    def __post_init__(self) -> None:
        if self.period < 1:
            raise InputError(f"Got a cycle of {self.period} frames; expected 1 or more.")

    def phases(self, forcings: Tensor | None, frame: int) -> Tensor:
        """(B,) integers from 0 to period - 1 at position ``frame`` of ``forcings`` (B, K, T, ...);
        0 without a cycle. Raises `InputError` where the forcings do not tell it."""
        if self.period == 1:
            return torch.zeros(1, dtype=torch.long)
        channels = 0 if forcings is None else forcings.shape[1]
        if forcings is None or channels <= max(self.sine, self.cosine):
            raise InputError(
                f"Got {channels} channels of forcings for a cycle of {self.period} frames; "
                f"expected its sine and cosine as channels {self.sine} and {self.cosine}."
            )
        if frame >= forcings.shape[2]:
            raise InputError(
                f"Got forcings at {forcings.shape[2]} times; expected at least {frame + 1}: past "
                "and every lead that is asked for."
            )
        now = forcings[:, :, frame].reshape(*forcings.shape[:2], -1)[..., 0].double()
        turn = torch.atan2(now[:, self.sine], now[:, self.cosine]) / (2 * math.pi)
        return torch.round(turn * self.period).long() % self.period


STEADY = Cycle()
"""No cycle: every frame is of the same phase."""


class Persistent(Forecaster):
    """The newest frame for ever; with a ``record``, plus what changed after a past hour like it.

    A member takes one start s of the record, of the phase of the newest frame, and adds
    record[s + n] - record[s]: the errors that persistence made, whole and in their order.

    Parameters
    ----------
    record : (T, C, *grid), consecutive frames of the training data, or None for the plain forecast.
    first : phase of the first one. cycle : see `Cycle`; of period 1 every start is like the newest.
    longest : the most leads that it serves, fewer than T; needed with a record.
    """

    def __init__(
        self,
        record: Tensor | None = None,
        first: int = 0,
        cycle: Cycle = STEADY,
        longest: int | None = None,
        boundary: Known | None = None,
    ) -> None:
        nn.Module.__init__(self)
        if record is not None and (longest is None or len(record) < longest + cycle.period):
            raise InputError(
                f"Got a record of {len(record)} frames for {longest} leads; expected `longest`, "
                f"and a record of at least longest + {cycle.period} frames."
            )
        self.record, self.first, self.cycle = record, first, cycle
        self.longest, self.boundary = longest, boundary

    @staticmethod
    def fit(
        record: Tensor,
        longest: int,
        cycle: Cycle = STEADY,
        forcings: Tensor | None = None,
    ) -> Persistent:
        """From a ``record`` (T, C, *grid) and its ``forcings`` (K, T, ...)."""
        return Persistent(record, _first(cycle, forcings), cycle, longest)

    @property
    def evaluations(self) -> float:
        return 0.0

    def walk(self, context: Context, rng: Streams) -> Iterator[Tensor]:
        past = context.past
        assert past is not None
        newest, n = past[:, :, -1], 0
        if self.record is None:
            while True:
                yield self.imposed(newest, context)
        assert self.longest is not None
        phase = self.cycle.phases(context.forcings, past.shape[2] - 1)
        start = _like(phase - self.first, len(self.record) - self.longest, self.cycle, newest, rng)
        record = self.record.to(newest)
        while n < self.longest:
            n += 1
            yield self.imposed(newest + record[start + n] - record[start], context)


class Climatology(Forecaster):
    """An ensemble of the training data: frames of the phase that is asked for, and nothing else.

    A member takes one frame of the record of the phase of its first lead and follows the record
    from there, so its frames hang together; beyond the end it goes on at the beginning, in phase.
    At every lead a member is equally likely to be any frame of that phase.

    Parameters
    ----------
    record : (T, C, *grid), consecutive frames of the training data; the last T mod period of them
        are not used. first : phase of the first one. cycle : see `Cycle`.
    """

    def __init__(
        self,
        record: Tensor,
        first: int = 0,
        cycle: Cycle = STEADY,
        boundary: Known | None = None,
    ) -> None:
        nn.Module.__init__(self)
        if len(record) < cycle.period:
            raise InputError(
                f"Got a record of {len(record)} frames; expected a whole cycle of {cycle.period}."
            )
        self.record, self.first, self.cycle, self.boundary = record, first, cycle, boundary

    @staticmethod
    def fit(
        record: Tensor,
        cycle: Cycle = STEADY,
        forcings: Tensor | None = None,
    ) -> Climatology:
        """From a ``record`` (T, C, *grid) and its ``forcings`` (K, T, ...)."""
        return Climatology(record, _first(cycle, forcings), cycle)

    @property
    def evaluations(self) -> float:
        return 0.0

    def walk(self, context: Context, rng: Streams) -> Iterator[Tensor]:
        past = context.past
        assert past is not None
        whole = len(self.record) // self.cycle.period * self.cycle.period
        phase = self.cycle.phases(context.forcings, past.shape[2] - 1)
        at = _like(phase - self.first, whole, self.cycle, past[:, :, -1], rng)
        record = self.record.to(past)
        while True:
            at = (at + 1) % whole
            yield self.imposed(record[at], context)


class DampedAnomaly(Forecaster):
    """The anomaly of the newest frame, damped at each lead, about the climatology of the cycle.

    The points are drawn independently of each other and of the frame before: it is the law of every
    value, not of the field.

    Parameters
    ----------
    climatology : (period, C, *grid), by phase. factor : (leads, C, *grid), rho_n.
    spread : (leads, C, *grid), s_n. cycle : see `Cycle`.
    """

    def __init__(
        self,
        climatology: Tensor,
        factor: Tensor,
        spread: Tensor,
        cycle: Cycle = STEADY,
        boundary: Known | None = None,
    ) -> None:
        nn.Module.__init__(self)
        if len(climatology) != cycle.period or factor.shape != spread.shape:
            raise InputError(
                f"Got a climatology of {len(climatology)} phases, factors {tuple(factor.shape)} "
                f"and spread {tuple(spread.shape)}; expected {cycle.period}, and equal shapes."
            )
        self.climatology, self.factor, self.spread = climatology, factor, spread
        self.cycle, self.boundary, self.longest = cycle, boundary, len(factor)

    @staticmethod
    def fit(
        record: Tensor,
        leads: int,
        cycle: Cycle = STEADY,
        forcings: Tensor | None = None,
        harmonics: int = 2,
        folds: int = 6,
    ) -> DampedAnomaly:
        """From a ``record`` (T, C, *grid) of consecutive frames and its ``forcings`` (K, T, ...).

        harmonics : of the climatology, whatever more the cycle could have. folds : the spread is
        that of the errors in a block of the record where climatology and factors are fitted to the
        other blocks; in its own record a short fit looks better than it is.
        """
        phase = (_first(cycle, forcings) + torch.arange(len(record))) % cycle.period
        x = record.double()
        if folds < 2 or len(x) < folds * max(2 * leads, cycle.period):
            raise InputError(
                f"Got a record of {len(x)} frames in {folds} blocks; expected 2 or more blocks of "
                f"at least {max(2 * leads, cycle.period)} frames."
            )
        edges = [len(x) * k // folds for k in range(folds + 1)]
        blocks = [(x[a:b], phase[a:b]) for a, b in zip(edges, edges[1:], strict=False)]
        errors = [
            _errors(block, *_fitted([b for b in blocks if b is not block], leads, cycle, harmonics))
            for block in blocks
        ]
        spread = torch.stack([torch.cat(e).square().mean(0).sqrt() for e in zip(*errors)])  # noqa: B905
        climatology, factor = _fitted(blocks, leads, cycle, harmonics)
        return DampedAnomaly(climatology, factor, spread, cycle)

    @property
    def evaluations(self) -> float:
        return 0.0

    def walk(self, context: Context, rng: Streams) -> Iterator[Tensor]:
        past = context.past
        assert past is not None
        newest = past[:, :, -1]
        climatology, factor, spread = (
            v.to(newest) for v in (self.climatology, self.factor, self.spread)
        )
        phase = self.cycle.phases(context.forcings, past.shape[2] - 1)
        anomaly = newest - climatology[phase]
        for n in range(1, len(factor) + 1):
            mean = climatology[(phase + n) % self.cycle.period] + factor[n - 1] * anomaly
            noise = rng.inside("frame", n).at("spread").normal(newest)
            yield self.imposed(mean + spread[n - 1] * noise, context)


class AboutCycle(Forecaster):
    """Another forecaster, of the anomalies from the climatology of a cycle.

    Parameters
    ----------
    forecaster : of anomalies. climatology : (period, C, *grid), by phase. cycle : see `Cycle`.
    """

    def __init__(
        self,
        forecaster: Forecaster,
        climatology: Tensor,
        cycle: Cycle = STEADY,
        boundary: Known | None = None,
    ) -> None:
        nn.Module.__init__(self)
        if len(climatology) != cycle.period:
            raise InputError(
                f"Got a climatology of {len(climatology)} phases; expected {cycle.period}."
            )
        self.forecaster, self.climatology, self.cycle = forecaster, climatology, cycle
        self.history, self.longest, self.boundary = forecaster.history, forecaster.longest, boundary

    @property
    def evaluations(self) -> float:
        return self.forecaster.evaluations

    def walk(self, context: Context, rng: Streams) -> Iterator[Tensor]:
        past = context.past
        assert past is not None
        usual, newest = self.climatology.to(past), past.shape[2] - 1
        phase = self.cycle.phases(context.forcings, newest)
        before = usual[(phase[:, None] + torch.arange(-newest, 1)) % self.cycle.period]
        anomalies = replace(context, past=past - before.movedim(1, 2))
        for n, frame in enumerate(self.forecaster.walk(anomalies, rng), 1):
            yield self.imposed(frame + usual[(phase + n) % self.cycle.period], context)


def _first(cycle: Cycle, forcings: Tensor | None) -> int:
    """Phase of the first frame of a record with ``forcings`` (K, T, ...)."""
    return int(cycle.phases(None if forcings is None else forcings[None], 0)[0])


def _like(offset: Tensor, count: int, cycle: Cycle, like: Tensor, rng: Streams) -> Tensor:
    """(B,) positions below ``count`` drawn evenly among those that are ``offset`` in the cycle."""
    offset = (offset % cycle.period).expand(len(like))
    several = (count - 1 - offset) // cycle.period + 1
    share = torch.special.ndtr(rng.at("record").normal(like.new_zeros(len(like), 1).double()))
    turn = (share[:, 0].cpu() * several).long().clamp_max(several - 1)
    return (offset + turn * cycle.period).to(like.device)


def _fitted(
    blocks: list[tuple[Tensor, Tensor]], leads: int, cycle: Cycle, harmonics: int
) -> tuple[Tensor, Tensor]:
    """Climatology (period, C, *grid), factors (leads, C, *grid) of blocks of (frames, phases)."""
    turn = 2 * math.pi * torch.arange(cycle.period, dtype=torch.float64) / cycle.period
    waves = [torch.ones_like(turn)]
    for k in range(1, min(harmonics, (cycle.period - 1) // 2) + 1):
        waves += [torch.cos(k * turn), torch.sin(k * turn)]
    basis = torch.stack(waves, dim=1)
    frames = torch.cat([x for x, _ in blocks])
    rows = basis[torch.cat([p for _, p in blocks])]
    solved = torch.linalg.lstsq(rows, frames.flatten(1)).solution
    climatology = (basis @ solved).unflatten(1, frames.shape[1:])
    gaps = [x - climatology[p] for x, p in blocks]
    factors = []
    for n in range(1, leads + 1):
        both = sum((g[:-n] * g[n:]).sum(0) for g in gaps)
        power = sum(g[:-n].square().sum(0) for g in gaps)
        factors.append(both / torch.as_tensor(power).clamp_min(1e-30))
    return climatology, torch.stack(factors)


def _errors(block: tuple[Tensor, Tensor], climatology: Tensor, factor: Tensor) -> list[Tensor]:
    """Errors (starts, C, *grid) at each lead within one block."""
    gap = block[0] - climatology[block[1]]
    return [gap[n:] - f * gap[:-n] for n, f in enumerate(factor, 1)]
