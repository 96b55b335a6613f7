r"""The error of a trained network, measured: the covariance that guidance should use.

A network's error is not that of the Gaussian base. `Calibrated` holds the covariance of its error
at a few noise levels, measured on validation fields in the span of given modes with a white rest
per channel; `Scaled` is the base's covariance times one number a level, for records too short to
measure more. Both are closed forms, so guidance stays free of back-propagation, and members fit
their observations because the guide knows how wrong the network is.

References
----------
Rozet, Andry, Lanusse, Louppe. Learning diffusion priors from observations by expectation
maximization. NeurIPS 2024, section 4 (why the covariance decides). https://arxiv.org/abs/2405.13712
Ledoit, Wolf. A well-conditioned estimator for large-dimensional covariance matrices. JMVA 2004,
eq. 14 (shrinkage). https://doi.org/10.1016/S0047-259X(03)00096-4
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sciddm.denoise import Context, Denoiser, Gaussian, LinearMap, Moments, interpolate
from sciddm.process import Process
from sciddm.random import Streams, normal

TINY = 1e-30
"""Variance below which a direction counts as known; its logarithm is finite."""


@dataclass(frozen=True, eq=False)
class Calibrated(Moments):
    """Cov[X | x_t] = U E(kappa) U^T + P diag(rest(kappa)) P with P = I - U U^T, measured.

    Between the measured levels the s.d. of every mode and of the rest are interpolated in log, the
    correlations linearly: at low noise all variances go as kappa^2, a factor of ten a level.

    Parameters
    ----------
    process : whose clock turns times into noise levels.
    modes : U, (R, C, *grid), orthonormal. log_kappa : (L,) rising.
    inside : E, (L, R, R). rest : (L, C), variance per channel outside the modes.
    """

    exact: ClassVar[bool] = False

    process: Process
    modes: Tensor
    log_kappa: Tensor
    inside: Tensor
    rest: Tensor

    def _at(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """E (R, R) and the rest (C,) at the one time ``t``."""
        at, knots = self.process.kappa(t).log(), self.log_kappa.double()
        std = self.inside.double().diagonal(dim1=1, dim2=2).clamp_min(TINY).sqrt()
        likeness = self.inside.double() / (std[:, :, None] * std[:, None, :])
        now = interpolate(at, knots, std.log()).exp()
        inside = now[:, None] * interpolate(at, knots, likeness) * now
        rest = interpolate(at, knots, self.rest.double().clamp_min(TINY).log()).exp()
        return inside, rest

    def covariance(self, t: Tensor) -> LinearMap:
        inside, rest = self._at(t)
        flat = self.modes.flatten(1)

        def apply(g: Tensor) -> Tensor:
            modes = flat.to(g)
            share = g.flatten(1) @ modes.T
            outside = g - (share @ modes).view_as(g)
            outside = (outside * rest.to(g).view(1, -1, *[1] * (g.ndim - 2))).flatten(1)
            share = share @ inside.to(g) - outside @ modes.T
            return (outside + share @ modes).view_as(g)

        return apply

    def fluctuation(self, t: Tensor, like: Tensor, rng: Streams | None = None) -> Tensor:
        inside, rest = self._at(t)
        values, vectors = torch.linalg.eigh(inside)
        half = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
        modes = self.modes.flatten(1).to(like)
        other = None if rng is None else rng.at(f"{rng.purpose} modes", rng.step)
        share = normal(like.new_zeros(len(like), len(modes)), other) @ half.to(like)
        outside = normal(like, rng) * rest.sqrt().to(like).view(1, -1, *[1] * (like.ndim - 2))
        share = share - outside.flatten(1) @ modes.T
        return outside + (share @ modes).view_as(like)

    def respond(self, x_hat: Tensor, gap: Tensor, rows: Tensor, update: LinearMap) -> Tensor:
        return update(gap)


@dataclass(frozen=True, eq=False)
class Scaled(Moments):
    """The base's covariance times ``factor`` (L,) at ``log_kappa`` (L,) rising, interpolated."""

    exact: ClassVar[bool] = False

    base: Gaussian
    log_kappa: Tensor
    factor: Tensor

    def covariance(self, t: Tensor) -> LinearMap:
        at = self.base.process.kappa(t).log()
        factor = interpolate(at, self.log_kappa.double(), self.factor)
        inner = self.base.covariance(t)
        return lambda g: factor.to(g) * inner(g)

    def fluctuation(self, t: Tensor, like: Tensor, rng: Streams | None = None) -> Tensor:
        at = self.base.process.kappa(t).log()
        factor = interpolate(at, self.log_kappa.double(), self.factor)
        return factor.sqrt().to(like) * self.base.fluctuation(t, like, rng)

    def respond(self, x_hat: Tensor, gap: Tensor, rows: Tensor, update: LinearMap) -> Tensor:
        return update(gap)


@dataclass(frozen=True, eq=False)
class TwoPhase(Moments):
    """A covariance for a field of two values: uncertain where x_hat lies between them.

    A cell that is ``low`` or ``high`` has Var[X | x_t] = (high - x_hat)(x_hat - low), whatever the
    prior. The mean covariance of ``inner`` spreads an update evenly; here the update of the channel
    is weighted by that variance over its own mean, so phase boundaries move and interiors stay (the
    delta method for a logistic link; McCullagh and Nelder, Generalized linear models, 1989, eq.
    2.13). Observations of that channel itself are taken as they are: they know the cell better.

    Parameters
    ----------
    inner : the mean covariance. channel : of the two-phase field. low, high : its values, as
        normalised.
    """

    exact: ClassVar[bool] = False

    inner: Calibrated
    channel: int
    low: float
    high: float

    def covariance(self, t: Tensor) -> LinearMap:
        return self.inner.covariance(t)

    def fluctuation(self, t: Tensor, like: Tensor, rng: Streams | None = None) -> Tensor:
        return self.inner.fluctuation(t, like, rng)

    def respond(self, x_hat: Tensor, gap: Tensor, rows: Tensor, update: LinearMap) -> Tensor:
        x = x_hat[:, self.channel]
        variance = ((self.high - x) * (x - self.low)).clamp_min(0)
        mean = variance.flatten(1).mean(1).clamp_min(1e-3 * (self.high - self.low) ** 2)
        weight = torch.ones_like(x_hat)
        weight[:, self.channel] = variance / mean.view(-1, *[1] * (x.ndim - 1))
        own = (rows[:, self.channel].flatten(1) != 0).any(1).to(gap)
        return update(gap * own) + weight * update(gap * (1 - own))


def errors(
    denoiser: Denoiser, x: Tensor, times: Tensor, context: Context, batch: int = 64
) -> Iterator[Tensor]:
    """The errors ``x_hat - x`` (N, C, *grid) of clean fields ``x`` at each of ``times``.

    The noise is addressed, so every call and every denoiser sees the same.
    """
    for level, t in enumerate(times):
        parts = []
        for start in range(0, len(x), batch):
            clean = x[start : start + batch]
            rng = Streams.of(0, range(start, start + len(clean))).at("calibrate", level)
            rows = Context(
                anchor=_rows(context.anchor, start, len(clean)),
                fields=_rows(context.fields, start, len(clean)),
                scalars=_rows(context.scalars, start, len(clean)),
            )
            x_t, _ = denoiser.process.forward(clean, t, rows.anchor, rng)
            with torch.no_grad():
                parts.append(
                    denoiser(x_t, t.expand(len(clean)).view(-1, *[1] * (x.ndim - 1)), rows) - clean
                )
        yield torch.cat(parts)


def calibrate(
    denoiser: Denoiser,
    x: Tensor,
    modes: Tensor,
    context: Context,
    levels: int = 20,
    shrinkage: float = 0.1,
    kappa_max: float | None = None,
    kappa_min: float | None = None,
) -> Calibrated:
    """Measure the error covariance of ``denoiser`` on validation fields ``x`` (N, C, *grid).

    Parameters
    ----------
    modes : (R, C, *grid) orthonormal; N should be several times R.
    shrinkage : share of the off-diagonal part that is given up (Ledoit and Wolf's target is the
        diagonal here, since the modes nearly diagonalise the error).
    """
    times = denoiser.process.times(levels, kappa_max, kappa_min).flip(0)
    flat = modes.flatten(1).to(x)
    # directions of each channel that the modes leave free
    free = (modes[0, 0].numel() - modes.to(x).square().flatten(2).sum((0, 2))).clamp_min(1)
    inside, rest = [], []
    for gap in errors(denoiser, x, times, context):
        coefficient = gap.flatten(1) @ flat.T
        full = coefficient.T @ coefficient / len(gap)
        inside.append((1 - shrinkage) * full + shrinkage * torch.diag(full.diagonal()))
        outside = gap - (coefficient @ flat).view_as(gap)
        rest.append(outside.square().mean(0).flatten(1).sum(1) / free)
    log_kappa = denoiser.process.kappa(times).log()
    return Calibrated(denoiser.process, modes, log_kappa, torch.stack(inside), torch.stack(rest))


def scale(
    denoiser: Denoiser, base: Gaussian, x: Tensor, context: Context, levels: int = 12
) -> Scaled:
    """The base's covariance scaled by the network's measured error at each noise level."""
    times = base.process.times(levels).flip(0)
    factor = []
    for t, gap in zip(times, errors(denoiser, x, times, context), strict=True):
        factor.append(gap.double().square().mean() / base.mean_variance(t, x))
    return Scaled(base, base.process.kappa(times).log(), torch.stack(factor))


def _rows(value: Tensor | None, start: int, count: int) -> Tensor | None:
    """The rows of a batch; one row alone stands for all."""
    return value if value is None or len(value) == 1 else value[start : start + count]
