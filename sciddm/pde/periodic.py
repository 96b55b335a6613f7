"""Equations on the torus that are not flows: heat, advection, Burgers, Kuramoto-Sivashinsky, two
reacting species.

    Heat                  u_t = D Laplace u
    Advection             u_t + c . grad u = D Laplace u
    Burgers               u_t + (u^2 / 2)_x = nu u_xx
    KuramotoSivashinsky   u_t + u u_x + u_xx + u_xxxx = 0
    GrayScott             a_t = D_a Laplace a - a b^2 + F (1 - a)
                          b_t = D_b Laplace b + a b^2 - (F + k) b

The first two are linear and exact at any time: one product with a symbol. The others take steps of
:mod:`sciddm.pde.etd`; their products are taken at the points, with the rule of 2/3 on the result.
Burgers and Kuramoto-Sivashinsky are written with a derivative outside, so that the mean of u keeps
its value to rounding.

References:
    Fourth-Order Time-Stepping for Stiff PDEs, Kassam and Trefethen, 2005, sections 4 and 5
    (Burgers, Kuramoto-Sivashinsky). Complex Patterns in a Simple System, Pearson, 1993 (Gray-Scott
    on a square of side 2.5 with D_a = 2e-5, D_b = 1e-5).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import final

import torch
from torch import Tensor

from sciddm.errors import InputError
from sciddm.pde.etd import Tendency
from sciddm.pde.evolution import Evolution, check_numbers, square
from sciddm.pde.spectral import Torus, cast


@final
@dataclass(frozen=True)
class Heat(Evolution):
    """``u_t = D Laplace u``, exact: ``u(0) (B, 1, *grid) -> u(time)``, 1 to 3 grid axes.

    Args:
        diffusivity: D, at least 0.
        time: final time.
        length: side of the torus.
    """

    diffusivity: float = 1e-3
    time: float = 1.0
    length: float = 1.0
    step: float = field(default=math.inf, init=False, repr=False)
    order: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        _check_linear(self.time, self.diffusivity)

    @property
    def channels(self) -> int:
        return 1

    def torus(self, sizes: tuple[int, ...]) -> Torus:
        return Torus(sizes, (self.length,) * len(sizes))

    def linear(self, torus: Torus) -> Tensor:
        return self.diffusivity * torus.laplacian()

    def tendency(self, torus: Torus, dtype: torch.dtype, device: torch.device) -> Tendency:
        return torch.zeros_like

    def explicit(self, torus: Torus, v: Tensor) -> tuple[Tensor, Tensor]:
        return _nothing()


@final
@dataclass(frozen=True)
class Advection(Evolution):
    """``u_t + c . grad u = D Laplace u``, exact: ``u(0) (B, 1, *grid) -> u(time)``.

    A wave of the highest mode of an even grid is left where it is: its shift cannot be seen there.

    Args:
        velocity: c, one number for each grid axis in the order of the axes.
        diffusivity: D, at least 0.
        time: final time.
        length: side of the torus.
    """

    velocity: tuple[float, ...] = (1.0,)
    diffusivity: float = 0.0
    time: float = 1.0
    length: float = 1.0
    step: float = field(default=math.inf, init=False, repr=False)
    order: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        _check_linear(self.time, self.diffusivity)
        if not self.velocity or not all(math.isfinite(c) for c in self.velocity):
            raise InputError(f"Got velocity={self.velocity!r}; expected a finite number an axis.")

    @property
    def channels(self) -> int:
        return 1

    def torus(self, sizes: tuple[int, ...]) -> Torus:
        return square(sizes, len(self.velocity), self.length, 1, "Advection")

    def linear(self, torus: Torus) -> Tensor:
        symbol = self.diffusivity * torus.laplacian().to(torch.complex128)
        for axis, speed in zip(torus.axes, self.velocity, strict=True):
            symbol = symbol - speed * torus.derivative(axis)
        return symbol

    def tendency(self, torus: Torus, dtype: torch.dtype, device: torch.device) -> Tendency:
        return torch.zeros_like

    def explicit(self, torus: Torus, v: Tensor) -> tuple[Tensor, Tensor]:
        return _nothing()


@final
@dataclass(frozen=True)
class Burgers(Evolution):
    """``u_t + (u^2 / 2)_x = nu u_xx``: ``u(0) (B, 1, W) -> u(time) (B, 1, W)``.

    A shock is about ``4 nu / |jump|`` wide; a grid that does not resolve it answers with ripples.

    Args:
        viscosity: nu, above 0.
        time: final time.
        step: largest time step.
        length: side of the torus.
        order: of the time stepping.
    """

    viscosity: float = 1e-2
    time: float = 1.0
    step: float = 1e-2
    length: float = 1.0
    order: int = 4

    def __post_init__(self) -> None:
        check_numbers(self)
        if not 0.0 < self.viscosity < math.inf:
            raise InputError(f"Got viscosity={self.viscosity!r}; expected a positive number.")

    @property
    def channels(self) -> int:
        return 1

    def torus(self, sizes: tuple[int, ...]) -> Torus:
        return square(sizes, 1, self.length, 1, "Burgers")

    def linear(self, torus: Torus) -> Tensor:
        return self.viscosity * torus.laplacian()

    def tendency(self, torus: Torus, dtype: torch.dtype, device: torch.device) -> Tendency:
        return _steepening(torus, dtype, device)

    def explicit(self, torus: Torus, v: Tensor) -> tuple[Tensor, Tensor]:
        return _carried(self, torus, v)


@final
@dataclass(frozen=True)
class KuramotoSivashinsky(Evolution):
    """``u_t + u u_x + u_xx + u_xxxx = 0``: ``u(0) (B, 1, W) -> u(time) (B, 1, W)``.

    Chaotic from a length of about 22 on; errors grow by e in about 10 time units.

    Args:
        time: final time.
        step: largest time step.
        length: side L of the torus.
        order: of the time stepping.
    """

    time: float = 1.0
    step: float = 0.1
    length: float = 64.0
    order: int = 4

    def __post_init__(self) -> None:
        check_numbers(self)

    @property
    def channels(self) -> int:
        return 1

    def torus(self, sizes: tuple[int, ...]) -> Torus:
        # All modes that grow, |k| < 1, and half as many again that take their energy.
        return square(sizes, 1, self.length, math.ceil(1.5 * self.length / (2 * math.pi)), "waves")

    def linear(self, torus: Torus) -> Tensor:
        k2 = -torus.laplacian()
        return k2 - k2**2

    def tendency(self, torus: Torus, dtype: torch.dtype, device: torch.device) -> Tendency:
        return _steepening(torus, dtype, device)

    def explicit(self, torus: Torus, v: Tensor) -> tuple[Tensor, Tensor]:
        return _carried(self, torus, v)


@final
@dataclass(frozen=True)
class GrayScott(Evolution):
    """Two reacting species: ``(a, b)(0) (B, 2, H, W) -> (a, b)(time) (B, 2, H, W)``.

    Args:
        feed: F. kill: k; 0.04 and 0.06 give spots and worms.
        diffusion_a, diffusion_b: D_a and D_b.
        time: final time.
        step: largest time step.
        length: side of the square.
        order: of the time stepping.
    """

    feed: float = 0.04
    kill: float = 0.06
    diffusion_a: float = 2e-5
    diffusion_b: float = 1e-5
    time: float = 100.0
    step: float = 1.0
    length: float = 2.5
    order: int = 4

    def __post_init__(self) -> None:
        check_numbers(self)
        numbers = (self.feed, self.kill, self.diffusion_a, self.diffusion_b)
        if not all(0.0 <= value < math.inf for value in numbers):
            raise InputError(
                f"Got feed, kill and diffusion {numbers}; expected numbers of at least 0."
            )

    @property
    def channels(self) -> int:
        return 2

    def torus(self, sizes: tuple[int, ...]) -> Torus:
        return square(sizes, 2, self.length, 1, "GrayScott")

    def linear(self, torus: Torus) -> Tensor:
        laplacian = torus.laplacian()
        return torch.stack(
            [
                self.diffusion_a * laplacian - self.feed,
                self.diffusion_b * laplacian - (self.feed + self.kill),
            ]
        )

    def tendency(self, torus: Torus, dtype: torch.dtype, device: torch.device) -> Tendency:
        kept = cast(torus.kept(), dtype, device)
        ones = torch.ones(torus.sizes, dtype=torch.float64)
        fed = cast(torus.spectrum(torch.stack([self.feed * ones, 0.0 * ones])), dtype, device)
        sign = torch.tensor([-1.0, 1.0], dtype=dtype, device=device)[:, None, None]

        def tendency(v: Tensor) -> Tensor:
            a, b = torus.field(v).unbind(1)
            return fed + sign * (torus.spectrum(a * b * b) * kept).unsqueeze(1)

        return tendency

    def explicit(self, torus: Torus, v: Tensor) -> tuple[Tensor, Tensor]:
        a, b = torus.field(v).unbind(1)
        rates = torch.stack([-b.square().max(), (2.0 * a * b).max()]).cpu()
        linear = torch.tensor([-self.feed, -self.feed - self.kill], dtype=torch.float64)
        return linear, rates.to(torch.complex128)


def _steepening(torus: Torus, dtype: torch.dtype, device: torch.device) -> Tendency:
    """``u -> -(u^2 / 2)_x`` in Fourier space, ``(B, 1, half)``."""
    symbol = cast(-0.5 * torus.derivative(-1) * torus.kept(), dtype, device)

    def tendency(u: Tensor) -> Tensor:
        return torus.spectrum(torus.field(u).square()) * symbol

    return tendency


def _carried(equation: Evolution, torus: Torus, u: Tensor) -> tuple[Tensor, Tensor]:
    """The modes that are kept, carried by the fastest value of the batch."""
    speed = float(torus.field(u).abs().max())
    last = torus.highest[-1] + 1
    return equation.linear(torus)[:last], 1j * speed * torus.wave_number(-1)[:last]


def _nothing() -> tuple[Tensor, Tensor]:
    return torch.empty(0, dtype=torch.float64), torch.empty(0, dtype=torch.complex128)


def _check_linear(time: float, diffusivity: float) -> None:
    if not (0.0 < time < math.inf and 0.0 <= diffusivity < math.inf):
        raise InputError(
            f"Got time={time!r} and diffusivity={diffusivity!r}; expected a positive time and a "
            "diffusivity of at least 0: the heat equation cannot be run backwards."
        )
