r"""Whole frames that are known, in closed form: the past of a film.

With V = Cov[X | x_t] stationary in space (`sciddm.spacetime`), every spatial mode is conditioned by
itself: P picks the frames that are known, to the s.d. r of one value,

    K = V P^T (P V P^T + r^2)^{-1},   E[X | x_t, past] = x_hat + K (past - P x_hat),
    Cov[X | x_t, past] = V - K P V.

That is one small system a mode where `Conditioned` has a row for every value of every frame. The
result is a denoiser and knows its covariance, so that observations along the way condition it as
any other.

References
----------
Rasmussen, Williams. Gaussian processes for machine learning. 2006, eq. A.6.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sciddm.covariance import Function, White
from sciddm.denoise import Context, Denoiser, Gaussian, LinearMap, Moments
from sciddm.errors import InputError
from sciddm.random import Streams, normal
from sciddm.spacetime import SpaceTime, times


class Pinned(Denoiser, Moments):
    """E[X | x_t, the first frames], and its covariance.

    Exact where ``prior`` is the Gaussian ``law``; else by moment matching, with the covariance of
    ``law`` in the place of that of the prior.

    Parameters
    ----------
    prior : denoiser of films (B, C, T, *grid).
    law : a `Gaussian` whose covariance is a `SpaceTime`.
    history : H, how many frames are known, fewer than T: the last H of ``context.past``.
    error : s.d. of what is known, at each value; 1e-4 is exact for the eye.
    """

    def __init__(self, prior: Denoiser, law: Gaussian, history: int, error: float = 1e-4) -> None:
        torch.nn.Module.__init__(self)
        if not isinstance(law.prior, SpaceTime):
            raise InputError(
                f"Got a law with a {type(law.prior).__name__} covariance; expected SpaceTime. Give "
                "the frames as an Observation (guide.Conditioned) instead."
            )
        if not 0 < history < law.prior.frames or not error > 0:
            raise InputError(
                f"Got {history} known frames of {law.prior.frames} with the error {error}; "
                "expected fewer than all, at least one, and a positive error."
            )
        self.prior, self.law, self.history, self.error = prior, law, history, error
        self.process, self.space = prior.process, law.prior
        count = self.space.channels * self.space.frames
        frame = torch.arange(count) % self.space.frames
        self._known = (frame < history).nonzero()[:, 0]
        self._parts: dict[float, tuple[Tensor, Tensor]] = {}

    @property
    def exact(self) -> bool:  # type: ignore[override]
        """Whether the covariance is that of the prior."""
        return isinstance(self.prior, Gaussian)

    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        x_hat = self.prior(x_t, t, context)
        gain, _ = self._at(t, x_t)
        past = context.past
        if past is None or past.shape[2] < self.history:
            raise InputError(
                f"Got {0 if past is None else past.shape[2]} frames in Context.past; expected the "
                f"{self.history} that are known."
            )
        gap = past[:, :, -self.history :].to(x_hat) - x_hat[:, :, : self.history]
        return x_hat + self.space.film(times(gain, self.space.coefficients(gap)), x_hat)

    def covariance(self, t: Tensor) -> LinearMap:
        def apply(g: Tensor) -> Tensor:
            left = self._at(t, g)[1]
            return self.space.film(times(left, self.space.coefficients(g)), g)

        return apply

    def fluctuation(self, t: Tensor, like: Tensor, rng: Streams | None = None) -> Tensor:
        values, vectors = torch.linalg.eigh(self._at(t, like)[1])
        half = (vectors * values.clamp_min(0).sqrt()[:, None, :]) @ vectors.mH
        white = self.space.coefficients(normal(like, rng))
        return self.space.film(times(half, white), like)

    def respond(self, x_hat: Tensor, gap: Tensor, rows: Tensor, update: LinearMap) -> Tensor:
        return update(gap)

    def _at(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """K (M, C T, C H) and V - K P V (M, C T, C T) at the one time ``t``."""
        if t.numel() != 1:
            raise InputError(
                f"Got times of shape {tuple(t.shape)}; known frames need one time a step."
            )
        key = float(t)
        if key not in self._parts:
            v = self.space.matrix(*self._noise(t, like))
            cross, at = v[:, :, self._known], self._known
            unit = torch.eye(len(at), dtype=torch.float64)
            chol = torch.linalg.cholesky(cross[:, at] + self.error**2 * unit)
            gain = torch.cholesky_solve(cross.mH, chol).mH
            left = v - gain @ cross.mH
            self._parts[key] = gain, 0.5 * (left + left.mH)
        return self._parts[key]

    def _noise(self, t: Tensor, like: Tensor) -> tuple[Tensor, Function]:
        """Variance of the noise of one value, and the function (p, c) -> Var[X | x_t]."""
        noise = self.process.noise
        if not isinstance(noise, White):
            raise InputError(f"Got {type(noise).__name__} noise on films; expected White.")
        kappa2 = self.process.kappa(t.reshape(())) ** 2

        def left(p: Tensor, c: Tensor) -> Tensor:
            return p * (kappa2 * c / (p + kappa2 * c))

        return noise.variance(like), left
