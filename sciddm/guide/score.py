r"""Gaussian-likelihood scores: the error of the clean estimate as a multiple of the identity.

    x_hat_y = x_hat + (sigma^2 / alpha) C J^T A^T S^{-1} (y - A x_hat),    J = d x_hat / d x_t

==========  =================================================  ===================================
rule        S                                                  expect
==========  =================================================  ===================================
`SDA`       R + gamma kappa^2 I                                wide and off in the mean; gamma = 0
                                                               is plug-in guidance, far too narrow
`TMPD`      R + diag(A V A^T 1), V = (sigma^2 / alpha) C J^T   diverges where a row sum of V is
                                                               negative, as on smooth fields
==========  =================================================  ===================================

Only S = R + A V A^T is exact for a Gaussian prior (`sciddm.guide.MMPS`, `Conditioned`). On the
prior N(0, 1) with y = 1 and R = 1/4 the posterior is N(0.80, 0.20); gamma = 0 draws N(1.27, 0.018)
by the probability flow and N(0.98, 0.125) by the reverse equation.

References
----------
Rozet, Louppe. Score-based data assimilation. NeurIPS 2023, eq. 13-15.
https://arxiv.org/abs/2306.10574
Boys, Girolami, Pidstrigach, Reich, Mosca, Akyildiz. Tweedie moment projected diffusions for
inverse problems. TMLR 2024, section 3.2 (row sums). https://arxiv.org/abs/2310.06721
Chung, Kim, McCann, Klasky, Ye. Diffusion posterior sampling for general noisy inverse problems.
ICLR 2023, theorem 1 (gamma = 0). https://arxiv.org/abs/2209.14687
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sciddm.denoise import Context, Denoiser, LinearMap
from sciddm.errors import InputError
from sciddm.observe import Observation


class SDA(Denoiser):
    """Score-based data assimilation: S = R + gamma kappa^2 I.

    Parameters
    ----------
    prior, observation : the model's denoiser and y with any differentiable operator.
    gamma : variance of the error of x_hat at an observed value over kappa^2, non-negative. The
        authors take 0.01 to 0.1 of the squared s.d. of the data.
    """

    def __init__(self, prior: Denoiser, observation: Observation, gamma: float = 0.01) -> None:
        if not 0 <= gamma < math.inf:
            raise InputError(f"Got gamma = {gamma}; expected a finite number of at least 0.")
        torch.nn.Module.__init__(self)
        self.prior, self.process = prior, prior.process
        self.observation, self.gamma = observation, gamma

    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        x_hat, gap, pull = linearised(self.prior, self.observation, x_t, t, context)
        kappa2 = one_level(self.process.kappa(t)) ** 2
        unit = torch.eye(gap.shape[1], dtype=torch.float64)
        total = self.observation.covariance + self.gamma * kappa2 * unit
        return x_hat + pull(weigh(total, gap))


class TMPD(Denoiser):
    """Tweedie moment projection with row sums: S = R + diag(A V A^T 1). A fact for tables.

    Parameters
    ----------
    prior, observation : the model's denoiser and y with any differentiable operator; only the
        diagonal of R is used.
    """

    def __init__(self, prior: Denoiser, observation: Observation) -> None:
        torch.nn.Module.__init__(self)
        self.prior, self.process, self.observation = prior, prior.process, observation

    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        x_hat, gap, pull = linearised(self.prior, self.observation, x_t, t, context)
        operator = self.observation.operator
        _, sums = torch.autograd.functional.jvp(operator, x_hat, pull(torch.ones_like(gap)))
        return x_hat + pull(gap / (self.observation.covariance.diagonal().to(gap) + sums))


def linearised(
    prior: Denoiser, observation: Observation, x_t: Tensor, t: Tensor, context: Context
) -> tuple[Tensor, Tensor, LinearMap]:
    """x_hat (B, C, *grid), the gap y - A x_hat (B, n), and w -> (sigma^2 / alpha) C J^T A^T w from
    weights on the observations to fields; all detached."""
    alpha, _, sigma = (c.to(x_t) for c in prior.process.coefficients(t))
    with torch.enable_grad():
        x = x_t.detach().requires_grad_()
        x_hat = prior(x, t, context)
        value = observed(observation, x_hat)
    gap = (observation.y.to(x_t) - value).detach()

    def pull(w: Tensor) -> Tensor:
        (back,) = torch.autograd.grad(value, x, w, retain_graph=True)
        return sigma**2 / alpha * prior.process.noise(back)

    return x_hat.detach(), gap, pull


def observed(observation: Observation, x_hat: Tensor) -> Tensor:
    """A x_hat (B, n), one value for every y; raises `InputError` for another number of values, or
    where the estimate cannot be differentiated."""
    value = observation.operator(x_hat)
    if value.shape != (len(x_hat), observation.y.shape[-1]):
        raise InputError(
            f"Got {tuple(value.shape)} from the operator for {len(x_hat)} fields and "
            f"{observation.y.shape[-1]} values; expected one row a field and one column a value."
        )
    if torch.is_grad_enabled() and not value.requires_grad:
        raise InputError(
            "The clean estimate has no gradient; expected a differentiable prior and operator "
            "(a guided denoiser is none: guide its prior by both observations)."
        )
    return value


def weigh(total: Tensor, gap: Tensor) -> Tensor:
    """S^{-1} d for each row of ``gap`` (B, n), in its type; ``total`` S (n, n), float64."""
    return torch.linalg.solve(total.to(gap.device), gap.double().T).T.to(gap)


def one_level(kappa: Tensor) -> Tensor:
    """The one noise level of a step, refused where rows or cells have their own."""
    if kappa.numel() != 1:
        raise InputError(
            f"Got noise levels of shape {tuple(kappa.shape)}; this rule needs one time a step and "
            "no clock per cell. Use guide.MMPS."
        )
    return kappa.reshape(())
