from __future__ import annotations

import math

import pytest
import scipy.fft
import torch

from sciddm.errors import InputError
from sciddm.pde.grid import _cosines, dct2, dst1, idct2, laplacian, nodes


def _field(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (5, 12), (1, 31, 17)])
def test_transforms_agree_with_scipy(shape: tuple[int, ...]) -> None:
    x = _field(*shape)
    cosine = scipy.fft.dctn(x.numpy(), type=2, axes=(-2, -1), norm="ortho")
    sine = scipy.fft.dstn(x.numpy(), type=1, axes=(-2, -1), norm="ortho")
    torch.testing.assert_close(dct2(x), torch.from_numpy(cosine), rtol=0, atol=1e-13)
    torch.testing.assert_close(dst1(x), torch.from_numpy(sine), rtol=0, atol=1e-13)


@pytest.mark.parametrize("size", [64, 126, 257])
def test_transforms_are_orthonormal_and_invert(size: int) -> None:
    x, y = _field(2, size, size), _field(2, size, size, seed=1)
    for forward, inverse in [(dct2, idct2), (dst1, dst1)]:
        torch.testing.assert_close(inverse(forward(x)), x, rtol=0, atol=1e-12)
        torch.testing.assert_close(forward(x).square().sum(), x.square().sum(), rtol=1e-13, atol=0)
        # The inverse is the transpose: <F x, y> = <x, F^-1 y>.
        torch.testing.assert_close((forward(x) * y).sum(), (x * inverse(y)).sum())


def test_gradient_is_the_transpose() -> None:
    x, y = _field(1, 9, 6).requires_grad_(), _field(1, 9, 6, seed=1)
    (gradient,) = torch.autograd.grad((dct2(x) * y).sum(), x)
    torch.testing.assert_close(gradient, idct2(y))


def test_sines_diagonalise_the_laplacian() -> None:
    h, w, k, m = 13, 9, 4, 2
    y, x = nodes(h), nodes(w)
    u = torch.outer(torch.sin(math.pi * k * y), torch.sin(math.pi * m * x))
    eigenvalue = sum(
        -((2 * (n - 1)) ** 2) * math.sin(math.pi * j / (2 * (n - 1))) ** 2
        for n, j in [(h, k), (w, m)]
    )
    torch.testing.assert_close(laplacian(u)[1:-1, 1:-1], eigenvalue * u[1:-1, 1:-1])
    only = dst1(u[1:-1, 1:-1])
    assert only.abs().argmax() == (k - 1) * (w - 2) + m - 1
    assert only.abs().sum() == pytest.approx(float(only.abs().max()), rel=1e-12)


def test_laplacian_is_exact_on_quadratics_and_zero_on_the_ring() -> None:
    y, x = nodes(7)[:, None], nodes(11)[None, :]
    out = laplacian(3 * y**2 - x**2 + x * y)
    torch.testing.assert_close(out[1:-1, 1:-1], torch.full((5, 9), 4.0, dtype=torch.float64))
    assert out.abs().sum() == pytest.approx(float(out[1:-1, 1:-1].abs().sum()))


def test_a_cache_filled_in_inference_mode_serves_training() -> None:
    _cosines.cache_clear()
    with torch.inference_mode():
        dct2(_field(1, 10, 10))
    x = _field(1, 10, 10).requires_grad_()
    dct2(x).square().sum().backward()
    torch.testing.assert_close(x.grad, 2 * x.detach())


def test_bad_input_is_named() -> None:
    with pytest.raises(InputError, match=r"int64.*cast with \.float\(\)"):
        dct2(torch.ones(4, 4, dtype=torch.int64))
    with pytest.raises(InputError, match="at least 3"):
        nodes(2)
