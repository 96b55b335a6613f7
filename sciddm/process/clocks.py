"""Clocks: increasing maps between time t in [0, 1] and the noise level kappa."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from sciddm.errors import InputError


class Clock(ABC):
    """An increasing map between time t in [0, 1] and the noise level kappa."""

    @abstractmethod
    def kappa(self, t: Tensor) -> Tensor:
        """Noise level at times ``t`` (any shape, float64)."""

    @abstractmethod
    def time(self, kappa: Tensor) -> Tensor:
        """The inverse: time at noise levels ``kappa`` (any shape, float64)."""


@dataclass(frozen=True)
class LogLinear(Clock):
    """log kappa linear in t, from ``kappa_min`` at t = 0 to ``kappa_max`` at t = 1.

    Good values for data of unit s.d.: 1e-3 to 1e3 for smooth fields under white noise, whose
    leading modes have a variance near the number of grid points.
    """

    kappa_min: float = 1e-3
    kappa_max: float = 1e3

    def __post_init__(self) -> None:
        if not 0 < self.kappa_min < self.kappa_max < math.inf:
            raise InputError(
                f"Got noise levels from {self.kappa_min} to {self.kappa_max}; "
                "expected 0 < kappa_min < kappa_max, both finite."
            )

    def kappa(self, t: Tensor) -> Tensor:
        low, high = math.log(self.kappa_min), math.log(self.kappa_max)
        return torch.exp(low + (high - low) * t)

    def time(self, kappa: Tensor) -> Tensor:
        low, high = math.log(self.kappa_min), math.log(self.kappa_max)
        return (kappa.log() - low) / (high - low)


@dataclass(frozen=True)
class LinearSigma(Clock):
    """sigma = (1 - 2 eps) t + eps linear in t with alpha = 1 - sigma: the flow-matching clock."""

    eps: float = 1e-3

    def kappa(self, t: Tensor) -> Tensor:
        sigma = self.eps + (1 - 2 * self.eps) * t
        return sigma / (1 - sigma)

    def time(self, kappa: Tensor) -> Tensor:
        return (kappa / (1 + kappa) - self.eps) / (1 - 2 * self.eps)
