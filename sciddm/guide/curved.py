r"""Operators that are not affine, linearised where the field is: iterated Gauss-Newton.

At an estimate x* the operator is A(x) ~ A(x*) + J (x - x*), with rows J of its own for every
member. The closed form with J moves x_hat to the next x*; a given number of times. The first pass
alone is the extended Kalman filter. A step that does not lower

    -log p(y | A(x)) + 1/2 w^T J V J^T w,    x = x_hat + V J^T w,

is halved up to three times, or else not taken. The limit is the mode of X given x_t and y. It is
the mean where the operator is affine over the s.d. of X given x_t, as it becomes when the noise
falls. The network is never differentiated, the operator n times a member and pass.

References
----------
Bell, Cathey. The iterated Kalman filter update as a Gauss-Newton method. IEEE TAC 1993, eq. 17.
https://doi.org/10.1109/9.250476
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sciddm.denoise import LinearMap, Moments
from sciddm.guide.linear import gram
from sciddm.observe import Observation

Weights = Callable[[Tensor, Tensor, Tensor], Tensor]

SHARES = (1.0, 0.5, 0.25, 0.125)


@dataclass(frozen=True, eq=False)
class GaussNewton:
    """Updates member after member, so that the rows of one are in memory at a time.

    Parameters
    ----------
    weights : (y (1, n), A x_hat (1, n), A V A^T) -> w (1, n), float64.
    passes : linearisations; each costs n backward passes of the operator and n applications of the
        covariance a member.
    """

    observation: Observation
    moments: Moments
    weights: Weights
    passes: int

    def __call__(self, x_hat: Tensor, covariance: LinearMap) -> Tensor:
        """x_hat (B, C, *grid) given the observation, where X given x_t has the ``covariance``."""
        y = self.observation.y.expand(len(x_hat), -1)
        pairs = zip(x_hat.split(1), y.split(1), strict=True)
        return torch.cat([self._member(x, values, covariance) for x, values in pairs])

    def _member(self, x_hat: Tensor, y: Tensor, covariance: LinearMap) -> Tensor:
        best, least = x_hat, self._loss(x_hat, y)
        for _ in range(self.passes):
            rows = self.observation.operator.rows(best).double()
            images = covariance(rows)
            spread = gram(rows, images)
            back = (x_hat - best).flatten(1).double() @ rows.flatten(1).T
            weight = self.weights(y, self.observation.value(best) + back, spread)
            flat = images.flatten(1)

            def pull(w: Tensor, flat: Tensor = flat) -> Tensor:
                return (w.to(flat) @ flat).to(x_hat).view_as(x_hat)

            move = self.moments.respond(x_hat, weight.to(x_hat), rows, pull)
            cost = 0.5 * float((weight @ spread * weight).sum())
            tried = [(self._loss(x_hat + s * move, y) + s**2 * cost, s) for s in SHARES]
            loss, share = min(tried)
            if not loss < least:
                break
            best, least = x_hat + share * move, loss
        return best

    def _loss(self, x: Tensor, y: Tensor) -> float:
        value = -float(self.observation.law.log_prob(y.to(x), self.observation.value(x)))
        return math.inf if math.isnan(value) else value
