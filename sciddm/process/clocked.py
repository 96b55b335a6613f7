"""A clock of its own for every frame or cell: by delay (`Clocked`), or by known noise (`Capped`).

The noise is exact where it is independent between cells on different clocks: white, or coloured
within a frame. Under other noise the deterministic solvers stay exact and ancestral steps do not.

References
----------
Ruhe, Heek, Salimans, Hoogeboom. Rolling diffusion models. ICML 2024.
https://arxiv.org/abs/2402.09470
Pearl et al. SVNR: spatially-variant noise removal with denoising diffusion. 2023.
https://arxiv.org/abs/2306.16052
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sciddm.covariance import Covariance
from sciddm.errors import InputError
from sciddm.process.base import OneClock, Process, shift
from sciddm.process.clocks import Clock


@dataclass(frozen=True, eq=False)
class Clocked(Process):
    """A clock per frame or cell: local time = clip(t (1 + span) - span (1 - delay), 0, 1).

    A delay that grows by d from frame to frame is the rolling window of Ruhe et al. 2024: one frame
    on is span d / (1 + span) later.

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

    def __post_init__(self) -> None:
        if not 0 <= self.span < math.inf:
            raise InputError(f"Got span = {self.span}; expected a finite number, at least 0.")
        if not bool(((self.delay >= 0) & (self.delay <= 1)).all()):
            raise InputError("Got delays outside [0, 1]; expected a share of the span.")

    @property
    def noise(self) -> Covariance:  # type: ignore[override]
        return self.base.noise

    @property
    def clock(self) -> Clock:  # type: ignore[override]
        return self.base.clock

    @property
    def anchored(self) -> bool:
        return self.base.anchored

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        late = 1 - self.delay.double()
        return self.base.coefficients((t.double() * (1 + self.span) - self.span * late).clamp(0, 1))


@dataclass(frozen=True, eq=False)
class Capped(Process):
    """Every cell has a largest noise level of its own: kappa = min(base's kappa, level).

    The state at t = 1 is then a measurement whose error has the s.d. ``level`` in each cell (in
    units of C), so a draw starts from the measurement itself, see `enter`: it is a draw of p(X |
    measurement). The stochastic solvers do that; the probability flow does not, as it maps one
    measurement to one field. Pearl et al. 2023.

    Parameters
    ----------
    base : a process on one clock.
    level : noise levels, within the clock, broadcasts against x. Where nothing was measured: the
        upper end of the clock.
    """

    base: OneClock
    level: Tensor

    def __post_init__(self) -> None:
        if not isinstance(self.base, OneClock):
            raise InputError(
                f"Got caps over {type(self.base).__name__}; expected a process with one clock."
            )
        low, high = self.base.clock.ends()
        level = self.level.double()
        if not bool(((level >= low * (1 - 1e-6)) & (level <= high * (1 + 1e-6))).all()):
            raise InputError(
                f"Got noise levels outside the clock; expected {low:g} to {high:g} in every cell."
            )

    @property
    def noise(self) -> Covariance:  # type: ignore[override]
        return self.base.noise

    @property
    def clock(self) -> Clock:  # type: ignore[override]
        return self.base.clock

    @property
    def anchored(self) -> bool:
        return self.base.anchored

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        kappa = self.base.clock.kappa(t.double())
        return self.base.at(torch.minimum(kappa, self.level.double().to(kappa.device)))

    def enter(self, measured: Tensor, anchor: Tensor | None = None) -> Tensor:
        """The measurement (B, C, *grid) as the state at t = 1: alpha y + beta m."""
        self._check(anchor)
        one = torch.ones((), dtype=torch.float64)
        alpha, beta, _ = (c.to(measured) for c in self.coefficients(one))
        return shift(alpha * measured, beta, anchor)
