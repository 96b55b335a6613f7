"""Stationary laws on a box: a spectral density and a basis.

References
----------
Rasmussen, Williams. Gaussian processes for machine learning. 2006, eq. 4.14-4.15 (Matern).
Lord, Powell, Shardlow. An introduction to computational stochastic PDEs. 2014, ch. 7.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sciddm.basis import Basis, Periodic
from sciddm.covariance.base import Covariance, Function, White
from sciddm.errors import InputError


class Density(ABC):
    """A spectral density: ``density(k2, dim)`` with k2 the squared angular wavenumber.

    In ``dim`` dimensions the pointwise variance in free space is the integral of the density over
    ``dk / (2 pi)^dim``.
    """

    @abstractmethod
    def __call__(self, k2: Tensor, dim: int) -> Tensor:
        """Density at squared wavenumbers ``k2`` (any shape), in float64."""


@dataclass(frozen=True)
class Matern(Density):
    """Matern law: pointwise s.d. ``std``, correlation ``length`` (units of the box), smoothness
    ``nu`` (0.5: exponential, 1.5 and 2.5: once and twice differentiable).

    Rasmussen and Williams 2006, eq. 4.15.
    """

    length: float
    nu: float = 1.5
    std: float = 1.0

    def __call__(self, k2: Tensor, dim: int) -> Tensor:
        a = 2 * self.nu / self.length**2
        log_scale = (
            dim * math.log(2)
            + dim / 2 * math.log(math.pi)
            + math.lgamma(self.nu + dim / 2)
            - math.lgamma(self.nu)
            + self.nu * math.log(a)
        )
        return self.std**2 * math.exp(log_scale) * (a + k2) ** -(self.nu + dim / 2)


@dataclass(frozen=True)
class PowerLaw(Density):
    """scale^2 (k^2 + tau^2)^(-alpha): the law of the elliptic benchmark fields, where alpha = 2,
    tau = 3 and scale = tau^(alpha - 1), on the unit box with cosines."""

    alpha: float
    tau: float
    scale: float = 1.0

    def __call__(self, k2: Tensor, dim: int) -> Tensor:
        return self.scale**2 * (k2 + self.tau**2) ** -self.alpha


@dataclass(frozen=True)
class Tabulated(Density):
    """A fitted density: log-linear between ``wavenumber`` knots, continued with the last slope.

    Parameters
    ----------
    wavenumber : increasing positive angular wavenumbers of the knots.
    power : positive densities there. Below the first knot the first value holds.
    """

    wavenumber: tuple[float, ...]
    power: tuple[float, ...]

    def __call__(self, k2: Tensor, dim: int) -> Tensor:
        knots = torch.tensor(self.wavenumber, dtype=torch.float64).log()
        values = torch.tensor(self.power, dtype=torch.float64).log()
        at = 0.5 * k2.clamp_min(1e-300).log()
        right = torch.searchsorted(knots, at.contiguous()).clamp(1, len(knots) - 1)
        share = (at - knots[right - 1]) / (knots[right] - knots[right - 1])
        return torch.lerp(values[right - 1], values[right], share.clamp_min(0)).exp()


@dataclass(frozen=True)
class ZeroMean(Density):
    """Another density with its constant mode removed."""

    density: Density

    def __call__(self, k2: Tensor, dim: int) -> Tensor:
        return torch.where(k2 > 0, self.density(k2, dim), torch.zeros_like(k2))


@dataclass(frozen=True)
class Spectral(Covariance):
    """A stationary law on a box: eigenvectors of ``basis``, eigenvalues ``density(k) N / V``.

    Parameters
    ----------
    density : spectral density, see `Density`.
    lengths : side of the box along each grid axis, in the units of the density.
    basis : `Periodic`, `Cosine` (free boundary) or `Sine` (zero boundary).
    """

    density: Density
    lengths: tuple[float, ...]
    basis: Basis = field(default_factory=Periodic)

    def eigenvalues(self, shape: tuple[int, ...]) -> Tensor:
        """Eigenvalues (*coefficients) on a grid of ``shape``, in float64."""
        if len(shape) != len(self.lengths):
            raise InputError(
                f"Got a grid of {len(shape)} axes for a box of {len(self.lengths)}; "
                "expected one length for every axis."
            )
        k2 = self.basis.wavenumbers(shape, self.lengths)
        return self.density(k2, len(shape)) * (self.basis.cells(shape) / math.prod(self.lengths))

    def joint(self, x: Tensor, other: Covariance, f: Function) -> Tensor:
        shape, own, theirs = self._pair(x, other)
        weight = f(own, theirs).to(x)
        return self.basis.inverse(weight * self.basis.forward(x, len(shape)), shape)

    def average(self, like: Tensor, other: Covariance, f: Function) -> Tensor:
        shape, own, theirs = self._pair(like, other)
        count = self.basis.multiplicity(shape).to(own.device)
        return (count * f(own, theirs)).sum() / count.sum()

    def _pair(self, x: Tensor, other: Covariance) -> tuple[tuple[int, ...], Tensor, Tensor]:
        """The grid of ``x``, and the eigenvalues of both there."""
        shape = tuple(x.shape[-len(self.lengths) :])
        own = self.eigenvalues(shape).to(x.device)
        if isinstance(other, White):
            return shape, own, other.variance(x).expand_as(own)
        if isinstance(other, Spectral) and other.basis == self.basis:
            return shape, own, other.eigenvalues(shape).to(x.device)
        raise InputError(
            f"Got {type(other).__name__} beside a Spectral covariance; "
            "expected White, or Spectral on the same basis."
        )

    def sqrt(self, w: Tensor) -> Tensor:
        return self.joint(w, White(), lambda own, _: own.sqrt())

    def diagonal(self, like: Tensor) -> Tensor:
        shape = tuple(like.shape[-len(self.lengths) :])
        values = self.eigenvalues(shape).to(like.device)
        return self.basis.diagonal(values, shape).expand(like.shape[1:])
