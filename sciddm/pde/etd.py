"""Exponential time differencing: the stiff linear part exactly, the rest by a Runge-Kutta rule.

For ``dv/dt = L v + N(v)`` with a diagonal ``L`` (a symbol), ``z = h L``, and

    phi_1 = (e^z - 1) / z,   phi_2 = (phi_1 - 1) / z,   phi_3 = (phi_2 - 1/2) / z,

the rules of order 0 to 4 are

    0   e^z v                                                            (N left out)
    1   e^z v + h phi_1 N(v)
    2   a + h phi_2 (N(a) - N(v)),                                       a = rule 1
    3   e^z v + h (b_1 N(v) + 2 b_2 N(a) + b_3 N(b)),                    a at h/2, b at h
    4   e^z v + h (b_1 N(v) + b_2 (N(a) + N(b)) + b_3 N(c)),             a, b at h/2, c at h
    b_1 = phi_1 - 3 phi_2 + 4 phi_3,  b_2 = 2 phi_2 - 4 phi_3,  b_3 = 4 phi_3 - phi_2.

For ``L = 0`` these are Euler, Heun, Kutta's third and the classical fourth order rule. The phi
cancel badly near 0, so they are means over a circle round ``z`` (their value at the centre, as for
any analytic function); 32 points give rounding error.

Between checkpoints the backward pass runs the steps again, so that it keeps about ``2 sqrt(n)``
states for n steps in place of n times the stages.

References:
    Exponential Time Differencing for Stiff Systems, Cox and Matthews, 2002, eqs. (17), (20)-(29).
    Fourth-Order Time-Stepping for Stiff PDEs, Kassam and Trefethen, 2005, section 2 (the circle).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import final

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sciddm.errors import InputError

_POINTS = 32
Tendency = Callable[[Tensor], Tensor]


def phi(z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``phi_1, phi_2, phi_3`` of a float64 or complex128 tensor, to rounding, each like ``z``."""
    angles = (torch.arange(_POINTS, dtype=torch.float64) + 0.5) * (2.0 * math.pi / _POINTS)
    circle = z.unsqueeze(-1) + torch.polar(torch.ones_like(angles), angles)
    one = (torch.exp(circle) - 1.0) / circle
    two = (one - 1.0) / circle
    three = (two - 0.5) / circle
    means = [p.mean(-1) for p in (one, two, three)]
    return tuple(m if z.is_complex() else m.real for m in means)  # type: ignore[return-value]


@final
@dataclass(frozen=True, eq=False)
class Stepper:
    """One step of the rule of an order: the weights for a linear part and a step length.

    Make one with :func:`stepper`. The weights broadcast against the state; a rule that does not
    use one holds an empty tensor there.
    """

    order: int
    decay: Tensor
    half_decay: Tensor
    first: Tensor
    half_first: Tensor
    second: Tensor
    b1: Tensor
    b2: Tensor
    b3: Tensor

    def __call__(self, v: Tensor, tendency: Tendency) -> Tensor:
        """The state one step later, ``(B, ...) -> (B, ...)``."""
        if self.order == 0:
            return self.decay * v
        n = tendency(v)
        if self.order == 1:
            return self.decay * v + self.first * n
        if self.order == 2:
            a = self.decay * v + self.first * n
            return a + self.second * (tendency(a) - n)
        half = self.half_decay * v
        a = half + self.half_first * n
        n_a = tendency(a)
        if self.order == 3:
            n_b = tendency(self.decay * v + self.first * (2.0 * n_a - n))
            return self.decay * v + self.b1 * n + 2.0 * self.b2 * n_a + self.b3 * n_b
        n_b = tendency(half + self.half_first * n_a)
        n_c = tendency(self.half_decay * a + self.half_first * (2.0 * n_b - n))
        return self.decay * v + self.b1 * n + self.b2 * (n_a + n_b) + self.b3 * n_c

    def to(self, dtype: torch.dtype, device: torch.device) -> Stepper:
        """The same weights in the precision of a real ``dtype`` and on a device."""
        values = [getattr(self, f.name) for f in fields(self)[1:]]
        kinds = [dtype.to_complex() if value.is_complex() else dtype for value in values]
        cast = [v.to(device=device, dtype=k) for v, k in zip(values, kinds, strict=True)]
        return Stepper(self.order, *cast)


def stepper(linear: Tensor, step: float, order: int) -> Stepper:
    """Weights of the rule of ``order`` 0-4 for a diagonal ``linear`` part, float64 or complex128.

    Raises:
        InputError: an order that is none of 0-4, or a step that is not positive and finite.
    """
    if order not in range(5):
        raise InputError(f"Got order {order!r}; expected 0 (linear part only), 1, 2, 3 or 4.")
    if not 0.0 < step < math.inf:
        raise InputError(f"Got a time step of {step!r}; expected a positive number.")
    z, none = step * linear, torch.empty(0, dtype=torch.float64)
    one, two, three = (step * p for p in phi(z))
    half = 0.5 * step * phi(0.5 * z)[0]
    return Stepper(
        order,
        decay=torch.exp(z),
        half_decay=torch.exp(0.5 * z) if order > 2 else none,
        first=one if order in (1, 2, 3) else none,
        half_first=half if order > 2 else none,
        second=two if order == 2 else none,
        b1=one - 3.0 * two + 4.0 * three if order > 2 else none,
        b2=2.0 * two - 4.0 * three if order > 2 else none,
        b3=4.0 * three - two if order > 2 else none,
    )


def integrate(v: Tensor, one_step: Stepper, tendency: Tendency, steps: int) -> Tensor:
    """The state after ``steps`` steps, ``(B, ...) -> (B, ...)``.

    Where a gradient is wanted the steps are run in segments of about ``sqrt(steps)`` and each is
    run once more in the backward pass.
    """
    segment = math.isqrt(max(1, steps - 1)) + 1
    for start in range(0, steps, segment):
        count = min(segment, steps - start)
        if torch.is_grad_enabled() and v.requires_grad and steps > 1:
            v = checkpoint(
                _run, v, one_step, tendency, count, use_reentrant=False, preserve_rng_state=False
            )
        else:
            v = _run(v, one_step, tendency, count)
    return v


def _run(v: Tensor, one_step: Stepper, tendency: Tendency, steps: int) -> Tensor:
    for _ in range(steps):
        v = one_step(v, tendency)
    return v


def growth(linear: Tensor, explicit: Tensor, step: float, order: int) -> float:
    """Largest rate ``log |R| / h`` at which a step lets a mode of ``v' = (L + e) v`` grow.

    ``linear (K,)`` holds the exact part of each mode and ``explicit (K,)``, complex128, what the
    rule sees as N: for a flow i times its speed times the wave number. A mode that grows by itself
    counts from its own rate.
    """
    rule = stepper(linear, step, order)
    start = torch.ones(len(explicit), dtype=torch.complex128)
    end = rule(start, lambda v: explicit * v)
    own = (linear + explicit).real.clamp_min(0.0)
    return float((torch.log(end.abs().clamp_min(1e-300)) / step - own).max())


def largest_step(linear: Tensor, explicit: Tensor, step: float, order: int, rate: float) -> float:
    """Largest step up to ``step`` at which no mode grows faster than ``rate``, by halving.

    Found to 2 %; 0 where there is none above ``step / 2^40``. See :func:`growth`.
    """
    if growth(linear, explicit, step, order) <= rate:
        return step
    low, high = 0.0, step
    for trial in _halves(step):
        if growth(linear, explicit, trial, order) <= rate:
            low = trial
            break
        high = trial
    while low > 0.0 and high > 1.02 * low:
        middle = 0.5 * (low + high)
        if growth(linear, explicit, middle, order) <= rate:
            low = middle
        else:
            high = middle
    return low


def _halves(step: float) -> Iterator[float]:
    for power in range(1, 41):
        yield step * 0.5**power
