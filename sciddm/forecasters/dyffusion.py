r"""DYffusion: a diffusion whose time is the time of the film.

Between a state x_0 and the state x_h that follows it by h frames stands an interpolator instead of
noise, and a forecaster stands in the place of the denoiser:

    I(x_0, x_h, tau) ~ p(x at tau h | x_0, x_h),   F(s, tau) ~ p(x_h | x_0, s),   0 <= tau <= 1.

A block is drawn by cold sampling along tau_0 = 0 < tau_1 < .. < 1 from s_0 = x_0:

    x_hat = F(s_n, tau_n),   s_{n+1} = s_n + I(x_0, x_hat, tau_{n+1}) - I(x_0, x_hat, tau_n),

and its last x_hat begins the next block. Here both networks are held to their ends and learn what
the run m of a mean (persistence, or a linear law) from x_0 does not know,

    I = m(tau) + tau (x_h - m(1)) + 4 tau (1 - tau) f,     F = m(1) + s - m(tau) + (1 - tau) g,

so a film passes through its states, and any real lead lies between them.

References
----------
Cachay, Zhao, Joren, Yu. DYffusion: a dynamics-informed diffusion model for spatiotemporal
forecasting. NeurIPS 2023, algorithms 1-2, eq. 1-5. https://arxiv.org/abs/2306.01984
Bansal et al. Cold diffusion. NeurIPS 2023, algorithm 2. https://arxiv.org/abs/2208.09392
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from sciddm.denoise import Context
from sciddm.errors import InputError
from sciddm.forecasters.base import Known, Learner, conditions
from sciddm.forecasters.fair import fair_crps, share_of, uniform
from sciddm.forecasters.mean import Mean, Persistence
from sciddm.nn.dropout import masks
from sciddm.random import Streams


class DYffusion(Learner):
    """Blocks of ``ahead`` frames by cold sampling over physical time.

    What a member draws at random it draws once a block, so its frames hang together: ``noise``
    channels of white noise beside the input of each network, and a mask for a `nn.Dropped` one.

    Parameters
    ----------
    interpolator : backbone of C + noise inputs (x_h, noise) and C outputs. forecaster : the same
        of (s, noise). Both see the conditions (`conditions`) in ``context.fields``, x_0 among them.
    ahead : frames in a block, h, 2 or more. history : frames seen. noise : channels of noise.
    mean : what is expected of the next frame, or None for the newest one. scale : s.d. about it,
        (C, 1, ...), the units of both networks.
    extra : steps of the sampling between frame 0 and 1, evenly spaced, beside those at the frames.
    stride : the sampling steps on every stride-th frame; the others are interpolated at the end.
    refine : whether all frames are interpolated anew from the last x_hat.
    draws : draws a training film. 2 or more: fair CRPS, for the spread; 1: mean absolute error, as
        published, where dropout alone makes the spread.
    share : part of the training that is the interpolator's; it stays as it is in the rest.
    held : whether the draw of the first block is kept for all blocks.
    boundary : what is known in every frame, imposed on every state of the sampling.

    Expect blocks to be sharp and smooth in time. Without noise and without dropout the forecast is
    deterministic. Good values: a block about as long as the state is predictable at a glance, 2 to
    4 channels of noise.
    """

    def __init__(
        self,
        interpolator: nn.Module,
        forecaster: nn.Module,
        ahead: int,
        history: int = 1,
        noise: int = 2,
        mean: Mean | None = None,
        scale: Tensor | None = None,
        extra: int = 0,
        stride: int = 1,
        refine: bool = True,
        draws: int = 2,
        share: float = 0.4,
        held: bool = False,
        boundary: Known | None = None,
        longest: int | None = None,
    ) -> None:
        nn.Module.__init__(self)
        if ahead < 2 or min(history, stride, draws) < 1 or min(noise, extra) < 0:
            raise InputError(
                f"Got ahead {ahead}, history {history}, stride {stride}, draws {draws}, noise "
                f"{noise}, extra {extra}; expected a block of 2 frames or more, 1 or more of the "
                "next three and no negative numbers."
            )
        if not 0 < share < 1:
            raise InputError(f"Got the share {share}; expected a number between 0 and 1.")
        self.interpolator, self.forecaster = interpolator, forecaster
        self.mean = Persistence() if mean is None else mean
        self.scale = torch.ones(()) if scale is None else scale
        self.ahead, self.history, self.noise = ahead, max(history, self.mean.history), noise
        self.extra, self.stride, self.refine = extra, stride, refine
        self.draws, self.share, self.held = draws, share, held
        self.boundary, self.longest = boundary, longest
        self.window, self.stages = self.history + ahead, (share,)

    def times(self, stride: int = 1) -> list[float]:
        """tau_0 = 0, .., tau_{N-1} < 1: every ``stride``-th frame, and the extra steps."""
        between = [j / ((self.extra + 1) * self.ahead) for j in range(1, self.extra + 1)]
        return sorted([k / self.ahead for k in range(0, self.ahead, stride)] + between)

    @property
    def evaluations(self) -> float:
        steps, at_frames = len(self.times(self.stride)), math.ceil(self.ahead / self.stride)
        moves = steps - 1 + max(steps - 2, 0)
        last = self.ahead - (1 if self.refine else at_frames)
        return (steps + moves + last) / self.ahead

    def walk(self, context: Context, rng: Streams) -> Iterator[Tensor]:
        for _, film in self._blocks(context, rng):
            yield from film.unbind(2)

    @torch.no_grad()
    def at(self, leads: Sequence[float], context: Context, rng: Streams) -> Tensor:
        """The same forecast at real ``leads`` > 0, in frames: (B, C, len(leads), *grid).

        At whole leads these are the frames of `walk`. Raises `InputError` for a lead of 0 or less.
        """
        if not leads or not min(leads) > 0:
            raise InputError(f"Got leads {list(leads)}; expected positive numbers of lead steps.")
        found: dict[int, Tensor] = {}
        blocks = enumerate(self._blocks(context, rng))
        number, (begun, film) = next(blocks)
        for i in sorted(range(len(leads)), key=lambda i: leads[i]):
            while leads[i] > (number + 1) * self.ahead:
                number, (begun, film) = next(blocks)
            found[i] = self._within(begun, film, leads[i] - number * self.ahead)
        return torch.stack([found[i] for i in range(len(leads))], dim=2)

    def loss(self, film: Tensor, context: Context, rng: Streams, share: float) -> Tensor:
        past, end, rows = film[:, :, : self.history], film[:, :, -1], len(film)
        context = replace(context, past=past)
        begun = [self._begun(past, 1, context, rng, k) for k in range(self.draws)]
        if share < self.share:
            place = 1 + (uniform(rng.at("frame"), rows) * (self.ahead - 1)).long()
            target = film[torch.arange(rows), :, self.history - 1 + place]
            tau = place.double() / self.ahead
            return self._score([self._between(b, end, tau) for b in begun], target)
        times = torch.tensor([*self.times(), 1.0], dtype=torch.float64)
        step = (uniform(rng.at("step"), rows) * (len(times) - 1)).long()
        tau, after = times[step], times[step + 1]
        with torch.no_grad():  # one state, and draws of what may follow it
            state = self._between(begun[0], end, tau)
        if float(uniform(rng.at("turn"), rows)[0]) < 0.5:
            return self._score([self._ahead(b, state, tau) for b in begun], end)
        ends = []
        for b in begun:  # the state that the sampling itself comes to
            with torch.no_grad():
                own = self._moved(b, state, self._ahead(b, state, tau), tau, after)
            ends.append(self._ahead(b, own, after))
        return self._score(ends, end)

    def _score(self, draws: list[Tensor], target: Tensor) -> Tensor:
        scale = self.scale.to(target)
        return fair_crps(torch.stack(draws) / scale, target / scale)

    def _blocks(self, context: Context, rng: Streams) -> Iterator[tuple[_Begun, Tensor]]:
        """What each block is drawn from, and its frames (B, C, h, *grid)."""
        assert context.past is not None
        recent, frame = context.past[:, :, -self.history :], 1
        while True:
            own = rng.inside("frame", 1 if self.held else frame)
            begun = self._begun(recent, frame, context, own)
            film = self._film(begun)
            yield begun, film
            recent = torch.cat([recent, film], 2)[:, :, -self.history :]
            frame += self.ahead

    def _film(self, begun: _Begun) -> Tensor:
        """One block by cold sampling."""
        times, state, frames = self.times(self.stride), begun.start, {}
        for n, now in enumerate(times):
            end = self._ahead(begun, state, begun.filled(now))
            if n + 1 < len(times):
                after = begun.filled(times[n + 1])
                state = self._moved(begun, state, end, begun.filled(now), after)
                frames[round(times[n + 1] * self.ahead, 9)] = state
        for j in range(1, self.ahead):
            if self.refine or j not in frames:
                frames[j] = self._between(begun, end, begun.filled(j / self.ahead))
        return torch.stack([*(frames[j] for j in range(1, self.ahead)), end], dim=2)

    def _within(self, begun: _Begun, film: Tensor, lead: float) -> Tensor:
        """The state at a real lead of a block, 0 < lead <= ahead: interpolated between x_0 and x_h,
        and moved by what the frames on both sides are beside their own interpolations."""

        def between(frame: float) -> Tensor:
            return self._between(begun, film[:, :, -1], begun.filled(frame / self.ahead))

        def off(frame: int) -> Tensor:
            if frame in (0, self.ahead):
                return torch.zeros_like(begun.start)
            return film[:, :, frame - 1] - between(frame)

        low, found = min(math.floor(lead), self.ahead - 1), between(lead)
        if not self.refine:
            found = found + torch.lerp(off(low), off(low + 1), lead - low)
        return self.imposed(found, begun.context)

    def _moved(
        self, begun: _Begun, state: Tensor, end: Tensor, tau: Tensor, after: Tensor
    ) -> Tensor:
        """The state at ``after``: moved as the interpolation moves."""
        here = self._between(begun, end, tau) if bool((tau > 0).any()) else begun.start
        return self.imposed(state + self._between(begun, end, after) - here, begun.context)

    def _between(self, begun: _Begun, end: Tensor, tau: Tensor) -> Tensor:
        """I(x_0, x_h, tau), ``tau`` (B,)."""
        f, t = begun.asked(self.interpolator, end, tau, 0), _wide(tau, end)
        known = begun.mean(tau) + t * (end - begun.run[:, :, -1])
        return self.imposed(known + 4 * t * (1 - t) * self.scale.to(end) * f, begun.context)

    def _ahead(self, begun: _Begun, state: Tensor, tau: Tensor) -> Tensor:
        """F(s, tau), ``tau`` (B,)."""
        g, t = begun.asked(self.forecaster, state, tau, 1), _wide(tau, state)
        known = begun.run[:, :, -1] + state - begun.mean(tau)
        return self.imposed(known + (1 - t) * self.scale.to(state) * g, begun.context)

    def _begun(
        self, recent: Tensor, frame: int, context: Context, rng: Streams, draw: int = 0
    ) -> _Begun:
        """A block that begins after ``recent`` (B, C, history, *grid), and what a member draws for
        it: noise and a mask for each of the two networks."""
        assert context.past is not None
        start, depth = recent[:, :, -1], context.past.shape[2]
        seen = conditions(recent, context, frame, self.ahead, depth)
        run = self.mean.ahead(recent, context, frame, self.ahead)
        channels = start.new_empty(len(start), self.noise, *start.shape[2:])
        noise: list[Tensor | None] = []
        mask: list[Tensor | None] = []
        for name, network in (("between", self.interpolator), ("ahead", self.forecaster)):
            count, own = masks(network), rng.at(f"{name} mask", draw)
            noise.append(rng.at(name, draw).normal(channels) if self.noise else None)
            mask.append(own.normal(start.new_empty(len(start), count)) if count else None)
        return _Begun(torch.cat([start[:, :, None], run], 2), seen, context, noise, mask)


@dataclass(frozen=True, eq=False)
class _Begun:
    """x_0 and the run of the mean from it, (B, C, h + 1, *grid), what the networks see, and what
    they drew: noise (B, noise, *grid) and masks (B, masks) of both, or None."""

    run: Tensor
    seen: Tensor
    context: Context
    noise: Sequence[Tensor | None]
    masks: Sequence[Tensor | None]

    @property
    def start(self) -> Tensor:
        """x_0, (B, C, *grid)."""
        return self.run[:, :, 0]

    def mean(self, tau: Tensor) -> Tensor:
        """The run of the mean at ``tau`` (B,), straight between its frames."""
        place = tau * (self.run.shape[2] - 1)
        low = place.floor().long().clamp(0, self.run.shape[2] - 2)
        rows = torch.arange(len(tau))
        return torch.lerp(
            self.run[rows, :, low],
            self.run[rows, :, low + 1],
            _wide(place - low, self.run[:, :, 0]),
        )

    def asked(self, network: nn.Module, x: Tensor, tau: Tensor, which: int) -> Tensor:
        """The answer of the network to ``x`` (B, C, *grid) at ``tau`` (B,)."""
        noise = self.noise[which]
        inside = x if noise is None else torch.cat([x, noise], dim=1)
        context = Context(fields=self.seen, scalars=self.masks[which])
        out: Tensor = network(inside, share_of(tau), context)
        return out

    def filled(self, tau: float) -> Tensor:
        """One time for all rows, (B,)."""
        return self.start.new_full((len(self.start),), tau, dtype=torch.float64)


def _wide(tau: Tensor, like: Tensor) -> Tensor:
    return tau.to(like).view(-1, *[1] * (like.ndim - 1))
