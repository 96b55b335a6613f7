r"""The first part of a draw in closed form: the network starts where its base no longer suffices.

At high noise the probability flow is that of a Gaussian with the moments of the data, whatever the
data are, and that flow is known from any level to any other (`Gaussian.flow`). A guided draw
follows the posterior of that Gaussian instead. It is drawn there exactly: with X of the base and an
error e of the observation (Matheron's rule),

    x_t = alpha (X + K (y - A X - e)) + beta m + sigma z,  K = P A^T (A P A^T + R)^{-1}.

References
----------
Wang, Vastola. Diffusion models generate images like painters. 2023, eq. 8-10 (the flow, and
skipping its start). https://arxiv.org/abs/2303.02490
Rasmussen, Williams. Gaussian processes for machine learning. 2006, eq. 2.23-2.24.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from sciddm.denoise import Denoiser, Gaussian, Moments
from sciddm.errors import InputError
from sciddm.observe import Observation
from sciddm.process import shift
from sciddm.random import Streams


@runtime_checkable
class Guided(Protocol):
    """A denoiser given a linear observation with Gaussian errors, as `guide.Conditioned` is."""

    observation: Observation
    moments: Moments


@dataclass(frozen=True, eq=False)
class Early:
    """Where the network starts, and the Gaussian that stands for it before.

    Parameters
    ----------
    base : a Gaussian with the moments of the data, under any process with the same noise.
    kappa : the level where the network starts. The base's error there shows in the draws, and
        falls with the level: a few times the largest s.d. of the base along one direction is safe.
    """

    base: Gaussian
    kappa: float

    def __post_init__(self) -> None:
        if not 0 < self.kappa < math.inf:
            raise InputError(f"Got kappa = {self.kappa}; expected a positive noise level.")

    def start(
        self,
        denoiser: Denoiser,
        like: Tensor,
        high: Tensor,
        t: Tensor,
        anchor: Tensor | None,
        rng: Streams,
    ) -> Tensor:
        """x_t (B, C, *grid) of the base, or of its posterior where ``denoiser`` is guided.

        high : the time that the flow starts from; its noise is that of a draw without this phase.
        Raises `InputError` under guidance without one linear observation of Gaussian errors.
        """
        process = denoiser.process
        base = self.base.under(process)
        guided = [m for m in denoiser.modules() if hasattr(m, "observation")]
        if not guided:
            x = process.start(like, high, anchor, rng.at("start"))
            return base.flow(x, high, t, anchor)
        if (
            len(guided) > 1
            or not isinstance(denoiser, Guided)
            or not denoiser.observation.operator.affine(like[:1])
        ):
            raise InputError(
                f"Got {' around '.join(type(m).__name__ for m in guided)} after an early phase, "
                "which knows the posterior of one linear observation only; use guide.Conditioned, "
                "or early=None."
            )
        x = _posterior(base, denoiser.observation, like, rng).to(like)
        alpha, beta, sigma = (c.to(x) for c in process.coefficients(t))
        return shift(alpha * x + sigma * process.noise.sample(x, rng.at("start")), beta, anchor)


def _posterior(base: Gaussian, observation: Observation, like: Tensor, rng: Streams) -> Tensor:
    """Draws of X given the observation, float64, of the shape of ``like``."""
    like = like.double()
    x = base.sample(like, rng.at("early field"))
    rows = observation.operator.rows(torch.zeros_like(like[:1]))
    images = base.prior(rows).flatten(1)
    errors = observation.covariance
    total = rows.flatten(1) @ images.T + errors
    blank = torch.zeros(len(like), len(rows), dtype=torch.float64)
    noise = rng.at("early error").normal(blank) @ torch.linalg.cholesky(errors).T
    gap = observation.residual(x) - noise
    return x + (torch.linalg.solve(total, gap.T).T @ images).view_as(x)
