"""What every process shares: X_t = alpha X + beta M + sigma Z, with Z ~ N(0, C)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from sciddm.covariance import Covariance
from sciddm.errors import InputError
from sciddm.process.clocks import Clock
from sciddm.random import Streams


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


def shift(x: Tensor, beta: Tensor, anchor: Tensor | None) -> Tensor:
    """x + beta m, or x where there is no anchor."""
    return x if anchor is None else x + beta * anchor
