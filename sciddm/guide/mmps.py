r"""Moment matching without a closed form: conjugate gradients through the network's Jacobian.

Tweedie's covariance V = (sigma^2 / alpha) C J^T of the prior denoiser is applied by backward
passes; (A V A^T + R) w = y - A x_hat is solved by conjugate gradients. A learned V is not
symmetric, and conjugate gradients through it diverge: its symmetric part
(sigma^2 / 2 alpha) (C J^T + J C) is used, with the error covariance as preconditioner.

References
----------
Rozet, Andry, Lanusse, Louppe. Learning diffusion priors from observations by expectation
maximization. NeurIPS 2024, algorithm 2 and eq. 19. https://arxiv.org/abs/2405.13712
"""

from __future__ import annotations

import torch
from torch import Tensor

from sciddm.denoise import Context, Denoiser, LinearMap
from sciddm.errors import InputError
from sciddm.observe import Observation


class MMPS(Denoiser):
    """E[X | x_t, y] by moment matching, matrix-free.

    Parameters
    ----------
    prior, observation : the model's denoiser and y with any differentiable operator.
    iterations : conjugate-gradient steps, two backward passes each. Good values: 10 for 100 points
        on forward problems, 30 on inverse ones; more points or less noise want more. One is no
        better than `DPS`.
    """

    def __init__(self, prior: Denoiser, observation: Observation, iterations: int = 10) -> None:
        if iterations < 1:
            raise InputError(f"Got {iterations} iterations; expected at least 1.")
        torch.nn.Module.__init__(self)
        self.prior, self.process = prior, prior.process
        self.observation, self.iterations = observation, iterations

    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        alpha, _, sigma = (c.to(x_t) for c in self.process.coefficients(t))
        with torch.enable_grad():
            x_t = x_t.detach().requires_grad_()
            x_hat = self.prior(x_t, t, context)
            # J^T c, linear in c: its own derivative applies J
            c = torch.zeros_like(x_hat, requires_grad=True)
            (back,) = torch.autograd.grad(x_hat, x_t, c, create_graph=True)
            clean = x_hat.detach().requires_grad_()
            value = self.observation.operator(clean)
        gap = (self.observation.y.to(x_t) - value).detach()
        errors, noise = self.observation.covariance.to(x_t), self.process.noise

        def pull(w: Tensor) -> Tensor:
            """V A^T w, the field that a weight w on the observations moves."""
            (a,) = torch.autograd.grad(value, clean, w, retain_graph=True)
            (down,) = torch.autograd.grad(x_hat, x_t, a, retain_graph=True)
            (up,) = torch.autograd.grad(back, c, noise(a), retain_graph=True)
            return 0.5 * sigma**2 / alpha * (noise(down) + up)

        def system(w: Tensor) -> Tensor:
            _, image = torch.autograd.functional.jvp(
                self.observation.operator, clean.detach(), pull(w)
            )
            return image + w @ errors

        weight = conjugate_gradients(system, gap, errors.diagonal(), self.iterations)
        return (x_hat + pull(weight)).detach()


def conjugate_gradients(
    system: LinearMap, b: Tensor, diagonal: Tensor, iterations: int, floor: float = 1e-12
) -> Tensor:
    """Solve ``system(w) = b`` for each row of b (B, n), preconditioned by ``diagonal`` (n,).

    A direction of negative curvature (an indefinite learned Jacobian) ends that row's search.
    """
    w = torch.zeros_like(b)
    r = b.clone()
    z = r / diagonal
    p = z
    rz = (r * z).sum(1, keepdim=True)
    for _ in range(iterations):
        image = system(p)
        curvature = (p * image).sum(1, keepdim=True)
        live = (curvature > floor) & (rz > floor)
        step = torch.where(live, rz / torch.where(live, curvature, torch.ones_like(rz)), 0 * rz)
        w = w + step * p
        r = r - step * image
        z = r / diagonal
        fresh = (r * z).sum(1, keepdim=True)
        p = z + torch.where(live, fresh / rz.clamp_min(floor), 0 * rz) * p
        rz = torch.where(live, fresh, 0 * rz)
        if not bool(live.any()):
            break
    return w
