"""Laws of regular records: a table of autocovariances, seasons in mean and size, local scales.

A record of some length says its own second moments at every lag, between all channels: nothing
has to be chosen but how far they are believed. `Lagged` is the stationary law of such a table, at
any times. `Seasonal` puts the mean and the size of each phase of the day or year around it, and the
size of each series' own last changes, for records whose noise comes and goes. `measured` takes
both from a record.

Brockwell, Davis. Time series: theory and methods. 1991, section 7.2 (the positive estimate), 10.4
(the Parzen window). Gardner, Napolitano, Paura. Cyclostationarity: half a century of research.
2006, section 3.5 (amplitude modulation by a period).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sciddm.errors import InputError
from sciddm.series.law import Law, Rescaled
from sciddm.series.panel import Panel


@dataclass(frozen=True, eq=False)
class Lagged(Law):
    """Cov[Y_c(t + k step), Y_d(t)] = table[k, c, d], linear between lags, 0 after them; mean 0.

    table : (L, C, C). step : of the lags, in units of time.
    level : variance of a constant that each channel of each series has of its own: how free levels
        are. rest : variance that is white from cell to cell.
    """

    table: Tensor
    step: float = 1.0
    level: float = 0.0
    rest: float = 0.0

    def mean(self, panel: Panel) -> Tensor:
        return torch.zeros_like(panel.time, dtype=torch.float64)

    def covariance(self, panel: Panel) -> Tensor:
        rows, time, channel = len(panel), panel.time.double(), panel.channel
        if rows > 1 and panel.dense is not None and _alike(time, channel):
            time, channel = time[:1], channel[:1]
        length, channels = self.table.shape[:2]
        lag = (time[:, :, None] - time[:, None, :]) / self.step
        low = (lag.abs() + 1e-9).floor()
        share = (lag.abs() - low).clamp_min(0)
        one, other = channel[:, :, None], channel[:, None, :]
        pair = torch.where(lag >= 0, one * channels + other, other * channels + one)
        table = torch.cat([self.table.double().flatten(1), self.table.new_zeros(2, channels**2)])
        at = low.long().clamp_max(length)
        out = table[at, pair]
        if bool((share > 1e-9).any()):
            out = torch.lerp(out, table[at + 1, pair], share)
        if self.level:
            out = out + self.level * (one == other)
        if self.rest:
            out = out + self.rest * torch.eye(out.shape[-1], dtype=out.dtype, device=out.device)
        return out.expand(rows, -1, -1)


@dataclass(frozen=True, eq=False)
class Seasonal(Rescaled):
    """X = centre + spread s Y at each phase of a period, s the scale of a series' own changes.

    inner : law of Y. centre, spread : (P, C), of the P phases of the period, each one ``step``
        long, the first at time 0. step : in units of time.
    recent : known cells of the last ``recent`` units of time say the scale: s of a channel is the
        mean of its absolute changes from one known cell to the next, in units of what the law
        expects, and of ``prior`` changes that are as expected. 0: s = 1. Absolute, not squared:
        one jump does not make the rest of the series wide.
    """

    inner: Law
    centre: Tensor
    spread: Tensor
    step: float = 1.0
    recent: float = 0.0
    prior: float = 12.0

    def affine(self, panel: Panel) -> tuple[Tensor, Tensor]:
        phase = (panel.time.double() / self.step + 1e-6).floor().long() % len(self.centre)
        shift = self.centre.double()[phase, panel.channel]
        size = self.spread.double()[phase, panel.channel]
        if self.recent:
            size = size * self.scale(panel, (panel.value.double() - shift) / size)
        return shift, size

    def scale(self, panel: Panel, y: Tensor) -> Tensor:
        """s of the channel of each cell, (B, m), for the values ``y`` of Y where they are known."""
        time, known = panel.time.double(), panel.known
        order = torch.argsort(torch.where(known, time, torch.inf), dim=1, stable=True)
        by = panel.channel.gather(1, order).argsort(dim=1, stable=True)
        order = order.gather(1, by)  # by channel, then by time, those that are not known last
        here, there = order[:, 1:], order[:, :-1]
        channel = panel.channel.gather(1, here)
        last = torch.where(known, time, -torch.inf).amax(1, keepdim=True)
        used = known.gather(1, here) & (channel == panel.channel.gather(1, there))
        used &= time.gather(1, there) >= last - self.recent
        pairs = torch.stack([here, there], dim=-1).flatten(1)
        time, channels = (x.gather(1, pairs).view(-1, 2) for x in (time, panel.channel))
        seen = torch.ones_like(channels, dtype=torch.bool)
        cov = self.inner.covariance(Panel(time, channels, torch.zeros_like(time), seen, seen))
        expected = (cov[:, 0, 0] + cov[:, 1, 1] - 2 * cov[:, 0, 1]).view(here.shape)
        change = (y.gather(1, here) - y.gather(1, there)).abs() / usual(expected)
        total = torch.zeros(len(panel), len(self.centre[0]), dtype=torch.float64, device=y.device)
        count = total.scatter_add(1, channel, used.double())
        total = total.scatter_add(1, channel, torch.where(used, change, 0.0))
        scale = (self.prior + total).clamp_min(1e-6) / (self.prior + count).clamp_min(1e-6)
        return scale.gather(1, panel.channel)


def measured(
    values: Tensor,
    *,
    phases: int = 1,
    first: int = 0,
    step: float = 1.0,
    lags: int,
    support: int,
    together: float = 1.0,
    level: float = 0.0,
    rest: float = 1e-3,
    slow: int | None = None,
    recent: float = 0.0,
    prior: float = 12.0,
) -> Seasonal:
    """The law of a regular record.

    Parameters
    ----------
    values : (n, C), one row a step, NaN where there is none.
    phases : steps in the period, such as 24 hours; 1 for none. first : phase of row 0.
    lags : L, how many lags are kept. support : lag at which they are believed no more; the table is
        tapered to it by a Parzen window.
    together : share that is kept of what channels say of each other, in [0, 1].
    level, rest : as of `Lagged`, in units of a channel's variance. The rest is made larger where
        the table alone, of a record with gaps, is not the covariance of anything.
    slow : the size of each phase is that of the departures from the mean of the last ``slow`` rows,
        so that slow changes do not hide it; None: of the departures from the phase's mean.
    recent, prior : as of `Seasonal`.

    Raises `InputError` for a channel without values in some phase, or too few rows.
    """
    n, channels = values.shape
    if n <= lags or n <= (slow or 0) + phases:
        raise InputError(f"Got a record of {n} rows for {lags} lags; expected more rows than lags.")
    x = values.double()
    there = torch.isfinite(x)
    phase = (first + torch.arange(n)) % phases
    if not bool((_by_phase(there.double(), phase, phases) > 0).all()):
        raise InputError(
            f"Got a record with a channel that has no value at one of {phases} phases; expected "
            "some of each. A shorter period, or none (phases = 1), is the usual cure."
        )
    count = _by_phase(there.double(), phase, phases)
    x = torch.where(there, x, 0.0)
    centre = _by_phase(x, phase, phases) / count
    gap = torch.where(there, x - centre[phase], 0.0)
    size = gap.square() if slow is None else _departure(gap, there, slow).square()
    spread = (_by_phase(size, phase, phases) / count).sqrt().clamp_min(1e-6)
    spread = spread / spread.square().mean(0).sqrt()
    table = _autocovariance(gap / spread[phase], there, lags)
    taper = _parzen(torch.arange(lags, dtype=torch.float64) / support)
    apart = torch.diag_embed(table.diagonal(dim1=1, dim2=2))
    table = taper[:, None, None] * torch.lerp(apart, table, together)
    table = table.float()
    unit = float(table[0].diagonal().mean())
    rest = max(rest * unit, -1.01 * _lowest(table.double()))
    law = Lagged(table, step, level * unit, rest)
    return Seasonal(law, centre.float(), spread.float(), step, recent, prior)


def usual(variance: Tensor) -> Tensor:
    """Mean absolute value of a normal variable of mean 0."""
    return (2 / math.pi * variance).clamp_min(1e-24).sqrt()


def _alike(time: Tensor, channel: Tensor) -> bool:
    near = ((time - time[:, :1]) - (time[:1] - time[:1, :1])).abs().amax() < 1e-6
    return bool(near) and bool((channel == channel[:1]).all())


def _by_phase(x: Tensor, phase: Tensor, phases: int) -> Tensor:
    """Sums of the rows of (n, C) by phase, (P, C)."""
    return x.new_zeros(phases, x.shape[1]).index_add(0, phase, x)


def _departure(gap: Tensor, there: Tensor, slow: int) -> Tensor:
    """From the mean of the ``slow`` rows before, (n, C); 0 where there is no value."""
    total = torch.cat([gap.new_zeros(1, gap.shape[1]), gap.cumsum(0)])
    count = torch.cat([gap.new_zeros(1, gap.shape[1]), there.double().cumsum(0)])
    row = torch.arange(len(gap))
    begin = (row - slow).clamp_min(0)
    mean = (total[row] - total[begin]) / (count[row] - count[begin]).clamp_min(1)
    return torch.where(there, gap - mean, 0.0)


def _autocovariance(y: Tensor, there: Tensor, lags: int) -> Tensor:
    """(L, C, C) of rows (n, C) that are 0 where there is no value.

    Means over the pairs of each lag, times 1 - lag / n: the positive estimate of a whole record.
    """
    n = len(y)
    size = 2 ** (n + lags - 1).bit_length()

    def sums(x: Tensor) -> Tensor:
        wave = torch.fft.rfft(x, n=size, dim=0)
        cross = wave[:, :, None] * wave[:, None, :].conj()
        return torch.fft.irfft(cross, n=size, dim=0)[:lags]

    pairs = sums(there.double()).round().clamp_min(1)
    return sums(y) / pairs * (1 - torch.arange(lags, dtype=y.dtype) / n)[:, None, None]


def _lowest(table: Tensor) -> float:
    """The lowest eigenvalue of the covariance of L steps of all channels."""
    lags, channels = table.shape[:2]
    lag = torch.arange(lags)[:, None] - torch.arange(lags)
    wide = torch.where(lag[:, :, None, None] >= 0, table[lag.abs()], table.mT[lag.abs()])
    matrix = wide.transpose(1, 2).reshape(lags * channels, lags * channels)
    return float(torch.linalg.eigvalsh(matrix)[0])


def _parzen(u: Tensor) -> Tensor:
    """Parzen's window: 1 at 0, smooth, 0 from 1 on, with a positive transform."""
    near = 1 - 6 * u**2 + 6 * u**3
    return torch.where(u < 0.5, near, 2 * (1 - u).clamp_min(0) ** 3)
