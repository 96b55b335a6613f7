"""Clocks: increasing maps between time t in [0, 1] and the noise level kappa, both ends finite.

A change of clock changes no law (x_t is the same field at the same kappa), only which times a
training draw or an even grid of times prefers.

==============  ==========================================  =======================================
clock           kappa(t)                                    is the own time of
==============  ==========================================  =======================================
`LogLinear`     exp of a line                               none; the default
`LinearSigma`   spread (tau / (1 - tau))^power              `Flow`, `Interpolant`
`LinearBeta`    spread sqrt(exp(integral of beta) - 1)      `VP`, `MeanReverting`, `Drifting`
`EvenPower`     (a line)^rho                                `VE` of Karras et al. 2022
`CosineAlpha`   tan of a line                               `VP` with a cosine schedule
==============  ==========================================  =======================================

References
----------
Song et al. Score-based generative modeling through stochastic differential equations. ICLR 2021,
appendix C (beta from 0.1 to 20, times down to 1e-3). https://arxiv.org/abs/2011.13456
Nichol, Dhariwal. Improved denoising diffusion probabilistic models. ICML 2021, eq. 17.
https://arxiv.org/abs/2102.09672
"""

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

    def ends(self) -> tuple[float, float]:
        """The least and the greatest noise level, at t = 0 and 1."""
        low, high = self.kappa(torch.tensor([0.0, 1.0], dtype=torch.float64)).tolist()
        return low, high

    def _check(self) -> None:
        """Raises `InputError` unless 0 < kappa(0) < kappa(1) < inf."""
        low, high = self.ends()
        if not 0 < low < high < math.inf:
            raise InputError(
                f"Got noise levels from {low:g} to {high:g} of {self}; "
                "expected 0 < kappa(0) < kappa(1), both finite."
            )


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
class EvenPower(Clock):
    """kappa^(1 / rho) linear in t, from ``kappa_min`` to ``kappa_max``. Karras et al. 2022, eq. 5.

    rho : 7 spends most of the time at low noise; so does -10, which leaves the highest levels in
        the first moments (a frame that enters a rolling window soon has something to say).
    """

    kappa_min: float = 2e-3
    kappa_max: float = 500.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        if self.rho == 0 or not 0 < self.kappa_min < self.kappa_max < math.inf:
            raise InputError(
                f"Got noise levels from {self.kappa_min} to {self.kappa_max}, rho = {self.rho}; "
                "expected 0 < kappa_min < kappa_max, both finite, and rho not 0."
            )
        self._check()

    def kappa(self, t: Tensor) -> Tensor:
        low, high = (k ** (1 / self.rho) for k in (self.kappa_min, self.kappa_max))
        return (low + (high - low) * t) ** self.rho

    def time(self, kappa: Tensor) -> Tensor:
        low, high = (k ** (1 / self.rho) for k in (self.kappa_min, self.kappa_max))
        return (kappa ** (1 / self.rho) - low) / (high - low)


@dataclass(frozen=True)
class LinearSigma(Clock):
    """tau = (1 - 2 eps) t + eps linear in t: sigma of `Flow`, the anchor's weight of `Interpolant`.

    Parameters
    ----------
    eps : in (0, 1/2), how far tau stays from 0 and 1.
    spread, power : those of the `Interpolant`; 1 and 1 for `Flow`.
    """

    eps: float = 1e-3
    spread: float = 1.0
    power: float = 1.0

    def __post_init__(self) -> None:
        if not (0 < self.eps < 0.5 and self.spread > 0 and self.power > 0):
            raise InputError(
                f"Got eps = {self.eps}, spread = {self.spread}, power = {self.power}; expected eps "
                "between 0 and 1/2, spread and power positive."
            )
        self._check()

    def kappa(self, t: Tensor) -> Tensor:
        tau = self.eps + (1 - 2 * self.eps) * t
        return self.spread * (tau / (1 - tau)) ** self.power

    def time(self, kappa: Tensor) -> Tensor:
        odds = (kappa / self.spread) ** (1 / self.power)
        return (odds / (1 + odds) - self.eps) / (1 - 2 * self.eps)


@dataclass(frozen=True)
class LinearBeta(Clock):
    """beta linear in time tau from ``eps`` to 1: kappa^2 = spread^2 (exp(B(tau)) - 1).

    B is the integral of beta from 0. Under `VP` this is Song et al. 2021, alpha = exp(-B / 2);
    under `MeanReverting` it is Theta = B / 2.

    Parameters
    ----------
    beta_min, beta_max : the rate at tau = 0 and 1; equal for a constant rate.
    eps : in (0, 1), tau at t = 0.
    spread : the spread of the process, 1 for `VP`.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    eps: float = 1e-3
    spread: float = 1.0

    def __post_init__(self) -> None:
        if not (0 < self.beta_min <= self.beta_max and 0 < self.eps < 1 and self.spread > 0):
            raise InputError(
                f"Got beta from {self.beta_min} to {self.beta_max}, eps = {self.eps}, spread = "
                f"{self.spread}; expected 0 < beta_min <= beta_max, eps between 0 and 1 and a "
                "positive spread."
            )
        self._check()

    def kappa(self, t: Tensor) -> Tensor:
        tau = self.eps + (1 - self.eps) * t
        total = tau * (self.beta_min + 0.5 * (self.beta_max - self.beta_min) * tau)
        return self.spread * torch.expm1(total).sqrt()

    def time(self, kappa: Tensor) -> Tensor:
        total = torch.log1p((kappa / self.spread) ** 2)
        slope = self.beta_max - self.beta_min
        tau = 2 * total / (self.beta_min + torch.sqrt(self.beta_min**2 + 2 * slope * total))
        return (tau - self.eps) / (1 - self.eps)


@dataclass(frozen=True)
class CosineAlpha(Clock):
    """Under `VP` alpha is a cosine: kappa = tan(pi/2 (tau + offset) / (1 + offset)).

    Nichol and Dhariwal 2021, eq. 17, without their division by the value at tau = 0: the offset,
    which is there to leave noise at the first step, then is the noise at t = 0.

    Parameters
    ----------
    offset : positive. eps : in (0, 1), tau = (1 - eps) t, so that the upper end is finite.
    """

    offset: float = 0.008
    eps: float = 1e-3

    def __post_init__(self) -> None:
        if not (0 < self.offset < math.inf and 0 < self.eps < 1):
            raise InputError(
                f"Got offset = {self.offset} and eps = {self.eps}; "
                "expected a positive offset and eps between 0 and 1."
            )
        self._check()

    def kappa(self, t: Tensor) -> Tensor:
        tau = (1 - self.eps) * t
        return torch.tan(0.5 * math.pi * (tau + self.offset) / (1 + self.offset))

    def time(self, kappa: Tensor) -> Tensor:
        tau = torch.atan(kappa) * (1 + self.offset) / (0.5 * math.pi) - self.offset
        return tau / (1 - self.eps)
