"""Draws of one model under one observation, in micro-batches of one fixed size.

Every network call has exactly `BLOCK` rows, so a member is the same to the bit whatever else was
drawn with it: float32 results depend on the batch size, not on the place in a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
import xarray as xr
from torch import Tensor

from sciddm.denoise import Context, Denoiser, Gaussian
from sciddm.errors import InputError
from sciddm.evidence import Evidence
from sciddm.guide import MMPS, Anchor, Conditioned, Matheron, RandomisedMode, linearised
from sciddm.model import Model
from sciddm.observe import Observation
from sciddm.observe.noise import Gaussian as Normal
from sciddm.pde import Phases
from sciddm.pde.phases import Given
from sciddm.random import Streams

BLOCK = 16
FEW = 8
"""Values up to which an operator that is not affine is linearised at each member's own estimate."""
MISFIT = 1.5
"""Error s.d. that the members may lie from their values before their anchor is moved to them."""
Rule = Callable[[Denoiser, Observation], Denoiser]
Case = tuple[int, xr.DataArray | None, Observation | None]


class Anchors:
    """One linearisation an observation, near its mode under ``base``; the last ones are kept.

    like : (1, C, *grid), shape and type. memory : bytes to keep.
    """

    def __init__(self, base: Gaussian, like: Tensor, memory: int = 1 << 29) -> None:
        self.base, self.like, self.memory = base, like, memory
        self._kept: dict[Observation, Anchor] = {}
        self._chi_square: dict[Observation, float] = {}

    def __call__(self, observation: Observation) -> Anchor:
        """The anchor of an observation with Gaussian errors."""
        if observation not in self._kept:
            anchor = linearised(self.base, observation, self.like)
            while self._kept and (len(self._kept) + 1) * anchor.rows.nbytes > self.memory:
                del self._kept[next(iter(self._kept))]
            self._kept[observation] = anchor
            self._chi_square[observation] = anchor.chi_square
        return self._kept[observation]

    def chi_square(self, observation: Observation) -> float:
        """See `Anchor`; remembered longer than it."""
        if observation not in self._chi_square:
            self(observation)
        return self._chi_square[observation]

    def serve(self, observation: Observation) -> bool:
        """Whether the observation needs one: more than `FEW` values with Gaussian errors, of an
        operator that is not affine."""
        many = observation.y.shape[-1] > FEW and isinstance(observation.law, Normal)
        return many and not observation.operator.affine(self.like)


class Guided:
    """The model's sampler under guidance; cases with the same sensors share their gains.

    The sampler ends with the mean of X given x_t and y at the lowest noise level. What is left of X
    there is drawn and added where it is known in closed form: without it members would lie closer
    to values seen with small errors than those errors allow.

    Of an operator that is not affine, more than `FEW` values share an anchor (`sciddm.guide.
    anchored`) where the model holds a Gaussian. A block whose members miss their values by more
    than `MISFIT` is drawn again with the anchor at their mean, and the better one is kept.
    """

    def __init__(self, model: Model, rule: Rule | None, anchors: Anchors | None) -> None:
        self.rule, self.model, self.anchors = rule, model, anchors
        self.blank = torch.zeros(BLOCK, *model.fields.shape)
        self._last: tuple[Tensor, Conditioned] | None = None

    def __call__(self, observation: Observation | None, rng: Streams) -> Tensor:
        if observation is None:
            return self.model.diffusion(self.blank.shape, Context(), rng)
        guided = self._denoiser(observation)
        x = self._draw(guided, rng)
        finite = bool(torch.isfinite(x).all())
        if not isinstance(guided, Conditioned) or guided.anchor is None or not finite:
            return x
        off = _off(observation, x)
        if off <= MISFIT:
            return x
        again = self._draw(guided.at(x.mean(0, keepdim=True)), rng)
        return again if _off(observation, again) < off else x

    def _draw(self, guided: Denoiser, rng: Streams) -> Tensor:
        sampler = replace(self.model.diffusion, denoiser=guided)
        x = sampler(self.blank.shape, Context(), rng)
        if self.rule is None and isinstance(guided, Conditioned) and guided.shared(x):
            x = guided.finished(sampler.times[-1], x, rng.at("finish"))
        return x

    def _denoiser(self, observation: Observation) -> Denoiser:
        prior, moments = self.model.diffusion.denoiser, self.model.moments
        if self.rule is not None:
            return self.rule(prior, observation)
        if moments is None:
            return MMPS(prior, observation, moments=self.model.gaussian)
        if self._last is not None and self._last[1].observation is observation:
            return self._last[1]
        if self.anchors is not None and self.anchors.serve(observation):
            guided = Conditioned(prior, observation, moments, anchor=self.anchors(observation))
            self._last = self.blank[:0], guided
            return guided
        rows = observation.operator.rows(self.blank[:1])
        if self._last is not None and torch.equal(rows, self._last[0]):
            guided = self._last[1].given(observation)
        else:
            guided = Conditioned(prior, observation, moments)
        self._last = rows, guided
        return guided


def _off(observation: Observation, x: Tensor) -> float:
    """Root mean square misfit of the members."""
    return float(observation.misfit(x).square().mean().sqrt())


class Phased:
    """Draws of a two-phase model, alone or given values of its coefficient or its solution.

    Everything seen is checked here, before the first draw. Raises `InputError` for what the level
    set cannot serve: see `pde.Phases.posterior`, and errors that are not Gaussian.
    """

    def __init__(self, model: Model, seen: Evidence | None, cases: Sequence[Case]) -> None:
        assert isinstance(model.sampler, Phases)
        self.sampler, self.blank = model.sampler, torch.zeros(BLOCK, *model.fields.shape)
        self._given: dict[Observation, Given] = {}
        sights = [] if seen is None else seen.sights(model.fields)
        fields = torch.zeros(1, len(model.fields.variables), *model.fields.grid.shape).double()
        for sight, (_, _, observation) in zip(sights, cases, strict=False):
            if observation is None or sight.observation is None:
                continue
            if not isinstance(observation.law, Normal):
                raise InputError(
                    f"Got {type(observation.law).__name__} errors for a level set; expected "
                    "Gaussian ones. Use a trained model for others."
                )
            std = torch.from_numpy(sight.std)
            rows = sight.observation.operator.rows(fields) * std.view(-1, 1, 1, 1)
            values = sight.observation.y.double() * std
            self._given[observation] = self.sampler.posterior(rows, values, std)

    def __call__(self, observation: Observation | None, rng: Streams) -> Tensor:
        if observation is None:
            return self.sampler(self.blank.shape, Context(), rng)
        return self._given[observation](self.blank, rng)


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
    """Draws from the posterior of the Gaussian model inside: exact where the operator is affine
    (`Matheron`), else by randomised maximum likelihood (`RandomisedMode`)."""

    def __init__(self, model: Model, anchors: Anchors) -> None:
        self.prior, self.anchors = anchors.base, anchors
        self.blank = torch.zeros(BLOCK, *model.fields.shape)
        self._last: Matheron | RandomisedMode | None = None

    def __call__(self, observation: Observation | None, rng: Streams) -> Tensor:
        if observation is None:
            return self.prior.sample(self.blank, rng.at("prior"))
        return self._law(observation)(self.blank, rng)

    @property
    def exact(self) -> bool:
        """Whether the last draws were."""
        return not isinstance(self._last, RandomisedMode)

    def _law(self, observation: Observation) -> Matheron | RandomisedMode:
        if self._last is not None and self._last.observation is observation:
            return self._last
        if not observation.operator.affine(self.blank[:1]):
            anchor = self.anchors(observation)
            self._last = RandomisedMode(self.prior, observation, anchor)
            return self._last
        # in float64: smooth operators and small errors make the system ill-conditioned
        rows = observation.operator.rows(self.blank[:1]).double()
        if isinstance(self._last, Matheron) and torch.equal(rows, self._last.rows):
            self._last = self._last.given(observation)
        else:
            self._last = Matheron(self.prior, observation, rows)
        return self._last
