"""Exact draws of a Gaussian law given the known cells: kriging of series.

Rasmussen, Williams. Gaussian processes for machine learning. 2006, eq. 2.22-2.24.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sciddm.random import Streams
from sciddm.series.base import SeriesSampler
from sciddm.series.kernel import Mixed
from sciddm.series.law import Law, posterior
from sciddm.series.panel import Panel


class GaussianSeries(SeriesSampler):
    """The posterior of ``law``, drawn exactly: the row of every table that a network must beat.

    One factorisation a series, whatever the number of members; the cost is of order m^3.
    """

    def __init__(self, law: Law) -> None:
        super().__init__()
        self.law = law
        self.channels = len(law.rest) if isinstance(law, Mixed) else None

    @property
    def evaluations(self) -> float:
        return 0.0

    @torch.no_grad()
    def draw(self, panel: Panel, rng: Streams) -> Tensor:
        found = posterior(self.law, panel)
        members = len(rng.members) // max(len(panel), 1)
        like = panel.time.new_zeros(len(panel) * members, panel.cells, dtype=torch.float64)
        noise = rng.at("series").normal(like).unflatten(0, (len(panel), members))
        return found.mean[:, None] + noise @ found.factor.mT
