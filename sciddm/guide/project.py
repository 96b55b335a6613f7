r"""Hard data consistency: y = A x exactly, for values without error.

`HardProjection` puts the clean estimate on the set A x = y, along the shortest way,

    x_hat_y = x_hat + A^T (A A^T)^{-1} (y - A x_hat),

so the range of A^T is given by y and the null space by the prior (DDNM). `ReSample` runs the
prior alone and visits the set at chosen steps: the projected estimate x_0 is taken to noise level s
by the product of two Gaussians, in u = x / alpha,

    N(u_s; x_0, kappa_s^2 C) N(u_s; u'_s, v C),    v = gamma kappa_s^2 (kappa_t^2 - kappa_s^2),

u'_s being the prior's own step. In a latent model the operator is ``operator @ decoder``. Both take
y for exact: its noise goes into the draws. They alone accept values without error.

References
----------
Wang, Yu, Zhang. Zero-shot image restoration using denoising diffusion null-space model. ICLR 2023,
eq. 13. https://arxiv.org/abs/2212.00490
Song, Kwon, Zhang, Hu, Qu, Shen. Solving inverse problems with latent diffusion models via hard data
consistency (ReSample). ICLR 2024, proposition 1 and eq. 11. https://arxiv.org/abs/2307.08123
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from sciddm.denoise import Context, Denoiser
from sciddm.errors import InputError
from sciddm.guide.moments import gram
from sciddm.guide.published import Watched, positive
from sciddm.observe import Operator
from sciddm.process import Process, shift
from sciddm.random import Streams
from sciddm.solve import Euler, History, Solver
from sciddm.solve.address import below


class HardProjection(Denoiser):
    """x_hat moved to A x = y along the shortest way.

    Parameters
    ----------
    prior : the model's denoiser.
    operator : linear (affine), with independent rows (no point twice).
    y : values without error, (n,) or (B, n).

    Raises `InputError` for values that are not finite, a number of values that is not the
    operator's, and dependent rows.
    """

    def __init__(self, prior: Denoiser, operator: Operator, y: Tensor) -> None:
        if y.ndim not in (1, 2) or not bool(torch.isfinite(y).all()):
            raise InputError(
                f"Got values of shape {tuple(y.shape)}; expected finite (n,) or (B, n)."
            )
        torch.nn.Module.__init__(self)
        self.prior, self.process = prior, prior.process
        self.operator, self.y = operator, y
        self._inverse: Tensor | None = None

    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        return self.project(self.prior(x_t, t, context))

    def project(self, x: Tensor) -> Tensor:
        """The nearest field to each row of ``x`` (B, C, *grid) with A x = y."""
        value = self.operator(x)
        if value.shape != (len(x), self.y.shape[-1]):
            raise InputError(
                f"Got {tuple(value.shape)} from the operator for {len(x)} fields and "
                f"{self.y.shape[-1]} values; expected one row a field and one column a value."
            )
        if self._inverse is None:
            self._inverse = pseudo_inverse(self.operator, x)
        return x + ((self.y.to(x) - value) @ self._inverse.flatten(1).to(x)).view_as(x)


@dataclass(frozen=True)
class ReSample(Solver):
    """The prior's step, and every few steps a draw about the projected clean estimate.

    To be used with a `HardProjection`, whose prior it steps; the last clean estimate of the
    trajectory is projected by it.

    Parameters
    ----------
    gamma : positive; 0 would keep the prior's own step. The authors take 40 for data of s.d. 1/2.
    every : steps between two visits, at least 1; the authors take 10 of 500.
    solver : of the prior.
    """

    gamma: float = 40.0
    every: int = 1
    solver: Solver = field(default_factory=Euler)

    def __post_init__(self) -> None:
        positive("gamma", self.gamma)
        if self.every < 1:
            raise InputError(f"Got a visit every {self.every} steps; expected at least 1.")

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
        if not isinstance(denoiser, HardProjection) or rng is None:
            raise InputError(
                f"Got {type(denoiser).__name__} and {'no' if rng is None else 'addressed'} noise; "
                "expected a guide.HardProjection and Streams."
            )
        watched = Watched(denoiser.prior)
        x_s, state = self.solver.step(watched, x_t, t, s, context, state, rng)
        if rng.step % self.every:
            return x_s, state
        process = denoiser.process
        alpha, beta, _ = (c.to(x_t) for c in process.coefficients(s))
        kappa2, before = (process.kappa(v) ** 2 for v in (s, t))
        own = self.gamma * kappa2 * (before - kappa2)
        share = (own / (own + kappa2)).to(x_t)
        width = (own * kappa2 / (own + kappa2)).sqrt().to(x_t)
        u = shift(x_s, -beta, context.anchor) / alpha
        centre = share * denoiser.project(watched.last) + (1 - share) * u
        u = centre + width * process.noise.sample(x_t, below(rng, "resample"))
        return shift(alpha * u, beta, context.anchor), state

    def check(self, process: Process, times: Tensor) -> None:
        self.solver.check(process, times)

    def evaluations(self, steps: int) -> int:
        return self.solver.evaluations(steps)


def pseudo_inverse(operator: Operator, like: Tensor) -> Tensor:
    """(A A^T)^{-1} A (n, C, *grid), float64; raises `InputError` for dependent rows."""
    rows = operator.rows(torch.zeros_like(like[:1])).double()
    total = gram(rows, rows)
    chol, fault = torch.linalg.cholesky_ex(total)
    least = chol.diagonal().min() ** 2 if int(fault) == 0 else torch.zeros(())
    if not float(least) > 1e-10 * float(total.diagonal().max()):
        raise InputError(
            "The rows of the operator depend on each other (a point twice, or one that sees "
            "nothing); hard values need independent rows. Leave them out, or give the values an "
            "error and use guide.Conditioned."
        )
    return torch.cholesky_solve(rows.flatten(1), chol).view_as(rows)
