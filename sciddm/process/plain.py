"""Processes without an anchor: a scale alpha(kappa) on any clock."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sciddm.covariance import Covariance, White
from sciddm.process.base import Process
from sciddm.process.clocks import Clock, LogLinear


@dataclass(frozen=True)
class VE(Process):
    """Variance exploding: x_t = x + kappa z. Karras et al. 2022, eq. 1."""

    noise: Covariance = White()
    clock: Clock = LogLinear()

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        kappa = self.clock.kappa(t.double())
        return torch.ones_like(kappa), torch.zeros_like(kappa), kappa


@dataclass(frozen=True)
class VP(Process):
    """Variance preserving: alpha^2 + sigma^2 = 1. Song et al. 2021, eq. 29."""

    noise: Covariance = White()
    clock: Clock = LogLinear()

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        kappa = self.clock.kappa(t.double())
        alpha = torch.rsqrt(1 + kappa**2)
        return alpha, torch.zeros_like(kappa), alpha * kappa


@dataclass(frozen=True)
class Flow(Process):
    """Flow matching: alpha + sigma = 1, straight lines from noise to data. Lipman et al. 2023."""

    noise: Covariance = White()
    clock: Clock = LogLinear()

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        kappa = self.clock.kappa(t.double())
        alpha = 1 / (1 + kappa)
        return alpha, torch.zeros_like(kappa), alpha * kappa
