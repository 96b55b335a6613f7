r"""Covariance operators on fields: the law of the noise, and of the simplest prior.

A covariance C is a positive self-adjoint operator on fields of shape ``(B, C, *grid)``. It is
applied, square-rooted and sampled; its inverse is never needed. Where a prior and a noise share
their eigenvectors, any function of the two is one transform away::

    joint(x, other, f) = sum_k f(lambda_k, c_k) <e_k, x> e_k

with ``lambda_k`` the eigenvalues of C and ``c_k`` those of ``other``. The exact Gaussian denoiser,
its covariance, flow and likelihood are each one such function.

`Spectral` is built from a continuous density and the box, never from the number of points: on a
grid of N cells in a box of volume V the eigenvalue is ``density(k) N / V``, so the law of the
field survives a change of grid.

References
----------
Rasmussen, Williams. Gaussian processes for machine learning. 2006, eq. 4.14-4.15 (Matern).
Lord, Powell, Shardlow. An introduction to computational stochastic PDEs. 2014, ch. 7.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from sciddm.basis import Basis, Periodic
from sciddm.errors import InputError
from sciddm.random import Streams, normal

Function = Callable[[Tensor, Tensor], Tensor]


class Covariance(ABC):
    """C, a positive self-adjoint operator on fields (B, C, *grid)."""

    @abstractmethod
    def joint(self, x: Tensor, other: Covariance, f: Function) -> Tensor:
        """f(C, other) x, for an ``other`` with the same eigenvectors. Shape as ``x``.

        Raises `InputError` where the two do not share their eigenvectors.
        """

    @abstractmethod
    def average(self, like: Tensor, other: Covariance, f: Function) -> Tensor:
        """The mean eigenvalue of f(C, other), a scalar: the variance of a field of this law,
        averaged over the values of one field (1, C, *grid) ``like``."""

    @abstractmethod
    def sqrt(self, w: Tensor) -> Tensor:
        """A square root applied to white noise: Cov[C.sqrt(w)] = C. Shape as ``w``."""

    @abstractmethod
    def diagonal(self, like: Tensor) -> Tensor:
        """The pointwise variance (C, *grid), float64, on the grid of ``like`` (1, C, *grid)."""

    def __call__(self, x: Tensor) -> Tensor:
        """C x. Shape as ``x``."""
        return self.joint(x, White(), lambda own, _: own)

    def sample(self, like: Tensor, rng: Streams | None = None) -> Tensor:
        """Z ~ N(0, C) of the shape of ``like``."""
        return self.sqrt(normal(like, rng))


@dataclass(frozen=True)
class White(Covariance):
    """C = std^2 I, independent at every grid point.

    points : grid points of the grid that ``std`` is said for. On a grid of N points the variance is
        then ``std^2 N / points``: the same noise in space, whose mean over a region has one law on
        every grid. None: ``std`` on every grid.
    """

    std: float = 1.0
    points: int | None = None

    def variance(self, like: Tensor) -> Tensor:
        """Of one grid value of fields ``like`` (B, C, *grid): a float64 scalar."""
        share = 1.0 if self.points is None else math.prod(like.shape[2:]) / self.points
        return _scalar(self.std**2 * share)

    def joint(self, x: Tensor, other: Covariance, f: Function) -> Tensor:
        if not isinstance(other, White):
            return other.joint(x, self, lambda theirs, own: f(own, theirs))
        return f(self.variance(x), other.variance(x)).to(x) * x

    def average(self, like: Tensor, other: Covariance, f: Function) -> Tensor:
        if not isinstance(other, White):
            return other.average(like, self, lambda theirs, own: f(own, theirs))
        return f(self.variance(like), other.variance(like))

    def sqrt(self, w: Tensor) -> Tensor:
        return self.variance(w).sqrt().to(w) * w

    def diagonal(self, like: Tensor) -> Tensor:
        variance = float(self.variance(like))
        return torch.full(like.shape[1:], variance, dtype=torch.float64, device=like.device)


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


@dataclass(frozen=True, eq=False)
class LowRank(Covariance):
    """C = sum_r variances_r e_r e_r^T + floor (I - sum_r e_r e_r^T): EOFs and a diagonal rest.

    Parameters
    ----------
    modes : (R, C, *grid), orthonormal in the plain dot product over (C, *grid).
    variances : (R,), non-negative.
    floor : variance of every direction outside the modes.
    """

    modes: Tensor
    variances: Tensor
    floor: float = 0.0

    def joint(self, x: Tensor, other: Covariance, f: Function) -> Tensor:
        inside, rest = self._values(x, other, f)
        # one noise level a row arrives as (B, 1, ..., R)
        more = (inside - rest).reshape(-1, len(self.variances)).to(x)
        flat = self.modes.flatten(1).to(x)
        return rest.to(x) * x + (x.flatten(1) @ flat.T * more @ flat).view_as(x)

    def average(self, like: Tensor, other: Covariance, f: Function) -> Tensor:
        inside, rest = self._values(like, other, f)
        size = self.modes[0].numel()
        return (inside.sum() + (size - len(self.variances)) * rest) / size

    def _values(self, x: Tensor, other: Covariance, f: Function) -> tuple[Tensor, Tensor]:
        """f at the modes (R,) and at the floor ()."""
        if not isinstance(other, White):
            raise InputError(
                f"Got {type(other).__name__} beside a LowRank covariance; expected White noise."
            )
        if x.shape[1:] != self.modes.shape[1:]:
            raise InputError(
                f"Got fields of shape {tuple(x.shape[1:])} for modes of shape "
                f"{tuple(self.modes.shape[1:])}; a fitted covariance lives on its own grid."
            )
        theirs = other.variance(x)
        inside = f(self.variances.double().to(x.device), theirs)
        return inside, f(_scalar(self.floor), theirs)

    def sqrt(self, w: Tensor) -> Tensor:
        return self.joint(w, White(), lambda own, _: own.clamp_min(0).sqrt())

    def diagonal(self, like: Tensor) -> Tensor:
        inside, rest = self._values(like, White(), lambda own, _: own)
        modes = self.modes.to(inside)
        return rest + torch.einsum("r,r...->...", inside - rest, modes.square())


@dataclass(frozen=True, eq=False)
class Points(Covariance):
    """A Gaussian process at scattered coordinates, by one dense eigendecomposition.

    Parameters
    ----------
    coords : (n, D) positions. Fields have shape (B, C, n).
    kernel : function of the distance (n, n) that gives the covariance.
    """

    coords: Tensor
    kernel: Callable[[Tensor], Tensor]
    _eigen: tuple[Tensor, Tensor] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        gap = torch.cdist(self.coords.double(), self.coords.double())
        values, vectors = torch.linalg.eigh(self.kernel(gap))
        object.__setattr__(self, "_eigen", (values.clamp_min(0), vectors))

    def joint(self, x: Tensor, other: Covariance, f: Function) -> Tensor:
        vectors = self._eigen[1].to(x)
        return (x @ vectors * self._values(x, other, f).to(x)) @ vectors.T

    def average(self, like: Tensor, other: Covariance, f: Function) -> Tensor:
        return self._values(like, other, f).mean()

    def _values(self, x: Tensor, other: Covariance, f: Function) -> Tensor:
        if not isinstance(other, White):
            raise InputError(
                f"Got {type(other).__name__} beside a Points covariance; expected White noise."
            )
        return f(self._eigen[0].to(x.device), other.variance(x))

    def sqrt(self, w: Tensor) -> Tensor:
        return self.joint(w, White(), lambda own, _: own.sqrt())

    def diagonal(self, like: Tensor) -> Tensor:
        values, vectors = (v.to(like.device) for v in self._eigen)
        return (vectors.square() @ values).expand(like.shape[1:])


@dataclass(frozen=True)
class TimeCorrelated(Covariance):
    """C = R x space for films (B, C, T, *grid): R_kl = correlation^|k - l|, an AR(1) over frames.

    space : covariance within a frame. correlation : in (-1, 1); 0 is independent frames.
    """

    space: Covariance
    correlation: float = 0.0

    def __post_init__(self) -> None:
        if not -1 < self.correlation < 1:
            raise InputError(
                f"Got a correlation of {self.correlation} from frame to frame; expected a number "
                "between -1 and 1."
            )

    def joint(self, x: Tensor, other: Covariance, f: Function) -> Tensor:
        vectors, own, theirs, space = self._pair(x.shape[2], other)
        turned = torch.einsum("kl,bcl...->bck...", vectors.T.to(x), x)
        parts = [
            self.space.joint(turned[:, :, k], space, partial(_times, f, own[k], theirs[k]))
            for k in range(x.shape[2])
        ]
        return torch.einsum("kl,bcl...->bck...", vectors.to(x), torch.stack(parts, dim=2))

    def average(self, like: Tensor, other: Covariance, f: Function) -> Tensor:
        _, own, theirs, space = self._pair(like.shape[2], other)
        parts = [
            self.space.average(like[:, :, k], space, partial(_times, f, own[k], theirs[k]))
            for k in range(like.shape[2])
        ]
        return torch.stack(parts).mean()

    def _pair(self, frames: int, other: Covariance) -> tuple[Tensor, Tensor, Tensor, Covariance]:
        """Eigenvectors over time (columns), the eigenvalues of both there, the other's space."""
        at = torch.arange(frames, dtype=torch.float64)
        own, vectors = torch.linalg.eigh(self.correlation ** (at[:, None] - at).abs())
        one = torch.ones(frames, dtype=torch.float64)
        if isinstance(other, TimeCorrelated):
            if other.correlation not in (0.0, self.correlation):
                raise InputError(
                    f"Got frames of correlation {other.correlation} beside {self.correlation}; "
                    "expected the same, or 0."
                )
            return vectors, own, own if other.correlation else one, other.space
        return vectors, own, one, other

    def sqrt(self, w: Tensor) -> Tensor:
        """By the recursion from frame to frame, so a film is the start of a longer one."""
        fresh = self.space.sqrt(w.transpose(1, 2).flatten(0, 1))
        fresh = fresh.unflatten(0, (w.shape[0], w.shape[2])).transpose(1, 2)
        if self.correlation == 0:
            return fresh
        frames, share = [fresh[:, :, 0]], math.sqrt(1 - self.correlation**2)
        for k in range(1, w.shape[2]):
            frames.append(self.correlation * frames[-1] + share * fresh[:, :, k])
        return torch.stack(frames, dim=2)

    def diagonal(self, like: Tensor) -> Tensor:
        frame = self.space.diagonal(like[:, :, 0])
        return frame.unsqueeze(1).expand(like.shape[1:])


@dataclass(frozen=True)
class MaternKernel:
    """The Matern covariance as a function of distance, for smoothness 0.5, 1.5 or 2.5."""

    length: float
    nu: float = 1.5
    std: float = 1.0

    def __post_init__(self) -> None:
        if self.nu not in (0.5, 1.5, 2.5):
            raise InputError(f"Got smoothness nu = {self.nu}; expected 0.5, 1.5 or 2.5.")

    def __call__(self, gap: Tensor) -> Tensor:
        r = math.sqrt(2 * self.nu) * gap / self.length
        polynomial = {0.5: 1 + 0 * r, 1.5: 1 + r, 2.5: 1 + r + r**2 / 3}[self.nu]
        return self.std**2 * polynomial * torch.exp(-r)


def _scalar(value: float) -> Tensor:
    return torch.as_tensor(value, dtype=torch.float64)


def _times(f: Function, own: Tensor, theirs: Tensor, p: Tensor, c: Tensor) -> Tensor:
    return f(own * p, theirs * c)
