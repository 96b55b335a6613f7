"""The pieces of a particle step: the bridge between two noise levels, and Gaussians of few values.

Rows of an operator and their images are (B or 1, n, C, *grid): one set a particle, or one set
for all. Systems are (n, n), n the number of observations, in float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from sciddm.denoise import Gaussian, LinearMap
from sciddm.process import Process, shift
from sciddm.random import Streams


def bridge(
    process: Process,
    x: Tensor,
    x_hat: Tensor,
    t: Tensor,
    s: Tensor,
    anchor: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """E[x_s | x_t, X = x_hat], its slope in X, and the scale of its noise, of q(x_s | x_t, X)."""
    ratio2 = (process.kappa(s) / process.kappa(t)) ** 2
    alpha, beta, sigma = process.coefficients(s)
    z_hat = process.residual(x, x_hat, t, anchor)
    noise = (sigma * ratio2.sqrt()).to(x) * z_hat
    centre = shift(alpha.to(x) * x_hat + noise, beta.to(x), anchor)
    share, scale = alpha * (1 - ratio2), sigma * (1 - ratio2).sqrt()
    return centre, share.to(x), scale.to(x)


def noised(process: Process, x: Tensor, t: Tensor, anchor: Tensor | None, rng: Streams) -> Tensor:
    """The clean fields ``x`` at the first time."""
    alpha, beta, sigma = (c.to(x) for c in process.coefficients(t))
    z = process.noise.sqrt(normal(x, rng.at("start noise")))
    return shift(alpha * x + sigma * z, beta, anchor)


def normal(like: Tensor, rng: Streams) -> Tensor:
    """White noise for a whole cloud, from the address of its first row: it cannot be split, and
    thousands of addresses would cost more than the particles."""
    first = replace(rng, cases=rng.cases[:1], members=rng.members[:1])
    return first.normal(like[None])[0]


def draw(law: Gaussian, like: Tensor, t: Tensor, rng: Streams) -> Tensor:
    """N(0, Cov[X | x_t]) of the shape of ``like``."""
    kappa2 = law.process.kappa(t) ** 2

    def root(p: Tensor, c: Tensor) -> Tensor:
        return torch.sqrt(kappa2 * c * p / (p + kappa2 * c).clamp_min(1e-300))

    return law.prior.joint(normal(like, rng), law.process.noise, root)


def linearise(operator: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """A(x) (B, n), and its derivative at every row of ``x``, (B, n, C, *grid)."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        values = operator(x)
        rows = [
            torch.autograd.grad(values[:, j].sum(), x, retain_graph=True)[0]
            for j in range(values.shape[1])
        ]
    return values.detach(), torch.stack(rows, dim=1)


def gram(rows: Tensor, images: Tensor) -> Tensor:
    """A V A^T (B, n, n), symmetric, float64."""
    product = rows.flatten(2).double() @ images.flatten(2).double().mT
    return 0.5 * (product + product.mT)


def positive(spread: Tensor) -> Tensor:
    """The nearest covariance: a learned Jacobian need not give one."""
    values, vectors = torch.linalg.eigh(spread)
    return (vectors * values.clamp_min(0)[..., None, :]) @ vectors.mT


def solve(total: Tensor, gap: Tensor) -> Tensor:
    """total^{-1} gap, (B, n), for totals (B or 1, n, n)."""
    chol = torch.linalg.cholesky(total)
    return torch.cholesky_solve(gap.double()[..., None], chol.expand(len(gap), -1, -1))[..., 0]


def log_normal(gap: Tensor, total: Tensor) -> Tensor:
    """log N(gap; 0, total), (B,), float64."""
    chol = torch.linalg.cholesky(total)
    chol = chol.expand(-1 if chol.ndim == 3 else 1, -1, -1)
    if len(chol) == 1:
        white = torch.linalg.solve_triangular(chol[0], gap.double().T, upper=False).T
    else:
        white = torch.linalg.solve_triangular(chol, gap.double()[..., None], upper=False)[..., 0]
    log_det = 2 * chol.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return -0.5 * (white.square().sum(1) + log_det + gap.shape[1] * math.log(2 * math.pi))


def observe(rows: Tensor, x: Tensor) -> Tensor:
    """A x (B, n)."""
    if len(rows) == 1:
        return x.flatten(1) @ rows[0].flatten(1).T
    return (rows.flatten(2) @ x.flatten(1)[..., None])[..., 0]


def pull(images: Tensor, weight: Tensor) -> Tensor:
    """sum_j weight_j images_j, a field a particle."""
    weight = weight.to(images)
    if len(images) == 1:
        flat = weight @ images[0].flatten(1)
    else:
        flat = (weight[:, None, :] @ images.flatten(2))[:, 0]
    return flat.view(len(weight), *images.shape[2:])


def apply(covariance: LinearMap, rows: Tensor) -> Tensor:
    """A covariance on fields (n, C, *grid), applied to (B, n, C, *grid)."""
    return covariance(rows.flatten(0, 1)).view_as(rows)
