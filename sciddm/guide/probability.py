r"""The probability of an event, from weighed guided paths.

Stochastic paths are guided to the event and weighed. The prior's own step is
u_s ~ N(rho u_t + (1 - rho) x_hat, Sigma), Sigma = kappa_s^2 (1 - rho) C + (1 - rho)^2 V, with
u = x / alpha and rho = (kappa_s / kappa_t)^2: exact for a Gaussian prior, whatever the step. The
guided step has the density

    q(u_s) = p(u_s) Phi((m + beta (u_s - mean)) / tau) / Phi(z),    Sigma beta = (1 - rho) V g,

with m = c(x_hat) - b and tau^2 = s^2 - beta Sigma beta: the law of u_s given that c(X) > b. It is
drawn exactly (one normal vector, moved along Sigma beta); the product of the p / q weighs the path.
The mean weight of the paths that end in the event is without bias for the probability under the
prior's own steps, whatever c and V are; for a Gaussian prior and an affine c every weight is the
probability itself. An event of several thresholds, any of which may be exceeded, is drawn as a
mixture over them, weighed by the balance heuristic.

References
----------
Owen, Maximov, Chertkov. Importance sampling the union of rare events with an application to power
systems analysis. EJS 2019, eq. 3-5 (the mixture). https://doi.org/10.1214/18-EJS1527
Arnold, Beaver, Groeneveld, Meeker. The nontruncated marginal of a truncated bivariate normal
distribution. Psychometrika 1993 (the density q). https://doi.org/10.1007/BF02294652
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sciddm.covariance import Covariance
from sciddm.denoise import Context, Denoiser, LinearMap, Moments
from sciddm.errors import RunError
from sciddm.guide.event import Event, Match, dot
from sciddm.guide.mmps import conjugate_gradients
from sciddm.process import shift
from sciddm.random import Streams

SOLVE = 12
"""Conjugate-gradient steps for beta; its condition number is 1 / rho against white noise."""


@dataclass(frozen=True, eq=False)
class EventProbability:
    """What `event_probability` found.

    probability, standard_error : of the event; the error is that of the mean weight.
    draws : (B, C, *grid), the ends of the paths. weight : (B,), float64, of each draw in the law of
    X given the event (mean = probability; 0 for a path that missed it). evaluations : of the prior.
    """

    probability: float
    standard_error: float
    draws: Tensor
    weight: Tensor
    evaluations: int

    @property
    def effective(self) -> float:
        """Effective number of draws, (sum w)^2 / sum w^2; few of many: do not trust the error."""
        square = float(self.weight.square().sum())
        return float(self.weight.sum()) ** 2 / square if square else 0.0


@torch.no_grad()
def event_probability(
    prior: Denoiser,
    event: Event,
    moments: Moments,
    like: Tensor,
    rng: Streams,
    context: Context | None = None,
    steps: int = 32,
    kappa_max: float | None = None,
    kappa_min: float | None = None,
) -> EventProbability:
    """P(event) under ``prior``, from weighed guided paths.

    Where the function bends, the weights of rare events have heavy tails: with few `effective`
    draws the estimate is too low more often than too high, and its own error too small.

    Parameters
    ----------
    moments : Cov[X | x_t], which can be sampled (`Moments.fluctuation`). The exact one makes every
        weight of an affine event the same; another costs members and steps, not the truth.
    like : (B, C, *grid), for the number of paths, their shape and type; its values are not used.
        Good: 256 paths in float64.
    steps, kappa_max, kappa_min : the times, as of `sciddm.solve.Diffusion`; B steps evaluations.

    Raises `RunError` where a path diverged: without it the others would count for too little.
    """
    process, context = prior.process, context or Context()
    times = process.times(steps, kappa_max, kappa_min)
    x_t = process.start(like, times[0], context.anchor, rng.at("start"))
    affine = event.affine(like)
    mixture: _Mixture | None = None
    for k, (t, s) in enumerate(zip(times[:-1], times[1:], strict=True)):
        x_hat = prior(x_t, t, context)
        match = Match.of(event, x_hat, t, moments, affine)
        step = _Step(
            process.kappa(t), process.kappa(s), moments.covariance(t), process.noise, match
        )
        margin = match.margin
        if mixture is None:
            mixture = _Mixture.of(torch.special.log_ndtr(margin / step.spread), rng.at("event"))
        fresh = step.std * process.noise.sample(like, rng.at("event noise", k))
        fresh = fresh + step.pull * moments.fluctuation(t, like, rng.at("event spread", k))
        fresh = step.conditioned(fresh, margin, mixture.column, rng.at("event step", k))
        mixture = mixture.times(step.log_ratio(fresh, margin))
        u = step.stay * process.centred(x_t, t, context.anchor) + step.pull * x_hat + fresh
        alpha, beta, _ = (c.to(like) for c in process.coefficients(s))
        x_t = shift(alpha * u, beta, context.anchor)
    assert mixture is not None  # there are at least two times
    last = times[-1]
    x = prior(x_t, last, context) + moments.fluctuation(last, like, rng.at("event spread", steps))
    lost = ~torch.isfinite(x).flatten(1).all(1)
    if bool(lost.any()):
        raise RunError(
            f"{int(lost.sum())} of {len(x)} paths to the event diverged, so its probability is not "
            "known. Take more steps, or a threshold nearer to the model's fields."
        )
    weight = torch.where(event.happens(x), mixture.weight, torch.zeros(len(x)).double())
    error = float(weight.std() / len(like) ** 0.5)
    return EventProbability(float(weight.mean()), error, x, weight, steps * len(like))


@dataclass(frozen=True, eq=False)
class _Mixture:
    """Which column each path is drawn for, (B,), and the log of its chance and of q / p of the path
    under every column, (B, K)."""

    column: Tensor
    log_share: Tensor
    log_ratio: Tensor

    @staticmethod
    def of(log_chance: Tensor, rng: Streams) -> _Mixture:
        log_share = torch.log_softmax(log_chance, dim=1)
        passed = log_share.exp().cumsum(1) < _uniform(rng, log_share[:, :1])
        column = passed.sum(1).clamp_max(log_share.shape[1] - 1)
        return _Mixture(column, log_share, torch.zeros_like(log_share))

    def times(self, log_ratio: Tensor) -> _Mixture:
        return _Mixture(self.column, self.log_share, self.log_ratio + log_ratio)

    @property
    def weight(self) -> Tensor:
        return torch.exp(-torch.logsumexp(self.log_share + self.log_ratio, dim=1))


class _Step:
    """One step of u from kappa_t to kappa_s, and its guidance along the gradients of ``match``."""

    def __init__(
        self, kappa_t: Tensor, kappa_s: Tensor, v: LinearMap, noise: Covariance, match: Match
    ) -> None:
        self.stay = float((kappa_s / kappa_t) ** 2)
        self.pull = 1 - self.stay
        self.std = float(kappa_s) * self.pull**0.5

        def sigma(g: Tensor) -> Tensor:  # over kappa_s^2 (1 - rho), so that its scale is that of C
            return noise(g) + (self.pull / float(kappa_s)) ** 2 / self.pull * v(g)

        shape = match.rows.shape
        flat = match.rows.flatten(0, 1)
        images = v(flat)
        want = (self.pull / self.std**2 * images).flatten(1)
        beta = conjugate_gradients(
            lambda g: sigma(g.view_as(flat)).flatten(1), want, torch.ones_like(want[0]), SOLVE
        ).view_as(flat)
        self._beta = beta.view(shape)
        self._moved = (self.std**2 * sigma(beta)).view(shape)
        self.spread = match.spread(images.view(shape))
        """S.d. of c(X) given x_t, (B or 1, K), float64."""
        variance = self.spread.square()
        explained = dot(self._beta, self._moved)
        self._free = (variance - explained).clamp_min(1e-12 * variance).sqrt()

    def conditioned(self, fresh: Tensor, margin: Tensor, column: Tensor, rng: Streams) -> Tensor:
        """``fresh`` ~ N(0, Sigma), moved so that its own column is above its threshold."""
        own = column[:, None]
        size, free = (v.expand_as(margin).gather(1, own) for v in (self.spread, self._free))
        white = rng.at(rng.purpose + " end", rng.step).normal(size)
        before = dot(self._beta, fresh[:, None]).gather(1, own) + free * white
        chance = _uniform(rng, size)
        after = size * _above(-margin.gather(1, own) / size, chance)
        change = ((after - before) / size.square()).to(fresh).view(-1, *[1] * (fresh.ndim - 1))
        index = torch.zeros_like(column) if len(self._moved) == 1 else torch.arange(len(column))
        return fresh + change * self._moved[index, column]

    def log_ratio(self, fresh: Tensor, margin: Tensor) -> Tensor:
        """log q / p of the step for every column, (B, K)."""
        along = margin + dot(self._beta, fresh[:, None])
        return torch.special.log_ndtr(along / self._free) - torch.special.log_ndtr(
            margin / self.spread
        )


def _above(low: Tensor, chance: Tensor) -> Tensor:
    """A standard normal value above ``low``, at the quantile 1 - ``chance`` of its law."""
    # erfc has the digits of a tail that torch's ndtr rounds to 0 beyond 8 s.d.
    inside = -torch.special.ndtri(chance * 0.5 * torch.special.erfc(low / math.sqrt(2)))
    # where Phi(-low) has no digits: an exponential law of low z
    beyond = (low.clamp_min(0).square() - 2 * chance.log()).sqrt()
    return torch.where(low > 30, beyond, inside)


def _uniform(rng: Streams, like: Tensor) -> Tensor:
    """In (0, 1), of the shape of ``like`` (B, ...), float64."""
    return torch.special.ndtr(rng.normal(like.double())).clamp(1e-300, 1 - 1e-16)
