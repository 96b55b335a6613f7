r"""Error laws that are not Gaussian, met by Gaussian sites: expectation propagation.

The values z = A x are N(m, S) before they are seen. Each factor p(y_i | z_i) is replaced by a
Gaussian site exp(nu_i z - tau_i z^2 / 2), chosen so that with all other sites in place the mean and
variance of z_i are those of the true factor (`Noise.tilted`). The update of the field is then

    E[X | x_t, y] = x_hat + V A^T w,    w = (I + T S)^{-1} (nu - T m),    T = diag(tau).

With one value this is the exact posterior mean for every law; with Gaussian errors, for any number.
A site that would take variance away from none (a gross error under Student's law) may have tau < 0.

References
----------
Minka. Expectation propagation for approximate Bayesian inference. UAI 2001, section 3.
https://arxiv.org/abs/1301.2294
Rasmussen, Williams. Gaussian processes for machine learning. 2006, section 3.6 (w as above, from
eq. 3.53 and 3.60). Jylanki, Vanhatalo, Vehtari. Robust Gaussian process regression with a
Student-t likelihood. JMLR 2011, section 4 (damping, negative tau).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sciddm.observe import Noise

DAMPING = 0.7
"""Share of the way to its new value that a site moves, after the first sweep."""


@dataclass(frozen=True, eq=False)
class Sites:
    """Gaussian sites of every member: precision tau and shift nu, each (B, n), float64."""

    precision: Tensor
    shift: Tensor


def root(spread: Tensor) -> Tensor:
    """L (n, n) with L L^T = ``spread``, however singular."""
    values, vectors = torch.linalg.eigh(spread.double())
    return vectors * values.clamp_min(0).sqrt()


def weights(law: Noise, y: Tensor, mean: Tensor, spread: Tensor, sweeps: int) -> Tensor:
    """w (B, n), float64: the pull of each value.

    Parameters
    ----------
    law : independent from value to value (see `Observation.whitened`).
    y : (n,) or (B, n). mean : A x_hat (B, n). spread : A V A^T (n, n).
    sweeps : over all sites at once. Cost each: B n^3.
    """
    half, m = root(spread), mean.double()
    found = sites(law, y, m, half, sweeps)
    b = found.shift - found.precision * m
    inner = _factor(half, found.precision)[0]
    inside = torch.cholesky_solve((b @ half)[..., None], inner)[..., 0] @ half.T
    return b - found.precision * inside


def sites(law: Noise, y: Tensor, mean: Tensor, half: Tensor, sweeps: int) -> Sites:
    """The sites of N(mean, half half^T), by parallel sweeps."""
    y = y.to(mean)
    tau = nu = torch.zeros_like(mean)
    diagonal = half.square().sum(1)
    # a value that the field cannot move has no say
    least = 1e-12 * diagonal.mean() + 1e-300
    centre, variance = mean, diagonal.clamp_min(least).expand_as(mean)
    for sweep in range(sweeps):
        if sweep:
            inner, tau = _factor(half, tau)
            wide = torch.linalg.solve_triangular(
                inner, half.T.expand(len(tau), -1, -1), upper=False
            )
            variance = wide.square().sum(1).clamp_min(least)
            pull = torch.cholesky_solve(((nu - tau * mean) @ half)[..., None], inner)
            centre = mean + pull[..., 0] @ half.T
        free = 1 - variance * tau
        sound = free > 1e-9
        free = torch.where(sound, free, torch.ones_like(free))
        cavity = variance / free
        middle = (centre - variance * nu) / free
        first, second = law.tilted(y, middle, cavity)
        more = second.reciprocal() - cavity.reciprocal()
        shift = first / second - middle / cavity
        sound = sound & torch.isfinite(more) & torch.isfinite(shift)
        rate = DAMPING if sweep else 1.0
        tau = torch.where(sound, tau + rate * (more - tau), tau)
        nu = torch.where(sound, nu + rate * (shift - nu), nu)
    return Sites(_factor(half, tau)[1], nu)


def _factor(half: Tensor, tau: Tensor) -> tuple[Tensor, Tensor]:
    """Cholesky factors (B, n, n) of I + L^T T L, and tau, without its negative part in members
    where that would leave no covariance."""
    unit = torch.eye(half.shape[1]).to(half)
    inner, fault = torch.linalg.cholesky_ex(unit + (half.T * tau[:, None, :]) @ half)
    if not bool(fault.any()):
        return inner, tau
    tau = torch.where((fault > 0)[:, None], tau.clamp_min(0), tau)
    return torch.linalg.cholesky(unit + (half.T * tau[:, None, :]) @ half), tau
