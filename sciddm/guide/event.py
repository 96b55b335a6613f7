r"""Events: draws of X given c(X) > b.

Given x_t let X be N(x_hat, V), and c affine over its spread, with gradient g: c(X) is normal, with
mean c(x_hat) and variance s^2 = g^T V g. Then, with z = (c(x_hat) - b) / s,

    P(c(X) > b | x_t) = Phi(z),    E[X | x_t, c(X) > b] = x_hat + V g phi(z) / (s Phi(z)),

exact for a Gaussian prior and an affine c. `Exceeds` is this conditional mean, for any solver; the
probability itself is in `sciddm.guide.probability`.

A c that is not affine is matched over a cloud of draws of N(x_hat, V): its mean, its variance, and
for g its mean gradient, which gives Cov[X, c(X)] = V g (Stein's lemma).

References
----------
Finzi, Boral, Wilson, Sha, Zepeda-Nunez. User-defined event sampling and uncertainty quantification
in diffusion models for physical dynamical systems. ICML 2023, section 4 (the moment match and the
conditional mean). https://arxiv.org/abs/2306.07526
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sciddm.denoise import Context, Denoiser, Moments
from sciddm.errors import InputError
from sciddm.guide.tweedie import Tweedie
from sciddm.observe.operators import Function
from sciddm.observe.tilted import hazard
from sciddm.random import Streams

CLOUD = 32
"""Pairs of opposite draws that match the moments of a function that is not affine."""


@dataclass(frozen=True, eq=False)
class Event:
    """{function(x) > threshold}; with several columns, that any of them is above it.

    Give a maximum as its columns, a minimum below a threshold as minus the values: columns that are
    affine are drawn without error, a function that bends only nearly.

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
    they exclude each other, too generous where they go together. The draws of
    `event_probability` carry weights, and are right there too.

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
            match = Match(self.event.margin(x_hat).double(), rows, torch.zeros(()))
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
            match = Match.of(self.event, x_hat, t, self.moments, self._affine)
            flat = self.moments.covariance(t)(match.rows.flatten(0, 1))
            images = flat.view_as(match.rows)
        spread = match.spread(images)
        z = match.margin / spread
        share = torch.softmax(torch.special.log_ndtr(z), dim=1)
        pull = (share * hazard(z)[0] / spread).to(x_t)
        images = images.expand(len(x_t), *images.shape[1:])
        return x_hat + torch.einsum("bk,bk...->b...", pull, images)


@dataclass(frozen=True, eq=False)
class Match:
    """The law of c(X) - b given x_t, for every column: mean (B, K), mean gradient (B or 1, K, ...)
    and the variance (B, K) that the gradient leaves unexplained."""

    margin: Tensor
    rows: Tensor
    rest: Tensor

    @staticmethod
    def of(event: Event, x_hat: Tensor, t: Tensor, moments: Moments, affine: bool) -> Match:
        if affine:
            rows = event.rows(torch.zeros_like(x_hat[:1]))
            return Match(event.margin(x_hat).double(), rows, torch.zeros(()).double())
        blank = torch.zeros_like(x_hat[:1]).expand(CLOUD, *x_hat.shape[1:])
        draws = moments.fluctuation(t, blank, Streams.of(0, CLOUD).at("event cloud"))
        draws = torch.cat([draws, -draws])
        cloud = (x_hat[:, None] + draws).flatten(0, 1)
        margin = event.margin(cloud).double().unflatten(0, (len(x_hat), -1))
        rows = event.rows(cloud).unflatten(0, (len(x_hat), -1)).mean(1)
        linear = torch.einsum("bk...,s...->bsk", rows, draws).double()
        centre = margin.mean(1)
        return Match(centre, rows, (margin - centre[:, None] - linear).square().mean(1))

    def spread(self, images: Tensor) -> Tensor:
        """S.d. of c(X) given x_t, (B or 1, K), float64, from V g."""
        return (dot(self.rows, images) + self.rest).clamp_min(1e-300).sqrt()


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Dot products over (C, *grid) of (B, K, C, *grid), broadcast: (B, K), float64."""
    return (a * b).flatten(2).double().sum(2)
