r"""Forecasts from a prior over films: what follows is drawn given the frames that are known.

The prior is a denoiser of blocks of ``length`` frames, past and future alike. A forecast conditions
it on its first frames by the library's own guidance, so nothing is trained for a task: another
past, gaps in it, or observations along the way are further rows of one observation. Block follows
block, the end of one the past of the next.

With observations along the way (`Film.given`) all frames that are asked for are one film, since
what is seen later tells of what came before: of the length of a block, or windows of the prior are
composed (`sciddm.forecasters.composed`) beside the Gaussian law of the longer film.

References
----------
Ho et al. Video diffusion models. NeurIPS 2022, section 3.1 (joint model, conditioned when drawn).
https://arxiv.org/abs/2204.03458
Rozet, Louppe. Score-based data assimilation. NeurIPS 2023. https://arxiv.org/abs/2306.10574
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sciddm.denoise import Context, Denoiser, Gaussian, Preconditioned, denoising_loss
from sciddm.errors import InputError
from sciddm.forecasters.base import Forecaster, Known, Learner
from sciddm.forecasters.composed import Composed, places
from sciddm.guide import Conditioned, Pinned
from sciddm.observe import Mask, Observation
from sciddm.random import Streams
from sciddm.solve import Diffusion
from sciddm.spacetime import SpaceTime, longer


class Film(Learner):
    """p(next frames | past frames) by conditioning a prior over films (B, C, length, *grid).

    Parameters
    ----------
    denoiser : of films of ``length`` frames: a `Gaussian`, or a network (`Preconditioned`), which
        sees static fields and forcings as channels of the film.
    length : frames of a block, past and future. history : how many of them are the past.
    law : a `Gaussian` of such films whose covariance stands for Cov[X | x_t]; None takes the
        denoiser itself or its base. With a `SpaceTime` covariance known frames cost one small
        system a mode, and longer films can be drawn given observations; any other serves blocks.
    steps : network evaluations a block. kappa_max, kappa_min : noise levels it runs between, or
        None for the ends of the clock.
    stride : frames between the windows of a longer film, see `Composed`.
    error : s.d. at which the past is held.
    noise_mean, noise_std : of log kappa in training.

    Raises `InputError` for a past as long as the block, and where no law is known.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        length: int,
        history: int = 1,
        law: Gaussian | None = None,
        steps: int = 24,
        kappa_max: float | None = None,
        kappa_min: float | None = None,
        stride: int = 1,
        error: float = 1e-4,
        noise_mean: float = -0.5,
        noise_std: float = 1.5,
        boundary: Known | None = None,
    ) -> None:
        if not 0 < history < length:
            raise InputError(f"Got {history} frames of the past in a block of {length}.")
        super().__init__()
        self.denoiser, self.length, self.history = denoiser, length, history
        self.law, self.steps, self.stride, self.error = law, steps, stride, error
        self.kappa_max, self.kappa_min = kappa_max, kappa_min
        self.noise_mean, self.noise_std = noise_mean, noise_std
        self.boundary, self.window = boundary, length
        known = [law, denoiser, getattr(denoiser, "base", None)]
        found = next((g for g in known if isinstance(g, Gaussian)), None)
        if found is None:
            raise InputError(
                f"Got a {type(denoiser).__name__} without a Gaussian of its films; expected one "
                "(law), whose covariance guides it."
            )
        self._gaussian = (found.under(denoiser.process),)  # a tuple: no module of its own
        self._block: Drawn | None = None
        self._sources: dict[int, Source] = {}

    @property
    def gaussian(self) -> Gaussian:
        """The Gaussian law of a block."""
        return self._gaussian[0]

    @property
    def evaluations(self) -> float:
        return self.steps / (self.length - self.history)

    def walk(self, context: Context, rng: Streams) -> Iterator[Tensor]:
        assert context.past is not None
        if self._block is None:
            self._block = self.drawn(None, self.length - self.history)
        recent, first = context.past[:, :, -self.history :], 1
        while True:
            x = self._block(recent, context, first, rng.inside("frame", first))
            for frame in x.unbind(2):
                held = self.imposed(frame, context)
                yield held
                recent = torch.cat([recent[:, :, 1:], held[:, :, None]], dim=2)
            first += x.shape[2]

    def given(self, observation: Observation, frames: int) -> Forecaster:
        """The forecaster of the next ``frames`` frames that also knows ``observation``, whose
        operator maps normalised films (B, C, frames, *grid), frame 1 the first that is wanted, to
        values (B, n); values are (n,), or (B, n) with a row a member.

        Raises `InputError` for more frames than a block where the law cannot be made longer.
        """
        return Assimilated(self, observation, frames)

    def loss(self, film: Tensor, context: Context, rng: Streams, share: float) -> Tensor:
        if not isinstance(self.denoiser, Preconditioned):
            raise InputError(f"Got a {type(self.denoiser).__name__}, which has nothing to train.")
        process = self.denoiser.process
        white = rng.at("level").normal(film.new_zeros(len(film), 1)).double()
        low, high = process.clock.ends()
        kappa = (self.noise_mean + self.noise_std * white).exp().clamp(low, high)
        t = process.clock.time(kappa).clamp(0, 1).view(-1, *[1] * (film.ndim - 1))
        known = beside(context, 0, film.shape[2])
        return denoising_loss(self.denoiser, film, t, known, rng=rng.at("noise"))

    def drawn(self, seen: Observation | None, frames: int) -> Drawn:
        """Draws of the next ``frames`` frames given the past and ``seen``."""
        count = max(self.length, self.history + frames)
        if count not in self._sources:
            self._sources[count] = self._source(count)
        return Drawn(self, self._sources[count], seen, frames)

    def _source(self, count: int) -> Source:
        """What draws films of ``count`` frames."""
        law, denoiser = self.gaussian, self.denoiser
        if count > self.length:
            if not isinstance(law.prior, SpaceTime) or law.mean.numel() > 1:
                raise InputError(
                    f"Got {count - self.history} frames that are observed together; this model's "
                    f"law of films serves {self.length - self.history}. Ask for fewer, or take a "
                    "SpaceTime law with one mean."
                )
            whole = Gaussian(law.mean, longer(law.prior, count), law.process)
            alone = isinstance(denoiser, Gaussian)
            denoiser = whole if alone else Composed(denoiser, self.length, self.stride, law, whole)
            law = whole
        pinned = None
        if isinstance(law.prior, SpaceTime):
            pinned = Pinned(denoiser, law, self.history, self.error)
        sampler = Diffusion(
            denoiser, steps=self.steps, kappa_max=self.kappa_max, kappa_min=self.kappa_min
        )
        return Source(count, sampler, law, pinned)


@dataclass(frozen=True, eq=False)
class Source:
    """Films of ``count`` frames: their sampler and Gaussian law, and the denoiser that knows their
    first frames, where it is in closed form."""

    count: int
    sampler: Diffusion
    law: Gaussian
    pinned: Pinned | None


class Drawn:
    """The ``frames`` frames after a past, given an observation; shares its gains."""

    def __init__(self, film: Film, source: Source, seen: Observation | None, frames: int) -> None:
        self.film, self.source, self.frames, self.seen = film, source, frames, seen
        if seen is not None:
            first, last = film.history, film.history + frames
            operator = seen.operator @ (lambda x: x[:, :, first:last])
            self.seen = Observation(seen.y, operator, seen.law)
        self._denoiser: Pinned | Conditioned | None = source.pinned
        if source.pinned is not None and self.seen is not None:
            self._denoiser = Conditioned(source.pinned, self.seen, source.pinned)

    def __call__(self, recent: Tensor, context: Context, first: int, rng: Streams) -> Tensor:
        """Frames ``first``, ``first + 1``, ... (B, C, frames, *grid) after ``recent``."""
        blank = recent.new_zeros(*recent.shape[:2], self.source.count, *recent.shape[3:])
        assert context.past is not None
        start = context.past.shape[2] + first - 1 - self.film.history
        known = replace(beside(context, start, self.source.count), past=recent)
        denoiser = self._denoiser or self._by_rows(recent)
        sampler = replace(self.source.sampler, denoiser=denoiser)
        x = sampler(blank.shape, known, rng)
        last = sampler.times[-1]
        if isinstance(denoiser, Pinned):
            x = x + denoiser.fluctuation(last, x, rng.at("finish"))
        elif denoiser.shared(x):
            x = denoiser.finished(last, x, rng.at("finish"))
        return x[:, :, self.film.history : self.film.history + self.frames]

    def _by_rows(self, recent: Tensor) -> Conditioned:
        """The past as a row for every value of it."""
        keep = torch.zeros(recent.shape[1], self.source.count, *recent.shape[3:], dtype=torch.bool)
        keep[:, : self.film.history] = True
        variance = torch.tensor(self.film.error**2, dtype=torch.float64)
        past = Observation(recent.flatten(1), Mask(keep), variance)
        both = past if self.seen is None else past & self.seen
        return Conditioned(self.source.sampler.denoiser, both, self.source.law)


class Assimilated(Forecaster):
    """The frames that follow a past, given observations along the way: see `Film.given`."""

    def __init__(self, film: Film, observation: Observation, frames: int) -> None:
        super().__init__()
        self.film, self.observation = film, observation
        self.history, self.boundary, self.longest = film.history, film.boundary, frames
        self._drawn = film.drawn(observation, frames)

    @property
    def evaluations(self) -> float:
        windows = 1
        if self._drawn.source.count > self.film.length:
            windows = len(places(self._drawn.source.count, self.film.length, self.film.stride)[0])
        return self.film.steps * windows / self._drawn.frames

    def walk(self, context: Context, rng: Streams) -> Iterator[Tensor]:
        assert context.past is not None
        recent = context.past[:, :, -self.history :]
        x = self._drawn(recent, context, 1, rng.inside("frame", 1))
        for frame in x.unbind(2):
            yield self.imposed(frame, context)


def beside(context: Context, first: int, frames: int) -> Context:
    """What a network sees beside a film of ``frames`` frames: static fields, and the forcings from
    number ``first`` on; beyond their end the last is repeated."""
    known = context.forcings
    if known is not None:
        at = torch.arange(first, first + frames).clamp_max(known.shape[2] - 1)
        known = known[:, :, at]
    return Context(fields=context.fields, forcings=known, index=context.index)
