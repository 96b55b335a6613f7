"""What the time-dependent equations of the torus share: shapes, steps, records and refusals.

An equation says its linear symbol, its nonlinear tendency in Fourier space and how fast the
explicit part turns or decays its modes. The rest is here: a field ``(B, C, *grid)`` goes to its
spectrum, is stepped by :mod:`sciddm.pde.etd` with the largest equal step not above ``step``, and
comes back with its type and device. A step that would let a mode of the explicit part grow is
refused before it is taken.
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from sciddm.errors import InputError
from sciddm.pde.etd import Stepper, Tendency, growth, integrate, largest_step, stepper
from sciddm.pde.spectral import Torus


class Evolution(ABC):
    """``dx/dt = L x + N(x)`` on a torus: ``x(0) (B, C, *grid) -> x(time) (B, C, *grid)``.

    A subclass is a frozen dataclass of numbers. Its call and :meth:`trajectory` raise `InputError`
    for a wrong shape, a field that is not finite, a grid too small for the equation's modes, a
    step above the largest stable one (named in the message), and a solution that blows up.
    """

    time: float
    step: float
    order: int

    @property
    @abstractmethod
    def channels(self) -> int:
        """Number of fields C."""

    @abstractmethod
    def torus(self, sizes: tuple[int, ...]) -> Torus:
        """The grid of that many points along each axis.

        Raises:
            InputError: a wrong number of axes, or too few points for the equation.
        """

    @abstractmethod
    def linear(self, torus: Torus) -> Tensor:
        """Symbol of L, ``(*half)`` or ``(C, *half)``, float64 or complex128."""

    @abstractmethod
    def tendency(self, torus: Torus, dtype: torch.dtype, device: torch.device) -> Tendency:
        """N from spectrum to spectrum, ``(B, C, *half)`` to the same, in that precision."""

    @abstractmethod
    def explicit(self, torus: Torus, v: Tensor) -> tuple[Tensor, Tensor]:
        """The fastest modes of N linearised at a state ``v``, with L there: two ``(K,)`` tensors.

        Float64 and complex128; empty where N has no influence on stability.
        """

    def __call__(self, x: Tensor) -> Tensor:
        return self.trajectory(x, (self.time,)).squeeze(2)

    def trajectory(self, x: Tensor, times: Sequence[float]) -> Tensor:
        """The solution at ascending ``times`` from 0 on: ``(B, C, *grid) -> (B, C, T, *grid)``."""
        before = [0.0, *times[:-1]]
        if not times or any(not b <= a < math.inf for a, b in zip(times, before, strict=True)):
            raise InputError(
                f"Got times {tuple(times)}; expected one or more, ascending from 0: (0.5, 1.0)."
            )
        if x.ndim < 3 or x.shape[1] != self.channels or not x.is_floating_point():
            raise InputError(
                f"Got a field of shape {tuple(x.shape)} and type {x.dtype}; expected floating "
                f"point (B, {self.channels}, *grid) for {type(self).__name__}."
            )
        sizes = tuple(x.shape[2:])
        torus = self.torus(sizes)
        if not bool(torch.isfinite(x.detach()).all()):
            raise InputError("Got a field with values that are not finite; fill or drop them.")
        if not len(x):
            return x.unsqueeze(2).expand(-1, -1, len(times), *sizes)
        tendency = _tendency(self, sizes, x.dtype, x.device)
        v, records = torus.spectrum(x), []
        for start, end in zip(before, times, strict=True):
            if end > start:
                count = max(1, math.ceil((end - start) / self.step - 1e-9))
                length = (end - start) / count
                self._refuse_unstable(torus, v.detach(), length, end - start)
                one_step = _stepper(self, sizes, x.dtype, x.device, length)
                v = integrate(v, one_step, tendency, count)
            records.append(torus.field(v) if end > 0.0 else x)
        out = torch.stack(records, dim=2)
        if not bool(torch.isfinite(out.detach()).all()):
            raise InputError(
                f"The solution of {type(self).__name__} grew without bound at step {self.step:g}; "
                "use a smaller step or a finer grid."
            )
        return out

    def _refuse_unstable(self, torus: Torus, v: Tensor, step: float, interval: float) -> None:
        linear, explicit = self.explicit(torus, v)
        # e-fold over the whole interval: Euler's rule always lets waves grow a little.
        rate = 1.0 / interval
        if len(explicit) == 0 or growth(linear, explicit, step, self.order) <= rate:
            return
        largest = _rounded_down(largest_step(linear, explicit, step, self.order, rate))
        raise InputError(
            f"Got a time step of {self.step:g} for {type(self).__name__} on {torus.sizes} points; "
            f"expected at most {largest:g}, the largest stable one for this field at order "
            f"{self.order}; pass step={largest:g}."
        )


@functools.lru_cache(maxsize=32)
def _tendency(
    equation: Evolution, sizes: tuple[int, ...], dtype: torch.dtype, device: torch.device
) -> Tendency:
    # A cache filled under inference mode would hold tensors that no later graph can save.
    with torch.inference_mode(False):
        return equation.tendency(equation.torus(sizes), dtype, device)


@functools.lru_cache(maxsize=32)
def _stepper(
    equation: Evolution,
    sizes: tuple[int, ...],
    dtype: torch.dtype,
    device: torch.device,
    step: float,
) -> Stepper:
    with torch.inference_mode(False):
        rule = stepper(equation.linear(equation.torus(sizes)), step, equation.order)
        return rule.to(dtype, device)


def _rounded_down(value: float) -> float:
    """The value with two digits, not above it."""
    if value <= 0.0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.floor(value / unit) * unit:.2g}")


def check_numbers(equation: Evolution) -> None:
    """Refuse a final time or step that is not positive, or an order that is none of 0-4."""
    if not (0.0 < equation.time < math.inf and 0.0 < equation.step < math.inf):
        raise InputError(
            f"Got time={equation.time!r} and step={equation.step!r}; expected positive numbers."
        )
    if equation.order not in range(5):
        raise InputError(f"Got order={equation.order!r}; expected 0, 1, 2, 3 or 4.")


def square(sizes: tuple[int, ...], axes: int, length: float, mode: int, name: str) -> Torus:
    """A torus of one length along all ``axes``; ``mode`` is the highest that must be resolved."""
    if len(sizes) != axes:
        raise InputError(
            f"Got a grid of {sizes} points; expected {axes} axes for {name}, (B, C, "
            f"{', '.join('HW'[:axes])})."
        )
    torus = Torus(sizes, (length,) * axes)
    if min(torus.highest) < mode:
        raise InputError(
            f"Got a grid of {sizes} points, which keeps {min(torus.highest)} modes; expected at "
            f"least {mode} for {name}, use {3 * mode + 1} points or more a side."
        )
    return torus
