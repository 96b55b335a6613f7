r"""An ensemble trained on its own score: one network evaluation a frame and member, no diffusion.

The network turns noise into members: with the recent frames x and noise z,

    x_next = mean(x) + scale net(z | x),

and it is trained so that the fair CRPS of a few members is smallest, cell by cell,

    L = mean_i |x_i - y| - (1 - eps) / (2 M (M - 1)) sum_ij |x_i - x_j|,   eps = (1 - alpha) / M,

whose expectation is smallest for the true law of each cell: fair for alpha = 1, where a member may
be far off as long as the rest make up for it, and almost fair below. What joins the cells is that
one network made them from one z. Later in the training, frames are made of the members' own frames,
so that a rollout meets what it was trained on.

References
----------
Lang et al. AIFS-CRPS: ensemble forecasting using a model trained with a loss function based on the
continuous ranked probability score. 2024, eq. 4 (almost fair). https://arxiv.org/abs/2412.15832
Alet et al. Skillful joint probabilistic weather forecasting from marginals. 2025, sections 2-3
(noise that conditions the network). https://arxiv.org/abs/2506.10772
Ferro. Fair scores for ensemble forecasts. 2014, eq. 4. https://doi.org/10.1002/qj.2270
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count

import torch
from torch import Tensor, nn

from sciddm.denoise import Context
from sciddm.errors import InputError
from sciddm.forecasters.base import Known, Learner, conditions
from sciddm.forecasters.mean import Mean
from sciddm.random import Streams


class Scored(Learner):
    """Next frame = mean + scale * network(noise, recent frames).

    Parameters
    ----------
    backbone : ``(z (B, noises, *grid), 0, context) -> (B, C, *grid)``; the recent frames, static
        fields and forcings come as ``context.fields``, ``vector`` normal numbers as its scalars.
    mean : what is expected of the next frame. scale : (C, 1, ...), the s.d. about it.
    history : frames of the past that the network sees.
    noises : channels of white noise on the grid. vector : normal numbers that condition the network
        as a whole. Not both 0.
    members : of each training ensemble, at least 2. alpha : 1 is the fair CRPS, 0 the plain one.
    unroll : frames that each member makes of its own in the later part of the training, which
        begins at the share ``turn``.
    boundary : what is known in every frame, or None.

    Raises `InputError` for numbers out of their range.
    """

    def __init__(
        self,
        backbone: nn.Module,
        mean: Mean,
        scale: Tensor,
        history: int = 1,
        noises: int = 2,
        vector: int = 0,
        members: int = 2,
        alpha: float = 1.0,
        unroll: int = 1,
        turn: float = 0.5,
        boundary: Known | None = None,
    ) -> None:
        nn.Module.__init__(self)
        if min(history, unroll) < 1 or members < 2 or min(noises, vector) < 0:
            raise InputError(
                f"Got history={history}, unroll={unroll}, members={members}, noises={noises}, "
                f"vector={vector}; expected 1 or more, 1 or more, 2 or more, 0 or more twice."
            )
        if noises + vector < 1 or not (0 <= alpha <= 1 and 0 <= turn < 1):
            raise InputError(
                f"Got noises={noises}, vector={vector}, alpha={alpha}, turn={turn}; expected some "
                "noise, and shares between 0 and 1."
            )
        self.backbone, self.mean, self.scale = backbone, mean, scale
        self.history = max(history, mean.history)
        self.noises, self.vector, self.members, self.alpha = noises, vector, members, alpha
        self.unroll, self.turn, self.boundary = unroll, turn, boundary
        self.window = self.history + unroll
        self.stages = (turn,) if unroll > 1 else ()

    @property
    def evaluations(self) -> float:
        return 1.0

    def walk(self, context: Context, rng: Streams) -> Iterator[Tensor]:
        assert context.past is not None
        recent, depth = context.past[:, :, -self.history :], context.past.shape[2]
        for n in count(1):
            noise = self.noise(recent[:, :, -1], rng.inside("frame", n))
            frame = self.step(recent, context, n, noise, depth)
            yield frame
            recent = torch.cat([recent[:, :, 1:], frame.unsqueeze(2)], dim=2)

    def noise(self, like: Tensor, rng: Streams) -> tuple[Tensor, Tensor]:
        """What makes a frame of a member, for rows like ``like`` (B, C, *grid): (B, noises, *grid)
        and (B, vector)."""
        fields = like.new_zeros(len(like), self.noises, *like.shape[2:])
        numbers = like.new_zeros(len(like), self.vector)
        return rng.at("noise").normal(fields), rng.at("vector").normal(numbers)

    def step(
        self, recent: Tensor, context: Context, frame: int, noise: tuple[Tensor, Tensor], depth: int
    ) -> Tensor:
        """Frame number ``frame`` (B, C, *grid) of one member a row, after ``recent`` (B, C,
        history, *grid). depth : frames of the past that the forcings begin with."""
        fields, numbers = noise
        newest = recent[:, :, -1]
        beside = Context(
            fields=conditions(recent, context, frame, history=depth),
            scalars=numbers if self.vector else context.scalars,
        )
        change = self.backbone(fields, newest.new_zeros(len(newest)), beside)
        mean = self.mean(recent, context, frame)
        return self.imposed(mean + self.scale.to(newest) * change, context)

    def loss(self, film: Tensor, context: Context, rng: Streams, share: float) -> Tensor:
        rows, ahead = len(film), self.unroll if share >= self.turn else 1
        every = repeated(replace(context, past=film[:, :, : self.history]), self.members)
        recent, total = every.past, film.new_zeros(rows)
        assert recent is not None
        for n in range(1, ahead + 1):
            draws = [
                self.noise(film[:, :, 0], rng.inside("member", i).inside("frame", n))
                for i in range(self.members)
            ]
            fields, numbers = (torch.cat(parts) for parts in zip(*draws, strict=True))
            frame = self.step(recent, every, n, (fields, numbers), self.history)
            truth = film[:, :, self.history + n - 1]
            gap = (frame.unflatten(0, (self.members, rows)) - truth) / self.scale.to(film)
            total = total + almost_fair(gap, self.alpha).flatten(1).mean(1)
            recent = torch.cat([recent[:, :, 1:], frame.unsqueeze(2)], dim=2)
        return total / ahead


def almost_fair(errors: Tensor, alpha: float = 1.0) -> Tensor:
    """The almost fair CRPS (...) of errors (M, ...) of M members: fair for ``alpha`` 1, plain (all
    M^2 pairs) for 0. Lang et al. 2024, eq. 4."""
    members = len(errors)
    ordered = errors.sort(dim=0).values
    ranks = 2.0 * torch.arange(members).to(errors) - (members - 1)
    pairs = (ordered * ranks.view(-1, *[1] * (errors.ndim - 1))).sum(0)  # sum over i < j
    eps = (1 - alpha) / members
    return errors.abs().mean(0) - (1 - eps) / (members * (members - 1)) * pairs


def repeated(context: Context, times: int) -> Context:
    """The context of every row, ``times`` over: rows 0, 1, .., 0, 1, .."""

    def over(x: Tensor | None) -> Tensor | None:
        return x if x is None or len(x) == 1 else x.repeat(times, *[1] * (x.ndim - 1))

    return Context(
        fields=over(context.fields),
        scalars=over(context.scalars),
        past=over(context.past),
        forcings=over(context.forcings),
    )
