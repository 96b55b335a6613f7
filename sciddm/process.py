r"""Diffusion processes: X_t = alpha X + beta M + sigma Z, with Z ~ N(0, C).

X is the clean field, M a known anchor (none for the processes here, so beta = 0), Z noise with
covariance C = ``noise``. Time t runs from 0 (clean) to 1 (lost) and is any tensor that broadcasts
against x. After dividing by alpha only kappa = sigma / alpha is information, so a process is a
clock kappa(t) and a scale alpha(kappa); step grids are even in log kappa, and both ends of kappa
are finite.

========  =======================  ==================
process   alpha(kappa)             sigma = alpha kappa
========  =======================  ==================
`VE`      1                        kappa
`VP`      (1 + kappa^2)^(-1/2)     alpha^2 + sigma^2 = 1
`Flow`    1 / (1 + kappa)          alpha + sigma = 1
========  =======================  ==================

References
----------
Karras, Aittala, Aila, Laine. Elucidating the design space of diffusion-based generative models.
NeurIPS 2022, eq. 1-4 (VE). https://arxiv.org/abs/2206.00364
Song et al. Score-based generative modeling through stochastic differential equations. ICLR 2021,
eq. 11 and 29 (VP). https://arxiv.org/abs/2011.13456
Lipman et al. Flow matching for generative modeling. ICLR 2023, eq. 22 (Flow).
https://arxiv.org/abs/2210.02747
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from sciddm.covariance import Covariance, White
from sciddm.errors import InputError
from sciddm.random import Streams


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


class Process(ABC):
    """X_t = alpha X + beta M + sigma Z. Knows nothing of networks, labels or guidance."""

    noise: Covariance
    clock: Clock

    @abstractmethod
    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(alpha, beta, sigma) at times ``t``, float64, of the shape of ``t``."""

    def kappa(self, t: Tensor) -> Tensor:
        """Noise level sigma / alpha at times ``t``, float64."""
        alpha, _, sigma = self.coefficients(t)
        return sigma / alpha

    def forward(
        self, x: Tensor, t: Tensor, anchor: Tensor | None = None, rng: Streams | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draw (x_t, z) given the clean field ``x`` (B, C, *grid)."""
        z = self.noise.sample(x, rng)
        alpha, beta, sigma = (c.to(x) for c in self.coefficients(t))
        return shift(alpha * x + sigma * z, beta, anchor), z

    def residual(
        self, x_t: Tensor, x_hat: Tensor, t: Tensor, anchor: Tensor | None = None
    ) -> Tensor:
        """The noise that remains: z_hat = (x_t - alpha x_hat - beta m) / sigma."""
        alpha, beta, sigma = (c.to(x_t) for c in self.coefficients(t))
        return (shift(x_t, -beta, anchor) - alpha * x_hat) / sigma

    def start(
        self, like: Tensor, t: Tensor, anchor: Tensor | None = None, rng: Streams | None = None
    ) -> Tensor:
        """A field where nothing but the anchor and the noise is left: beta m + sigma z."""
        _, beta, sigma = (c.to(like) for c in self.coefficients(t))
        return shift(sigma * self.noise.sample(like, rng), beta, anchor)

    def times(
        self, steps: int, kappa_max: float | None = None, kappa_min: float | None = None
    ) -> Tensor:
        """``steps`` decreasing times, even in log kappa, float64.

        Without bounds the grid spans the whole clock. Raises `InputError` for fewer than two
        steps or bounds outside the clock.
        """
        if steps < 2:
            raise InputError(f"Got {steps} steps; expected at least 2.")
        ends = self.clock.kappa(torch.tensor([1.0, 0.0], dtype=torch.float64))
        high = float(ends[0]) if kappa_max is None else kappa_max
        low = float(ends[1]) if kappa_min is None else kappa_min
        slack = 1 + 1e-9
        if not float(ends[1]) / slack <= low < high <= float(ends[0]) * slack:
            raise InputError(
                f"Got noise levels from {low:g} to {high:g}; expected an increasing pair within "
                f"the clock, {float(ends[1]):g} to {float(ends[0]):g}."
            )
        grid = torch.linspace(math.log(high), math.log(low), steps, dtype=torch.float64)
        return self.clock.time(grid.exp()).clamp(0, 1)


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


@dataclass(frozen=True, eq=False)
class Clocked(Process):
    """A clock per frame or cell: local time = clip(t (1 + span) - span (1 - delay), 0, 1).

    Parameters
    ----------
    base : the process that each cell follows on its own clock.
    delay : in [0, 1], broadcasts against x; cells with a larger delay become clean later when
        time runs down from 1 to 0. Delay 0 is clean at t = span / (1 + span), delay 1 starts to
        move at t = 1 / (1 + span).
    span : how far the clocks are spread, in units of the base's own duration; 0 is the base.
    """

    base: Process
    delay: Tensor
    span: float = 1.0

    @property
    def noise(self) -> Covariance:  # type: ignore[override]
        return self.base.noise

    @property
    def clock(self) -> Clock:  # type: ignore[override]
        return self.base.clock

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        late = 1 - self.delay.double()
        return self.base.coefficients((t.double() * (1 + self.span) - self.span * late).clamp(0, 1))


def shift(x: Tensor, beta: Tensor, anchor: Tensor | None) -> Tensor:
    """x + beta m, or x where there is no anchor."""
    return x if anchor is None else x + beta * anchor
