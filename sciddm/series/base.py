"""What every model of series is: draws of the cells that are not known, each member on its own."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from sciddm.random import Streams
from sciddm.series.panel import Panel


class SeriesSampler(nn.Module, ABC):
    """p(wanted cells | known cells): forecasts, imputations and new series are its draws.

    channels : C, or None for any number.
    """

    channels: int | None = None

    @property
    @abstractmethod
    def evaluations(self) -> float:
        """Network evaluations a draw."""

    @abstractmethod
    def draw(self, panel: Panel, rng: Streams) -> Tensor:
        """(B, M, m): M draws of each of the B series, known cells as they are within their error.

        rng : B M addresses, all of the first series before those of the second. Values at cells
        that are not known are never looked at. Cells outside ``panel.real`` hold 0.
        """


class SeriesLearner(SeriesSampler):
    """A model of series with weights that `sciddm.train` fits.

    stages : shares of the training at which another loss begins.
    """

    stages: tuple[float, ...] = ()

    @abstractmethod
    def loss(self, panel: Panel, rng: Streams, share: float) -> Tensor:
        """What is minimised, (B,), for panels whose wanted cells hold the truth.

        rng : one address a row, within the training step; every draw of the loss comes from it.
        share : how much of the training is done, in [0, 1).
        """
