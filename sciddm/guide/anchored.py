r"""Operators that are dear to run and bend little: one linearisation for all members.

Behind a solver every row of the operator costs a backward pass of the solver, so rows of each
member's own at each step (`sciddm.guide.curved`) are out of reach for hundreds of values. Here the
operator is linearised once, near the mode m of p(x | y) under the model's Gaussian:

    A(x) ~ A(m) + J (x - m).

All members and all noise levels share J, so V J^T and J V J^T + R are those of an affine operator
and are remembered by time. What J misses a member makes up for by chords,

    x* <- x_hat + V J^T (J V J^T + R)^{-1} (y - A(x*) + J (x* - x_hat)),

each one run of the operator and no backward pass. The first chord takes A from the linearisation
and costs nothing. A step that does not lower

    -log p(y | A(x)) + 1/2 w^T J V J^T w,    x = x_hat + V J^T w,

is halved. The fixed point has J in the place of the operator's own slope at x*: it fits y, and is
off the mode as far as the slope turns within the posterior.

References
----------
Bell, Cathey. The iterated Kalman filter update as a Gauss-Newton method. IEEE TAC 1993, eq. 17.
https://doi.org/10.1109/9.250476
Dennis, Schnabel. Numerical methods for unconstrained optimization and nonlinear equations. SIAM
1996, section 5.1 (chords: a Jacobian that is kept).
Kitanidis. Quasi-linear geostatistical theory for inversing. Water Resources Research 1995, eq. 14
(Gauss-Newton in the space of the observations). https://doi.org/10.1029/95WR01945
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sciddm.denoise import Gaussian
from sciddm.errors import InputError
from sciddm.guide.curved import SHARES, Weights
from sciddm.guide.linear import factor, gram
from sciddm.observe import Observation

NEAR = 0.1
"""A chord is enough where the values are what the linearisation said, to this many error s.d."""


@dataclass(frozen=True, eq=False)
class Anchor:
    """A(x) ~ value + J (x - at), shared by all members.

    at : (1, C, *grid). value : A(at), (1, n). rows : J, (n, C, *grid), float64.
    mode : (1, C, *grid), of p(x | y) under the Gaussian that it was made with.
    chi_square : |y - A(mode)|^2 in error variances and the squared distance of the mode from the
        mean; of n degrees of freedom where prior, errors and operator are right and bend little.
    """

    at: Tensor
    value: Tensor
    rows: Tensor
    mode: Tensor
    chi_square: float

    def move(self, x: Tensor, other: Tensor) -> Tensor:
        """J (x - other), (B, n), float64."""
        return (x - other).flatten(1).double() @ self.rows.flatten(1).T

    def values(self, x: Tensor) -> Tensor:
        """A of fields ``x`` (B, C, *grid) as the linearisation has it: (B, n), float64."""
        return self.value.double() + self.move(x, self.at)


def linearised(
    prior: Gaussian,
    observation: Observation,
    like: Tensor,
    *,
    passes: int = 10,
    near: float = NEAR,
    weights: Weights | None = None,
) -> Anchor:
    """The linearisation of the operator near the mode of p(x | y) under ``prior``.

    Gauss-Newton from the mean of the prior, a step halved up to three times where it does not lower
    the loss. It ends where the values behind a step are what the linearisation said, to ``near``
    error s.d., after ``passes`` steps, or where no step helps.

    ``like`` (1, C, *grid) gives shape and type. ``weights``, as of `GaussNewton`, serves errors
    that are not Gaussian. Costs n backward passes and 1 to 4 runs of the operator a step.
    Raises `InputError` for several rows of values, and where A cannot be run at the prior mean.
    """
    if observation.y.numel() != observation.y.shape[-1]:
        raise InputError(
            f"Got values of shape {tuple(observation.y.shape)}; expected one row (n,): each row "
            "has a mode of its own."
        )
    weigh = gaussian_weights(observation) if weights is None else weights
    y, law = observation.y.reshape(1, -1), observation.law
    mean = prior.mean.to(like).expand_as(like[:1])
    x, value = mean, observation.value(mean)
    pull = torch.zeros_like(mean).double()  # V^-1 (x - mean)
    least = loss = float(_loss(observation, value, (x - mean) * pull))
    found = None
    for _ in range(passes):
        rows = observation.operator.rows(x).double()
        images = prior.prior(rows)
        found = here = Anchor(x, value, rows, x, math.nan)
        weight = weigh(y, here.values(mean), gram(rows, images))
        aim = mean + (weight @ images.flatten(1)).view_as(x).to(like)
        aim_pull = (weight @ rows.flatten(1)).view_as(pull)
        for share in SHARES:
            tried, tried_pull = x + share * (aim - x), pull + share * (aim_pull - pull)
            seen = tried_values(observation, tried)
            loss = float(_loss(observation, seen, (tried - mean) * tried_pull))
            if loss < least:
                break
        else:
            break
        close = float(law.chi_square(seen, here.values(tried)).mean()) <= near**2
        x, pull, value, least = tried, tried_pull, seen, loss
        if close:
            break
    assert found is not None
    square = law.chi_square(y.to(value), value).sum() + ((x - mean) * pull).sum()
    return Anchor(found.at, found.value, found.rows, x, float(square))


def gaussian_weights(observation: Observation) -> Weights:
    """(y, mean, J V J^T) -> (J V J^T + R)^{-1} (y - mean), R of the errors of ``observation``.

    Raises `InputError` for errors that are not Gaussian.
    """
    noise = observation.covariance

    def weights(y: Tensor, mean: Tensor, spread: Tensor) -> Tensor:
        gap = y.double() - mean.double()
        return torch.cholesky_solve(gap.T, factor(spread + noise)).T

    return weights


@dataclass(frozen=True, eq=False)
class Chord:
    """Brings each member to its own fit with the rows of an anchor.

    Parameters
    ----------
    observation : y (n,), or (B, n) with a row a member. passes : runs of the operator at most.
    """

    observation: Observation
    anchor: Anchor
    passes: int = 4

    def __call__(
        self,
        x_hat: Tensor,
        spread: Tensor,
        weights: Callable[[Tensor], Tensor],
        pull: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """x_hat (B, C, *grid) given the observation.

        spread : J V J^T (n, n). weights : A x_hat (B, n) -> w (B, n). pull : w -> V J^T w.
        """
        mean = self.anchor.values(x_hat)
        weight = weights(mean)
        x = x_hat + pull(weight)
        best, best_weight = x_hat, torch.zeros_like(weight)
        least = x_hat.new_full((len(x_hat),), math.inf, dtype=torch.float64)
        going = torch.ones(len(x_hat), dtype=torch.bool, device=x_hat.device)
        for left in range(self.passes - 1, -1, -1):
            value = tried_values(self.observation, x).double()
            said = mean + self.anchor.move(x, x_hat)
            loss = _loss(self.observation, value, (weight @ spread) * weight)
            off = self.observation.law.chi_square(value, said).mean(1).sqrt()
            better = loss < least
            least = torch.where(better, loss, least)
            best, best_weight = _where(better, x, best), _where(better, weight, best_weight)
            new_mean = value - self.anchor.move(x, x_hat)
            new_weight = weights(torch.where(better[:, None], new_mean, mean))
            onward = going & better
            back = going & ~better
            if left:
                new_weight = _where(back, 0.5 * (weight + best_weight), new_weight)
                halfway = 0.5 * (x + best)
            else:
                new_weight, halfway = _where(back, best_weight, new_weight), best
            x = _where(back, halfway, _where(onward, x_hat + pull(new_weight), x))
            weight, mean = _where(going, new_weight, weight), _where(onward, new_mean, mean)
            going = going & ~(better & (off <= NEAR))
            if not bool(going.any()):
                break
        return x


def tried_values(observation: Observation, x: Tensor) -> Tensor:
    """A(x), (B, n), NaN for a member that the solver behind the operator refuses."""
    try:
        return observation.value(x)
    except InputError:
        if len(x) == 1:
            return x.new_full((1, observation.y.shape[-1]), math.nan)
        return torch.cat([tried_values(observation, part) for part in x.split(1)])


def _loss(observation: Observation, value: Tensor, twice: Tensor) -> Tensor:
    """-log p(y | value) and half the sum of ``twice``, (B,); infinite where it is not a number."""
    fit = -observation.law.log_prob(observation.y.to(value), value).double()
    loss = fit + 0.5 * twice.flatten(1).sum(1).double()
    return torch.nan_to_num(loss, nan=math.inf, posinf=math.inf)


def _where(rows: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return torch.where(rows.view(-1, *[1] * (a.ndim - 1)), a, b)
