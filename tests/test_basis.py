"""Bases: orthonormal, eigenvectors of the second difference, the transforms of the textbooks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.fft
import torch
from torch import Tensor

from sciddm.basis import Basis, Cosine, Periodic, Sine, cosines

BASES = [Periodic(), Cosine(), Sine()]
GRIDS = [(7,), (8,), (5, 6), (6, 5), (3, 4, 5)]
names = pytest.mark.parametrize("basis", BASES, ids=lambda b: type(b).__name__)


def fields(shape: tuple[int, ...], rows: int = 3) -> Tensor:
    return torch.randn(rows, 2, *shape, generator=torch.manual_seed(0), dtype=torch.float64)


@names
@pytest.mark.parametrize("shape", GRIDS, ids=str)
def test_parseval_and_inverse(basis: Basis, shape: tuple[int, ...]) -> None:
    x, y = fields(shape), fields(shape).flip(0)
    c, d = basis.forward(x, len(shape)), basis.forward(y, len(shape))
    count = basis.multiplicity(shape)
    assert float(count.sum()) == math.prod(shape)
    inner = (count * (c * d.conj()).real).flatten(2).sum(-1)
    assert torch.allclose(inner, (x * y).flatten(2).sum(-1), atol=1e-12)
    assert torch.allclose(basis.inverse(c, shape), x, atol=1e-12)


@pytest.mark.parametrize("shape", GRIDS, ids=str)
def test_the_transforms_are_the_textbooks(shape: tuple[int, ...]) -> None:
    x = fields(shape)
    axes = tuple(range(2, 2 + len(shape)))
    expected = {
        Periodic(): scipy.fft.rfftn(x.numpy(), axes=axes, norm="ortho"),
        Cosine(): scipy.fft.dctn(x.numpy(), type=2, axes=axes, norm="ortho"),
        Sine(): scipy.fft.dstn(x.numpy(), type=1, axes=axes, norm="ortho"),
    }
    for basis, value in expected.items():
        assert np.allclose(basis.forward(x, len(shape)).numpy(), value, atol=1e-12)


def second_difference(basis: Basis, x: Tensor, length: float) -> Tensor:
    """-d^2/dx^2 of (..., n) by the three-point stencil, with the boundary that the basis keeps."""
    n = x.shape[-1]
    zero = torch.zeros_like(x[..., :1])
    left, right, h = {
        "Periodic": (x[..., -1:], x[..., :1], length / n),
        "Cosine": (x[..., :1], x[..., -1:], length / n),
        "Sine": (zero, zero, length / (n + 1)),
    }[type(basis).__name__]
    wide = torch.cat([left, x, right], dim=-1)
    return (2 * x - wide[..., :-2] - wide[..., 2:]) / h**2


@names
def test_wavenumbers_are_eigenvalues_of_the_second_difference(basis: Basis) -> None:
    """Exactly an eigenvector on every grid; the eigenvalue tends to k^2 with the square of h."""
    length, gaps = 1.7, []
    for n in (64, 128):
        k2 = basis.wavenumbers((n,), (length,))
        gap = []
        for mode in range(6):
            c = basis.forward(torch.zeros(n, dtype=torch.float64), 1)
            c[mode] = 1
            e = basis.inverse(c, (n,))
            image = second_difference(basis, e, length)
            value = float(e @ image / (e @ e))
            assert torch.allclose(image, value * e, atol=1e-8)
            gap.append(float(k2[mode]) - value)
        gaps.append(np.array(gap))
    positive = gaps[0] > 1e-6
    assert positive.sum() >= 5
    assert gaps[0][positive] / gaps[1][positive] == pytest.approx(4, abs=0.15)
    assert np.abs(gaps[1]).max() < 0.01 * float(k2[5])


@names
def test_wavenumbers_of_a_box_add_up(basis: Basis) -> None:
    lengths, shape = (2.0, 0.5), (6, 8)
    k2 = basis.wavenumbers(shape, lengths)
    first = basis.wavenumbers((6, 1), (2.0, 0.5))[:, 0]
    second = basis.wavenumbers((1, 8), (2.0, 0.5))[0]
    offset = basis.wavenumbers((1, 1), lengths)[0, 0]
    assert torch.allclose(k2, first[:, None] + second[None] - offset)
    assert k2.shape == basis.forward(torch.zeros(shape, dtype=torch.float64), 2).shape
    # both signs of a frequency, along an axis that keeps all of it
    if isinstance(basis, Periodic):
        assert torch.allclose(k2[1:, 0], k2[1:, 0].flip(0))
        assert float(k2[1, 0]) == pytest.approx((2 * math.pi / 2.0) ** 2)


@pytest.mark.parametrize("basis", [Cosine(), Sine()], ids=["Cosine", "Sine"])
def test_matrices_made_under_inference_serve_training(basis: Basis) -> None:
    shape = (11, 13)  # no other test has these sizes in the cache
    with torch.inference_mode():
        basis.forward(torch.zeros(shape), 2)
    x = torch.randn(shape, requires_grad=True)
    basis.forward(x, 2).square().sum().backward()
    assert x.grad is not None
    assert torch.allclose(x.grad, 2 * x, atol=1e-5)  # Parseval: the gradient of |x|^2


def test_float32_matrices_come_from_float64() -> None:
    assert torch.equal(cosines(9, torch.float32), cosines(9, torch.float64).float())
