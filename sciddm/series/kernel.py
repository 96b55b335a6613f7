"""Covariances in physical time: how two values of a series go together.

A `Shape` is a correlation over time; a `Mixed` law gives each of its shapes a covariance between
channels (the linear model of coregionalisation), and adds a rest that is white from cell to cell.
Lengths are in the model's unit of time, so the law is the same however a series is sampled.

Rasmussen, Williams. Gaussian processes for machine learning. 2006, eq. 4.14-4.19, 4.31.
Alvarez, Rosasco, Lawrence. Kernels for vector-valued functions. 2012, section 4.2.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from sciddm.series.law import Law
from sciddm.series.panel import Panel


class Shape(ABC):
    """A correlation of a series with itself over time, or a covariance where it is not stationary
    (`Wiener`, `Slope`)."""

    @abstractmethod
    def __call__(self, s: Tensor, t: Tensor) -> Tensor:
        """(..., n, k) for times ``s`` (..., n) and ``t`` (..., k), float64."""


@dataclass(frozen=True, eq=False)
class OrnsteinUhlenbeck(Shape):
    """exp(-|s - t| / length): the process of rate 1 / length."""

    length: float | Tensor

    def __call__(self, s: Tensor, t: Tensor) -> Tensor:
        return torch.exp(-gap(s, t) / self.length)


@dataclass(frozen=True, eq=False)
class Matern32(Shape):
    """(1 + r) exp(-r), r = sqrt(3) |s - t| / length: once differentiable."""

    length: float | Tensor

    def __call__(self, s: Tensor, t: Tensor) -> Tensor:
        r = math.sqrt(3) * gap(s, t) / self.length
        return (1 + r) * torch.exp(-r)


@dataclass(frozen=True, eq=False)
class Matern52(Shape):
    """(1 + r + r^2 / 3) exp(-r), r = sqrt(5) |s - t| / length: twice differentiable."""

    length: float | Tensor

    def __call__(self, s: Tensor, t: Tensor) -> Tensor:
        r = math.sqrt(5) * gap(s, t) / self.length
        return (1 + r + r.square() / 3) * torch.exp(-r)


@dataclass(frozen=True, eq=False)
class SquaredExponential(Shape):
    """exp(-|s - t|^2 / (2 length^2))."""

    length: float | Tensor

    def __call__(self, s: Tensor, t: Tensor) -> Tensor:
        return torch.exp(-0.5 * (gap(s, t) / self.length).square())


@dataclass(frozen=True, eq=False)
class Season(Shape):
    """exp(-2 sin^2(pi |s - t| / period) / roughness^2)."""

    period: float | Tensor
    roughness: float | Tensor = 1.0

    def __call__(self, s: Tensor, t: Tensor) -> Tensor:
        wave = torch.sin(math.pi * gap(s, t) / self.period) / self.roughness
        return torch.exp(-2 * wave.square())


@dataclass(frozen=True, eq=False)
class Wiener(Shape):
    """min(s, t) - origin: a random walk that starts from 0 at ``origin``, variance 1 a unit of
    time. An origin far before the data leaves the level free."""

    origin: float | Tensor = 0.0

    def __call__(self, s: Tensor, t: Tensor) -> Tensor:
        return (torch.minimum(s[..., :, None], t[..., None, :]) - self.origin).clamp_min(0)


@dataclass(frozen=True, eq=False)
class Slope(Shape):
    """(s - origin) (t - origin) / length^2: a straight line of random slope, 0 at ``origin``."""

    length: float | Tensor
    origin: float | Tensor = 0.0

    def __call__(self, s: Tensor, t: Tensor) -> Tensor:
        rise = (s - self.origin)[..., :, None] * (t - self.origin)[..., None, :]
        return rise / self.length**2


@dataclass(frozen=True, eq=False)
class Intercept(Shape):
    """1: a level of each series that does not change."""

    def __call__(self, s: Tensor, t: Tensor) -> Tensor:
        return torch.ones_like(gap(s, t))


@dataclass(frozen=True, eq=False)
class Product(Shape):
    """The product of several shapes, such as a season that slowly changes."""

    parts: tuple[Shape, ...]

    def __call__(self, s: Tensor, t: Tensor) -> Tensor:
        out = self.parts[0](s, t)
        for part in self.parts[1:]:
            out = out * part(s, t)
        return out


@dataclass(frozen=True, eq=False)
class Term:
    """A shape, and the covariance loads loads^T + diag(own) between channels.

    loads : (C, R) or (C, 0). own : (C,), variances of each channel's own part.
    """

    shape: Shape
    loads: Tensor
    own: Tensor

    @property
    def between(self) -> Tensor:
        """(C, C)."""
        return self.loads @ self.loads.mT + torch.diag(self.own)


@dataclass(frozen=True, eq=False)
class Mixed(Law):
    """A sum of terms and a white rest: K((s, c), (t, d)) = sum_q B_q[c, d] rho_q(s, t) + rest.

    terms : at least one. rest : (C,), variance of each channel that no other cell shares.
    offset : (C,), the mean of each channel, or None for 0.
    """

    terms: tuple[Term, ...]
    rest: Tensor
    offset: Tensor | None = None

    def mean(self, panel: Panel) -> Tensor:
        if self.offset is None:
            return torch.zeros_like(panel.time)
        return self.offset.to(panel.time)[panel.channel]

    def covariance(self, panel: Panel) -> Tensor:
        c = panel.channel
        out = torch.diag_embed(self.rest.to(panel.time)[c])
        for term in self.terms:
            between = term.between.to(panel.time)[c[:, :, None], c[:, None, :]]
            out = out + between * term.shape(panel.time, panel.time)
        return out


def gap(s: Tensor, t: Tensor) -> Tensor:
    """|s - t|, (..., n, k)."""
    return (s[..., :, None] - t[..., None, :]).abs()
