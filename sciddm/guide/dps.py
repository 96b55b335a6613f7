r"""Diffusion posterior sampling: gradient guidance, kept as a baseline that is known to be biased.

    x_hat_y = x_hat - zeta sigma C grad_{x_t} |y - A x_hat|

The error of x_hat is left out, and the length of the misfit stands for R. As a denoiser it draws
the same law at any number of steps, once they are many. The published step, zeta / |y - A x_hat| on
x_s after every ancestral step, is `sciddm.guide.DPSLoop`; the plain gradient of
log N(y; A x_hat, R) is `sciddm.guide.SDA` with gamma = 0. Even on a one-dimensional Gaussian the
ensemble is wrong in mean and spread; never call it calibrated.

References
----------
Chung, Kim, McCann, Klasky, Ye. Diffusion posterior sampling for general noisy inverse problems.
ICLR 2023, algorithm 1. https://arxiv.org/abs/2209.14687
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sciddm.denoise import Context, Denoiser
from sciddm.errors import InputError
from sciddm.observe import Observation


class DPS(Denoiser):
    """x_hat moved along the gradient of the misfit at x_hat, normalised by its length.

    Parameters
    ----------
    prior, observation : the model's denoiser and y with any differentiable operator.
    zeta : step size in units of the field's own uncertainty; Chung et al. recommend 0.1 to 1.
    """

    def __init__(self, prior: Denoiser, observation: Observation, zeta: float = 1.0) -> None:
        if not 0 < zeta < math.inf:
            raise InputError(f"Got zeta = {zeta}; expected a positive step size.")
        torch.nn.Module.__init__(self)
        self.prior, self.process = prior, prior.process
        self.observation, self.zeta = observation, zeta

    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        _, _, sigma = (c.to(x_t) for c in self.process.coefficients(t))
        with torch.enable_grad():
            x_t = x_t.detach().requires_grad_()
            x_hat = self.prior(x_t, t, context)
            square = self.observation.residual(x_hat).square().sum(1)
            length = square.clamp_min(torch.finfo(square.dtype).tiny).sqrt()  # no pull at a fit
            (pull,) = torch.autograd.grad(length.sum(), x_t)
        # sigma d/dx_t = kappa d/du: the same pull under every process
        return (x_hat - self.zeta * sigma * self.process.noise(pull)).detach()
