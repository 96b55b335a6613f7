r"""How a cloud of particles is proposed and weighted: what sequential Monte Carlo knows of y.

A twist carries psi_t(x_t), a guess of p(y | x_t). A particle that moves from t to s < t gains

    w = psi_s(x_s) p(x_s | x_t) / (psi_t(x_t) q(x_s | x_t)),

p the transition of the prior, q the proposal. The clean field comes last, with psi = p(y | x): the
product of all the weights is then p(y | x) p(path) / q(path), whatever the guesses were.

============  =========================================  ======================================
twist         transition of the prior                    proposal
============  =========================================  ======================================
`Matched`     X ~ N(x_hat, V), then x_s from             the same, with X conditioned on y
              q(x_s | x_t, X)
`Ancestral`   X = x_hat, then x_s from q(x_s | x_t, X)   the same, about the guided x_hat
`Reweighted`  either                                     the transition itself
============  =========================================  ======================================

`Matched` needs V = Cov[X | x_t] in closed form; for a Gaussian prior it loses no variance at any
number of steps. `Ancestral` has the exact law only as the steps become many.

psi_t(x_t) is N(y; A x_hat, A V A^T + R), A the operator, linearised where it is not linear: about
x_hat by `Ancestral`, about the mode of p(x | x_t, y) by `Matched`, which enlarges R by what the
linearisation misses. Its ratio p / q is one of two densities of y, by Bayes' rule in the local
model X ~ N(x_hat, V), y ~ N(A X, R),

    p(x_s | x_t) / q(x_s | x_t) = p(y | x_t) / p(y | x_s, x_t),

so neither V nor the noise covariance C is ever inverted: only (n, n) systems, n the number of
observations. For a Gaussian prior and a linear operator all weights are equal.

`Matched` and `Ancestral` propose where a linearisation leads. A second mode of the posterior that
no particle's linearisation reaches (y = x^2 seen with a small error) is missed by any cloud of a
size that one can afford, and no figure of the cloud tells. `Reweighted` is blind and finds it.

References
----------
Wu, Trippe, Naesseth, Blei, Cunningham. Practical and asymptotically exact conditional sampling in
diffusion models. NeurIPS 2023, eq. 9-12, algorithm 1. https://arxiv.org/abs/2306.17775
Beskos, Jasra, Kantas, Thiery. On the convergence of adaptive sequential Monte Carlo methods. Annals
of Applied Probability 2016 (weights that depend on the cloud). https://arxiv.org/abs/1306.6462
Rozet et al. Learning diffusion priors from observations by expectation maximization. NeurIPS 2024,
eq. 16-19 (the Gaussian likelihood at a noise level). https://arxiv.org/abs/2405.13712
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from sciddm.denoise import Context, Denoiser, Gaussian, LinearMap
from sciddm.errors import InputError
from sciddm.observe import Observation
from sciddm.observe.noise import Gaussian as Normal
from sciddm.particle.local import (
    apply,
    bridge,
    draw,
    gram,
    linearise,
    log_normal,
    noised,
    normal,
    observe,
    positive,
    pull,
    solve,
)
from sciddm.process import shift
from sciddm.random import Streams

MEDIAN = 0.6745
"""Median of |Z|, Z ~ N(0, 1): medians are not moved by the few draws that leave all bounds."""


class View(NamedTuple):
    """A cloud at one noise level. Every tensor has one row a particle, or one row for all.

    x, x_hat : (B, C, *grid), fields and their clean estimates. log_psi : (B,), float64.
    gap : (B, n), y - A x_hat. rows, images : (B or 1, n, C, *grid), A and A V.
    noise : (1, n, n), the error covariance of psi.
    """

    x: Tensor
    x_hat: Tensor
    log_psi: Tensor
    gap: Tensor
    rows: Tensor
    images: Tensor
    noise: Tensor

    def take(self, index: Tensor) -> View:
        """The particles ``index``, with repeats."""
        count = len(self.x)
        return View(*(part[index] if len(part) == count else part for part in self))


class Twist(ABC):
    """Proposes and weights; holds the prior and what is observed."""

    prior: Denoiser

    @abstractmethod
    def start(self, like: Tensor, t: Tensor, context: Context, rng: Streams) -> tuple[View, Tensor]:
        """The cloud at the first time, of fields like ``like`` (B, C, *grid), and its log weights
        (B,), float64. One network evaluation a particle."""

    @abstractmethod
    def move(
        self, view: View, t: Tensor, s: Tensor, context: Context, rng: Streams
    ) -> tuple[View, Tensor]:
        """The cloud at s from ``view``, the cloud at t, and the log weights that it gains (B,)."""

    @abstractmethod
    def finish(self, view: View, t: Tensor, rng: Streams) -> tuple[Tensor, Tensor]:
        """The clean fields (B, C, *grid) from the cloud at the last time, and their log weights."""


@dataclass(frozen=True, eq=False)
class Matched(Twist):
    """Moment matching: transition and proposal carry Cov[X | x_t].

    Parameters
    ----------
    prior : the denoiser of the model. observation : y (n,), its operator and error.
    law : a Gaussian under the same process, whose Cov[X | x_t] stands for the prior's: the prior
        itself where it is Gaussian, else the Gaussian base of the network.
    linear : the operator is linear (affine), and linearised once. Else each particle follows the
        mode of its own p(x | x_t, y), from the prior's mean, by one Gauss-Newton iteration a level:
        n backward passes through the operator, none through the denoiser, and n fields of memory.
    caution : psi_t has the error variances R + caution E, E those of the linearisation: squared
        medians over the cloud of what it misses at draws of p(x | x_t, y). One more call of the
        operator a level. 0 trusts it. A linear operator has E = 0; another makes the weights of a
        particle depend on the cloud, so that the evidence is consistent, no longer unbiased.
    derivative : fields (B, C, *grid) -> (A(x) (B, n), its derivative (B, n, C, *grid)), where a
        tangent-linear model knows it cheaper than back-propagation.
    """

    prior: Denoiser
    observation: Observation
    law: Gaussian
    linear: bool = False
    caution: float = 1.0
    derivative: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None
    _rows: dict[tuple[int, ...], Tensor] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        _gaussian_values(self.observation)
        if not 0 <= self.caution < math.inf:
            raise InputError(f"Got a caution of {self.caution}; expected a number from 0.")
        if self.law.process.noise != self.prior.process.noise:
            raise InputError(
                "Got a Gaussian law under another noise than the prior's; expected the same "
                "process for both (use law.under(prior.process))."
            )

    def start(self, like: Tensor, t: Tensor, context: Context, rng: Streams) -> tuple[View, Tensor]:
        """From the Gaussian law, noised: exact for a Gaussian prior at any first noise level."""
        process = self.prior.process
        mean = self.law.mean.to(like).expand_as(like)
        trial = self.law.prior.sqrt(normal(like, rng.at("trial")))
        view = self._about(like, mean, mean[:1], self.law.prior, trial, rng)
        deviation = self.law.prior.sqrt(normal(like, rng.at("start")))
        moved = self._clean(view, deviation, rng.at("error"))
        alpha, beta, sigma = (c.to(like) for c in process.coefficients(t))
        fresh = process.noise.sqrt(normal(like, rng.at("start noise")))
        jump = alpha * moved + sigma * fresh
        x = shift(alpha * mean + jump, beta, context.anchor)
        ahead = self._ahead(view, x, t, context, rng)
        return ahead, view.log_psi + ahead.log_psi - self._log_local(view, jump, t)

    def move(
        self, view: View, t: Tensor, s: Tensor, context: Context, rng: Streams
    ) -> tuple[View, Tensor]:
        process = self.prior.process
        deviation = draw(self.law, view.x, t, rng.at("clean", rng.step))
        moved = self._clean(view, deviation, rng.at("error", rng.step))
        centre, share, scale = bridge(process, view.x, view.x_hat, t, s, context.anchor)
        jump = share * moved + scale * process.noise.sqrt(normal(view.x, rng))
        ahead = self._ahead(view, centre + jump, s, context, rng)
        return ahead, ahead.log_psi - self._log_local(view, jump, s)

    def finish(self, view: View, t: Tensor, rng: Streams) -> tuple[Tensor, Tensor]:
        deviation = draw(self.law, view.x, t, rng.at("clean", rng.step))
        moved = self._clean(view, deviation, rng.at("error", rng.step))
        local = log_normal(view.gap - observe(view.rows, moved), view.noise)
        x = view.x_hat + moved
        return x, self.observation.log_prob(x).double() - local

    def _ahead(self, view: View, x: Tensor, t: Tensor, context: Context, rng: Streams) -> View:
        """The view at t of fields that came from ``view``, linearised at the mode it predicts."""
        x_hat, covariance = self.prior(x, t, context), self.law.covariance(t)
        if self.linear:
            return self._about(x, x_hat, x_hat, covariance, x, rng)
        guess = view._replace(images=apply(covariance, view.rows))
        gap = view.gap - observe(view.rows, x_hat - view.x_hat)
        trial = draw(self.law, x, t, rng.at("trial", rng.step))
        return self._about(x, x_hat, x_hat + self._push(guess, gap), covariance, trial, rng)

    def _about(
        self,
        x: Tensor,
        x_hat: Tensor,
        point: Tensor,
        covariance: LinearMap,
        trial: Tensor,
        rng: Streams,
    ) -> View:
        """The view with the operator linearised at ``point`` (1 or B, C, *grid).

        ``trial`` are draws of N(0, V), the covariance.
        """
        seen = self.observation
        if self.linear:
            key = tuple(point.shape[1:])
            if key not in self._rows:
                self._rows[key] = seen.operator.rows(torch.zeros_like(point[:1]))[None]
            rows, values = self._rows[key].to(point), seen.value(point)
        elif self.derivative is not None:
            values, rows = self.derivative(point)
        else:
            values, rows = linearise(seen.value, point)
        gap = seen.y.to(values) - values - observe(rows, x_hat - point)
        images, noise = apply(covariance, rows), seen.covariance[None]
        view = View(x, x_hat, gap, gap, rows, images, noise)
        if not self.linear:
            moved = self._clean(view, trial, rng.at("trial error", rng.step))
            missed = gap - observe(rows, moved) - seen.residual(x_hat + moved)
            square = (missed.double().abs().median(0).values / MEDIAN).square()
            noise = noise + torch.diag(self.caution * square.nan_to_num(0, 0))
        return view._replace(log_psi=log_normal(gap, gram(rows, images) + noise), noise=noise)

    def _push(self, view: View, gap: Tensor) -> Tensor:
        """V A^T (A V A^T + R)^{-1} gap."""
        return pull(view.images, solve(gram(view.rows, view.images) + view.noise, gap))

    def _clean(self, view: View, deviation: Tensor, rng: Streams) -> Tensor:
        """X - x_hat, X ~ N(x_hat, V) given y, from a draw of N(0, V) and one of the error."""
        error = normal(view.gap, rng)
        error = error @ torch.linalg.cholesky(view.noise[0]).to(error).T
        gap = view.gap - observe(view.rows, deviation) - error
        return deviation + self._push(view, gap)

    def _log_local(self, view: View, jump: Tensor, s: Tensor) -> Tensor:
        """log p(y | x_s, x_t) in the local model of ``view``, for x_s = E[x_s | x_t] + ``jump``.

        V_t and the noise between t and s combine to V_s, and the law's denoiser is affine.
        """
        still = self.law(torch.zeros_like(jump[:1]), s, Context())
        gap = view.gap - observe(view.rows, self.law(jump, s, Context()) - still)
        left = gram(view.rows, apply(self.law.covariance(s), view.rows))
        return log_normal(gap, left + view.noise)


@dataclass(frozen=True, eq=False)
class Ancestral(Twist):
    """For a prior without a closed form: V is Tweedie's, (sigma^2 / alpha) C J^T, per particle.

    2 n backward passes a step, n the number of observations: n through the operator and n through
    the denoiser. For few observations; the transition narrows the spread below about 100 steps.

    Parameters
    ----------
    prior : any denoiser. observation : y (n,) with any differentiable operator.
    """

    prior: Denoiser
    observation: Observation

    def __post_init__(self) -> None:
        _gaussian_values(self.observation)

    def start(self, like: Tensor, t: Tensor, context: Context, rng: Streams) -> tuple[View, Tensor]:
        x = noised(self.prior.process, torch.zeros_like(like), t, context.anchor, rng)
        view = self._view(x, t, context)
        return view, view.log_psi

    def move(
        self, view: View, t: Tensor, s: Tensor, context: Context, rng: Streams
    ) -> tuple[View, Tensor]:
        process = self.prior.process
        spread = positive(gram(view.rows, apply(process.noise, view.images)))
        weight = solve(spread + self.observation.covariance, view.gap)
        centre, share, scale = bridge(process, view.x, view.x_hat, t, s, context.anchor)
        push = share * pull(view.images, weight)
        moved = process.noise(push)
        fresh = scale * process.noise.sqrt(normal(view.x, rng))
        power = (push * (fresh + 0.5 * moved)).flatten(1).double().sum(1) / scale.double() ** 2
        ahead = self._view(centre + moved + fresh, s, context)
        return ahead, ahead.log_psi - view.log_psi - power

    def finish(self, view: View, t: Tensor, rng: Streams) -> tuple[Tensor, Tensor]:
        return view.x_hat, self.observation.log_prob(view.x_hat).double() - view.log_psi

    def _view(self, x: Tensor, t: Tensor, context: Context) -> View:
        """``images`` are C^{-1} V A^T: without C, whose inverse the weights would need."""
        alpha, _, sigma = (c.to(x) for c in self.prior.process.coefficients(t))
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            x_hat = self.prior(x, t, context)
        values, rows = linearise(self.observation.value, x_hat)
        back = [
            torch.autograd.grad(x_hat, x, rows[:, j], retain_graph=True)[0]
            for j in range(rows.shape[1])
        ]
        images = sigma**2 / alpha * torch.stack(back, dim=1)
        gap = self.observation.y.to(values) - values
        spread = positive(gram(rows, apply(self.prior.process.noise, images)))
        log_psi = log_normal(gap, spread + self.observation.covariance)
        return View(
            x.detach(),
            x_hat.detach(),
            log_psi,
            gap,
            rows,
            images,
            self.observation.covariance[None],
        )


@dataclass(frozen=True, eq=False)
class Reweighted(Twist):
    """Any potential g(x): the target is p(x) g(x), the proposal the prior's own transition.

    Products of models (g another density, known up to a factor), tempering (g = p^(gamma - 1)),
    constraints. Needs no gradient, and many particles where g is far from the prior.

    Parameters
    ----------
    prior : any denoiser. potential : log g, fields (B, C, *grid) -> (B,). -inf, a hard constraint,
        counts at the clean field alone: a guess of zero would kill particles that may come back.
    law : as for `Matched`, or None for the ancestral transition.
    onset : noise level at which half of log g counts; psi = g(x_hat)^(1 / (1 + (kappa / onset)^2)).
        Too high for a sharp g, and particles die that x_hat alone speaks against; lower is safer.
    """

    prior: Denoiser
    potential: Callable[[Tensor], Tensor]
    law: Gaussian | None = None
    onset: float = 0.3

    def __post_init__(self) -> None:
        if not 0 < self.onset < math.inf:
            raise InputError(f"Got an onset of {self.onset}; expected a positive noise level.")

    def start(self, like: Tensor, t: Tensor, context: Context, rng: Streams) -> tuple[View, Tensor]:
        clean = torch.zeros_like(like)
        if self.law is not None:
            clean = self.law.mean.to(like) + self.law.prior.sqrt(normal(like, rng.at("start")))
        view = self._view(noised(self.prior.process, clean, t, context.anchor, rng), t, context)
        return view, view.log_psi

    def move(
        self, view: View, t: Tensor, s: Tensor, context: Context, rng: Streams
    ) -> tuple[View, Tensor]:
        process = self.prior.process
        centre, share, scale = bridge(process, view.x, view.x_hat, t, s, context.anchor)
        jump = scale * process.noise.sqrt(normal(view.x, rng))
        if self.law is not None:
            jump = jump + share * draw(self.law, view.x, t, rng.at("clean", rng.step))
        ahead = self._view(centre + jump, s, context)
        return ahead, ahead.log_psi - view.log_psi

    def finish(self, view: View, t: Tensor, rng: Streams) -> tuple[Tensor, Tensor]:
        x = view.x_hat
        if self.law is not None:
            x = x + draw(self.law, x, t, rng.at("clean", rng.step))
        return x, self._log(x) - view.log_psi

    def _view(self, x: Tensor, t: Tensor, context: Context) -> View:
        x_hat = self.prior(x, t, context)
        share = 1 / (1 + (self.prior.process.kappa(t) / self.onset) ** 2)
        log_psi = share.to(x.device) * self._log(x_hat).nan_to_num(neginf=0.0)
        none = x.new_zeros(len(x), 0)
        return View(x, x_hat, log_psi, none, none, none, none)

    def _log(self, x: Tensor) -> Tensor:
        value = self.potential(x).double()
        if value.shape != (len(x),):
            raise InputError(
                f"Got a potential of shape {tuple(value.shape)} for {len(x)} fields; expected "
                "one number a field."
            )
        return value


def _gaussian_values(observation: Observation) -> None:
    if observation.y.ndim != 1:
        raise InputError(
            f"Got values of shape {tuple(observation.y.shape)}; a cloud of particles belongs to "
            "one set of values (n,). Run one cloud a case."
        )
    if not isinstance(observation.law, Normal):
        raise InputError(
            f"Got {type(observation.law).__name__} errors; expected Gaussian ones. For others use "
            "Reweighted with the potential observation.log_prob."
        )
