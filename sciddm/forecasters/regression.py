r"""Regressions on several past frames: the mean of a record too short for a network.

A month of hourly weather holds a handful of independent days, and a mean that has a coefficient for
every pair of points learns them by heart. Three parts need few coefficients:

- `Cyclic`: the daily (or yearly) cycle of each point, a few harmonics, as wide as it was in the
  last turn if wanted. What follows is about anomalies from it.
- `Stencils`: x' = x + sum_{p,s} (u_{ps} + v_{ps} w) S_s b_p, with b_0 = x the newest frame and
  b_p = x - (the frame p before it) its tendencies. S_s smooths at one width, or smooths and takes
  a slope along one axis, so a front goes on as it went; w is a field that says where points behave
  in another way (land). u and v are shared by all points.
- `Blended`: in the space of a few patterns, a share of a linear law of those patterns, which knows
  how the large scales of this place go on.

References
----------
Glahn, Lowry. The use of model output statistics (MOS) in objective weather forecasting. Journal of
Applied Meteorology 11, 1972 (regression on recent values). Bates, Granger. The combination of
forecasts. Operational Research Quarterly 20, 1969 (a share of each).
Hoerl, Kennard. Ridge regression. Technometrics 12, 1970, eq. 2.1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sciddm.denoise import Context
from sciddm.errors import InputError
from sciddm.forecasters.linear import LinearGaussian
from sciddm.forecasters.mean import Mean


class Cyclic(Mean):
    """Another mean, of the anomalies from a cycle; with ``swing``, from one that is wider or
    narrower where the last turn was.

    Parameters
    ----------
    mean : of anomalies. waves : (1 + 2 H, C, *grid): constant, cosine and sine of 1 .. H turns.
    sine, cosine : channels of the forcings that tell the angle.
    swing : how much of the width of the last turn the next one has: a clear day follows a clear
        day. turn : frames of a turn, all of which are then needed. width : s.d. in grid points of
        the Gaussian average that the width is taken over.
    """

    def __init__(
        self,
        mean: Mean,
        waves: Tensor,
        sine: int = 0,
        cosine: int = 1,
        swing: float = 0.0,
        turn: int = 24,
        width: float = 4.0,
    ) -> None:
        nn.Module.__init__(self)
        self.mean, self.waves, self.sine, self.cosine = mean, waves, sine, cosine
        self.swing, self.turn, self.width = swing, turn, width
        self.history = max(mean.history, turn if swing else 1)
        self._average = tuple(_average(n, width, False) for n in waves.shape[2:])

    def forward(self, recent: Tensor, context: Context, frame: int) -> Tensor:
        recent = recent[:, :, -self.history :]
        before = self.history if context.past is None else context.past.shape[2]
        first = frame - 1 + before - self.history
        forcings = context.forcings
        if forcings is None or forcings.shape[2] < first + self.history + 1:
            came = 0 if forcings is None else forcings.shape[2] - before
            raise InputError(
                f"Got forcings of {came} lead steps; expected the calendar at the times of the "
                f"past and of at least {frame} lead steps."
            )
        known = forcings[:, :, first : first + self.history + 1]
        usual = cycle_at(self.waves, known, self.sine, self.cosine).to(recent)
        gap = recent - usual[:, :, :-1]
        mean: Tensor = self.mean(gap, context, frame)
        out = mean + usual[:, :, -1]
        if not self.swing:
            return out
        swings = usual - self.waves[0].to(usual)[:, None]
        past = swings[:, :, -self.turn - 1 : -1]
        both = _apply(self._average, (gap[:, :, -self.turn :] * past).sum(2))
        wider = both / _apply(self._average, past.square().sum(2)).clamp_min(1e-12)
        return out + self.swing * wider * (swings[:, :, -1] - swings[:, :, -2])


class Stencils(Mean):
    """The newest frame, and what local averages, slopes and tendencies add to it.

    Parameters
    ----------
    coefficients : (2, C, C, P, S), u and v: to channel, from channel, tendency, stencil.
    weight : (C, *grid), w. widths : s.d. of the Gaussian averages, in grid points.
    slopes : s.d. of the averages whose slopes are taken. The stencils are: the point itself, the
        averages, and for every slope one along each axis. periodic : whether space wraps.
    """

    def __init__(
        self,
        coefficients: Tensor,
        weight: Tensor,
        widths: tuple[float, ...],
        slopes: tuple[float, ...],
        periodic: bool = False,
    ) -> None:
        nn.Module.__init__(self)
        count = 1 + len(widths) + len(slopes) * (weight.ndim - 1)
        if coefficients.ndim != 5 or coefficients.shape[-1] != count:
            raise InputError(
                f"Got coefficients of shape {tuple(coefficients.shape)}; expected (2, C, C, P, "
                f"{count}) for these widths and slopes."
            )
        self.coefficients, self.weight = coefficients, weight
        self.widths, self.slopes, self.periodic = tuple(widths), tuple(slopes), periodic
        self.history = coefficients.shape[3]
        self._stencils = _stencils(weight.shape[1:], self.widths, self.slopes, periodic)

    @staticmethod
    def fit(
        films: Sequence[Tensor],
        weight: Tensor,
        *,
        history: int = 4,
        widths: tuple[float, ...] = (1.0, 2.0, 4.0, 8.0, 99.0),
        slopes: tuple[float, ...] = (1.5, 4.0, 8.0),
        ridge: float = 0.01,
        thin: int = 2,
        periodic: bool = False,
    ) -> Stencils:
        """Least squares over every frame of ``films`` (each (C, T, *grid) of anomalies).

        ridge : variance added to that of every predictor in units of its own. thin : every so many
        points along each axis; neighbours say nearly the same.
        """
        stencils = _stencils(weight.shape[1:], widths, slopes, periodic)
        axes = weight.ndim - 1
        gram: Tensor | float = 0.0
        cross: Tensor | float = 0.0
        for film in films:
            x = film.double().movedim(1, 0)  # (T, C, *grid)
            if len(x) <= history:
                raise InputError(f"Got a film of {len(x)} frames; expected over {history}.")
            b = _tendencies(
                torch.stack([x[k : len(x) - history + k] for k in range(history)], dim=2)
            )
            # (T, C, P, S, *some)
            f = torch.stack([_thinned(_apply(s, b), axes, thin) for s in stencils], dim=3)
            w = _thinned(weight.double(), axes, thin)[:, None, None].expand_as(f[0])
            rows = torch.cat([f, f * w], dim=1).flatten(1, 3).flatten(2)
            rows = rows.movedim(1, -1).flatten(0, 1)  # (T points, 2 C P S)
            y = _thinned(x[history:] - x[history - 1 : -1], axes, thin).flatten(2)
            y = y.movedim(1, -1).flatten(0, 1)
            gram, cross = gram + rows.T @ rows, cross + rows.T @ y
        gram, cross = torch.as_tensor(gram), torch.as_tensor(cross)
        own = gram.diagonal().clone()
        half = len(own) // 2
        own[half:] = own[:half]  # of u and v alike: in units of the same predictor
        solved = torch.linalg.solve(gram + torch.diag(ridge * own.clamp_min(1e-12)), cross)
        channels, parts = weight.shape[0], len(stencils)
        u = solved.T.unflatten(1, (2, channels, history, parts)).movedim(1, 0)
        return Stencils(u.contiguous(), weight, widths, slopes, periodic)

    def forward(self, recent: Tensor, context: Context, frame: int) -> Tensor:
        recent = recent[:, :, -self.history :]
        b, out = _tendencies(recent), recent[:, :, -1]
        u = self.coefficients.to(recent)
        both = torch.einsum("adcps,bcp...->asbd...", u, b)
        parts = [both[:, k] for k in range(both.shape[1])]
        added = sum(_apply(s, part) for s, part in zip(self._stencils, parts, strict=True))
        added = torch.as_tensor(added)
        return out + added[0] + self.weight.to(recent) * added[1]


class Blended(Mean):
    """One mean, moved a ``share`` of the way to a linear law within the patterns of that law."""

    def __init__(self, mean: Mean, law: LinearGaussian, share: float) -> None:
        nn.Module.__init__(self)
        self.mean, self.law, self.share = mean, law, share
        self.history = max(mean.history, law.history)

    def forward(self, recent: Tensor, context: Context, frame: int) -> Tensor:
        mean: Tensor = self.mean(recent, context, frame)
        recent = recent[:, :, -self.law.history :]
        z = self.law.coefficients(recent)
        ahead = torch.einsum("prs,bps->br", self.law.transition.to(z), z.flip(1))
        gap = ahead - self.law.coefficients(mean[:, :, None])[:, 0]
        moved = self.share * gap @ self.law.modes.flatten(1).to(gap)
        return mean + moved.view_as(mean).to(mean)


def cycle(record: Tensor, forcings: Tensor, harmonics: int = 2) -> Tensor:
    """The waves (1 + 2 harmonics, C, *grid) of ``record`` (T, C, *grid) by least squares, with
    sine and cosine of the angle as the first two channels of ``forcings`` (K, T)."""
    angle = torch.atan2(forcings[0].double(), forcings[1].double())
    basis = _waves(angle, 1 + 2 * harmonics)
    solved = torch.linalg.lstsq(basis, record.double().flatten(1)).solution
    return solved.unflatten(1, record.shape[1:])


def cycle_at(waves: Tensor, forcings: Tensor, sine: int = 0, cosine: int = 1) -> Tensor:
    """What `cycle` found, (B, C, T, *grid) at the times of ``forcings`` (B, K, T, ...); float64."""
    plain = forcings.reshape(*forcings.shape[:3], -1)[..., 0].double()
    basis = _waves(torch.atan2(plain[:, sine], plain[:, cosine]), len(waves))
    return torch.einsum("btw,wc...->bct...", basis, waves.double())


def patterns(films: Sequence[Tensor], modes: Tensor, order: int, ridge: float) -> LinearGaussian:
    """The regression of the coefficients on ``modes`` (R, C, *grid) of the next frame on those of
    the newest and on its ``order`` - 1 last tendencies, over ``films`` (each (C, T, *grid)).

    ridge : variance added to every predictor, in the units of the coefficients: small patterns are
    left as they are. The law is without noise.
    """
    flat = modes.double().flatten(1)
    rows, targets = [], []
    for film in films:
        z = film.double().movedim(1, 0).flatten(1) @ flat.T
        ends = len(z) - order
        lag = [z[order - 1 - k : order - 1 - k + ends] for k in range(order)]
        rows.append(torch.cat([lag[0], *(a - b for a, b in zip(lag, lag[1:], strict=False))], 1))
        targets.append(z[order:] - z[order - 1 : -1])
    x, y = torch.cat(rows), torch.cat(targets)
    rank = len(flat)
    gram = x.T @ x + ridge * len(x) * torch.eye(x.shape[1], dtype=torch.float64)
    d = torch.linalg.solve(gram, x.T @ y).T.unflatten(1, (order, rank)).movedim(1, 0)
    # d_0 z_n + sum_k d_k (z_{n-k+1} - z_{n-k}) in terms of the frames
    a = torch.zeros(order, rank, rank, dtype=torch.float64)
    a[0] = torch.eye(rank, dtype=torch.float64) + d[0]
    for k in range(1, order):
        a[k - 1] += d[k]
        a[k] -= d[k]
    still = torch.zeros(rank, rank, dtype=torch.float64)
    return LinearGaussian(modes, a, still, torch.zeros((), dtype=torch.float64))


def _waves(angle: Tensor, count: int) -> Tensor:
    """(..., count): 1, cos, sin, cos 2, sin 2, ..."""
    waves = [torch.ones_like(angle)]
    for k in range(1, (count - 1) // 2 + 1):
        waves += [torch.cos(k * angle), torch.sin(k * angle)]
    return torch.stack(waves, dim=-1)


def _tendencies(recent: Tensor) -> Tensor:
    """The newest of (B, C, P, *grid), and what it is over each before it, the nearest first."""
    newest = recent[:, :, -1:]
    return torch.cat([newest, newest - recent[:, :, :-1].flip(2)], dim=2)


Stencil = tuple[Tensor | None, ...]
"""One matrix for every axis of the grid; None leaves an axis as it is."""


def _stencils(
    grid: Sequence[int], widths: Sequence[float], slopes: Sequence[float], periodic: bool
) -> list[Stencil]:
    out: list[Stencil] = [(None,) * len(grid)]
    out += [tuple(_average(n, w, periodic) for n in grid) for w in widths]
    for w in slopes:
        smooth = [_average(n, w, periodic) for n in grid]
        for axis, n in enumerate(grid):
            slope = _slope(n, periodic) @ smooth[axis]
            out.append(tuple(slope if k == axis else m for k, m in enumerate(smooth)))
    return out


def _average(points: int, width: float, periodic: bool) -> Tensor:
    """(points, points): rows of Gaussian weights of s.d. ``width`` points, each of sum 1."""
    at = torch.arange(points, dtype=torch.float64)
    gap = (at[:, None] - at).abs()
    if periodic:
        gap = torch.minimum(gap, points - gap)
    weight = torch.exp(-0.5 * (gap / width) ** 2)
    return weight / weight.sum(1, keepdim=True)


def _slope(points: int, periodic: bool) -> Tensor:
    """(points, points): centred differences, one-sided at the ends of an open axis."""
    one = torch.eye(points, dtype=torch.float64)
    slope = 0.5 * (one.roll(1, 1) - one.roll(-1, 1))
    if not periodic:
        slope[0], slope[-1] = one[1] - one[0], one[-1] - one[-2]
    return slope


def _apply(stencil: Stencil, x: Tensor) -> Tensor:
    """``stencil`` along the last axes of ``x``."""
    for k, matrix in enumerate(stencil):
        if matrix is not None:
            axis = x.ndim - len(stencil) + k
            x = torch.movedim(torch.movedim(x, axis, -1) @ matrix.to(x).T, -1, axis)
    return x


def _thinned(x: Tensor, axes: int, every: int) -> Tensor:
    """Every so many values along the last ``axes`` axes."""
    for axis in range(x.ndim - axes, x.ndim):
        x = x.index_select(axis, torch.arange(0, x.shape[axis], every))
    return x
