r"""Moment matching without a closed form: conjugate gradients through the network's Jacobian.

The covariance V of the prior denoiser is applied by backward passes (`sciddm.guide.tweedie`), in
its symmetric part; (A V A^T + R) w = y - A x_hat is solved by conjugate gradients. They are
preconditioned by the error covariance, or, where a covariance is known in closed form (the Gaussian
base, the calibrated error), by that of the whole gap, A V_0 A^T + R: with the exact V_0 one
iteration is the solution; with another the iterations correct it, by a low-rank term of the network
along the directions that each member's own gap asks for.

References
----------
Rozet, Andry, Lanusse, Louppe. Learning diffusion priors from observations by expectation
maximization. NeurIPS 2024, algorithm 2 and eq. 19. https://arxiv.org/abs/2405.13712
Golub, Van Loan. Matrix computations. 2013, algorithm 11.5.1 (preconditioning).
"""

from __future__ import annotations

import torch
from torch import Tensor

from sciddm.denoise import Context, Denoiser, LinearMap, Moments
from sciddm.errors import InputError
from sciddm.guide.linear import factor, gram
from sciddm.guide.tweedie import Tweedie
from sciddm.observe import Observation


class MMPS(Denoiser):
    """E[X | x_t, y] by moment matching, matrix-free. Gaussian errors.

    Parameters
    ----------
    prior, observation : the model's denoiser and y with any differentiable operator.
    iterations : conjugate-gradient steps, two backward passes each. Good values without `moments`:
        10 for 100 points on forward problems, 30 on inverse ones; more points or less noise want
        more, and one is no better than `DPS`. With them: 1 to 5.
    moments : Cov[X | x_t] in closed form, near that of ``prior``. It costs n applications and one
        factor (n, n) for every time, which is kept while all of them fit ``memory`` bytes; an
        operator that is not affine is linearised at zero for it.
    """

    def __init__(
        self,
        prior: Denoiser,
        observation: Observation,
        iterations: int = 10,
        moments: Moments | None = None,
        memory: int = 1 << 28,
    ) -> None:
        if iterations < 1:
            raise InputError(f"Got {iterations} iterations; expected at least 1.")
        torch.nn.Module.__init__(self)
        self.prior, self.process = prior, prior.process
        self.observation, self.iterations = observation, iterations
        self.moments, self.memory = moments, memory
        self._covariance = observation.covariance
        self._factors: dict[float, Tensor] = {}

    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        through = Tweedie(self.prior, x_t, t, context)
        x_hat, operator = through.x_hat, self.observation.operator
        with torch.enable_grad():
            clean = x_hat.clone().requires_grad_()
            value = self.observation.value(clean)
        gap = (self.observation.y.to(x_t) - value).detach()
        errors = self._covariance.to(x_t)

        def pull(w: Tensor) -> Tensor:
            """V A^T w, the field that a weight w on the observations moves."""
            (a,) = torch.autograd.grad(value, clean, w, retain_graph=True)
            return through(a)

        def system(w: Tensor) -> Tensor:
            _, image = torch.autograd.functional.jvp(operator, x_hat, pull(w))
            return image + w @ errors

        known = errors.diagonal() if self.moments is None else self._factor(t, x_t)
        weight = conjugate_gradients(system, gap, known, self.iterations, least=errors)
        return (x_hat + pull(weight)).detach()

    def _factor(self, t: Tensor, like: Tensor) -> Tensor:
        """The Cholesky factor of A V_0 A^T + R at the one time ``t``."""
        if t.numel() != 1:
            raise InputError(
                f"Got times of shape {tuple(t.shape)}; a covariance in closed form needs one time "
                "a step. Leave `moments` out for a clock per cell."
            )
        assert self.moments is not None
        key = float(t)
        if key in self._factors:
            return self._factors[key]
        rows = self.observation.operator.rows(torch.zeros_like(like[:1])).double()
        spread = gram(rows, self.moments.covariance(t.reshape(()))(rows))
        found = factor(spread + self._covariance)
        if (len(self._factors) + 1) * found.nbytes <= self.memory:
            self._factors[key] = found
        return found


def conjugate_gradients(
    system: LinearMap,
    b: Tensor,
    known: Tensor,
    iterations: int,
    floor: float = 1e-12,
    least: Tensor | None = None,
) -> Tensor:
    """Solve ``system(w) = b`` for each row of b (B, n).

    ``known`` preconditions: a diagonal (n,) or the Cholesky factor (n, n) of a matrix near the
    system. ``least`` (n, n) is a matrix that the system should not fall below, or None for 0. A
    direction of less than half its curvature (an indefinite learned Jacobian) ends that row's
    search, so that no step is larger than twice the longest that a true covariance could ask for.
    """

    def divided(r: Tensor) -> Tensor:
        if known.ndim == 1:
            return r / known
        return torch.cholesky_solve(r.T.to(known), known).T.to(r)

    w = torch.zeros_like(b)
    r = b.clone()
    z = divided(r)
    p = z
    rz = (r * z).sum(1, keepdim=True)
    for _ in range(iterations):
        image = system(p)
        curvature = (p * image).sum(1, keepdim=True)
        live = (curvature > floor) & (rz > floor)
        if least is not None:
            live = live & (curvature >= 0.5 * (p * (p @ least)).sum(1, keepdim=True))
        step = torch.where(live, rz / torch.where(live, curvature, torch.ones_like(rz)), 0 * rz)
        w = w + step * p
        r = r - step * image
        z = divided(r)
        fresh = (r * z).sum(1, keepdim=True)
        p = z + torch.where(live, fresh / rz.clamp_min(floor), 0 * rz) * p
        rz = torch.where(live, fresh, 0 * rz)
        if not bool(live.any()):
            break
    return w
