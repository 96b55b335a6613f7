"""Gaussian processes at scattered coordinates and matrices as they are: dense eigenvectors.

Rows of a batch may each have coordinates, or a matrix, of their own: series at their own times.

References
----------
Rasmussen, Williams. Gaussian processes for machine learning. 2006, eq. 4.14-4.17, 4.31.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sciddm.covariance.base import Covariance, Function, White
from sciddm.errors import InputError


class Eigen(Covariance):
    """A covariance of fields (B, C, n) by its eigenvectors, the same for every channel."""

    @property
    @abstractmethod
    def eigen(self) -> tuple[Tensor, Tensor]:
        """Eigenvalues (n,) or (B, n), not negative, and eigenvectors (.., n, n) as columns; B is
        1 or the rows of every field."""

    def shares(self, other: Covariance) -> float | None:
        """How many times the eigenvalues of ``other`` are these ones; None where unknown."""
        return 1.0 if other is self else None

    def joint(self, x: Tensor, other: Covariance, f: Function) -> Tensor:
        weight, vectors = self._values(x, other, f).to(x), self.eigen[1].to(x)
        return (x @ vectors * weight) @ vectors.mT

    def average(self, like: Tensor, other: Covariance, f: Function) -> Tensor:
        return self._values(like, other, f).mean()

    def _values(self, x: Tensor, other: Covariance, f: Function) -> Tensor:
        """f at the eigenvalues, broadcasting with (B, C, n)."""
        values = self.eigen[0].to(x.device)
        if x.shape[-1] != values.shape[-1]:
            raise InputError(
                f"Got fields of {x.shape[-1]} points for a covariance of {values.shape[-1]}; "
                "expected the same points."
            )
        own = values if values.ndim == 1 else values[:, None]
        if isinstance(other, White):
            return f(own, other.variance(x))
        factor = self.shares(other)
        if factor is None:
            raise InputError(
                f"Got {type(other).__name__} beside a {type(self).__name__} covariance; "
                "expected White noise, or the same covariance."
            )
        return f(own, own * factor)

    def sqrt(self, w: Tensor) -> Tensor:
        return self.joint(w, White(), lambda own, _: own.sqrt())

    def diagonal(self, like: Tensor) -> Tensor:
        """(C, n), or (B, C, n) where the rows have laws of their own."""
        values, vectors = (v.to(like.device) for v in self.eigen)
        found = (vectors.square() @ values[..., None])[..., 0]
        if found.ndim == 2 and len(found) > 1:
            return found[:, None].expand(-1, *like.shape[1:])
        return found.expand(like.shape[1:])


@dataclass(frozen=True, eq=False)
class Points(Eigen):
    """A Gaussian process at scattered coordinates.

    Parameters
    ----------
    coords : (n, D) positions, or (B, n, D), those of each row of its own, such as the times
        (B, n, 1) of B series. Fields have shape (B, C, n).
    kernel : function of the distances (.., n, n) that gives the covariance.
    """

    coords: Tensor
    kernel: Callable[[Tensor], Tensor]
    _eigen: tuple[Tensor, Tensor] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        at = self.coords.double()
        gap = torch.cdist(at, at, compute_mode="donot_use_mm_for_euclid_dist")
        object.__setattr__(self, "_eigen", _decomposed(self.kernel(gap)))

    @property
    def eigen(self) -> tuple[Tensor, Tensor]:
        return self._eigen


@dataclass(frozen=True, eq=False)
class Dense(Eigen):
    """A covariance as it is given: scale times a matrix.

    matrix : (n, n), or (B, n, n), one of each row, or (1, n, n). Two that hold the same matrix
    share their eigenvectors, see `scaled`.
    """

    matrix: Tensor
    scale: float = 1.0
    _eigen: tuple[Tensor, Tensor] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.matrix.ndim not in (2, 3) or self.matrix.shape[-1] != self.matrix.shape[-2]:
            raise InputError(
                f"Got a matrix of shape {tuple(self.matrix.shape)}; expected (n, n) or (B, n, n)."
            )
        object.__setattr__(self, "_eigen", _decomposed(self.matrix.double()))

    def scaled(self, factor: float) -> Dense:
        """``factor`` times this covariance, without a new decomposition."""
        out = object.__new__(Dense)
        object.__setattr__(out, "matrix", self.matrix)
        object.__setattr__(out, "scale", self.scale * factor)
        object.__setattr__(out, "_eigen", self._eigen)
        return out

    @property
    def eigen(self) -> tuple[Tensor, Tensor]:
        return self._eigen[0] * self.scale, self._eigen[1]

    def shares(self, other: Covariance) -> float | None:
        same = isinstance(other, Dense) and other.matrix is self.matrix
        return other.scale / self.scale if same and isinstance(other, Dense) else None


def _decomposed(matrix: Tensor) -> tuple[Tensor, Tensor]:
    values, vectors = torch.linalg.eigh(matrix)
    return values.clamp_min(0), vectors


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


@dataclass(frozen=True)
class PeriodicKernel:
    """std^2 exp(-2 sin^2(pi r / period) / roughness^2), positive along one coordinate."""

    period: float
    roughness: float = 1.0
    std: float = 1.0

    def __call__(self, gap: Tensor) -> Tensor:
        wave = torch.sin(math.pi * gap / self.period) / self.roughness
        return self.std**2 * torch.exp(-2 * wave.square())
