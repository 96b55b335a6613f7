from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from sciddm.errors import InputError
from sciddm.model import CLASSES
from sciddm.pde import (
    Advection,
    Burgers,
    GrayScott,
    Heat,
    Kolmogorov,
    KuramotoSivashinsky,
    NavierStokes,
    PeriodicField,
)
from sciddm.pde.evolution import Evolution
from sciddm.pde.spectral import Torus, velocity

TAU = 2 * math.pi


def _waves(*sizes: int, seed: int = 0, batch: int = 2, channels: int = 1) -> Tensor:
    """Random fields of modes up to 3, of mean 0 and size 1."""
    torus = Torus(sizes, (1.0,) * len(sizes))
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(batch, channels, *sizes, dtype=torch.float64, generator=generator)
    keep = torch.ones(())
    for axis in torus.axes:
        keep = keep * (torus.modes(axis).abs() <= 3)
    spectrum = torus.spectrum(noise) * keep
    spectrum.view(batch, channels, -1)[..., 0] = 0.0
    field = torus.field(spectrum)
    return field / field.flatten(1).std(1).reshape(batch, 1, *(1 for _ in sizes))


CASES: list[tuple[Evolution, Tensor]] = [
    (Heat(), _waves(12, 10)),
    (Advection(velocity=(0.3, -1.0), diffusivity=0.01), _waves(12, 10)),
    (Burgers(time=0.1), _waves(48)),
    (KuramotoSivashinsky(time=3.0, length=22.0), _waves(48)),
    (GrayScott(time=20.0), 0.4 + 0.1 * _waves(16, 12, channels=2)),
    (NavierStokes(time=0.5), _waves(16, 20)),
    (Kolmogorov(time=0.2, reynolds=50.0, drag=0.1, mode=2, step=0.05), 3 * _waves(20, 16)),
]
NAMES = [type(equation).__name__ for equation, _ in CASES]
each = pytest.mark.parametrize(("equation", "x"), CASES, ids=NAMES)


@each
def test_a_field_is_the_same_in_a_batch_as_alone(equation: Evolution, x: Tensor) -> None:
    together = equation(x)
    alone = torch.cat([equation(row[None]) for row in x])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-13 * float(together.abs().max()))


@each
def test_type_is_kept_and_single_precision_is_close(equation: Evolution, x: Tensor) -> None:
    exact, single = equation(x), equation(x.float())
    assert exact.dtype == torch.float64 and single.dtype == torch.float32
    assert exact.shape == x.shape
    assert 1e-10 < float((single - exact).norm() / exact.norm()) < 1e-5


@each
def test_records_are_the_states_on_the_way(equation: Evolution, x: Tensor) -> None:
    half = 0.5 * equation.time
    records = equation.trajectory(x, (0.0, half, equation.time))
    assert records.shape == (*x.shape[:2], 3, *x.shape[2:])
    assert torch.equal(records[:, :, 0], x)
    again = equation.trajectory(records[:, :, 1], (half,))[:, :, 0]
    torch.testing.assert_close(records[:, :, 2], again, rtol=0, atol=1e-11)
    torch.testing.assert_close(records[:, :, 2], equation(x), rtol=0, atol=1e-3)


@each
def test_gradients_forward_and_backward_are_those_of_differences(
    equation: Evolution, x: Tensor
) -> None:
    along, weight = _waves(*x.shape[2:], seed=5, channels=x.shape[1]), torch.randn_like(x)
    h = 1e-5
    difference = (equation(x + h * along) - equation(x - h * along)) / (2 * h)
    _, tangent = torch.func.jvp(equation, (x,), (along,))
    assert float((tangent - difference).norm() / difference.norm()) < 1e-7
    free = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(equation(free), free, weight)
    left, right = float((gradient * along).sum()), float((weight * tangent).sum())
    assert left == pytest.approx(right, rel=1e-9)


def test_many_rows_of_the_jacobian_share_one_forward_pass() -> None:
    equation, x = NavierStokes(time=0.3), _waves(12, 12, batch=1).requires_grad_()
    out, rows = equation(x), torch.eye(144, dtype=torch.float64)[:5].reshape(5, 1, 1, 12, 12)
    (many,) = torch.autograd.grad(out, x, rows, is_grads_batched=True, retain_graph=True)
    single = [torch.autograd.grad(out, x, row, retain_graph=True)[0] for row in rows]
    torch.testing.assert_close(many, torch.stack(single))


def test_second_derivatives_exist() -> None:
    equation, along = Burgers(time=0.1), _waves(32, seed=3, batch=1)

    def slope(x: Tensor) -> Tensor:
        x = x.detach().requires_grad_()
        return torch.autograd.grad(equation(x).pow(3).sum(), x, create_graph=True)[0]

    x = _waves(32, batch=1).requires_grad_()
    (first,) = torch.autograd.grad(equation(x).pow(3).sum(), x, create_graph=True)
    (bend,) = torch.autograd.grad((first * along).sum(), x)
    difference = (slope(x + 1e-5 * along) - slope(x - 1e-5 * along)) / 2e-5
    assert float(((bend - difference).norm() / difference.norm()).detach()) < 1e-7


def test_heat_is_exact_and_keeps_the_mean() -> None:
    equation = Heat(diffusivity=0.03, time=0.7, length=2.0)
    torus = equation.torus((16, 10))
    y, x = torus.points(-2), torus.points(-1)
    wave = torch.cos(math.pi * 3 * y) * torch.sin(math.pi * 2 * x)
    decay = math.exp(-0.03 * 0.7 * math.pi**2 * (9 + 4))
    torch.testing.assert_close(equation((2.0 + wave)[None, None])[0, 0], 2.0 + decay * wave)


def test_advection_by_whole_cells_is_a_shift() -> None:
    x = torch.randn(2, 1, 15, 9, dtype=torch.float64)
    moved = Advection(velocity=(0.2, -1.0 / 3.0), time=1.0)(x)
    torch.testing.assert_close(moved, x.roll((3, -3), (-2, -1)), rtol=0, atol=1e-13)


def test_burgers_is_its_exact_solution() -> None:
    """Cole and Hopf: u = -2 nu theta_x / theta for a solution theta of the heat equation."""
    nu, a, time = 0.02, 0.9, 0.5
    equation = Burgers(viscosity=nu, time=time, step=0.0025)
    x = equation.torus((256,)).points(-1)

    def exact(t: float) -> Tensor:
        wave = a * math.exp(-nu * TAU**2 * t)
        return 2 * nu * TAU * wave * torch.sin(TAU * x) / (1 + wave * torch.cos(TAU * x))

    got = equation(exact(0.0)[None, None])[0, 0]
    assert float((got - exact(time)).abs().max() / exact(time).abs().max()) < 1e-9


@pytest.mark.parametrize(
    ("equation", "x"),
    [
        (Burgers(step=0.005), 0.3 + _waves(96)),
        (KuramotoSivashinsky(time=20.0), 0.3 + _waves(128)),
        (NavierStokes(), 0.3 + _waves(24, 24)),
    ],
)
def test_the_mean_is_kept_to_rounding(equation: Evolution, x: Tensor) -> None:
    axes = tuple(range(2, x.ndim))
    torch.testing.assert_close(equation(x).mean(axes), x.mean(axes), rtol=0, atol=1e-14)


def test_without_viscosity_energy_and_enstrophy_stay() -> None:
    w = _waves(32, 32)
    equation = NavierStokes(viscosity=0.0, forcing=False, time=2.0, step=0.02)
    later, torus = equation(w), equation.torus((32, 32))
    assert float((later - w).norm() / w.norm()) > 0.3
    for measure in (lambda f: f, lambda f: velocity(f, torus)):
        before, after = measure(w).flatten(1).square().sum(1), measure(later).flatten(1)
        torch.testing.assert_close(after.square().sum(1), before, rtol=1e-7, atol=0)


def test_energy_falls_by_what_viscosity_takes() -> None:
    """d/dt (1/2 |u|^2) = -nu |w|^2 + <f, psi>, with no forcing here."""
    w, nu, h = _waves(32, 32), 0.01, 1e-3
    equation = NavierStokes(viscosity=nu, forcing=False, time=2 * h, step=h)
    torus = equation.torus((32, 32))
    first, middle, last = equation.trajectory(w, (0.0, h, 2 * h)).unbind(2)
    energy = [0.5 * velocity(f, torus).square().flatten(1).mean(1) * 2 for f in (first, last)]
    loss = nu * middle.square().flatten(1).mean(1)
    torch.testing.assert_close((energy[0] - energy[1]) / (2 * h), loss, rtol=1e-5, atol=0)


def test_vortices_of_taylor_and_green_decay() -> None:
    equation = NavierStokes(viscosity=0.01, forcing=False, time=1.3)
    torus = equation.torus((24, 16))
    w = torch.sin(TAU * 2 * torus.points(-2)) * torch.cos(TAU * 2 * torus.points(-1))
    expected = math.exp(-0.01 * 1.3 * 2 * (2 * TAU) ** 2) * w
    torch.testing.assert_close(equation(w[None, None])[0, 0], expected, rtol=0, atol=1e-12)


def test_kolmogorov_from_rest_reaches_the_laminar_flow() -> None:
    """u = A sin(n y) (1 - exp(-(nu n^2 + drag) t)) / (nu n^2 + drag): no advection of itself."""
    equation = Kolmogorov(reynolds=20.0, drag=0.1, mode=3, amplitude=0.7, time=2.0, step=0.05)
    torus = equation.torus((20, 12))
    rate = 9 / 20.0 + 0.1
    u = 0.7 * torch.sin(3 * torus.points(-2)).expand(20, 12) * -math.expm1(-2.0 * rate) / rate
    got = velocity(equation(torch.zeros(1, 1, 20, 12, dtype=torch.float64)), torus)[0, 0]
    torch.testing.assert_close(got, torch.stack([u, torch.zeros_like(u)]), rtol=0, atol=1e-12)


def _benchmark(w: Tensor, time: float, steps: int) -> Tensor:
    """The published scheme in full complex transforms; arrays (N, N) with x first."""
    size, dt = w.shape[-1], time / steps
    n = torch.fft.fftfreq(size, dtype=torch.float64) * size
    n_x, n_y = n[:, None], n[None, :]
    minus_laplace = TAU**2 * (n_x**2 + n_y**2)
    inverse = 1 / minus_laplace.clamp_min(1.0)
    keep = (n_x.abs() <= size / 3) & (n_y.abs() <= size / 3)
    x, y = (torch.arange(size) / size)[:, None].double(), (torch.arange(size) / size)[None, :]
    push = torch.fft.fft2(0.1 * (torch.sin(TAU * (x + y)) + torch.cos(TAU * (x + y))))
    v = torch.fft.fft2(w)
    for _ in range(steps):
        slopes = [torch.fft.ifft2(TAU * 1j * k * f).real for k, f in _pairs(n_x, n_y, v, inverse)]
        u_x, u_y, w_x, w_y = slopes
        bent = keep * torch.fft.fft2(u_x * w_x - u_y * w_y)
        right = (1 - 0.5e-3 * dt * minus_laplace) * v + dt * (push - bent)
        v = right / (1 + 0.5e-3 * dt * minus_laplace)
    return torch.fft.ifft2(v).real


def _pairs(n_x: Tensor, n_y: Tensor, v: Tensor, inverse: Tensor) -> list[tuple[Tensor, Tensor]]:
    return [(n_y, v * inverse), (n_x, v * inverse), (n_x, v), (n_y, v)]


def test_the_benchmark_is_reproduced_with_few_steps() -> None:
    w = PeriodicField().draw(1, 32, seed=3)
    reference = _benchmark(w[0, 0], 1.0, 2000)
    error = (NavierStokes(step=0.1)(w)[0, 0] - reference).norm() / reference.norm()
    assert 1e-6 < float(error) < 1e-4
    # The mirror image would be another flow: the arrays have x first.
    mirrored = NavierStokes(step=0.1)(w.mT).mT[0, 0]
    assert float((mirrored - reference).norm() / reference.norm()) > 0.1


def test_the_same_field_on_a_finer_grid_has_the_same_answer() -> None:
    field = PeriodicField(alpha=5.0)
    coarse, fine = NavierStokes()(field.draw(2, 48)), NavierStokes()(field.draw(2, 96))
    assert float((fine[..., ::2, ::2] - coarse).norm() / coarse.norm()) < 1e-4


def test_gray_scott_without_space_is_its_rate_equations() -> None:
    equation = GrayScott(time=60.0, step=0.25)

    def rates(_: float, s: np.ndarray) -> list[float]:
        a, b = s
        return [-a * b * b + 0.04 * (1 - a), a * b * b - 0.1 * b]

    exact = solve_ivp(rates, (0, 60), [0.6, 0.5], rtol=1e-11, atol=1e-13).y[:, -1]
    flat = torch.tensor([0.6, 0.5], dtype=torch.float64)[None, :, None, None].expand(1, 2, 8, 8)
    got = equation(flat)
    assert float((got - torch.from_numpy(exact)[None, :, None, None]).abs().max()) < 1e-7


def test_waves_of_kuramoto_and_sivashinsky_grow_as_they_should() -> None:
    equation = KuramotoSivashinsky(time=4.0, length=8 * math.pi)
    x = equation.torus((64,)).points(-1)
    small = (1e-8 * (torch.cos(0.75 * x) + torch.sin(1.25 * x)))[None, None]
    grown = torch.fft.rfft(equation(small))[0, 0].abs() / 32e-8
    for mode, k in ((3, 0.75), (5, 1.25)):
        assert float(grown[mode]) == pytest.approx(math.exp(4 * (k**2 - k**4)), rel=1e-4)


@pytest.mark.parametrize(
    ("equation", "x"),
    [
        (NavierStokes(step=0.5), 30 * _waves(32, 32)),
        (NavierStokes(step=0.2, order=1, viscosity=0.0), _waves(32, 32)),
        (Kolmogorov(step=0.5), 20 * _waves(32, 32)),
        (Burgers(step=0.5), 5 * _waves(64)),
        (KuramotoSivashinsky(time=20.0, step=5.0), 5 * _waves(96)),
        (GrayScott(step=50.0), torch.full((1, 2, 8, 8), 3.0)),
    ],
)
def test_an_unstable_step_is_refused_and_the_step_named_is_taken(
    equation: Evolution, x: Tensor
) -> None:
    with pytest.raises(InputError, match="largest stable") as caught:
        equation(x)
    (named,) = re.findall(r"pass step=([0-9.e+-]+)\.$", str(caught.value))
    numbers = {f: getattr(equation, f) for f in equation.__dataclass_fields__}  # type: ignore[attr-defined]
    assert 0 < float(named) < equation.step
    type(equation)(**{**numbers, "step": float(named), "time": float(named)})(x)


@pytest.mark.parametrize(
    ("equation", "x", "words"),
    [
        (Kolmogorov(), torch.zeros(1, 1, 8, 8), "use 13 points"),
        (KuramotoSivashinsky(), torch.zeros(1, 1, 32), "use 49 points"),
        (NavierStokes(), torch.zeros(1, 1, 2, 8), "too small"),
        (NavierStokes(), torch.zeros(1, 1, 64), "2 axes"),
        (NavierStokes(), torch.zeros(1, 2, 8, 8), r"\(B, 1, \*grid\)"),
        (NavierStokes(), torch.zeros(1, 1, 8, 8, dtype=torch.int64), "floating"),
        (Burgers(), torch.full((1, 1, 16), math.nan), "not finite"),
        (Advection(velocity=(1.0, 2.0)), torch.zeros(1, 1, 8), "2 axes"),
    ],
)
def test_a_wrong_field_is_refused(equation: Evolution, x: Tensor, words: str) -> None:
    with pytest.raises(InputError, match=words):
        equation(x)


@pytest.mark.parametrize(
    "make",
    [
        lambda: NavierStokes(step=0.0),
        lambda: NavierStokes(order=7),
        lambda: NavierStokes(viscosity=-1.0),
        lambda: Kolmogorov(reynolds=0.0),
        lambda: Burgers(viscosity=0.0),
        lambda: Heat(diffusivity=-1.0),
        lambda: GrayScott(feed=-0.1),
        lambda: KuramotoSivashinsky(time=math.inf),
        lambda: Advection(velocity=()),
    ],
)
def test_wrong_numbers_are_refused(make: object) -> None:
    with pytest.raises(InputError, match="expected"):
        make()  # type: ignore[operator]


@pytest.mark.parametrize("times", [(), (1.0, 0.5), (-1.0,), (math.inf,)])
def test_wrong_times_are_refused(times: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="ascending"):
        Heat().trajectory(torch.zeros(1, 1, 8), times)


def test_no_fields_give_no_fields() -> None:
    assert NavierStokes()(torch.zeros(0, 1, 8, 8)).shape == (0, 1, 8, 8)


def test_a_saved_model_may_hold_every_equation() -> None:
    for equation, _ in CASES:
        assert CLASSES[type(equation).__name__] is type(equation)
