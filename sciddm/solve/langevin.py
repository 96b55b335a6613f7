r"""Predictor and corrector: a Langevin step at every noise level, round any solver.

With noise of covariance C the preconditioner is C, and C grad log p = -z_hat / sigma: the inverse
of C is never needed. One step of size delta (in units of sigma^2) is

    z' ~ N(0, C),   y = x + a sigma z',   x <- x - delta sigma z_hat(y) + sqrt(2 delta) sigma z'.

The drift is evaluated at y with the noise of the step itself, which costs nothing. For a Gaussian
law let K = sigma d z_hat / dx, between 0 (known by its data) and 1 (pure noise): the law is then
kept to order delta^2 for every K, and exactly at both ends with a = (sqrt(2 delta) - sqrt(2 delta -
delta^2)) / delta. A plain Euler step (a = 0) widens the law by delta K / 2.

The size is stated as a signal-to-noise ratio, delta = 2 snr^2: Song's rule with the norms of the
score and of the noise at their expected ratio, so that it depends on the noise level alone.

References
----------
Song et al. Score-based generative modeling through stochastic differential equations. ICLR 2021,
algorithms 4 and 5. https://arxiv.org/abs/2011.13456
Leimkuhler, Matthews. Rational construction of stochastic numerical methods for molecular sampling.
AMRX 2013 (noise of the step inside the drift). https://arxiv.org/abs/1203.5428
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from torch import Tensor

from sciddm.denoise import Context, Denoiser
from sciddm.errors import InputError
from sciddm.process import Process
from sciddm.random import Streams
from sciddm.solve.address import below
from sciddm.solve.solvers import Euler, History, Solver


@dataclass(frozen=True)
class Langevin(Solver):
    """Langevin steps after every step of ``solver``, at the level that it reached.

    The noise of a correction would look like a slope to a solver with a memory, so the memory
    starts anew at every level: one-step solvers keep their order, multistep ones fall back to
    their first step.

    Parameters
    ----------
    solver : the predictor.
    snr : signal-to-noise ratio of a step, in (0, 0.7]; Song et al. use 0.16 to 0.22.
    corrections : Langevin steps at each level, one evaluation each, at least 1.
    """

    solver: Solver = field(default_factory=Euler)
    snr: float = 0.16
    corrections: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.snr <= 0.7:
            raise InputError(f"Got snr = {self.snr}; expected a number above 0, at most 0.7.")
        if self.corrections < 1:
            raise InputError(
                f"Got {self.corrections} corrections; expected at least 1, or the solver alone."
            )

    def step(
        self,
        denoiser: Denoiser,
        x_t: Tensor,
        t: Tensor,
        s: Tensor,
        context: Context,
        state: History,
        rng: Streams | None,
    ) -> tuple[Tensor, History]:
        process, m = denoiser.process, context.anchor
        x_s, _ = self.solver.step(denoiser, x_t, t, s, context, History(), rng)
        delta = 2 * self.snr**2
        push = math.sqrt(2 * delta)
        ahead = (push - math.sqrt(2 * delta - delta**2)) / delta
        sigma = process.coefficients(s)[2].to(x_s)
        for j in range(self.corrections):
            z = sigma * process.noise.sample(x_s, below(rng, "langevin", j))
            y = x_s + ahead * z
            z_hat = process.residual(y, denoiser(y, s, context), s, m)
            x_s = x_s - delta * sigma * z_hat + push * z
        return x_s, History()

    def check(self, process: Process, times: Tensor) -> None:
        self.solver.check(process, times)

    def evaluations(self, steps: int) -> int:
        return self.solver.evaluations(steps) + self.corrections * (steps - 1)
