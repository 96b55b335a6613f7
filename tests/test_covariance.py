"""Covariances: the same operator by transforms and by dense matrices, one law on every grid."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import integrate, special
from torch import Tensor

from sciddm.basis import Basis, Cosine, Periodic, Sine
from sciddm.covariance import (
    Covariance,
    Density,
    LowRank,
    Matern,
    MaternKernel,
    Points,
    PowerLaw,
    Spectral,
    Tabulated,
    White,
    ZeroMean,
)
from sciddm.denoise import Context, Gaussian
from sciddm.errors import InputError
from sciddm.observe import Coarsen
from sciddm.process import VE, LogLinear
from sciddm.random import Streams

DOUBLE = torch.float64
SHAPE = (4, 5)


def lowrank(floor: float = 0.3) -> LowRank:
    noise = torch.randn(20, 6, generator=torch.manual_seed(1), dtype=DOUBLE)
    modes = torch.linalg.qr(noise).Q.T.reshape(6, 1, *SHAPE)
    return LowRank(modes, torch.tensor([9.0, 4.0, 2.0, 1.0, 0.5, 0.1], dtype=DOUBLE), floor)


def scattered() -> Points:
    coords = torch.rand(12, 2, generator=torch.manual_seed(2), dtype=DOUBLE)
    return Points(coords, MaternKernel(0.5, 1.5, 1.3))


LAWS: dict[str, tuple[Covariance, tuple[int, ...]]] = {
    "white": (White(1.7), (1, *SHAPE)),
    "white in space": (White(1.7, points=11), (1, *SHAPE)),
    "periodic": (Spectral(Matern(0.4, 1.5, 1.2), (1.0, 2.0), Periodic()), (1, *SHAPE)),
    "periodic even": (Spectral(Matern(0.4, 0.5), (1.0, 2.0), Periodic()), (1, 5, 4)),
    "cosine": (Spectral(Matern(0.4, 2.5), (1.0, 1.0), Cosine()), (1, *SHAPE)),
    "sine": (Spectral(PowerLaw(2.0, 3.0, 3.0), (1.0, 1.0), Sine()), (1, *SHAPE)),
    "zero mean": (Spectral(ZeroMean(Matern(0.4)), (1.0, 1.0), Cosine()), (1, *SHAPE)),
    "low rank": (lowrank(), (1, *SHAPE)),
    "points": (scattered(), (1, 12)),
}
laws = pytest.mark.parametrize(("law", "shape"), LAWS.values(), ids=LAWS.keys())


def units(shape: tuple[int, ...]) -> Tensor:
    size = math.prod(shape)
    return torch.eye(size, dtype=DOUBLE).view(size, *shape)


def dense(law: Covariance, shape: tuple[int, ...]) -> Tensor:
    return law(units(shape)).flatten(1)


def matrix_function(matrix: Tensor, f: Callable[[Tensor], Tensor]) -> Tensor:
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * f(values) @ vectors.T


def gain(own: Tensor, theirs: Tensor) -> Tensor:
    return own / (own + 2.0 * theirs)


@laws
def test_a_covariance_is_symmetric_and_positive(law: Covariance, shape: tuple[int, ...]) -> None:
    c = dense(law, shape)
    assert torch.allclose(c, c.T, atol=1e-12)
    assert float(torch.linalg.eigvalsh(c).min()) > -1e-12


@laws
def test_the_root_squares_to_the_covariance(law: Covariance, shape: tuple[int, ...]) -> None:
    root = law.sqrt(units(shape)).flatten(1)
    assert torch.allclose(root.T @ root, dense(law, shape), atol=1e-12)


@laws
def test_joint_is_the_function_of_the_matrix(law: Covariance, shape: tuple[int, ...]) -> None:
    x = torch.randn(3, *shape, generator=torch.manual_seed(3), dtype=DOUBLE)
    white = White(0.7)
    expected = matrix_function(dense(law, shape), lambda p: p / (p + 2 * 0.7**2))
    assert torch.allclose(law.joint(x, white, gain).flatten(1), x.flatten(1) @ expected)
    # from the white side the arguments change places
    swapped = white.joint(x, law, lambda own, theirs: gain(theirs, own))
    assert torch.allclose(swapped, law.joint(x, white, gain))


@laws
def test_joint_takes_one_function_a_row(law: Covariance, shape: tuple[int, ...]) -> None:
    x = torch.randn(3, *shape, generator=torch.manual_seed(3), dtype=DOUBLE)
    kappa = torch.tensor([0.1, 1.0, 10.0], dtype=DOUBLE).view(3, *[1] * len(shape))
    together = law.joint(x, White(), lambda p, c: p / (p + kappa**2 * c))
    for i in range(3):
        k = kappa[i].reshape(())
        alone = law.joint(x[i : i + 1], White(), lambda p, c, k=k: p / (p + k**2 * c))
        assert torch.allclose(together[i : i + 1], alone)


@laws
def test_the_average_is_the_trace(law: Covariance, shape: tuple[int, ...]) -> None:
    like = torch.zeros(1, *shape, dtype=DOUBLE)
    image = law.joint(units(shape), White(0.7), gain).flatten(1)
    expected = float(image.trace()) / len(image)
    assert float(law.average(like, White(0.7), gain)) == pytest.approx(expected, rel=1e-12)
    swapped = White(0.7).average(like, law, lambda own, theirs: gain(theirs, own))
    assert float(swapped) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("factor", [2, 4])
def test_white_noise_in_space_has_block_means_of_the_same_law(factor: int) -> None:
    law, shape = White(0.3, points=64), (1, 8, 16)
    means = Coarsen((factor, factor)).field(units(shape)).flatten(1)
    fine = means.T @ dense(law, shape) @ means
    coarse = dense(law, (1, 8 // factor, 16 // factor))
    assert torch.allclose(fine, coarse, atol=1e-14)
    assert float(dense(law, (1, 8, 8))[0, 0]) == pytest.approx(0.3**2)


def test_a_mean_is_denoised_alike_on_every_grid_under_noise_in_space() -> None:
    """The constant mode sees the same signal and the same noise; plain white noise loses this."""
    prior = Spectral(Matern(0.3, 1.5), (1.0, 1.0), Cosine())

    def denoised(noise: White, side: int) -> float:
        exact = Gaussian(torch.zeros(()), prior, VE(noise, LogLinear(0.1, 10.0)))
        x = torch.ones(1, 1, side, side, dtype=DOUBLE)
        return float(exact(x, torch.tensor(0.7, dtype=DOUBLE), Context()).mean())

    even = [denoised(White(points=64), side) for side in (4, 8, 32)]
    assert even == pytest.approx([even[0]] * 3, rel=1e-12)
    plain = [denoised(White(), side) for side in (4, 8, 32)]
    assert plain[1] == pytest.approx(even[1]) and abs(plain[2] / even[2] - 1) > 0.01


@pytest.mark.parametrize("basis", [Periodic(), Cosine(), Sine()], ids=lambda b: type(b).__name__)
def test_two_laws_of_one_basis_are_diagonal_together(basis: Basis) -> None:
    a = Spectral(Matern(0.4, 1.5), (1.0, 2.0), basis)
    b = Spectral(Matern(0.2, 0.5), (1.0, 2.0), basis)
    shape = (1, *SHAPE)
    first, second = dense(a, shape), dense(b, shape)
    assert torch.allclose(first @ second, second @ first, atol=1e-10)
    expected = first @ torch.linalg.inv(first + 2 * second)
    image = a.joint(units(shape), b, gain).flatten(1)
    assert torch.allclose(image, expected.T, atol=1e-10)
    like = torch.zeros(1, *shape, dtype=DOUBLE)
    assert float(a.average(like, b, gain)) == pytest.approx(float(expected.trace()) / 20)


@laws
def test_samples_have_the_covariance(law: Covariance, shape: tuple[int, ...]) -> None:
    """In the eigenbasis, whitened, every entry of the sample covariance has its own error."""
    count = 4000
    x = law.sample(torch.zeros(count, *shape, dtype=DOUBLE), Streams.of(7, count)).flatten(1)
    values, vectors = torch.linalg.eigh(dense(law, shape))
    assert float((x @ vectors[:, values < 1e-9]).norm()) < 1e-6
    white = x @ vectors[:, values > 1e-9] / values[values > 1e-9].sqrt()
    eye = torch.eye(white.shape[1], dtype=DOUBLE)
    z = (white.T @ white / count - eye) * (count / (1 + eye)).sqrt()
    z = z[torch.triu(torch.ones_like(z)).bool()]
    assert float(z.abs().max()) < 4.7
    assert float(z.square().mean()) == pytest.approx(1, abs=0.35)
    assert float((white.mean(0) * count**0.5).abs().max()) < 4.7


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("nu", [0.5, 1.5, 2.5])
def test_the_matern_density_is_the_transform_of_its_kernel(nu: float, dim: int) -> None:
    """Inverse Fourier transform at several distances; at zero it is the pointwise variance."""
    density, kernel = Matern(0.7, nu, std=1.6), MaternKernel(0.7, nu, std=1.6)

    def s(k: float) -> float:
        return float(density(torch.tensor(k**2, dtype=DOUBLE), dim))

    def transform(r: float) -> float:
        top = 400 / 0.7  # the tail beyond it is below the tolerance after the oscillation
        if dim == 1:
            value, _ = integrate.quad(s, 0, np.inf, weight="cos", wvar=r, limlst=200)
            return value / math.pi
        if dim == 3:
            value, _ = integrate.quad(
                lambda k: k * s(k), 0, np.inf, weight="sin", wvar=r, limlst=200
            )
            return value / (2 * math.pi**2 * r)
        k = np.linspace(0, top, 400_001)
        values = density(torch.from_numpy(k**2), 2).numpy() * k * special.j0(k * r)
        return float(integrate.simpson(values, x=k)) / (2 * math.pi)

    for r in (0.2, 0.5, 1.5):
        expected = float(kernel(torch.tensor(r, dtype=DOUBLE)))
        assert transform(r) == pytest.approx(expected, abs=2e-4)
    surface = {1: 2.0, 2: 2 * math.pi, 3: 4 * math.pi}[dim]
    total, _ = integrate.quad(lambda k: k ** (dim - 1) * s(k), 0, np.inf, limit=400)
    assert surface * total / (2 * math.pi) ** dim == pytest.approx(1.6**2, rel=1e-6)


def images(basis: Basis, n: int, kernel: MaternKernel) -> Tensor:
    """The covariance on [0, 1] by the method of images: what the boundary makes of a kernel."""
    shift, cells, sign = {"Periodic": (0.0, 0, 0), "Cosine": (0.5, 0, 1), "Sine": (1.0, 1, -1)}[
        type(basis).__name__
    ]
    x = (torch.arange(n, dtype=DOUBLE) + shift) / (n + cells)
    period = 1 if sign == 0 else 2
    total = torch.zeros(n, n, dtype=DOUBLE)
    for m in range(-4, 5):
        total += kernel((x[:, None] - x + period * m).abs())
        if sign:
            total += sign * kernel((x[:, None] + x + period * m).abs())
    return total


@pytest.mark.parametrize("basis", [Periodic(), Cosine(), Sine()], ids=lambda b: type(b).__name__)
def test_a_law_survives_a_change_of_grid(basis: Basis) -> None:
    """On 32 and on 64 points the covariance of two points is the kernel's, images included; what
    is missing is the spectrum that the coarse grid cannot hold."""
    law = Spectral(Matern(0.15, 2.5, 1.3), (1.0,), basis)
    for n, tolerance in ((32, 1e-4), (64, 4e-6)):
        c = dense(law, (1, n))
        assert torch.allclose(c, images(basis, n, MaternKernel(0.15, 2.5, 1.3)), atol=tolerance)


def test_a_law_survives_a_change_of_grid_in_two_dimensions() -> None:
    law = Spectral(Matern(0.1, 2.5), (1.0, 2.0), Periodic())
    kernel = MaternKernel(0.1, 2.5)
    for n in (32, 64):
        unit = torch.zeros(1, 1, n, 2 * n, dtype=DOUBLE)
        unit[..., 0, 0] = 1
        c = law(unit)[0, 0]
        for i, j in ((0, 0), (2, 0), (0, 4), (4, 6)):
            r = math.hypot(i / 32, j / 32)
            at = c[i * n // 32, j * n // 32]
            assert float(at) == pytest.approx(float(kernel(torch.tensor(r))), abs=1e-3)


def test_the_power_law_is_the_elliptic_benchmarks() -> None:
    """a = idct2(S tau^(alpha-1) (pi^2 |k|^2 + tau^2)^(-alpha/2) xi): variances S^2 coef^2."""
    n, alpha, tau = 16, 2.0, 3.0
    law = Spectral(PowerLaw(alpha, tau, tau ** (alpha - 1)), (1.0, 1.0), Cosine())
    k = np.arange(n)
    coefficient = tau ** (alpha - 1) * (np.pi**2 * (k[:, None] ** 2 + k[None] ** 2) + tau**2) ** (
        -alpha / 2
    )
    assert np.allclose(law.eigenvalues((n, n)).numpy(), (n * coefficient) ** 2, rtol=1e-12)


def test_a_tabulated_density_follows_a_power_law_and_goes_on() -> None:
    knots = (1.0, 2.0, 5.0, 20.0)
    density = Tabulated(knots, tuple(3.0 * k**-3 for k in knots))
    k = torch.tensor([1.0, 1.5, 4.0, 20.0, 300.0], dtype=DOUBLE)
    assert torch.allclose(density(k**2, 2), 3 * k**-3)
    flat = torch.tensor([0.0, 0.3], dtype=DOUBLE)
    assert torch.allclose(density(flat**2, 2), torch.full((2,), 3.0, dtype=DOUBLE))


def test_zero_mean_removes_the_constant_alone() -> None:
    plain: Density = Matern(0.3)
    law = Spectral(ZeroMean(plain), (1.0, 1.0), Cosine())
    x = torch.randn(2, 1, *SHAPE, dtype=DOUBLE)
    full = Spectral(plain, (1.0, 1.0), Cosine())(x)
    assert torch.allclose(law(x), full - full.mean((2, 3), keepdim=True), atol=1e-12)


def test_float32_fields_use_float64_eigenvalues() -> None:
    law = Spectral(Matern(0.4, 1.5), (1.0, 1.0), Cosine())
    x = torch.randn(2, 1, 16, 16, generator=torch.manual_seed(0), dtype=DOUBLE)
    kappa = torch.tensor(1e-3, dtype=DOUBLE)

    def f(p: Tensor, c: Tensor) -> Tensor:
        return kappa**2 * c / (p + kappa**2 * c)  # one minus the gain: nothing left in float32

    exact, single = law.joint(x, White(), f), law.joint(x.float(), White(), f)
    assert single.dtype == torch.float32
    assert torch.allclose(single.double(), exact, rtol=1e-4, atol=1e-6 * float(exact.abs().max()))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: Spectral(Matern(1.0), (1.0,), Cosine()).eigenvalues((4, 4)), "2 axes for a box"),
        (lambda: LAWS["cosine"][0].joint(torch.zeros(1, 1, 4, 5), lowrank(), gain), "LowRank"),
        (
            lambda: LAWS["cosine"][0].joint(torch.zeros(1, 1, 4, 5), LAWS["periodic"][0], gain),
            "same basis",
        ),
        (lambda: lowrank().joint(torch.zeros(1, 1, 4, 5), LAWS["cosine"][0], gain), "White noise"),
        (lambda: lowrank()(torch.zeros(1, 1, 5, 5)), "lives on its own grid"),
        (lambda: scattered().joint(torch.zeros(1, 1, 12), LAWS["cosine"][0], gain), "White noise"),
        (lambda: MaternKernel(1.0, 1.0), "0.5, 1.5 or 2.5"),
    ],
)
def test_laws_that_do_not_fit_are_refused(call: Callable[[], object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        call()
