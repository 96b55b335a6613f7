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

    @property
    def anchored(self) -> bool:
        """Whether the process needs an anchor M (beta > 0)."""
        return False

    def kappa(self, t: Tensor) -> Tensor:
        """Noise level sigma / alpha at times ``t``, float64."""
        alpha, _, sigma = self.coefficients(t)
        return sigma / alpha

    def forward(
        self, x: Tensor, t: Tensor, anchor: Tensor | None = None, rng: Streams | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draw (x_t, z) given the clean field ``x`` (B, C, *grid).

        Raises `InputError` where the process needs an anchor and there is none, as do `residual`,
        `start` and `centred`.
        """
        self._check(anchor)
        z = self.noise.sample(x, rng)
        alpha, beta, sigma = (c.to(x) for c in self.coefficients(t))
        return shift(alpha * x + sigma * z, beta, anchor), z

    def residual(
        self, x_t: Tensor, x_hat: Tensor, t: Tensor, anchor: Tensor | None = None
    ) -> Tensor:
        """The noise that remains: z_hat = (x_t - alpha x_hat - beta m) / sigma."""
        self._check(anchor)
        alpha, beta, sigma = (c.to(x_t) for c in self.coefficients(t))
        return (shift(x_t, -beta, anchor) - alpha * x_hat) / sigma

    def centred(self, x_t: Tensor, t: Tensor, anchor: Tensor | None = None) -> Tensor:
        """u = (x_t - beta m) / alpha = x + kappa z: all that x_t says of x."""
        self._check(anchor)
        alpha, beta, _ = (c.to(x_t) for c in self.coefficients(t))
        return shift(x_t, -beta, anchor) / alpha

    def start(
        self, like: Tensor, t: Tensor, anchor: Tensor | None = None, rng: Streams | None = None
    ) -> Tensor:
        """A field where nothing but the anchor and the noise is left: beta m + sigma z."""
        self._check(anchor)
        _, beta, sigma = (c.to(like) for c in self.coefficients(t))
        return shift(sigma * self.noise.sample(like, rng), beta, anchor)

    def between(self, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The law of X_t given X_s for s <= t: X_t = scale X_s + anchor M + std Z.

        Returns (scale, anchor, std), float64. Raises `InputError` where the noise falls from s to
        t. Where neighbours stand on different clocks (`Clocked`, `Capped`) this is the law of each
        cell; of the whole field only if the noise is independent between those cells.
        """
        (alpha_s, beta_s, sigma_s), (alpha_t, beta_t, sigma_t) = map(self.coefficients, (s, t))
        kappa_s, kappa_t = sigma_s / alpha_s, sigma_t / alpha_t
        if bool((kappa_s > kappa_t).any()):
            raise InputError("Got times with s > t; expected an earlier s, as noise only grows.")
        scale = alpha_t / alpha_s
        std = alpha_t * torch.sqrt((kappa_t - kappa_s) * (kappa_t + kappa_s))
        return scale, beta_t - scale * beta_s, std

    def rates(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(drift, pull, diffusion) at ``t``, float64, of dX = (drift X + pull M) dt + diffusion dW.

        drift = (log alpha)', pull = beta' - beta drift, diffusion = alpha sqrt((kappa^2)'), and the
        increments dW have the covariance C dt; derivatives in t are exact.
        Song et al. 2021, eq. 5, for any linear process.
        """
        shape = self.coefficients(t)[0].shape
        with torch.inference_mode(False), torch.enable_grad():
            # every cell has its own copy of t, so a sum has each cell's derivative
            t = t.double().expand(shape).clone().requires_grad_()
            values = self.coefficients(t)
            slopes = [
                torch.autograd.grad(v.sum(), t, retain_graph=True)[0] if v.requires_grad else 0 * t
                for v in values
            ]
        (alpha, beta, sigma), (d_alpha, d_beta, d_sigma) = (
            [v.detach() for v in row] for row in (values, slopes)
        )
        drift = d_alpha / alpha
        growth = 2 * sigma * (d_sigma - sigma * drift)  # alpha^2 (kappa^2)'
        return drift, d_beta - beta * drift, growth.clamp_min(0).sqrt()

    def times(
        self, steps: int, kappa_max: float | None = None, kappa_min: float | None = None
    ) -> Tensor:
        """``steps`` decreasing times, even in log kappa, float64.

        Without bounds the grid spans the whole clock. Raises `InputError` for fewer than two
        steps or bounds outside the clock.
        """
        if steps < 2:
            raise InputError(f"Got {steps} steps; expected at least 2.")
        lowest, highest = self.clock.ends()
        high = highest if kappa_max is None else kappa_max
        low = lowest if kappa_min is None else kappa_min
        slack = 1 + 1e-9
        if not lowest / slack <= low < high <= highest * slack:
            raise InputError(
                f"Got noise levels from {low:g} to {high:g}; expected an increasing pair within "
                f"the clock, {lowest:g} to {highest:g}."
            )
        grid = torch.linspace(math.log(high), math.log(low), steps, dtype=torch.float64)
        return self.clock.time(grid.exp()).clamp(0, 1)

    def _check(self, anchor: Tensor | None) -> None:
        if anchor is None and self.anchored:
            raise InputError(
                f"Got no anchor for {type(self).__name__}, which moves between the clean field and "
                "an anchor; expected one of the shape of the field (Context.anchor)."
            )


class OneClock(Process):
    """A process on one clock: a scale and an anchor weight at every noise level."""

    @abstractmethod
    def scale(self, kappa: Tensor) -> Tensor:
        """alpha at noise levels ``kappa``, float64, positive, 1 at 0 and never rising."""

    def weight(self, kappa: Tensor, alpha: Tensor) -> Tensor:
        """beta at noise levels ``kappa``, where the scale is ``alpha``."""
        return torch.zeros_like(alpha)

    def at(self, kappa: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(alpha, beta, sigma) at noise levels ``kappa`` (any shape), float64."""
        kappa = kappa.double()
        alpha = self.scale(kappa)
        return alpha, self.weight(kappa, alpha), alpha * kappa

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.at(self.clock.kappa(t.double()))

    def _check_ends(self) -> None:
        """Raises `InputError` unless the field has a positive scale and noise at both ends."""
        low, high = self.clock.ends()
        alpha, beta, sigma = self.at(torch.tensor([low, high], dtype=torch.float64))
        rows = torch.stack([alpha, 1 / alpha, beta, sigma, 1 / sigma])
        if not bool(torch.isfinite(rows).all() and (rows >= 0).all()):
            raise InputError(
                f"Got coefficients that are not finite at noise levels {low:g} and {high:g} of "
                f"{type(self).__name__}; expected a clock whose ends it can reach."
            )


def shift(x: Tensor, beta: Tensor, anchor: Tensor | None) -> Tensor:
    """x + beta m, or x where there is no anchor."""
    return x if anchor is None else x + beta * anchor
