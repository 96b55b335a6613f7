"""Perturbed initial conditions: an ensemble of any forecaster from beginnings that differ."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from sciddm.covariance import Covariance
from sciddm.denoise import Context
from sciddm.errors import InputError
from sciddm.forecasters.base import Forecaster
from sciddm.random import Streams


class Perturbed(Forecaster):
    """``forecaster`` from the past plus ``std`` times noise, the same on every frame of the past.

    Parameters
    ----------
    forecaster : most often a deterministic one.
    std : s.d. of the noise in units of the normalised fields, chosen on validation films.
    law : covariance of the noise at std 1, or None: white.

    What the boundary knows is not perturbed. Expect spread that is too small at first, and later as
    large as the flow makes it: the forecaster's own errors are not in it.

    References
    ----------
    Leith. Theoretical skill of Monte Carlo forecasts. Monthly Weather Review 1974.
    Cachay et al. DYffusion. NeurIPS 2023, section 4.2 (the baseline).
    """

    def __init__(
        self, forecaster: Forecaster, std: float = 0.1, law: Covariance | None = None
    ) -> None:
        nn.Module.__init__(self)
        if not 0 <= std < float("inf"):
            raise InputError(f"Got noise of s.d. {std}; expected 0 or more.")
        self.forecaster, self.std, self.law = forecaster, std, law
        self.history, self.longest = forecaster.history, forecaster.longest
        self.boundary = forecaster.boundary

    @property
    def evaluations(self) -> float:
        return self.forecaster.evaluations

    def walk(self, context: Context, rng: Streams) -> Iterator[Tensor]:
        assert context.past is not None
        past = context.past[:, :, -self.history :]
        newest, own = past[:, :, -1], rng.at("perturbed")
        noise = own.normal(newest) if self.law is None else self.law.sample(newest, own)
        moved = past + self.std * noise.to(past)[:, :, None]
        if self.boundary is not None and self.boundary.mask is not None:
            moved = torch.where(self.boundary.mask.to(past.device)[:, None], past, moved)
        yield from self.forecaster.walk(replace(context, past=moved), rng)
