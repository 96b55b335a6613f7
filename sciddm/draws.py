"""Draws of one model under one observation, in micro-batches of one fixed size.

Every network call has exactly `BLOCK` rows, so a member is the same to the bit whatever else was
drawn with it: float32 results depend on the batch size, not on the place in a batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from sciddm.denoise import Context, Denoiser, Gaussian
from sciddm.errors import InputError
from sciddm.guide import MMPS, Conditioned
from sciddm.guide.moments import kalman_gain
from sciddm.model import Model
from sciddm.observe import Observation
from sciddm.random import Streams

BLOCK = 16
Rule = Callable[[Denoiser, Observation], Denoiser]


class Guided:
    """The model's sampler under guidance; cases with the same sensors share their gains.

    The sampler ends with the mean of X given x_t and y at the lowest noise level. What is left of X
    there is drawn and added where it is known in closed form: without it members would lie closer
    to values seen with small errors than those errors allow.
    """

    def __init__(self, model: Model, rule: Rule | None = None) -> None:
        self.rule, self.model = rule, model
        self.blank = torch.zeros(BLOCK, *model.codec.shape)
        self._last: tuple[Tensor, Conditioned] | None = None

    def __call__(self, observation: Observation | None, rng: Streams) -> Tensor:
        sampler = self.model.sampler
        if observation is None:
            return sampler(self.blank.shape, Context(), rng)
        guided = self._denoiser(observation)
        x = replace(sampler, denoiser=guided)(self.blank.shape, Context(), rng)
        if self.rule is None and isinstance(guided, Conditioned) and guided.shared(x):
            x = x + guided.fluctuation(sampler.times[-1], x, rng.at("finish"))
        return x

    def _denoiser(self, observation: Observation) -> Denoiser:
        prior, moments = self.model.sampler.denoiser, self.model.moments
        if self.rule is not None:
            return self.rule(prior, observation)
        if moments is None:
            return MMPS(prior, observation, moments=self.model.gaussian)
        if self._last is not None and self._last[1].observation is observation:
            return self._last[1]
        rows = observation.operator.rows(self.blank[:1])
        if self._last is not None and torch.equal(rows, self._last[0]):
            guided = self._last[1].given(observation)
        else:
            guided = Conditioned(prior, observation, moments)
        self._last = rows, guided
        return guided


class InBlocks(Denoiser):
    """A denoiser called on `BLOCK` rows at a time, in its own precision."""

    def __init__(self, inner: Denoiser) -> None:
        torch.nn.Module.__init__(self)
        self.inner, self.process = inner, inner.process

    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        kind = x_t.dtype if isinstance(self.inner, Gaussian) else torch.float32
        parts = [self.inner(part.to(kind), t, context) for part in x_t.split(BLOCK)]
        return torch.cat(parts).to(x_t)


class Kriged:
    """Exact draws from the posterior of the Gaussian model inside (Matheron's rule).

    x + K (y - A x - e) with x from the prior and e from the error law; K the gain of optimal
    interpolation. Journel, Huijbregts. Mining geostatistics. 1978, ch. 7.
    """

    def __init__(self, gaussian: Gaussian, model: Model) -> None:
        self.gaussian = gaussian
        self.blank = torch.zeros(BLOCK, *model.codec.shape)
        self._gain: tuple[Tensor, Tensor] | None = None

    def __call__(self, observation: Observation | None, rng: Streams) -> Tensor:
        x = self.gaussian.sample(self.blank, rng.at("prior"))
        if observation is None:
            return x
        # in float64: smooth operators and small errors make the system ill-conditioned
        rows = observation.operator.rows(self.blank[:1]).double()
        if self._gain is None or not torch.equal(rows, self._gain[0]):
            if not observation.operator.affine(self.blank[:1]):
                raise InputError(
                    "Got observations that do not depend linearly on the field; optimal "
                    "interpolation needs that they do. Use recover."
                )
            gain = kalman_gain(self.gaussian.prior, rows, observation.covariance)
            self._gain = rows, gain.to(x)
        white = rng.at("error").normal(x.new_zeros(BLOCK, len(rows)))
        error = white @ torch.linalg.cholesky(observation.covariance).T.to(x)
        gap = observation.residual(x) - error
        return x + (gap @ self._gain[1].flatten(1)).view_as(x)
