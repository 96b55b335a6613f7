"""Ornstein-Uhlenbeck series at a cost that grows with their length, not with its cube.

The process is Markov in time, so a draw is a recursion over the sorted times of each row, and the
likelihood and the posterior under white errors are the Kalman filter and its smoother. The laws are
those of `kernel.Mixed` with one `OrnsteinUhlenbeck` term whose channels are independent.

References
----------
Kalman. A new approach to linear filtering and prediction problems. 1960.
Rauch, Tung, Striebel. Maximum likelihood estimates of linear dynamic systems. AIAA J. 1965.
Doob. The Brownian movement and stochastic equations. 1942 (exact transition of the process).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sciddm.errors import InputError
from sciddm.random import Streams
from sciddm.series.base import SeriesSampler
from sciddm.series.kernel import Mixed, OrnsteinUhlenbeck
from sciddm.series.law import Law
from sciddm.series.panel import Panel


def ornstein_uhlenbeck(time: Tensor, length: float | Tensor, noise: Tensor) -> Tensor:
    """The stationary process of variance 1 at ``time`` (R, n), in any order, from white ``noise``
    (R, n), one a time: correlation exp(-|s - t| / length). Times after all others change none."""
    order, gap = _in_order(time)
    keep = torch.exp(-gap / length).to(noise)
    fresh = (1 - keep.square()).clamp_min(0).sqrt()
    white = noise.gather(1, order)
    values = [white[:, :1]]
    for j in range(1, noise.shape[1]):
        values.append(keep[:, j, None] * values[-1] + fresh[:, j, None] * white[:, j, None])
    return torch.cat(values, dim=1).gather(1, order.argsort(dim=1))


def _in_order(time: Tensor) -> tuple[Tensor, Tensor]:
    """What sorts the times, and the gap before each of the sorted ones, 0 before the first."""
    order = time.argsort(dim=1, stable=True)
    at = time.gather(1, order)
    return order, at.diff(dim=1, prepend=at[:, :1])


class Smoothed(NamedTuple):
    """Mean and variance (R, n) of the process given all values, and log p of these, (R,)."""

    mean: Tensor
    variance: Tensor
    log_prob: Tensor


def smooth(
    time: Tensor,
    length: float | Tensor,
    power: Tensor,
    value: Tensor,
    known: Tensor,
    error2: Tensor,
) -> Smoothed:
    """Kalman filter and Rauch-Tung-Striebel smoother of a centred Ornstein-Uhlenbeck process.

    Parameters
    ----------
    time : (R, n), in any order. length : of the correlation. power : (R,), the variance.
    value : (R, n), the process with white errors at ``known`` (R, n) bool; never looked at
        elsewhere. error2 : (R, n), variance of those errors, 0 allowed.
    """
    order, gaps = _in_order(time)
    keep = torch.exp(-gaps / length)
    y = torch.where(known, value.double(), 0.0).gather(1, order)
    seen, r = known.gather(1, order), error2.gather(1, order)
    mean, var = torch.zeros_like(power), power
    means, variances, ahead, spread = [], [], [], []
    log_p = torch.zeros_like(power)
    for j in range(time.shape[1]):
        a = keep[:, j]
        mean, var = a * mean, a.square() * var + (1 - a.square()) * power
        ahead.append(mean)
        spread.append(var)
        total = (var + r[:, j]).clamp_min(1e-12 * power)
        gain = torch.where(seen[:, j], var / total, 0.0)
        gap = y[:, j] - mean
        one = -0.5 * (gap.square() / total + total.log() + math.log(2 * math.pi))
        log_p = log_p + torch.where(seen[:, j], one, 0.0)
        mean, var = mean + gain * gap, (1 - gain) * var
        means.append(mean)
        variances.append(var)
    for j in range(time.shape[1] - 2, -1, -1):
        back = variances[j] * keep[:, j + 1] / spread[j + 1].clamp_min(1e-300)
        means[j] = means[j] + back * (means[j + 1] - ahead[j + 1])
        variances[j] = variances[j] + back.square() * (variances[j + 1] - spread[j + 1])
    home = order.argsort(dim=1)
    return Smoothed(
        torch.stack(means, 1).gather(1, home), torch.stack(variances, 1).gather(1, home), log_p
    )


@dataclass(frozen=True, eq=False)
class _Rows:
    """A panel as rows (B C, m) of one channel each; cells of other channels are not known."""

    time: Tensor
    mine: Tensor
    known: Tensor
    gap: Tensor
    power: Tensor
    rest: Tensor
    error2: Tensor
    length: float | Tensor

    def smooth(self, gap: Tensor) -> Smoothed:
        error2 = self.rest + self.error2
        return smooth(self.time, self.length, self.power, gap, self.known, error2)


def markov_posterior(law: Law, panel: Panel) -> tuple[Tensor, Tensor]:
    """Mean and variance (B, m) of every cell given the known ones, as `law.posterior` has them.

    Raises `InputError` for a law that is not one Ornstein-Uhlenbeck term of independent channels.
    """
    rows, mixed = _rows(law, panel), _checked(law)
    found = smooth(
        rows.time, rows.length, rows.power, rows.gap, rows.known, rows.rest + rows.error2
    )
    mean, variance = _with_rest(found.mean, found.variance, rows)
    mean, variance = _cells(mean, rows, panel), _cells(variance, rows, panel)
    return torch.where(panel.real, mean + mixed.mean(panel), 0.0), variance


def markov_log_prob(law: Law, panel: Panel) -> Tensor:
    """log p(known values), (B,), as `law.log_prob` has it."""
    rows = _rows(law, panel)
    found = smooth(
        rows.time, rows.length, rows.power, rows.gap, rows.known, rows.rest + rows.error2
    )
    return found.log_prob.unflatten(0, (len(panel), -1)).sum(1)


class MarkovSeries(SeriesSampler):
    """The posterior of an Ornstein-Uhlenbeck ``law`` drawn exactly, at a cost of order m.

    A draw of the law with its errors is moved by the smoothed gap to the known values (Journel,
    Huijbregts 1978: conditioning by kriging).
    """

    def __init__(self, law: Mixed) -> None:
        super().__init__()
        self.law = _checked(law)
        self.channels: int = len(law.rest)

    @property
    def evaluations(self) -> float:
        return 0.0

    @torch.no_grad()
    def draw(self, panel: Panel, rng: Streams) -> Tensor:
        members = len(rng.members) // max(len(panel), 1)
        many = panel.repeated(members)
        rows = _rows(self.law, many)
        # one address a channel: a cell has the same noise whatever else the panel holds
        walk, white, wrong = (
            torch.stack([rng.at(name, c).normal(many.time) for c in range(self.channels)], 1)
            for name in ("walk", "white", "error")
        )
        walk = ornstein_uhlenbeck(rows.time, rows.length, walk.flatten(0, 1))
        walk = rows.power.sqrt()[:, None] * walk
        white = rows.rest.sqrt() * white.flatten(0, 1)
        wrong = rows.error2.sqrt() * wrong.flatten(0, 1)
        off = rows.gap - walk - white - wrong
        found = rows.smooth(off)
        moved, _ = _with_rest(found.mean, found.variance, rows, off)
        out = _cells(walk + white + moved, rows, many) + self.law.mean(many)
        if panel.error is None:
            out = torch.where(many.known, many.value.double(), out)
        return torch.where(many.real, out, 0.0).unflatten(0, (len(panel), members))


def _checked(law: Law) -> Mixed:
    one = isinstance(law, Mixed) and len(law.terms) == 1
    if not (
        isinstance(law, Mixed)
        and one
        and isinstance(law.terms[0].shape, OrnsteinUhlenbeck)
        and not bool(law.terms[0].loads.any())
    ):
        raise InputError(
            f"Got {type(law).__name__} that is not one OrnsteinUhlenbeck term without loads; "
            "expected that, or use law.posterior, which takes any law."
        )
    return law


def _rows(law: Law, panel: Panel) -> _Rows:
    mixed = _checked(law)
    shape = mixed.terms[0].shape
    assert isinstance(shape, OrnsteinUhlenbeck)
    channels = len(mixed.rest)

    def each(x: Tensor) -> Tensor:
        return x[:, None].expand(-1, channels, -1).flatten(0, 1)

    own = torch.arange(channels, device=panel.time.device)
    mine = (panel.channel[:, None] == own[:, None]).flatten(0, 1) & each(panel.real)
    known = mine & each(panel.known)
    gap = each(torch.where(panel.known, panel.value.double() - mixed.mean(panel), 0.0))
    error2 = torch.zeros_like(gap) if panel.error is None else each(panel.error.double().square())
    # other cells stand at the last time of the row, where they change nothing
    time = each(panel.time)
    last = torch.where(mine, time, -torch.inf).amax(1, keepdim=True)
    time = torch.where(mine, time, torch.where(last.isfinite(), last, 0.0))
    power = mixed.terms[0].own.to(panel.time).repeat(len(panel))
    rest = mixed.rest.to(panel.time).repeat(len(panel))[:, None].expand_as(gap)
    return _Rows(time, mine, known, gap, power, rest, error2, shape.length)


def _with_rest(
    mean: Tensor, variance: Tensor, rows: _Rows, gap: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """From the process to the values, which hold the white rest too: at a known cell the rest is
    known up to the error of the value."""
    whole = (rows.rest + rows.error2).clamp_min(1e-300)
    share = torch.where(rows.known, rows.rest / whole, 0.0)
    off = rows.gap if gap is None else gap
    full = mean + share * (off - mean)
    return full, (1 - share).square() * variance + rows.rest * torch.where(
        rows.known, rows.error2 / whole, 1.0
    )


def _cells(x: Tensor, rows: _Rows, panel: Panel) -> Tensor:
    """(B C, m) back to the cells (B, m)."""
    return torch.where(rows.mine, x, 0.0).unflatten(0, (len(panel), -1)).sum(1)
