r"""RED-diff: one field by descent, the network's residual as its regulariser.

    mu <- mu - Adam of  weight kappa (z_hat - z) - C A^T R^{-1} (y - A mu),
    x_t = alpha mu + sigma z,  z ~ N(0, C),  z_hat = (x_t - alpha x_hat(x_t)) / sigma,

one evaluation a step along a grid of falling noise levels, and none is differentiated. It finds a
field, not a law: draws differ by what the descent leaves. For a Gaussian prior N(m, Sigma) the mean
of the direction over the levels vanishes where

    A^T R^{-1} (y - A mu) = weight <kappa^2 (Sigma + kappa^2 C)^{-1}> (mu - m),

so the inverse of the prior's covariance in the exact posterior mean is replaced by an average that
never exceeds weight C^{-1}: modes of small variance are shrunk too little.

References
----------
Mardani, Song, Kautz, Vahdat. A variational perspective on solving inverse problems with diffusion
models. ICLR 2024, eq. 8-11, algorithm 1 (weight 1 / SNR = kappa). https://arxiv.org/abs/2305.04391
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sciddm.denoise import Context, Denoiser
from sciddm.errors import InputError
from sciddm.guide.published import positive
from sciddm.guide.score import observed, weigh
from sciddm.observe import Observation
from sciddm.process import shift
from sciddm.random import Streams
from sciddm.solve import Grid, LogKappa


@dataclass(frozen=True)
class REDDiff:
    """A `sciddm.solve.Sampler` of best guesses; its ensemble has no spread to speak of.

    Parameters
    ----------
    prior, observation : the model's denoiser and y with any differentiable operator.
    steps : noise levels, one evaluation each, and one for the start.
    weight : of the regulariser. Good value: 1; the authors take 0.25 with R = I.
    rate : step of Adam, in units of the field. The authors take 0.1 to 0.5.
    kappa_max, kappa_min, grid : the levels, as of `sciddm.solve.Diffusion`.
    """

    prior: Denoiser
    observation: Observation
    steps: int = 500
    weight: float = 1.0
    rate: float = 0.1
    kappa_max: float | None = None
    kappa_min: float | None = None
    grid: Grid = field(default_factory=LogKappa)

    def __post_init__(self) -> None:
        positive("weight", self.weight)
        positive("rate", self.rate)
        if self.steps < 2:
            raise InputError(f"Got {self.steps} steps; expected at least 2.")

    @property
    def evaluations(self) -> int:
        """Network evaluations a draw."""
        return self.steps + 1

    def direction(self, mu: Tensor, t: Tensor, z: Tensor, context: Context) -> Tensor:
        """What Adam descends along at ``mu`` (B, C, *grid) for the noise ``z`` at time ``t``."""
        process = self.prior.process
        alpha, beta, sigma = (c.to(mu) for c in process.coefficients(t))
        x_t = shift(alpha * mu + sigma * z, beta, context.anchor)
        x_hat = self.prior(x_t, t, context)
        z_hat = process.residual(x_t, x_hat, t, context.anchor)
        with torch.enable_grad():
            x = mu.detach().requires_grad_()
            value = observed(self.observation, x)
            gap = (self.observation.y.to(mu) - value).detach()
            (back,) = torch.autograd.grad(value, x, weigh(self.observation.covariance, gap))
        return self.weight * sigma / alpha * (z_hat - z) - process.noise(back)

    @torch.no_grad()
    def __call__(self, shape: Sequence[int], context: Context, rng: Streams) -> Tensor:
        process = self.prior.process
        times = self.grid.times(process, self.steps, self.kappa_max, self.kappa_min)
        like = torch.zeros(tuple(shape))
        x = process.start(like, times[0], context.anchor, rng.at("start"))
        return self.descend(self.prior(x, times[0], context), times, context, rng)

    @torch.no_grad()
    def descend(self, mu: Tensor, times: Tensor, context: Context, rng: Streams) -> Tensor:
        """From ``mu`` (B, C, *grid) along decreasing ``times``; (B, C, *grid) in its type."""
        noise = self.prior.process.noise
        point = torch.nn.Parameter(mu.clone())
        adam = torch.optim.Adam([point], lr=self.rate)
        for k, t in enumerate(times):
            z = noise.sample(mu, rng.at("step", k))
            point.grad = self.direction(point.detach(), t, z, context)
            adam.step()
        return point.detach()
