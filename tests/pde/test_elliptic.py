from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import torch
from torch import Tensor

from sciddm.errors import InputError
from sciddm.pde.elliptic import Darcy, Helmholtz, Poisson, darcy_operator, faces, solve_darcy
from sciddm.pde.grid import laplacian, nodes
from sciddm.pde.neumann import NeumannPoisson, insulated_laplacian
from sciddm.pde.random_field import GaussianField


def _two_phase(samples: int, size: int) -> Tensor:
    return torch.where(GaussianField().draw(samples, size) >= 0, 12.0, 3.0).double()


def _positive(*shape: int) -> Tensor:
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.3


def _inner(x: Tensor) -> Tensor:
    return x[..., 1:-1, 1:-1]


def _ring(x: Tensor) -> Tensor:
    return torch.cat([x[..., 0, :], x[..., -1, :], x[..., :, 0], x[..., :, -1]], dim=-1)


@pytest.mark.parametrize("shape", [(2, 1, 64, 64), (3, 1, 17, 40), (1, 1, 3, 3)])
def test_poisson_solves_its_scheme_to_machine_precision(shape: tuple[int, ...]) -> None:
    a = _positive(*shape) - 0.8
    u = Poisson()(a)
    assert float((_inner(laplacian(u)) - _inner(a)).abs().max()) < 1e-11
    assert float(_ring(u).abs().max()) == 0.0


def test_poisson_is_second_order_on_a_manufactured_solution() -> None:
    errors = []
    for size in (17, 33, 65):
        y, x = nodes(size)[:, None], nodes(size)[None, :]
        bump = y * (1 - y) * torch.exp(y)
        exact = bump * torch.sin(math.pi * x)
        source = (-y * (y + 3) * torch.exp(y) - math.pi**2 * bump) * torch.sin(math.pi * x)
        errors.append(float((Poisson()(source[None, None])[0, 0] - exact).abs().max()))
    orders = [math.log2(errors[i] / errors[i + 1]) for i in range(2)]
    assert orders == pytest.approx([2.0, 2.0], abs=0.05)


def test_poisson_is_linear_self_adjoint_and_blind_to_the_ring() -> None:
    a, b = _positive(2, 1, 20, 20), _positive(2, 1, 20, 20).flip(-1)
    ringless = torch.nn.functional.pad(_inner(b), (1, 1, 1, 1))
    torch.testing.assert_close(Poisson()(a - 2 * b), Poisson()(a) - 2 * Poisson()(ringless))
    torch.testing.assert_close((Poisson()(a) * b).sum(), (a * Poisson()(b)).sum())
    a.requires_grad_()
    (gradient,) = torch.autograd.grad((Poisson()(a) * b).sum(), a)
    torch.testing.assert_close(gradient, Poisson()(b))


def test_poisson_in_float32_is_close_to_float64() -> None:
    a = GaussianField().draw(4, 128)
    exact, single = Poisson()(a), Poisson()(a.float())
    assert single.dtype == torch.float32
    error = (single - exact).norm() / exact.norm()
    assert 1e-9 < float(error) < 2e-6


@pytest.mark.parametrize("wavenumber", [1.0, 4.4, 5.0, 23.7])
@pytest.mark.parametrize("shape", [(2, 1, 64, 64), (3, 1, 17, 40), (1, 1, 3, 3)])
def test_helmholtz_solves_its_scheme_to_rounding(shape: tuple[int, ...], wavenumber: float) -> None:
    a = _positive(*shape) - 0.8
    u = Helmholtz(wavenumber)(a)
    residual = _inner(laplacian(u) + wavenumber**2 * u - a)
    # Rounding of u times the largest row sum of the scheme.
    size = 8 * (max(shape) - 1) ** 2 * float(u.abs().max())
    assert float(residual.abs().max()) < 1e-13 * (1 + size)
    assert float(_ring(u).abs().max()) == 0.0


@pytest.mark.parametrize("wavenumber", [0.0, 1.0, 9.3])
def test_helmholtz_is_the_sparse_direct_solution(wavenumber: float) -> None:
    # Every node an unknown, the ring as identity rows with 0 at the right: the published assembly.
    size = 24
    second = scipy.sparse.diags([1.0, -2.0, 1.0], [-1, 0, 1], shape=(size, size)) * (size - 1) ** 2
    one = scipy.sparse.identity(size)
    matrix = scipy.sparse.kron(second, one) + scipy.sparse.kron(one, second)
    matrix = (matrix + wavenumber**2 * scipy.sparse.identity(size * size)).tocsr()
    inside = np.zeros((size, size))
    inside[1:-1, 1:-1] = 1.0
    keep = scipy.sparse.diags(inside.ravel())
    matrix = keep @ matrix + scipy.sparse.identity(size * size) - keep
    a = GaussianField().draw(2, size, seed=3)
    for source, found in zip(a[:, 0].numpy(), Helmholtz(wavenumber)(a)[:, 0].numpy(), strict=True):
        exact = scipy.sparse.linalg.spsolve(matrix.tocsc(), (inside * source).ravel())
        np.testing.assert_allclose(found.ravel(), exact, rtol=0, atol=1e-12 * np.abs(exact).max())


def test_helmholtz_without_a_wave_is_poisson_and_a_sine_is_divided_by_its_symbol() -> None:
    a = _positive(2, 1, 12, 31)
    assert torch.equal(Helmholtz(0.0)(a), Poisson()(a))
    y, x = nodes(33)[:, None], nodes(33)[None, :]
    mode = (torch.sin(2 * math.pi * y) * torch.sin(3 * math.pi * x))[None, None]
    steps = [2 * 32 * math.sin(k * math.pi / 64) for k in (2, 3)]
    symbol = 7.0**2 - steps[0] ** 2 - steps[1] ** 2
    torch.testing.assert_close(Helmholtz(7.0)(mode), mode / symbol, rtol=0, atol=1e-15)


def test_helmholtz_is_second_order_on_a_manufactured_solution() -> None:
    errors, k = [], 6.0
    for size in (17, 33, 65):
        y, x = nodes(size)[:, None], nodes(size)[None, :]
        bump = y * (1 - y) * torch.exp(y)
        exact = bump * torch.sin(math.pi * x)
        source = -y * (y + 3) * torch.exp(y) + (k**2 - math.pi**2) * bump
        found = Helmholtz(k)((source * torch.sin(math.pi * x))[None, None])[0, 0]
        errors.append(float((found - exact).abs().max()))
    orders = [math.log2(errors[i] / errors[i + 1]) for i in range(2)]
    assert orders == pytest.approx([2.0, 2.0], abs=0.1)


def test_helmholtz_is_its_own_adjoint_and_its_own_gradient() -> None:
    a, b = _positive(2, 1, 20, 20).requires_grad_(), _positive(2, 1, 20, 20).flip(-1)
    solve = Helmholtz(4.0)
    product = (solve(a) * b).sum()
    torch.testing.assert_close(product, (a * solve(b)).sum())
    (gradient,) = torch.autograd.grad(product, a)
    torch.testing.assert_close(gradient, solve(b))


def test_a_resonant_wavenumber_is_refused_in_one_line() -> None:
    size = 20
    square = sum((2 * (size - 1) * math.sin(k * math.pi / (2 * (size - 1)))) ** 2 for k in (1, 2))
    a = _positive(1, 1, size, size)
    with pytest.raises(InputError, match=r"resonance of the 20 x 20 grid \(mode [12], [12]\)"):
        Helmholtz(math.sqrt(square))(a)
    # The same wavenumber is off the eigenvalues of another grid, where it is solved.
    assert bool(torch.isfinite(Helmholtz(math.sqrt(square))(_positive(1, 1, 21, 21))).all())
    for bad in (-1.0, math.nan, math.inf):
        with pytest.raises(InputError, match="expected a finite number of at least 0"):
            Helmholtz(bad)


@pytest.mark.parametrize("shape", [(2, 1, 33, 33), (2, 1, 9, 21), (2, 1, 21, 9), (1, 1, 5, 3)])
def test_darcy_solves_its_scheme_to_machine_precision(shape: tuple[int, ...]) -> None:
    a = _positive(*shape)
    u = Darcy()(a)
    assert float((_inner(darcy_operator(a, u)) - 1.0).abs().max()) < 1e-11
    assert float(_ring(u).abs().max()) == 0.0


def test_darcy_with_a_constant_coefficient_is_poisson() -> None:
    one = torch.ones(1, 1, 40, 40, dtype=torch.float64)
    expected = Poisson()(-2.5 * one / 4.0)
    torch.testing.assert_close(Darcy(source=2.5)(4.0 * one), expected, rtol=1e-12, atol=0)


def test_darcy_is_second_order_on_a_manufactured_solution() -> None:
    errors = []
    for size in (17, 33, 65):
        y, x = nodes(size)[:, None], nodes(size)[None, :]
        a, u = torch.exp(x + 2 * y), torch.sin(math.pi * x) * torch.sin(math.pi * y)
        u_y = math.pi * torch.sin(math.pi * x) * torch.cos(math.pi * y)
        u_x = math.pi * torch.cos(math.pi * x) * torch.sin(math.pi * y)
        f = -a * (u_x + 2 * u_y - 2 * math.pi**2 * u)
        found = solve_darcy(a[None, None], f[None, None])[0, 0]
        errors.append(float((found - u).abs().max()))
    orders = [math.log2(errors[i] / errors[i + 1]) for i in range(2)]
    assert orders == pytest.approx([2.0, 2.0], abs=0.05)


def test_faces_of_a_jump_are_harmonic() -> None:
    down, across = faces(torch.tensor([[12.0, 3.0], [12.0, 12.0]]))
    torch.testing.assert_close(down, torch.tensor([[12.0, 4.8]]))
    torch.testing.assert_close(across, torch.tensor([[4.8], [12.0]]))


def test_darcy_commutes_with_the_symmetries_of_the_square() -> None:
    a = _two_phase(2, 24)
    u = Darcy()(a)
    for turn in (lambda f: f.flip(-1), lambda f: f.flip(-2), lambda f: f.mT):
        torch.testing.assert_close(Darcy()(turn(a)), turn(u), rtol=1e-11, atol=0)


def test_darcy_obeys_the_maximum_principle_and_its_bounds() -> None:
    a = _two_phase(8, 32)
    u = Darcy()(a)
    assert float(_inner(u).min()) > 0.0
    # 0.0737 is the maximum of the torsion function of the unit square, a >= 3.
    assert 0.008 < float(u.max()) < 0.0737 / 3
    # A superharmonic function has no inner minimum.
    row, column = u[..., 1:-1, :], u[..., :, 1:-1]
    beside = torch.minimum(row[..., :-2], row[..., 2:])
    above = torch.minimum(column[..., :-2, :], column[..., 2:, :])
    assert bool((_inner(u) > torch.minimum(beside, above)).all())
    # The compliance, the sum of u, falls when the medium conducts better.
    better = torch.where(a < 12, a + 1, a)
    assert bool((Darcy()(better).sum((1, 2, 3)) < u.sum((1, 2, 3))).all())


def test_darcy_conserves_mass() -> None:
    size = 24
    a = _two_phase(3, size)
    u = Darcy()(a)
    down, across = faces(a)
    out = torch.cat(
        [
            (down * torch.diff(u, dim=-2))[..., 0, 1:-1],
            -(down * torch.diff(u, dim=-2))[..., -1, 1:-1],
            (across * torch.diff(u, dim=-1))[..., 1:-1, 0],
            -(across * torch.diff(u, dim=-1))[..., 1:-1, -1],
        ],
        dim=-1,
    ).sum((1, 2))
    produced = ((size - 2) / (size - 1)) ** 2
    torch.testing.assert_close(out, torch.full_like(out, produced), rtol=1e-12, atol=0)


def test_darcy_gradients_are_exact_to_second_order() -> None:
    a = _positive(2, 1, 6, 6).requires_grad_()
    assert torch.autograd.gradcheck(Darcy(), (a,))
    assert torch.autograd.gradgradcheck(Darcy(), (a,))
    f = _positive(2, 1, 6, 6).flip(-1).requires_grad_()
    assert torch.autograd.gradcheck(solve_darcy, (a, f))
    assert torch.autograd.gradcheck(lambda right: solve_darcy(a.detach(), right), (f,))


def test_darcy_gradient_obeys_eulers_identity() -> None:
    # u(c a) = u(a) / c, so <a, dJ/da> = -<u, dJ/du>; here at a size gradcheck cannot reach.
    a = _two_phase(2, 40).requires_grad_()
    u = Darcy()(a)
    (by_a,) = torch.autograd.grad(u.square().sum(), a)
    torch.testing.assert_close((a * by_a).sum(), -2 * u.square().sum(), rtol=1e-11, atol=0)


def test_darcy_keeps_type_and_does_not_mix_samples() -> None:
    a = _two_phase(4, 32)
    whole = Darcy()(a)
    assert torch.equal(Darcy()(a[2:3]), whole[2:3])
    single = Darcy()(a.float())
    assert single.dtype == torch.float32
    assert torch.equal(single, whole.float())


@pytest.mark.parametrize("shape", [(18, 18), (9, 14)])
def test_poisson_and_darcy_are_the_sparse_direct_solutions(shape: tuple[int, int]) -> None:
    # Node by node, the ring as identity rows; the conductance of a pair is the harmonic mean.
    h, w = shape
    a = torch.where(GaussianField().draw(1, 18, seed=4) >= 0, 12.0, 3.0).double()[..., :h, :w]
    one = torch.ones_like(a)
    for found, field in ((Darcy()(a), a[0, 0].numpy()), (Poisson()(-one), one[0, 0].numpy())):
        matrix, f = scipy.sparse.lil_matrix((h * w, h * w)), np.zeros(h * w)
        for i in range(h):
            for j in range(w):
                row = i * w + j
                if i in (0, h - 1) or j in (0, w - 1):
                    matrix[row, row] = 1.0
                    continue
                f[row] = 1.0
                for k, m, n in ((i - 1, j, h), (i + 1, j, h), (i, j - 1, w), (i, j + 1, w)):
                    pair = field[i, j], field[k, m]
                    conductance = 2.0 / (1.0 / pair[0] + 1.0 / pair[1]) * (n - 1) ** 2
                    matrix[row, row] += conductance
                    matrix[row, k * w + m] -= conductance
        exact = scipy.sparse.linalg.spsolve(matrix.tocsc(), f).reshape(h, w)
        np.testing.assert_allclose(found[0, 0].numpy(), exact, rtol=0, atol=1e-10 * exact.max())


@pytest.mark.parametrize("shape", [(2, 1, 32, 32), (1, 1, 9, 20), (1, 1, 2, 3)])
def test_the_insulated_square_conserves_and_solves_its_scheme(shape: tuple[int, ...]) -> None:
    a = _positive(*shape)
    u = NeumannPoisson()(a)
    mean = a.mean((2, 3), keepdim=True)
    torch.testing.assert_close(insulated_laplacian(u), a - mean, rtol=0, atol=1e-11)
    torch.testing.assert_close(
        u.mean((1, 2, 3)), torch.zeros(shape[0]).double(), rtol=0, atol=1e-13
    )
    torch.testing.assert_close(
        insulated_laplacian(a).sum(), torch.zeros(()).double(), atol=1e-9, rtol=0
    )
    b = a.flip(-1).flip(-2).square()
    torch.testing.assert_close((NeumannPoisson()(a) * b).sum(), (a * NeumannPoisson()(b)).sum())


def test_the_insulated_square_is_second_order_on_a_manufactured_solution() -> None:
    errors = []
    for size in (16, 32, 64):
        y, x = (((torch.arange(size).double() + 0.5) / size).view(s) for s in ((-1, 1), (1, -1)))
        exact = torch.cos(math.pi * y) * (x**2 / 2 - x**3 / 3 - 1 / 12)
        source = torch.cos(math.pi * y) * (1 - 2 * x) - math.pi**2 * exact
        errors.append(float((NeumannPoisson()(source[None, None])[0, 0] - exact).abs().max()))
    orders = [math.log2(errors[i] / errors[i + 1]) for i in range(2)]
    assert orders == pytest.approx([2.0, 2.0], abs=0.1)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_a_coefficient_that_is_not_elliptic_is_refused(value: float) -> None:
    a = _positive(2, 1, 8, 8)
    a[1, 0, 4, 4] = value
    with pytest.raises(InputError, match="loses ellipticity"):
        Darcy()(a)


@pytest.mark.parametrize("solve", [Poisson(), Helmholtz(), Darcy()])
def test_bad_shapes_are_named(solve: Poisson | Helmholtz | Darcy) -> None:
    for bad in (torch.ones(8, 8), torch.ones(2, 2, 8, 8), torch.ones(1, 1, 8, 2)):
        with pytest.raises(InputError, match=r"expected floating point \(B, 1, H, W\)"):
            solve(bad)
    with pytest.raises(InputError, match="int64"):
        solve(torch.ones(1, 1, 8, 8, dtype=torch.int64))
