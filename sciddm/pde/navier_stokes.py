"""Vorticity of a two-dimensional incompressible flow on the torus, with two forcings.

    dw/dt + u . grad w = nu Laplace w - drag w + f,     u from w as in :mod:`sciddm.pde.spectral`

    NavierStokes   side 1, f = 0.1 (sin 2 pi (x + y) + cos 2 pi (x + y)), no drag
    Kolmogorov     side 2 pi, nu = 1 / Re, f = -n A cos(n y): the velocity is pushed by A sin(n y)

Diffusion and drag are exact, advection is explicit: products at the points, the rule of 2/3 on the
result. The mean of w is kept.

References:
    Fourier Neural Operator for Parametric Partial Differential Equations, Li et al., 2020,
    https://arxiv.org/abs/2010.08895 (section 5.3). Score-based Data Assimilation, Rozet and
    Louppe, 2023, https://arxiv.org/abs/2306.10574 (Kolmogorov flow with drag).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from sciddm.errors import InputError
from sciddm.pde.etd import Tendency
from sciddm.pde.evolution import Evolution, check_numbers, square
from sciddm.pde.spectral import Torus, cast


@final
@dataclass(frozen=True)
class NavierStokes(Evolution):
    """The benchmark's flow on the unit torus: ``w(0) (B, 1, H, W) -> w(time) (B, 1, H, W)``.

    The arrays are laid out as the published ones: the first grid axis is x and the second y, so
    that the flow turns left round positive vorticity. (Transpose both fields for dims (y, x).)

    Args:
        viscosity: nu, 1e-3 in the benchmark.
        time: final time.
        step: largest time step. The answer is divided into equal steps not above it.
        forcing: whether f acts.
        order: of the time stepping, see :mod:`sciddm.pde.etd`.

    Raises:
        InputError: a number out of its range; see :class:`Evolution` for the call.
    """

    viscosity: float = 1e-3
    time: float = 1.0
    step: float = 0.1
    forcing: bool = True
    order: int = 4

    def __post_init__(self) -> None:
        check_numbers(self)
        if not 0.0 <= self.viscosity < math.inf:
            raise InputError(f"Got viscosity={self.viscosity!r}; expected a number of at least 0.")

    @property
    def channels(self) -> int:
        return 1

    def torus(self, sizes: tuple[int, ...]) -> Torus:
        return square(sizes, 2, 1.0, 1, "NavierStokes")

    def linear(self, torus: Torus) -> Tensor:
        return self.viscosity * torus.laplacian()

    def tendency(self, torus: Torus, dtype: torch.dtype, device: torch.device) -> Tendency:
        phase = 2.0 * math.pi * (torus.points(-1) + torus.points(-2))
        force = 0.1 * (torch.sin(phase) + torch.cos(phase)) if self.forcing else 0.0 * phase
        # The axes are (x, y) here: exchanging them turns the flow round.
        return _advection(torus, force, -1.0, dtype, device)

    def explicit(self, torus: Torus, v: Tensor) -> tuple[Tensor, Tensor]:
        return _turning(self, torus, v)


@final
@dataclass(frozen=True)
class Kolmogorov(Evolution):
    """Kolmogorov flow on the torus of side 2 pi: ``w(0) (B, 1, H, W) -> w(time)``, dims (y, x).

    The velocity along x is pushed by ``amplitude sin(mode y)``; positive vorticity turns from x to
    y. Published choices: Re 200 without drag; Re 1000 or 100 with drag 0.1.

    Args:
        reynolds: Re; the viscosity is 1 / Re.
        drag: linear drag, at least 0.
        mode: wave number n of the forcing along y, amplitude: of the push on the velocity.
        time: final time.
        step: largest time step.
        order: of the time stepping.

    Raises:
        InputError: a number out of its range; see :class:`Evolution` for the call.
    """

    reynolds: float = 200.0
    drag: float = 0.0
    mode: int = 4
    amplitude: float = 1.0
    time: float = 1.0
    step: float = 0.01
    order: int = 4

    def __post_init__(self) -> None:
        check_numbers(self)
        if not (0.0 < self.reynolds < math.inf and 0.0 <= self.drag < math.inf and self.mode >= 1):
            raise InputError(
                f"Got reynolds={self.reynolds!r}, drag={self.drag!r}, mode={self.mode!r}; expected "
                "a positive number, one of at least 0 and a whole number of at least 1."
            )

    @property
    def channels(self) -> int:
        return 1

    def torus(self, sizes: tuple[int, ...]) -> Torus:
        return square(sizes, 2, 2.0 * math.pi, self.mode, "the forcing")

    def linear(self, torus: Torus) -> Tensor:
        return torus.laplacian() / self.reynolds - self.drag

    def tendency(self, torus: Torus, dtype: torch.dtype, device: torch.device) -> Tendency:
        wave = torch.cos(self.mode * torus.points(-2)).expand(torus.sizes)
        force = -self.mode * self.amplitude * wave
        return _advection(torus, force, 1.0, dtype, device)

    def explicit(self, torus: Torus, v: Tensor) -> tuple[Tensor, Tensor]:
        return _turning(self, torus, v)


def _advection(
    torus: Torus, force: Tensor, turn: float, dtype: torch.dtype, device: torch.device
) -> Tendency:
    """``w -> f - u . grad w`` in Fourier space, ``(B, 1, *half)``; ``turn`` is the sense of u."""
    slopes = torch.stack(torch.broadcast_tensors(torus.derivative(-1), torus.derivative(-2)))
    symbols = cast(torch.cat([-turn * torus.velocity(), slopes]), dtype, device)
    kept = cast(torus.kept(), dtype, device)
    pushed = cast(torus.spectrum(force), dtype, device)

    def tendency(w: Tensor) -> Tensor:
        u, v, w_x, w_y = torus.field(w * symbols).unbind(1)
        return torch.addcmul(pushed, torus.spectrum(u * w_x + v * w_y).unsqueeze(1), kept)

    return tendency


def _turning(equation: Evolution, torus: Torus, w: Tensor) -> tuple[Tensor, Tensor]:
    """Modes of equal number along both axes, carried by the fastest flow of the batch."""
    symbols = cast(torus.velocity(), w.real.dtype, w.device)
    speed = float(torus.field(w * symbols).abs().sum(1).max())
    number = torch.arange(min(torus.highest) + 1)
    k = torus.wave_number(-1).reshape(-1)[number]
    return equation.linear(torus)[number, number], 1j * speed * k
