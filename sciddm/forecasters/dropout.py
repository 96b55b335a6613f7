"""The two plain ensembles of one trained network: dropout left on, and `perturbed` beginnings."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from sciddm.denoise import Context
from sciddm.errors import InputError
from sciddm.forecasters.base import Known, Learner, conditions
from sciddm.forecasters.fair import fair_crps, share_of, uniform
from sciddm.forecasters.mean import Mean, Persistence
from sciddm.nn.dropout import masks
from sciddm.random import Streams


class Dropout(Learner):
    """x_{t+j} = mean_j + scale f(x_t, j / ahead), j = 1 .. ahead, then again from the last one.

    With a `nn.Dropped` network every member keeps the mask that it draws once: one sub-network all
    along its forecast. With a plain network the forecast is deterministic, the one that
    `Perturbed` starts from other beginnings.

    Parameters
    ----------
    network : backbone of C outputs; it sees the conditions (`conditions`) in ``context.fields``, no
        inputs beside the newest frame (C), and the share j / ahead as its level.
    ahead : frames that are forecast from one state, each by one evaluation. history : frames seen.
    draws : masks a training film. 1: mean absolute error, as published; 2 or more: fair CRPS.
    mean : what is expected of the next frame, or None for the newest one. scale : s.d. about it,
        (C, 1, ...), the unit of the network.
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
        mean: Mean | None = None,
        scale: Tensor | None = None,
        boundary: Known | None = None,
        longest: int | None = None,
    ) -> None:
        nn.Module.__init__(self)
        if min(ahead, history, draws) < 1:
            raise InputError(
                f"Got ahead {ahead}, history {history} and draws {draws}; expected 1 or more."
            )
        self.mean = Persistence() if mean is None else mean
        self.scale = torch.ones(()) if scale is None else scale
        self.network, self.ahead, self.draws = network, ahead, draws
        self.history = max(history, self.mean.history)
        self.boundary, self.longest, self.window = boundary, longest, self.history + ahead

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
            run, block = self.mean.ahead(recent, context, frame, self.ahead), []
            for j in range(self.ahead):
                place = torch.full((len(recent),), j)
                found = self._found(recent[:, :, -1], run, place, seen, mask)
                block.append(self.imposed(found, context))
                yield block[-1]
            recent = torch.cat([recent, torch.stack(block, 2)], 2)[:, :, -self.history :]
            frame += self.ahead

    def loss(self, film: Tensor, context: Context, rng: Streams, share: float) -> Tensor:
        past = film[:, :, : self.history]
        context = replace(context, past=past)
        seen = conditions(past, context, 1, self.ahead, self.history)
        run = self.mean.ahead(past, context, 1, self.ahead)
        place = (uniform(rng.at("frame"), len(film)) * self.ahead).long()
        target = film[torch.arange(len(film)), :, self.history + place]
        found = [
            self.imposed(
                self._found(past[:, :, -1], run, place, seen, self._mask(past, rng, k)), context
            )
            for k in range(self.draws if masks(self.network) else 1)
        ]
        scale = self.scale.to(film)
        return fair_crps(torch.stack(found) / scale, target / scale)

    def _mask(self, like: Tensor, rng: Streams, draw: int = 0) -> Tensor | None:
        count = masks(self.network)
        return rng.at("mask", draw).normal(like.new_empty(len(like), count)) if count else None

    def _found(
        self, start: Tensor, run: Tensor, place: Tensor, seen: Tensor, mask: Tensor | None
    ) -> Tensor:
        """Frame number ``place`` (B,) of a block, 0 the first, about the ``run`` of the mean."""
        level = share_of((place + 1).double() / self.ahead)
        f = self.network(start, level, Context(fields=seen, scalars=mask))
        return run[torch.arange(len(run)), :, place] + self.scale.to(start) * f
