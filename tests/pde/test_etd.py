from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from sciddm.errors import InputError
from sciddm.pde.etd import growth, integrate, largest_step, phi, stepper
from sciddm.pde.periodic import Burgers
from sciddm.pde.spectral import Torus


def _series(z: complex, k: int) -> complex:
    """phi_k as its power series, for small |z|."""
    return sum(z**j / math.factorial(j + k) for j in range(30))


@pytest.mark.parametrize("z", [0.0, 1e-8, -0.3, 1.0, -1.0, 0.7 - 0.9j, -2.5j])
def test_phi_near_zero_are_their_series(z: complex) -> None:
    real = isinstance(z, float)
    got = phi(torch.tensor([z], dtype=torch.float64 if real else torch.complex128))
    for k, value in enumerate(got, start=1):
        assert value.is_complex() != real
        assert complex(value[0]) == pytest.approx(_series(z, k), rel=1e-13)


def test_phi_far_from_zero_obey_their_recurrence() -> None:
    z = torch.tensor([-1e6, -300.0, -30.0, 30.0], dtype=torch.float64)
    one, two, three = phi(z)
    torch.testing.assert_close(one, torch.expm1(z) / z, rtol=1e-13, atol=0)
    torch.testing.assert_close(two, (one - 1) / z, rtol=1e-13, atol=0)
    torch.testing.assert_close(three, (two - 0.5) / z, rtol=1e-13, atol=0)


def _steepening(order: int, steps: int) -> Tensor:
    """Burgers with h |L| up to 100: a stiff problem that is not linear at all."""
    torus = Torus((96,), (1.0,))
    x = torus.points(-1)
    u = torch.sin(2 * math.pi * x) + 0.5 * torch.cos(4 * math.pi * x + 1)
    equation = Burgers(viscosity=0.02)
    v = torus.spectrum(u)[None, None] * torus.kept()
    tendency = equation.tendency(torus, torch.float64, v.device)
    rule = stepper(equation.linear(torus), 0.2 / steps, order)
    return torus.field(integrate(v, rule, tendency, steps))


@pytest.mark.parametrize(("order", "steps"), [(1, 160), (2, 80), (3, 40), (4, 40)])
def test_the_measured_order_is_the_order(order: int, steps: int) -> None:
    exact = _steepening(4, 1000)
    errors = [float((_steepening(order, steps * f) - exact).norm()) for f in (1, 2, 4)]
    slopes = [math.log2(errors[i] / errors[i + 1]) for i in range(2)]
    assert slopes[1] == pytest.approx(order, abs=0.12)
    assert slopes[0] == pytest.approx(order, abs=0.3)


@pytest.mark.parametrize("order", range(5))
def test_a_constant_tendency_and_a_linear_part_are_exact(order: int) -> None:
    linear = torch.tensor([-1e5, -3.0, 0.0, 0.4], dtype=torch.float64)
    v = torch.tensor([[1.0, -2.0, 0.5, 3.0]], dtype=torch.float64)
    push = torch.tensor([2.0, 1.0, -1.0, 0.3], dtype=torch.float64) * (order > 0)
    got = integrate(v, stepper(linear, 0.25, order), lambda _: push, 4)
    safe = torch.where(linear == 0, 1.0, linear)
    along = torch.where(linear == 0, 1.0, torch.expm1(linear) / safe)
    torch.testing.assert_close(got, torch.exp(linear) * v + along * push, rtol=1e-12, atol=1e-15)


def test_without_a_linear_part_order_four_is_the_classical_rule() -> None:
    def slope(v: Tensor) -> Tensor:
        return torch.sin(3 * v) - v**2

    v = torch.linspace(-1, 1, 7, dtype=torch.float64)[None]
    h = 0.1
    k1 = slope(v)
    k2 = slope(v + h / 2 * k1)
    k3 = slope(v + h / 2 * k2)
    k4 = slope(v + h * k3)
    expected = v + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    got = stepper(torch.zeros(7, dtype=torch.float64), h, 4)(v, slope)
    torch.testing.assert_close(got, expected, rtol=1e-13, atol=1e-15)


class _Living(TorchDispatchMode):
    """Holds a weak reference to the storage of everything that is computed under it."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        out = func(*args, **(kwargs or {}))
        for one in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(one, Tensor):
                storage = one.untyped_storage()
                reference = StorageWeakRef(storage)
                self.seen[reference.cdata] = (reference, storage.nbytes())
        return out

    def bytes(self) -> int:
        return sum(size for reference, size in self.seen.values() if not reference.expired())


def _kept_for_backward(steps: int) -> int:
    torus = Torus((64,), (1.0,))
    equation = Burgers()
    tendency = equation.tendency(torus, torch.float64, torch.device("cpu"))
    rule = stepper(equation.linear(torus), 1e-3, 4)
    v = torch.randn(4, 1, 33, dtype=torch.complex128, requires_grad=True)
    with _Living() as living:
        out = integrate(v, rule, tendency, steps)
        held = living.bytes()
    out.abs().sum().backward()
    return held


def test_what_is_held_for_the_backward_pass_grows_like_the_root_of_the_steps() -> None:
    one_state = 4 * 33 * 16
    few, many = _kept_for_backward(16), _kept_for_backward(256)
    assert few <= 6 * one_state and many <= 20 * one_state
    assert many <= 4.2 * few


@pytest.mark.parametrize("steps", [1, 2, 7, 30])
def test_checkpoints_change_neither_value_nor_gradient(steps: int) -> None:
    def slope(v: Tensor) -> Tensor:
        return torch.sin(v) * v.roll(1, -1)

    linear = torch.tensor([-3.0, -0.1, 0.0], dtype=torch.float64)
    rule = stepper(linear, 0.1, 3)
    v = torch.tensor([[0.3, 1.0, -2.0]], dtype=torch.float64, requires_grad=True)
    plain = v
    for _ in range(steps):
        plain = rule(plain, slope)
    checked = integrate(v, rule, slope, steps)
    assert torch.equal(plain, checked)
    (a,) = torch.autograd.grad(plain.square().sum(), v)
    (b,) = torch.autograd.grad(checked.square().sum(), v)
    torch.testing.assert_close(a, b, rtol=1e-13, atol=0)


def test_the_stable_step_of_a_wave_is_the_textbook_one() -> None:
    wave = torch.tensor([2.0j], dtype=torch.complex128)
    free = torch.zeros(1, dtype=torch.float64)
    assert largest_step(free, wave, 100.0, 4, 1e-9) == pytest.approx(math.sqrt(8) / 2, rel=0.03)
    assert largest_step(free, wave, 100.0, 3, 1e-9) == pytest.approx(math.sqrt(3) / 2, rel=0.03)
    # Euler's rule lets a wave grow at the rate h e^2 / 2, whatever the step.
    assert growth(free, wave, 1e-3, 1) == pytest.approx(1e-3 * 4 / 2, rel=1e-3)
    decay = torch.tensor([-5.0 + 0j], dtype=torch.complex128)
    assert largest_step(free, decay, 100.0, 1, 1e-9) == pytest.approx(2 / 5, rel=0.03)


def test_impossible_rules_are_refused() -> None:
    linear = torch.zeros(2, dtype=torch.float64)
    with pytest.raises(InputError, match="expected 0"):
        stepper(linear, 0.1, 5)
    with pytest.raises(InputError, match="positive"):
        stepper(linear, 0.0, 4)
