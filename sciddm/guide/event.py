r"""Events: draws of X given c(X) > b, and the probability of c(X) > b.

Given x_t let X be N(x_hat, V), and c affine over its spread, with gradient g: c(X) is normal, with
mean c(x_hat) and variance s^2 = g^T V g. Then, with z = (c(x_hat) - b) / s,

    P(c(X) > b | x_t) = Phi(z),    E[X | x_t, c(X) > b] = x_hat + V g phi(z) / (s Phi(z)),

exact for a Gaussian prior and an affine c. `Exceeds` is this conditional mean, for any solver.

`event_probability` draws paths of another, stochastic kind and weighs them. The prior's own step is
u_s ~ N(rho u_t + (1 - rho) x_hat, Sigma), Sigma = kappa_s^2 (1 - rho) C + (1 - rho)^2 V, with
u = x / alpha and rho = (kappa_s / kappa_t)^2: exact for a Gaussian prior, whatever the step. The
guided step has the density

    q(u_s) = p(u_s) Phi((m + beta (u_s - mean)) / tau) / Phi(z),    Sigma beta = (1 - rho) V g,

with m = c(x_hat) - b and tau^2 = s^2 - beta Sigma beta: the law of u_s given that c(X) > b. It is
drawn exactly (one normal vector, moved along Sigma beta); the product of the p / q weighs the path.
The mean weight of the paths that end in the event is without bias for the probability
under the prior's own steps, whatever c and V are; for a Gaussian prior and an affine c every weight
is the probability itself. An event of several thresholds, any of which may be exceeded, is drawn as
a mixture over them, weighed by the balance heuristic.

A c that is not affine is matched over a cloud of draws of N(x_hat, V): its mean, its variance, and
for g its mean gradient, which gives Cov[X, c(X)] = V g (Stein's lemma).

References
----------
Finzi, Boral, Wilson, Sha, Zepeda-Nunez. User-defined event sampling and uncertainty quantification
in diffusion models for physical dynamical systems. ICML 2023, section 4 (the moment match and the
conditional mean). https://arxiv.org/abs/2306.07526
Owen, Maximov, Chertkov. Importance sampling the union of rare events with an application to power
systems analysis. EJS 2019, eq. 3-5 (the mixture). https://doi.org/10.1214/18-EJS1527
Arnold, Beaver, Groeneveld, Meeker. The nontruncated marginal of a truncated bivariate normal
distribution. Psychometrika 1993 (the density q). https://doi.org/10.1007/BF02294652
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sciddm.covariance import Covariance
from sciddm.denoise import Context, Denoiser, LinearMap, Moments
from sciddm.errors import InputError
from sciddm.guide.mmps import conjugate_gradients
from sciddm.guide.tweedie import Tweedie
from sciddm.observe.operators import Function
from sciddm.observe.tilted import hazard
from sciddm.process import shift
from sciddm.random import Streams

CLOUD = 16
"""Pairs of opposite draws that match the moments of a function that is not affine."""

SOLVE = 12
"""Conjugate-gradient steps for beta; its condition number is 1 / rho against white noise."""


@dataclass(frozen=True, eq=False)
class Event:
    """{function(x) > threshold}; with several columns, that any of them is above it.

    Parameters
    ----------
    function : fields (B, C, *grid) -> (B,) or (B, K), differentiable.
    threshold : b, finite.
    """

    function: Callable[[Tensor], Tensor]
    threshold: float

    def __post_init__(self) -> None:
        if not math.isfinite(self.threshold):
            raise InputError(f"Got the threshold {self.threshold}; expected a finite number.")

    def margin(self, x: Tensor) -> Tensor:
        """function(x) - threshold, (B, K)."""
        value = self.function(x)
        if value.ndim not in (1, 2) or len(value) != len(x):
            raise InputError(
                f"The event's function gives values of shape {tuple(value.shape)} for {len(x)} "
                f"fields; expected ({len(x)},) or ({len(x)}, K)."
            )
        return value.reshape(len(x), -1) - self.threshold

    def happens(self, x: Tensor) -> Tensor:
        """Whether each field is in the event, (B,)."""
        return (self.margin(x) > 0).any(1)

    def affine(self, like: Tensor) -> bool:
        """Whether the function is affine, so that its gradient is the same in every field."""
        return Function(self.margin).affine(like)

    def rows(self, x: Tensor) -> Tensor:
        """The gradients at ``x``, (B, K, C, *grid)."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            margin = self.margin(x)
            columns = [
                torch.autograd.grad(margin[:, k].sum(), x, retain_graph=True)[0]
                for k in range(margin.shape[1])
            ]
        return torch.stack(columns, dim=1)


class Exceeds(Denoiser):
    """E[X | x_t, event] by a Gaussian moment match.

    Exact for a Gaussian prior, an exact covariance and an affine function of one column. Of several
    columns each counts by its own probability (the gradient of Boole's bound on log P): exact where
    they exclude each other, too generous where they go together. `event_probability` weighs its
    draws, so they are right for every event.

    Parameters
    ----------
    prior : the model's denoiser. event : what the draws must show.
    moments : Cov[X | x_t] in closed form. None takes it through the Jacobian of ``prior``, two
        backward passes a column, and a function that is not affine is linearised at x_hat.
    """

    def __init__(self, prior: Denoiser, event: Event, moments: Moments | None = None) -> None:
        torch.nn.Module.__init__(self)
        self.prior, self.process = prior, prior.process
        self.event, self.moments = event, moments
        self._affine: bool | None = None

    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        if self.moments is None:
            through = Tweedie(self.prior, x_t, t, context)
            x_hat, rows = through.x_hat, self.event.rows(through.x_hat)
            images = torch.stack([through(row) for row in rows.unbind(1)], dim=1)
            match = _Match(self.event.margin(x_hat).double(), rows, torch.zeros(()))
        else:
            if t.numel() != 1:
                raise InputError(
                    f"Got times of shape {tuple(t.shape)}; a covariance in closed form needs one "
                    "time a step. Leave `moments` out for a clock per cell."
                )
            if self._affine is None:
                self._affine = self.event.affine(x_t)
            x_hat = self.prior(x_t, t, context)
            t = t.reshape(())
            match = _Match.of(self.event, x_hat, t, self.moments, self._affine)
            flat = self.moments.covariance(t)(match.rows.flatten(0, 1))
            images = flat.view_as(match.rows)
        spread = match.spread(images)
        z = match.margin / spread
        share = torch.softmax(torch.special.log_ndtr(z), dim=1)
        pull = (share * hazard(z)[0] / spread).to(x_t)
        return x_hat + torch.einsum(
            "bk,bk...->b...", pull, images.expand(len(x_t), *images.shape[1:])
        )


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

    Parameters
    ----------
    moments : Cov[X | x_t], which can be sampled (`Moments.fluctuation`). The exact one makes every
        weight of an affine event the same; another costs members and steps, not the truth.
    like : (B, C, *grid), for the number of paths, their shape and type; its values are not used.
        Good: 256 paths in float64.
    steps, kappa_max, kappa_min : the times, as of `sciddm.solve.Diffusion`; B steps evaluations.
    """
    process, context = prior.process, context or Context()
    times = process.times(steps, kappa_max, kappa_min)
    x_t = process.start(like, times[0], context.anchor, rng.at("start"))
    affine = event.affine(like)
    mixture: _Mixture | None = None
    for k, (t, s) in enumerate(zip(times[:-1], times[1:], strict=True)):
        x_hat = prior(x_t, t, context)
        match = _Match.of(event, x_hat, t, moments, affine)
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
    weight = torch.where(event.happens(x), mixture.weight, torch.zeros(len(x)).double())
    error = float(weight.std() / len(like) ** 0.5)
    return EventProbability(float(weight.mean()), error, x, weight, steps * len(like))


@dataclass(frozen=True, eq=False)
class _Match:
    """The law of c(X) - b given x_t, for every column: mean (B, K), mean gradient (B or 1, K, ...)
    and the variance (B, K) that the gradient leaves unexplained."""

    margin: Tensor
    rows: Tensor
    rest: Tensor

    @staticmethod
    def of(event: Event, x_hat: Tensor, t: Tensor, moments: Moments, affine: bool) -> _Match:
        if affine:
            rows = event.rows(torch.zeros_like(x_hat[:1]))
            return _Match(event.margin(x_hat).double(), rows, torch.zeros(()).double())
        blank = torch.zeros_like(x_hat[:1]).expand(CLOUD, *x_hat.shape[1:])
        draws = moments.fluctuation(t, blank, Streams.of(0, CLOUD).at("event cloud"))
        draws = torch.cat([draws, -draws])
        cloud = (x_hat[:, None] + draws).flatten(0, 1)
        margin = event.margin(cloud).double().unflatten(0, (len(x_hat), -1))
        rows = event.rows(cloud).unflatten(0, (len(x_hat), -1)).mean(1)
        linear = torch.einsum("bk...,s...->bsk", rows, draws).double()
        centre = margin.mean(1)
        return _Match(centre, rows, (margin - centre[:, None] - linear).square().mean(1))

    def spread(self, images: Tensor) -> Tensor:
        """S.d. of c(X) given x_t, (B or 1, K), float64, from V g."""
        return (_dot(self.rows, images) + self.rest).clamp_min(1e-300).sqrt()


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
        self, kappa_t: Tensor, kappa_s: Tensor, v: LinearMap, noise: Covariance, match: _Match
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
        explained = _dot(self._beta, self._moved)
        self._free = (variance - explained).clamp_min(1e-12 * variance).sqrt()

    def conditioned(self, fresh: Tensor, margin: Tensor, column: Tensor, rng: Streams) -> Tensor:
        """``fresh`` ~ N(0, Sigma), moved so that its own column is above its threshold."""
        own = column[:, None]
        size, free = (v.expand_as(margin).gather(1, own) for v in (self.spread, self._free))
        white = rng.at(rng.purpose + " end", rng.step).normal(size)
        before = _dot(self._beta, fresh[:, None]).gather(1, own) + free * white
        chance = _uniform(rng, size)
        after = size * _above(-margin.gather(1, own) / size, chance)
        change = ((after - before) / size.square()).to(fresh).view(-1, *[1] * (fresh.ndim - 1))
        index = torch.zeros_like(column) if len(self._moved) == 1 else torch.arange(len(column))
        return fresh + change * self._moved[index, column]

    def log_ratio(self, fresh: Tensor, margin: Tensor) -> Tensor:
        """log q / p of the step for every column, (B, K)."""
        along = margin + _dot(self._beta, fresh[:, None])
        return torch.special.log_ndtr(along / self._free) - torch.special.log_ndtr(
            margin / self.spread
        )


def _above(low: Tensor, chance: Tensor) -> Tensor:
    """A standard normal value above ``low``, at the quantile 1 - ``chance`` of its law."""
    inside = -torch.special.ndtri(chance * torch.special.ndtr(-low))
    # where Phi(-low) has no digits: an exponential law of low z
    beyond = (low.clamp_min(0).square() - 2 * chance.log()).sqrt()
    return torch.where(low > 30, beyond, inside)


def _uniform(rng: Streams, like: Tensor) -> Tensor:
    """In (0, 1), of the shape of ``like`` (B, ...), float64."""
    return torch.special.ndtr(rng.normal(like.double())).clamp(1e-300, 1 - 1e-16)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Dot products over (C, *grid) of (B, K, C, *grid), broadcast: (B, K), float64."""
    return (a * b).flatten(2).double().sum(2)
