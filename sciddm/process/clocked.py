"""A clock of its own for every frame or cell."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sciddm.covariance import Covariance
from sciddm.process.base import Process
from sciddm.process.clocks import Clock


@dataclass(frozen=True, eq=False)
class Clocked(Process):
    """A clock per frame or cell: local time = clip(t (1 + span) - span (1 - delay), 0, 1).

    Parameters
    ----------
    base : the process that each cell follows on its own clock.
    delay : in [0, 1], broadcasts against x; cells with a larger delay become clean later when
        time runs down from 1 to 0. Delay 0 is clean at t = span / (1 + span), delay 1 starts to
        move at t = 1 / (1 + span).
    span : how far the clocks are spread, in units of the base's own duration; 0 is the base.
    """

    base: Process
    delay: Tensor
    span: float = 1.0

    @property
    def noise(self) -> Covariance:  # type: ignore[override]
        return self.base.noise

    @property
    def clock(self) -> Clock:  # type: ignore[override]
        return self.base.clock

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        late = 1 - self.delay.double()
        return self.base.coefficients((t.double() * (1 + self.span) - self.span * late).clamp(0, 1))
