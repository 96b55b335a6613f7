"""Time grids as data: where a sampler evaluates its network.

A grid is a rule that places any number of times between two noise levels. It holds numbers and no
model, so a saved model carries the grid that was found for it (see `sciddm.solve.placing`).

================  ==============================  ================================================
grid              even in                         expect
================  ==============================  ================================================
`LogKappa`        log kappa                       the default; best for multistep in log kappa
`Rho(7)`          kappa^(1/7)                     finer at high noise, coarser at low (EDM)
`CosineGrid`      arctan kappa                    most steps near kappa = 1
`Uniform`         the clock's time                as the process was written down
`Given`           its own numbers                 found for one problem
================  ==============================  ================================================

References
----------
Karras, Aittala, Aila, Laine. Elucidating the design space of diffusion-based generative models.
NeurIPS 2022, eq. 5 (Rho). https://arxiv.org/abs/2206.00364
Nichol, Dhariwal. Improved denoising diffusion probabilistic models. ICML 2021, eq. 17 (cosine).
https://arxiv.org/abs/2102.09672
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from sciddm.errors import InputError
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


class Mapped(Grid):
    """Even in some increasing function of kappa."""

    @abstractmethod
    def forward(self, kappa: Tensor) -> Tensor:
        """The function."""

    @abstractmethod
    def inverse(self, value: Tensor) -> Tensor:
        """Its inverse."""

    def times(
        self, process: Process, steps: int, kappa_max: float | None, kappa_min: float | None
    ) -> Tensor:
        high, low = _ends(process, steps, kappa_max, kappa_min)
        ends = self.forward(torch.stack([high, low]))
        share = torch.linspace(0, 1, steps, dtype=torch.float64)
        return _placed(process, self.inverse(torch.lerp(ends[0], ends[1], share)), high, low)


@dataclass(frozen=True)
class Rho(Mapped):
    """Even in kappa^(1 / rho). Karras et al. 2022, eq. 5, where rho = 7."""

    rho: float = 7.0

    def __post_init__(self) -> None:
        if not 0 < self.rho < math.inf:
            raise InputError(f"Got rho = {self.rho}; expected a positive number (7 is usual).")

    def forward(self, kappa: Tensor) -> Tensor:
        return kappa ** (1 / self.rho)

    def inverse(self, value: Tensor) -> Tensor:
        return value**self.rho


@dataclass(frozen=True)
class CosineGrid(Mapped):
    """Even in arctan kappa: the angle of a process with alpha = cos, sigma = sin."""

    def forward(self, kappa: Tensor) -> Tensor:
        return kappa.arctan()

    def inverse(self, value: Tensor) -> Tensor:
        return value.tan()


@dataclass(frozen=True)
class Uniform(Grid):
    """Even in the time of the process' clock."""

    def times(
        self, process: Process, steps: int, kappa_max: float | None, kappa_min: float | None
    ) -> Tensor:
        ends = process.clock.time(torch.stack(_ends(process, steps, kappa_max, kappa_min)))
        share = torch.linspace(0, 1, steps, dtype=torch.float64)
        return torch.lerp(ends[0], ends[1], share).clamp(0, 1)


@dataclass(frozen=True)
class Given(Grid):
    """The noise levels themselves; other numbers of steps are placed with the same density.

    Parameters
    ----------
    kappas : at least two decreasing levels. ``steps`` of the same number between the same ends
        gives exactly these; otherwise log kappa is linear between them.
    """

    kappas: tuple[float, ...]

    def __post_init__(self) -> None:
        k = (math.inf, *self.kappas, 0.0)
        if len(k) < 4 or not all(a > b for a, b in zip(k[:-1], k[1:], strict=True)):
            raise InputError(
                f"Got noise levels {self.kappas}; expected two or more, positive and decreasing."
            )

    def times(
        self, process: Process, steps: int, kappa_max: float | None, kappa_min: float | None
    ) -> Tensor:
        high = self.kappas[0] if kappa_max is None else kappa_max
        low = self.kappas[-1] if kappa_min is None else kappa_min
        if not self.kappas[0] * (1 + 1e-9) >= high > low >= self.kappas[-1] / (1 + 1e-9):
            raise InputError(
                f"Got noise levels from {low:g} to {high:g} for a grid given from "
                f"{self.kappas[-1]:g} to {self.kappas[0]:g}; expected a part of it."
            )
        ends = _ends(process, steps, high, low)
        knots = torch.tensor(self.kappas, dtype=torch.float64).log()
        place = torch.arange(len(knots), dtype=torch.float64)
        first, last = (float(_linear(-k.log(), -knots, place)) for k in ends)
        at = torch.linspace(first, last, steps, dtype=torch.float64)
        return _placed(process, _linear(at, place, knots).exp(), *ends)


def _linear(at: Tensor, knots: Tensor, values: Tensor) -> Tensor:
    """Piecewise-linear ``values`` on rising ``knots``, (n,) both, exact at the knots."""
    right = torch.searchsorted(knots, at.contiguous()).clamp(1, len(knots) - 1)
    share = ((at - knots[right - 1]) / (knots[right] - knots[right - 1])).clamp(0, 1)
    return torch.lerp(values[right - 1], values[right], share)


def _ends(
    process: Process, steps: int, kappa_max: float | None, kappa_min: float | None
) -> tuple[Tensor, Tensor]:
    """The highest and the lowest level, checked."""
    times = process.times(steps, kappa_max, kappa_min)
    high, low = process.clock.kappa(times[[0, -1]])
    return high, low


def _placed(process: Process, kappa: Tensor, high: Tensor, low: Tensor) -> Tensor:
    """Times of levels between two ends; rounding in the middle must not leave them."""
    inner = torch.minimum(torch.maximum(kappa, low), high)
    return process.clock.time(torch.cat([high[None], inner[1:-1], low[None]])).clamp(0, 1)
