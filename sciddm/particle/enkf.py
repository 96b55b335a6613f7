r"""Ensemble-Kalman guidance: a posterior denoiser for operators without a gradient.

The whole batch is one ensemble. With a covariance in closed form, V = Cov[X | x_t], member j draws
X_j ~ N(x_hat_j, V) and the operator is seen through the differences that the draws make,

    D_j = X_j - x_hat_j,   E_j = G(X_j) - G(x_hat_j),
    x_hat_j <- x_hat_j + <D, E> (<E, E> + R)^{-1} (y - G(x_hat_j)),

<., .> the average over the ensemble. As members grow <D, E> tends to V A^T for a linear G, and the
rule to `guide.Conditioned`, at the rate 1 / sqrt(members). A nonlinear G is linearised once for all
members, by regression.

Without a covariance the spread of the clean estimates stands for it, as published (`EnKG`). That
spread is not Cov[X | x_t]: it vanishes where all members are noise, and is the whole prior's where
they are clean. A rule that finds fields which fit, not a posterior.

No gradient is asked of the operator or the denoiser; the operator may be any program. Members
depend on each other: a batch is one draw of an ensemble, and cannot be split.

References
----------
Zheng, Chu, Wang, Kovachki, Baptista, Yue. Ensemble Kalman diffusion guidance: a derivative-free
method for inverse problems. TMLR 2025, algorithm 1. https://arxiv.org/abs/2409.20175
Evensen. The ensemble Kalman filter: theoretical formulation and practical implementation. Ocean
Dynamics 2003. Houtekamer, Mitchell. A sequential ensemble Kalman filter for atmospheric data
assimilation. Monthly Weather Review 2001 (localisation). Anderson. Tellus A 2007 (inflation).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sciddm.denoise import Context, Denoiser, Gaussian
from sciddm.errors import InputError
from sciddm.observe import Observation
from sciddm.particle.local import draw
from sciddm.random import Streams


class EnsembleKalman(Denoiser):
    """E[X | x_t, y] with the operator linearised by regression over the ensemble.

    Parameters
    ----------
    prior : the denoiser of the model. observation : y (n,), any map of fields (B, C, *grid) to
        (B, n), and its error.
    law : a `Gaussian` under the same process that gives Cov[X | x_t], see `Matched`.
    seed : of the draws; those of one noise level are the same at every call.
    draws : draws a member, each one call of the operator on the ensemble. Members times draws must
        exceed the number of observations, by far for a small error; not so with localisation.
    inflation : factor on the ensemble's covariances, at least 1 (Anderson 2007).
    localisation : (n, C, *grid) or None, factors in [0, 1] on <D, E> that cut what observation i
        says of distant points (Houtekamer and Mitchell 2001).
    """

    def __init__(
        self,
        prior: Denoiser,
        observation: Observation,
        law: Gaussian,
        seed: int = 0,
        draws: int = 1,
        inflation: float = 1.0,
        localisation: Tensor | None = None,
    ) -> None:
        if draws < 1:
            raise InputError(f"Got {draws} draws a member; expected at least 1.")
        if not 1 <= inflation < math.inf:
            raise InputError(f"Got an inflation of {inflation}; expected a factor of at least 1.")
        n = observation.y.shape[-1]
        if localisation is not None and (
            len(localisation) != n or not bool(((localisation >= 0) & (localisation <= 1)).all())
        ):
            raise InputError(
                f"Got a localisation of shape {tuple(localisation.shape)} for {n} observations; "
                "expected (n, C, *grid), factors from 0 to 1."
            )
        torch.nn.Module.__init__(self)
        self.prior, self.process, self.law = prior, prior.process, law
        self.observation, self.localisation = observation, localisation
        self.seed, self.draws, self.inflation = seed, draws, inflation

    @torch.no_grad()
    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        x_hat = self.prior(x_t, t, context)
        _enough(x_hat)
        n = self.observation.y.shape[-1]
        if self.localisation is None and self.draws * len(x_hat) <= n:
            raise InputError(
                f"Got {len(x_hat)} members with {self.draws} draws each for {n} observations; "
                "expected more draws in all than observations, or a localisation."
            )
        values = self.observation.value(x_hat)
        moved, changed = [], []
        for k in range(self.draws):
            # the level is part of the address: a draw is new at every step
            purpose = f"ensemble {float(t):.12g}"
            deviation = draw(self.law, x_hat, t, Streams.of(self.seed, 1).at(purpose, k))
            moved.append(deviation)
            changed.append(self.observation.value(x_hat + deviation) - values)
        gap = self.observation.y.to(values) - values
        return x_hat + self._gain(torch.cat(moved), torch.cat(changed), gap).view_as(x_hat)

    def _gain(self, moved: Tensor, changed: Tensor, gap: Tensor) -> Tensor:
        factor = self.inflation / len(moved)
        flat, e = moved.flatten(1), changed.double()
        cross = factor * changed.T.to(flat) @ flat  # (n, points)
        if self.localisation is not None:
            cross = cross * self.localisation.to(cross).flatten(1)
        total = factor * e.T @ e + self.observation.covariance
        return torch.linalg.solve(total, gap.double().T).T.to(cross) @ cross


class EnKG(Denoiser):
    """x_hat moved along the ensemble's own spread, by a step of normalised length: as published.

    direction_j = <x_hat - mean, G - mean G> R^{-1} (y - G(x_hat_j)); for a linear G it tends to the
    gradient of log p(y | x_hat_j), preconditioned by the covariance of the clean estimates. It is
    scaled by ``zeta`` over the Frobenius norm of the (B, B) weights that members give each other.
    Zheng et al. move x_t by the spread of x_t; here it is the clean estimate, as everywhere.

    Parameters
    ----------
    prior, observation : as for `EnsembleKalman`. zeta : step, positive; 1 or 2 in the paper.
    """

    def __init__(self, prior: Denoiser, observation: Observation, zeta: float = 1.0) -> None:
        if not 0 < zeta < math.inf:
            raise InputError(f"Got zeta = {zeta}; expected a positive step.")
        torch.nn.Module.__init__(self)
        self.prior, self.process = prior, prior.process
        self.observation, self.zeta = observation, zeta

    @torch.no_grad()
    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        x_hat = self.prior(x_t, t, context)
        pull, about = self._factors(x_hat)
        # |pull about^T|, without the (B, B) weights
        square = ((pull.T @ pull) * (about.T @ about)).sum()
        step = self.zeta * len(x_hat) / square.clamp_min(torch.finfo(square.dtype).tiny).sqrt()
        return x_hat + step.to(x_hat) * self.direction(x_hat)

    def direction(self, x_hat: Tensor) -> Tensor:
        """The move before it is scaled, (B, C, *grid)."""
        pull, about = self._factors(x_hat)
        spread = (x_hat - x_hat.mean(0)).flatten(1)
        cross = about.T.to(spread) @ spread / len(x_hat)
        return (pull.to(spread) @ cross).view_as(x_hat)

    def _factors(self, x_hat: Tensor) -> tuple[Tensor, Tensor]:
        """R^{-1} (y - G(x_hat)) and G(x_hat) - mean, (B, n), float64: member j gives member i the
        weight of their product over B."""
        _enough(x_hat)
        values = self.observation.value(x_hat)
        gap = (self.observation.y.to(values) - values).double()
        pull = torch.linalg.solve(self.observation.covariance, gap.T).T
        return pull, (values - values.mean(0)).double()


def _enough(x: Tensor) -> None:
    if len(x) < 2:
        raise InputError(f"Got an ensemble of {len(x)}; expected at least 2 members.")
