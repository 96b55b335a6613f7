"""The two plain ensembles of one trained network: dropout left on, and `perturbed` beginnings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from sciddm.denoise import Context
from sciddm.errors import InputError
from sciddm.forecasters.base import Boundary, Learner, conditions
from sciddm.forecasters.fair import fair_crps, share_of, uniform
from sciddm.nn.dropout import masks
from sciddm.random import Streams


class Dropout(Learner):
    """x_{t+j} = x_t + f(x_t, j / ahead), j = 1 .. ahead, then again from the last of these.

    With a `nn.Dropped` network every member keeps the mask that it draws once: one sub-network all
    along its forecast. With a plain network the forecast is deterministic, the one that
    `Perturbed` starts from other beginnings.

    Parameters
    ----------
    network : backbone of C outputs; it sees the conditions (`conditions`) in ``context.fields``, no
        inputs beside the newest frame (C), and the share j / ahead as its level.
    ahead : frames that are forecast from one state, each by one evaluation. history : frames seen.
    draws : masks a training film. 1: mean absolute error, as published; 2 or more: fair CRPS.
    boundary : what is known in every frame.

    Expect too little spread: a mask says how unsure the network is of its weights, not how unsure
    the future is.

    References
    ----------
    Gal, Ghahramani. Dropout as a Bayesian approximation. ICML 2016, eq. 6.
    https://arxiv.org/abs/1506.02142
    Cachay et al. DYffusion. NeurIPS 2023, section 4.2 (the baseline).
    """

    def __init__(
        self,
        network: nn.Module,
        ahead: int = 1,
        history: int = 1,
        draws: int = 1,
        boundary: Boundary | None = None,
        longest: int | None = None,
    ) -> None:
        nn.Module.__init__(self)
        if min(ahead, history, draws) < 1:
            raise InputError(
                f"Got ahead {ahead}, history {history} and draws {draws}; expected 1 or more."
            )
        self.network, self.ahead, self.history, self.draws = network, ahead, history, draws
        self.boundary, self.longest, self.window = boundary, longest, history + ahead

    @property
    def evaluations(self) -> float:
        return 1.0

    def walk(self, context: Context, rng: Streams) -> Iterator[Tensor]:
        assert context.past is not None
        recent, depth = context.past[:, :, -self.history :], context.past.shape[2]
        frame = 1
        mask = self._mask(recent, rng)
        while True:
            seen = conditions(recent, context, frame, self.ahead, depth)
            start, block = recent[:, :, -1], []
            for j in range(1, self.ahead + 1):
                share = torch.full((len(start),), j / self.ahead, dtype=torch.float64)
                block.append(self.imposed(self._next(start, share, seen, mask), context))
                yield block[-1]
            recent = torch.cat([recent, torch.stack(block, 2)], 2)[:, :, -self.history :]
            frame += self.ahead

    def loss(self, film: Tensor, context: Context, rng: Streams, share: float) -> Tensor:
        past = film[:, :, : self.history]
        context = replace(context, past=past)
        seen = conditions(past, context, 1, self.ahead, self.history)
        place = (uniform(rng.at("frame"), len(film)) * self.ahead).long()
        target = film[torch.arange(len(film)), :, self.history + place]
        at, start = (place + 1).double() / self.ahead, past[:, :, -1]
        found = [
            self.imposed(self._next(start, at, seen, self._mask(past, rng, k)), context)
            for k in range(self.draws if masks(self.network) else 1)
        ]
        return fair_crps(torch.stack(found), target)

    def _mask(self, like: Tensor, rng: Streams, draw: int = 0) -> Tensor | None:
        count = masks(self.network)
        return rng.at("mask", draw).normal(like.new_empty(len(like), count)) if count else None

    def _next(self, start: Tensor, share: Tensor, seen: Tensor, mask: Tensor | None) -> Tensor:
        context = Context(fields=seen, scalars=mask)
        out: Tensor = self.network(start, share_of(share), context)
        return start + out
