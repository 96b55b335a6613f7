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
from sciddm.process.base import OneClock, Process
from sciddm.process.clocks import Clock
from sciddm.random import Streams


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

    At t = 1 the state is a measurement whose error has the s.d. ``level`` in each cell (in units
    of C). Draws start from the measurement itself, given as ``Context.anchor``, and are draws of
    p(X | measurement) by the stochastic solvers. The probability flow is no such draw: it maps one
    measurement to one field. Pearl et al. 2023.

    Parameters
    ----------
    base : a process on one clock, without an anchor.
    level : noise levels within the clock, broadcasts against x. A cell at the upper end of the
        clock was not measured, it starts from noise; its value in the measurement is not used but
        must be finite.
    """

    base: OneClock
    level: Tensor

    def __post_init__(self) -> None:
        if not isinstance(self.base, OneClock) or self.base.anchored:
            raise InputError(
                f"Got caps over {type(self.base).__name__}; expected a process with one clock and "
                "no anchor (VE, VP, SubVP, Flow)."
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

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        kappa = self.base.clock.kappa(t.double())
        return self.base.at(torch.minimum(kappa, self.level.double().to(kappa.device)))

    def start(
        self, like: Tensor, t: Tensor, anchor: Tensor | None = None, rng: Streams | None = None
    ) -> Tensor:
        """The measurement ``anchor`` as the state at ``t``, noise where nothing was measured.

        Raises `InputError` without a measurement, and for a ``t`` where the noise is less than that
        of some measured cell.
        """
        level = self.level.double().to(t.device)
        measured = level < self.base.clock.ends()[1] * (1 - 1e-6)
        fresh = super().start(like, t, rng=rng)
        if not bool(measured.any()):
            return fresh
        largest = float(level[measured].max())
        if float(self.base.clock.kappa(t.double()).min()) < largest * (1 - 1e-9):
            raise InputError(
                f"Got a start below noise level {largest:g}, that of a measured cell; expected a "
                "grid of times from there on (raise kappa_max)."
            )
        if anchor is None:
            raise InputError(
                "Got no measurement to start from; expected one of the shape of the field "
                "(Context.anchor)."
            )
        alpha = self.coefficients(t)[0].to(like)
        return torch.where(measured.to(like.device), alpha * anchor, fresh)
