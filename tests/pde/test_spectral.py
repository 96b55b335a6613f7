from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sciddm.errors import InputError
from sciddm.pde.spectral import Torus, cast, differentiate, velocity


def _banded(torus: Torus, seed: int = 0) -> Tensor:
    """A random real field that holds only the modes of the rule of 2/3, of mean 0."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(torus.sizes, dtype=torch.float64, generator=generator)
    kept = torus.spectrum(noise) * torus.kept()
    kept.view(-1)[0] = 0.0
    return torus.field(kept)


@pytest.mark.parametrize("sizes", [(16, 24), (15, 9), (8, 13)])
def test_derivatives_of_waves_are_exact(sizes: tuple[int, int]) -> None:
    torus = Torus(sizes, (2.0, 0.5))
    y, x = torus.points(-2), torus.points(-1)
    p, q = 2 * math.pi * 3 / 2.0, 2 * math.pi * 2 / 0.5
    wave = torch.sin(p * y + 0.3) * torch.cos(q * x)
    slope_y = differentiate(wave, torus, -2)
    torch.testing.assert_close(slope_y, p * torch.cos(p * y + 0.3) * torch.cos(q * x))
    bend_x = differentiate(wave, torus, -1, order=2)
    torch.testing.assert_close(bend_x, -(q**2) * wave)


def test_the_slope_of_the_highest_mode_is_not_seen_but_its_bend_is() -> None:
    torus = Torus((8,), (1.0,))
    saw = torch.cos(math.pi * torch.arange(8, dtype=torch.float64))
    assert float(differentiate(saw, torus, -1).abs().max()) == 0.0
    torch.testing.assert_close(differentiate(saw, torus, -1, 2), -((8 * math.pi) ** 2) * saw)


def test_summation_by_parts_and_the_inverse_laplacian() -> None:
    torus = Torus((12, 20), (1.0, 3.0))
    f, g = _banded(torus, 1), _banded(torus, 2)
    left, right = (differentiate(f, torus, -2) * g).sum(), (f * differentiate(g, torus, -2)).sum()
    torch.testing.assert_close(left, -right)
    stream = torus.field(torus.spectrum(f) * torus.inverse_laplacian())
    back = torus.field(torus.spectrum(stream) * torus.laplacian())
    torch.testing.assert_close(back, f)


def test_velocity_has_no_divergence_and_its_curl_is_the_vorticity() -> None:
    torus = Torus((24, 16), (1.0, 2.0))
    w = _banded(torus).expand(3, 1, 24, 16)
    flow = velocity(w, torus)
    assert flow.shape == (3, 1, 2, 24, 16)
    u, v = flow.unbind(-3)
    divergence = differentiate(u, torus, -1) + differentiate(v, torus, -2)
    assert float(divergence.abs().max()) < 1e-12
    torch.testing.assert_close(differentiate(v, torus, -1) - differentiate(u, torus, -2), w)


@pytest.mark.parametrize("sizes", [(24,), (27,), (16, 22)])
def test_what_is_kept_of_a_product_of_two_is_exact(sizes: tuple[int, ...]) -> None:
    torus = Torus(sizes, (1.0,) * len(sizes))
    fine = Torus(tuple(2 * size for size in sizes), torus.lengths)
    f, g = _banded(torus, 1), _banded(torus, 2)
    coarse = torus.spectrum(f * g) * torus.kept() / f.numel()
    modes = torch.meshgrid(*(torus.modes(a).flatten().long() for a in torus.axes), indexing="ij")

    def lift(x: Tensor) -> Tensor:
        there = torch.zeros_like(fine.spectrum(torch.zeros(fine.sizes, dtype=torch.float64)))
        there[modes] = torus.spectrum(x) * (2 ** len(sizes))
        return fine.field(there)

    exact = fine.spectrum(lift(f) * lift(g)) / (f.numel() * 2 ** len(sizes))
    torch.testing.assert_close(coarse, exact[modes] * torus.kept(), atol=1e-14, rtol=0)


def test_symbols_follow_the_precision_of_a_field() -> None:
    torus = Torus((8, 8), (1.0, 1.0))
    assert cast(torus.derivative(-1), torch.float32, torch.device("cpu")).dtype == torch.complex64
    assert differentiate(torch.zeros(8, 8), torus, -1).dtype == torch.float32


@pytest.mark.parametrize(
    ("sizes", "lengths"), [((3, 8), (1.0, 1.0)), ((8,), (0.0,)), ((8,), (1.0, 1.0)), ((), ())]
)
def test_impossible_grids_are_refused(sizes: tuple[int, ...], lengths: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="expected"):
        Torus(sizes, lengths)
