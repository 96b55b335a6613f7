r"""Cov[X | x_t] of any denoiser, applied through its Jacobian.

Tweedie's covariance V = (sigma^2 / alpha) C J^T, J = d x_hat / d x_t, costs a backward pass
a field. A learned V is not symmetric; its symmetric part (sigma^2 / 2 alpha) (C J^T + J C) is used,
two passes a field.

References
----------
Rozet, Andry, Lanusse, Louppe. Learning diffusion priors from observations by expectation
maximization. NeurIPS 2024, eq. 19. https://arxiv.org/abs/2405.13712
"""

from __future__ import annotations

import torch
from torch import Tensor

from sciddm.denoise import Context, Denoiser


class Tweedie:
    """x_hat (B, C, *grid) at one x_t, and the map a -> V a on fields, each row its own V."""

    def __init__(self, prior: Denoiser, x_t: Tensor, t: Tensor, context: Context) -> None:
        alpha, _, sigma = (c.to(x_t) for c in prior.process.coefficients(t))
        self._scale, self._noise = 0.5 * sigma**2 / alpha, prior.process.noise
        with torch.enable_grad():
            self._x_t = x_t.detach().requires_grad_()
            self._graph = prior(self._x_t, t, context)
            # J^T c, linear in c: its own derivative applies J
            self._c = torch.zeros_like(self._graph, requires_grad=True)
            (self._back,) = torch.autograd.grad(self._graph, self._x_t, self._c, create_graph=True)
        self.x_hat = self._graph.detach()

    def __call__(self, a: Tensor) -> Tensor:
        """V a, of the shape of ``a`` (B, C, *grid)."""
        (down,) = torch.autograd.grad(self._graph, self._x_t, a, retain_graph=True)
        (up,) = torch.autograd.grad(self._back, self._c, self._noise(a), retain_graph=True)
        return self._scale * (self._noise(down) + up)
