"""A law whose spread follows the season: weather that is livelier in winter than in summer."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sciddm.series.law import Law, Rescaled
from sciddm.series.panel import Panel


@dataclass(frozen=True, eq=False)
class Swelling(Rescaled):
    """X = exp(swell cos(2 pi (t - origin) / period)) Y for Y of a law ``inner``.

    swell : (C,), of any sign; the largest s.d. of a channel is exp(2 |swell|) times its smallest.
    period, origin : in units of time; a positive swell is largest at the origin.
    """

    inner: Law
    swell: Tensor
    period: float
    origin: float = 0.0

    def affine(self, panel: Panel) -> tuple[Tensor, Tensor]:
        wave = torch.cos(2 * math.pi * (panel.time - self.origin) / self.period)
        size = torch.exp(self.swell.to(panel.time)[panel.channel] * wave)
        return torch.zeros_like(size), size
