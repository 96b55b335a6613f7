"""Fields on the torus and their Fourier coefficients: derivatives, dealiasing, velocity.

A torus of side ``L`` with ``S`` points along an axis has the points ``L i / S``, ``i = 0 .. S-1``;
the end is not repeated. A real field ``(..., *grid)`` has the half spectrum ``(..., *half)`` of
:func:`torch.fft.rfftn`, whose last axis holds the wave numbers ``0 .. S // 2`` only. With the
angular wave number ``k = 2 pi n / L``,

    d/dx        i k                 (0 at n = S / 2, where the slope of a real field is not seen)
    Laplace     -|k|^2              its inverse is 0 at k = 0: the answer has mean 0
    velocity    u = d psi / dy,  v = -d psi / dx,  -Laplace psi = w,  so  w = dv/dx - du/dy

with ``y`` the axis before the last and ``x`` the last. Products are taken at the points. The rule
of 2/3 keeps of a product the modes ``|n| < S / 3`` along every axis; if the factors hold no others,
what is kept of a product of two is exact.

Everything is a product with a symbol or an FFT: batched over leading axes and differentiable.

References:
    Spectral Methods in MATLAB, Trefethen, 2000, chapter 3 (derivatives). On the elimination of
    aliasing in finite-difference schemes by filtering high-wavenumber components, Orszag, 1971
    (the rule of 2/3).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from sciddm.errors import InputError


@final
@dataclass(frozen=True)
class Torus:
    """A periodic box with ``sizes`` points along its axes of the ``lengths`` given.

    Its symbols are float64 or complex128 tensors on the CPU that broadcast against ``(*half)``;
    cast them with :func:`cast` to the type of a field's spectrum.

    Raises:
        InputError: fewer than 4 points along an axis, or a length that is not positive.
    """

    sizes: tuple[int, ...]
    lengths: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.sizes) != len(self.lengths) or not self.sizes or min(self.sizes) < 4:
            raise InputError(
                f"Got a grid of {self.sizes} points over lengths {self.lengths}; expected at least "
                "4 points along each axis, the grid is too small for any wave: use more points."
            )
        if not all(0.0 < length < math.inf for length in self.lengths):
            raise InputError(f"Got lengths {self.lengths}; expected positive numbers.")

    @property
    def axes(self) -> tuple[int, ...]:
        """The grid axes of a field, counted from its end."""
        return tuple(range(-len(self.sizes), 0))

    @property
    def highest(self) -> tuple[int, ...]:
        """The highest mode along each axis that the rule of 2/3 keeps."""
        return tuple((size - 1) // 3 for size in self.sizes)

    def points(self, axis: int) -> Tensor:
        """The points ``L i / S`` of one axis, float64, shaped to broadcast over the grid."""
        size, length = self.sizes[axis], self.lengths[axis]
        values = torch.arange(size, dtype=torch.float64) * (length / size)
        return values.reshape(self._along(axis, size))

    def modes(self, axis: int) -> Tensor:
        """The whole numbers ``n`` of one axis of the half spectrum, float64, to broadcast."""
        size = self.sizes[axis]
        last = axis in (-1, len(self.sizes) - 1)
        make = torch.fft.rfftfreq if last else torch.fft.fftfreq
        n = torch.round(make(size, dtype=torch.float64) * size)
        return n.reshape(self._along(axis, len(n)))

    def wave_number(self, axis: int) -> Tensor:
        """The angular wave numbers ``k = 2 pi n / L`` of one axis, float64, to broadcast."""
        return self.modes(axis) * (2.0 * math.pi / self.lengths[axis])

    def derivative(self, axis: int, order: int = 1) -> Tensor:
        """Symbol ``(i k)^order`` of a derivative along one axis, complex128."""
        k = self.wave_number(axis)
        if order % 2 and self.sizes[axis] % 2 == 0:
            k = torch.where(self.modes(axis).abs() == self.sizes[axis] // 2, 0.0, k)
        return (1j * k) ** order

    def laplacian(self) -> Tensor:
        """Symbol ``-|k|^2`` of the Laplacian, float64 ``(*half)``."""
        squares = [self.wave_number(axis) ** 2 for axis in self.axes]
        return -functools.reduce(torch.add, squares)

    def inverse_laplacian(self) -> Tensor:
        """Symbol of the inverse Laplacian that gives mean 0, float64 ``(*half)``."""
        symbol = self.laplacian()
        return torch.where(symbol == 0.0, 0.0, 1.0 / torch.where(symbol == 0.0, 1.0, symbol))

    def velocity(self) -> Tensor:
        """Symbols that turn the vorticity of a 2-D flow into ``(u, v)``, complex128 ``(2, *half)``.

        ``u`` blows along the last axis (x), ``v`` along the one before it (y).
        """
        stream = -self.inverse_laplacian()
        return torch.stack([self.derivative(-2) * stream, -self.derivative(-1) * stream])

    def kept(self) -> Tensor:
        """1 for the modes that the rule of 2/3 keeps and 0 for the others, float64 ``(*half)``."""
        masks = [
            (self.modes(axis).abs() <= limit).to(torch.float64)
            for axis, limit in zip(self.axes, self.highest, strict=True)
        ]
        return functools.reduce(torch.mul, masks)

    def spectrum(self, x: Tensor) -> Tensor:
        """Half spectrum of real fields: ``(..., *grid) -> (..., *half)``, not normalised."""
        return torch.fft.rfftn(x, dim=self.axes)

    def field(self, coefficients: Tensor) -> Tensor:
        """Inverse of :meth:`spectrum`: ``(..., *half) -> (..., *grid)``."""
        return torch.fft.irfftn(coefficients, s=self.sizes, dim=self.axes)

    def _along(self, axis: int, size: int) -> tuple[int, ...]:
        shape = [1] * len(self.sizes)
        shape[axis] = size
        return tuple(shape)


def cast(symbol: Tensor, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A symbol in the precision of a real ``dtype``: complex symbols become its complex partner."""
    kind = dtype.to_complex() if symbol.is_complex() else dtype
    return symbol.to(device=device, dtype=kind)


def differentiate(x: Tensor, torus: Torus, axis: int, order: int = 1) -> Tensor:
    """Derivative of real fields along one grid axis: ``(..., *grid) -> (..., *grid)``."""
    symbol = cast(torus.derivative(axis, order), x.dtype, x.device)
    return torus.field(torus.spectrum(x) * symbol)


def velocity(vorticity: Tensor, torus: Torus) -> Tensor:
    """Velocity ``(u, v)`` of mean 0 with the vorticity given: ``(..., H, W) -> (..., 2, H, W)``."""
    symbols = cast(torus.velocity(), vorticity.dtype, vorticity.device)
    return torus.field(torus.spectrum(vorticity).unsqueeze(-3) * symbols)
