"""What every covariance operator does, and white noise.

References
----------
Lord, Powell, Shardlow. An introduction to computational stochastic PDEs. 2014, ch. 7.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

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
        return scalar(self.std**2 * share)

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


def scalar(value: float) -> Tensor:
    """A float64 scalar."""
    return torch.as_tensor(value, dtype=torch.float64)
