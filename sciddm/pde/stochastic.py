r"""Linear equations driven by noise: every law is Gaussian and known, at any time ahead.

The heat equation on a circle of length L, carried along, damped, and driven by noise that is white
in time and coloured in space,

    u_t = nu u_xx - c u_x - mu u + W,     W of spectral density q(k),

is one complex Ornstein-Uhlenbeck process a Fourier mode. Over a step h the coefficient of
wavenumber k is multiplied by ``a(k) = exp(-(mu + nu k^2 + i c k) h)`` and receives noise of
variance ``S(k) (1 - |a(k)|^2) N / L``, where ``S(k) = q(k) / (2 (mu + nu k^2))`` is the stationary
density and N the number of points. No step is approximated. The highest mode of an even grid has
no direction: it decays and is not carried.

References
----------
Lord, Powell, Shardlow. An introduction to computational stochastic PDEs. 2014, section 10.2-10.5.
Uhlenbeck, Ornstein. On the theory of the Brownian motion. Physical Review 36, 1930.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import numpy as np
import torch
from torch import Tensor

from sciddm.covariance import Density
from sciddm.errors import InputError


@final
@dataclass(frozen=True)
class StochasticHeat:
    """u_t = nu u_xx - c u_x - mu u + W on a circle, at rest in time.

    Args:
        length: of the circle. diffusivity: nu. damping: mu. speed: c, to the right.
        noise: spectral density q of W; the variance of u is the sum over k of S(k) / length.

    Raises:
        InputError: a length or damping that is not positive, or a negative diffusivity.

    Expect waves that fade faster the shorter they are; the longest forget in 1 / damping.
    """

    length: float
    diffusivity: float
    damping: float
    speed: float
    noise: Density

    def __post_init__(self) -> None:
        numbers = (self.length, self.diffusivity, self.damping, self.speed)
        if not (
            all(map(math.isfinite, numbers))
            and self.length > 0
            and self.damping > 0
            and self.diffusivity >= 0
        ):
            raise InputError(
                f"Got length, diffusivity, damping and speed {numbers}; expected finite numbers, a "
                "positive length and damping and a diffusivity of at least 0."
            )

    def stationary(self, points: int) -> Tensor:
        """Variance of the orthonormal Fourier coefficients of a field on ``points``: (points // 2 +
        1,), float64; of their two parts together where they are complex."""
        k2 = self._wavenumbers(points).square()
        return self.noise(k2, 1) / (2 * self._rate(k2)) * (points / self.length)

    def transition(self, points: int, step: float) -> tuple[Tensor, Tensor]:
        """(a, variance), each (points // 2 + 1,), complex128 and float64: a coefficient after
        ``step`` is ``a`` times what it was, and noise of that variance."""
        k = self._wavenumbers(points)
        turn = -self.speed * k * step
        if points % 2 == 0:
            turn[-1] = 0.0
        factor = torch.polar(torch.exp(-self._rate(k.square()) * step), turn)
        share = -torch.expm1(-2 * self._rate(k.square()) * step)
        return factor, self.stationary(points) * share

    def films(
        self, samples: int, points: int, frames: int, step: float, *, seed: int = 0, start: int = 0
    ) -> Tensor:
        """Films ``start .. start + samples - 1`` of the stationary law: (samples, frames, points),
        float64.

        The noise of a film is addressed by (seed, index), so a film has the same bytes in any
        batch.

        Raises:
            InputError: fewer than 4 points or 1 frame, a step that is not positive, or a negative
                seed, start or number of samples.
        """
        if points < 4 or frames < 1 or not 0 < step < math.inf or min(samples, seed, start) < 0:
            raise InputError(
                f"Got {samples} films of {frames} frames on {points} points, step {step!r}, seed "
                f"{seed}, start {start}; expected at least 4 points, 1 frame, a positive step, and "
                "nothing negative."
            )
        factor, noise = (v.numpy() for v in self.transition(points, step))
        first = np.sqrt(self.stationary(points).numpy())
        out = np.empty((samples, frames, points))
        for i in range(samples):
            rng = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, start + i])))
            white = np.fft.rfft(rng.standard_normal((frames, points)), norm="ortho")
            state = np.empty_like(white)
            state[0] = first * white[0]
            for n in range(1, frames):
                state[n] = factor * state[n - 1] + np.sqrt(noise) * white[n]
            out[i] = np.fft.irfft(state, points, norm="ortho")
        return torch.from_numpy(out)

    def _wavenumbers(self, points: int) -> Tensor:
        return (2 * math.pi / self.length) * torch.arange(points // 2 + 1, dtype=torch.float64)

    def _rate(self, k2: Tensor) -> Tensor:
        return self.damping + self.diffusivity * k2
