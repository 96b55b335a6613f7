"""Processes without an anchor: a scale alpha(kappa) on any clock."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sciddm.covariance import Covariance, White
from sciddm.process.base import OneClock
from sciddm.process.clocks import Clock, LogLinear


@dataclass(frozen=True)
class VE(OneClock):
    """Variance exploding: x_t = x + kappa z. Karras et al. 2022, eq. 1."""

    noise: Covariance = White()
    clock: Clock = LogLinear()

    def scale(self, kappa: Tensor) -> Tensor:
        return torch.ones_like(kappa)


@dataclass(frozen=True)
class VP(OneClock):
    """Variance preserving: alpha^2 + sigma^2 = 1. Song et al. 2021, eq. 29."""

    noise: Covariance = White()
    clock: Clock = LogLinear()

    def scale(self, kappa: Tensor) -> Tensor:
        return torch.rsqrt(1 + kappa**2)


@dataclass(frozen=True)
class SubVP(OneClock):
    """Below variance preserving: sigma = 1 - alpha^2. Song et al. 2021, eq. 29.

    alpha solves alpha^2 + kappa alpha = 1.
    """

    noise: Covariance = White()
    clock: Clock = LogLinear()

    def scale(self, kappa: Tensor) -> Tensor:
        return 2 / (kappa + torch.sqrt(kappa**2 + 4))


@dataclass(frozen=True)
class Flow(OneClock):
    """Flow matching: alpha + sigma = 1, straight lines from noise to data. Lipman et al. 2023."""

    noise: Covariance = White()
    clock: Clock = LogLinear()

    def scale(self, kappa: Tensor) -> Tensor:
        return 1 / (1 + kappa)
