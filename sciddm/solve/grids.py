"""Time grids as data: where a sampler evaluates its network.

A grid is a rule that places any number of times between two noise levels. It holds numbers and no
model, so a saved model carries the grid that was found for it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from sciddm.process import Process


class Grid(ABC):
    """Places the times of a sampler."""

    @abstractmethod
    def times(
        self, process: Process, steps: int, kappa_max: float | None, kappa_min: float | None
    ) -> Tensor:
        """``steps`` decreasing times (steps,), float64, between the two noise levels.

        None takes the end of the process' clock. Raises `InputError` for fewer than two steps or
        levels outside the clock.
        """


@dataclass(frozen=True)
class LogKappa(Grid):
    """Even in log kappa: the default."""

    def times(
        self, process: Process, steps: int, kappa_max: float | None, kappa_min: float | None
    ) -> Tensor:
        return process.times(steps, kappa_max, kappa_min)
