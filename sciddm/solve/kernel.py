r"""The one step that every solver takes, for every process and every noise.

    tau = eta^2 (1 - (kappa_s / kappa_t)^2)
    x_s = alpha_s x_hat + beta_s m + sigma_s (sqrt(1 - tau) z_hat + sqrt(tau) z'),  z' ~ N(0, C)

eta = 0 is deterministic (DDIM, the probability flow to first order), eta = 1 ancestral.

References
----------
Song, Meng, Ermon. Denoising diffusion implicit models. ICLR 2021, eq. 12 and 16.
https://arxiv.org/abs/2010.02502
"""

from __future__ import annotations

import torch
from torch import Tensor

from sciddm.process import Process, shift
from sciddm.random import Streams


def transition(
    process: Process,
    x_t: Tensor,
    x_hat: Tensor,
    t: Tensor,
    s: Tensor,
    *,
    anchor: Tensor | None = None,
    eta: float = 0.0,
    rng: Streams | None = None,
) -> Tensor:
    """x_s given x_t and the clean estimate ``x_hat``, both (B, C, *grid), for s < t."""
    alpha, beta, sigma = (c.to(x_t) for c in process.coefficients(s))
    z_hat = process.residual(x_t, x_hat, t, anchor)
    if eta == 0:
        return shift(alpha * x_hat + sigma * z_hat, beta, anchor)
    ratio = process.kappa(s) / process.kappa(t)
    tau = eta**2 * (1 - ratio**2)
    fresh = process.noise.sample(x_t, rng)
    noise = torch.sqrt(1 - tau).to(x_t) * z_hat + torch.sqrt(tau).to(x_t) * fresh
    return shift(alpha * x_hat + sigma * noise, beta, anchor)
