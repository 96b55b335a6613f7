"""Wavelet transforms against PyWavelets, and the identities that make them useful."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import pywt
import torch

from sciddm.errors import InputError
from sciddm.wavelet import DWT

DOUBLE = torch.float64
NAMES = ("haar", "db4", "sym4", "coif1", "bior1.3", "bior2.4", "bior4.4", "rbio3.5")
GRIDS: dict[str, tuple[DWT, tuple[int, ...]]] = {
    f"{name}, {where}": (DWT(name, periodic, levels, axes), grid)
    for name in NAMES
    for where, (periodic, levels, axes, grid) in {
        "torus": ((True, True), 2, None, (32, 24)),
        "box": ((False, False), 2, None, (24, 32)),
        "film": ((False, True, True), 1, (1, 2), (5, 16, 12)),
        "series": ((False,), 3, None, (40,)),
        "volume": ((True, False, True), 1, None, (8, 6, 4)),
    }.items()
}


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("dwt", "grid"), GRIDS.values(), ids=GRIDS.keys())
def test_nothing_is_lost(dwt: DWT, grid: tuple[int, ...]) -> None:
    x = noise(2, 3, *grid)
    c = dwt.forward(x)
    assert c.shape == x.shape and not torch.allclose(c, x)
    assert float((dwt.inverse(c) - x).abs().max()) < 1e-12
    assert float((dwt.forward(dwt.inverse(x)) - x).abs().max()) < 1e-12
    single = x.float()
    assert float((dwt.inverse(dwt.forward(single)) - single).norm() / single.norm()) < 1e-6


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.filterwarnings("ignore:Level value")
def test_the_numbers_are_those_of_pywavelets(name: str, levels: int) -> None:
    x = noise(2, 32, 48)
    c = DWT(name, (True, True), levels).forward(x)
    for row in range(2):
        theirs = pywt.wavedec2(x[row].numpy(), name, mode="periodization", level=levels)
        nested, _ = pywt.coeffs_to_array(theirs)
        np.testing.assert_allclose(c[row].numpy(), nested, atol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_inside_a_bounded_axis_too(name: str) -> None:
    """What lies within a filter's length of no end is the same whatever is beyond it."""
    x = noise(64)
    c = DWT(name, (False,)).forward(x)
    low, high = pywt.dwt(x.numpy(), name, mode="periodization")
    edge = pywt.Wavelet(name).dec_len // 2
    np.testing.assert_allclose(c[:32].numpy()[edge:-edge], low[edge:-edge], atol=1e-10)
    np.testing.assert_allclose(c[32:].numpy()[edge:-edge], high[edge:-edge], atol=1e-10)


@pytest.mark.parametrize("name", ["haar", "db2", "db4", "sym4", "coif2"])
@pytest.mark.parametrize("periodic", [True, False])
def test_an_orthonormal_transform_keeps_energy_and_its_inverse_is_its_adjoint(
    name: str, periodic: bool
) -> None:
    dwt = DWT(name, (periodic, True), 2)
    x, y = noise(1, 1, 16, 24), noise(1, 1, 16, 24, seed=1)
    assert dwt.orthonormal
    assert float(dwt.forward(x).square().sum()) == pytest.approx(float(x.square().sum()), rel=1e-12)
    inner = float((dwt.forward(x) * y).sum())
    assert inner == pytest.approx(float((x * dwt.inverse(y)).sum()), abs=1e-11)


def test_another_says_that_it_does_not() -> None:
    dwt = DWT("bior2.4", (True,))
    x = noise(64)
    energy = float(dwt.forward(x).square().sum() / x.square().sum())
    assert not dwt.orthonormal and abs(energy - 1) > 1e-3


@pytest.mark.parametrize(
    ("name", "between"),
    [("bior1.3", True), ("rbio3.5", True), ("bior2.4", False), ("bior4.4", False)],
)
def test_a_bounded_axis_is_the_circle_of_the_mirrored_field(name: str, between: bool) -> None:
    """Mirrored between points for filters of even length, about the end points for odd ones."""
    x = noise(24)
    other = x.flip(0) if between else x[1:-1].flip(0)
    circle = torch.cat([x, other])
    ours = DWT(name, (False,)).forward(x)
    low, high = pywt.dwt(circle.numpy(), name, mode="periodization")
    np.testing.assert_allclose(ours[:12], low[:12], atol=1e-12)
    np.testing.assert_allclose(ours[12:], high[:12], atol=1e-12)


MOMENTS = {"haar": 1, "db4": 4, "sym4": 4, "coif1": 2, "bior1.3": 1, "bior2.4": 2, "bior4.4": 4}


@pytest.mark.parametrize(("name", "moments"), [*MOMENTS.items(), ("rbio3.5", 5)])
def test_polynomials_below_the_vanishing_moments_have_no_details(name: str, moments: int) -> None:
    t = torch.linspace(-1, 1, 64, dtype=DOUBLE)
    edge = pywt.Wavelet(name).dec_len // 2
    dwt = DWT(name, (False,))
    for degree in range(moments + 1):
        details = dwt.forward(t**degree)[32:][edge:-edge].abs().max()
        assert (float(details) < 1e-9) == (degree < moments), degree
    # a constant has none at the ends either
    assert float(dwt.forward(torch.ones(64, dtype=DOUBLE))[32:].abs().max()) < 1e-9


def test_a_front_is_few_large_numbers() -> None:
    """Few details hold what Fourier needs many waves for."""
    x = torch.tanh((torch.arange(256, dtype=DOUBLE) - 101) / 1.5)
    c = DWT("bior2.4", (False,), 4).forward(x)
    sizes = c.abs().sort(descending=True).values
    large = c.abs() >= sizes[40]
    kept = torch.where(large, c, torch.zeros_like(c))
    gap = DWT("bior2.4", (False,), 4).inverse(kept) - x
    waves = torch.fft.rfft(x)
    few = torch.where(waves.abs() >= waves.abs().sort(descending=True).values[20], waves, 0 * waves)
    assert float(gap.norm()) < 0.05 * float((torch.fft.irfft(few, n=256) - x).norm())


def test_bands_are_the_corners_and_come_back() -> None:
    dwt = DWT("db2", (True, False), 2)
    x = noise(2, 1, 16, 24)
    parts = dwt.bands(dwt.forward(x))
    sizes = [tuple(p.shape[2:]) for p in parts]
    assert sizes == [(4, 6)] * 4 + [(8, 12)] * 3
    assert torch.equal(dwt.inverse(dwt.nested(parts, (16, 24))), dwt.inverse(dwt.forward(x)))


@pytest.mark.parametrize(("dwt", "grid"), GRIDS.values(), ids=GRIDS.keys())
def test_bands_side_by_side_are_the_same_numbers(dwt: DWT, grid: tuple[int, ...]) -> None:
    c = noise(2, 3, *grid)
    y = dwt.channels(c)
    assert y.shape == (2, 3 * dwt.fold, *dwt.coarse(grid))
    assert torch.equal(dwt.unchannels(y, grid), c)
    # the first of each channel's is the averages
    first = y.unflatten(1, (3, dwt.fold))[:, :, 0]
    assert torch.equal(first, dwt.bands(c)[0])


def test_side_by_side_a_place_stays_where_it_is() -> None:
    """A point source is seen in every channel at its own place on the coarse grid."""
    dwt = DWT("haar", (True, True), 2)
    x = torch.zeros(1, 1, 32, 32, dtype=DOUBLE)
    x[0, 0, 13, 22] = 1.0
    hot = dwt.channels(dwt.forward(x)).abs().sum((0, 1)).nonzero().tolist()
    assert hot == [[13 // 4, 22 // 4]]


@pytest.mark.parametrize("periodic", [True, False])
def test_the_gradient_is_the_adjoints(periodic: bool) -> None:
    dwt = DWT("bior2.4", (periodic, True), 2)
    x = noise(1, 4 * dwt.fold, 2, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda y: dwt.inverse(dwt.unchannels(y, (8, 12))), (x,))


BAD: dict[str, tuple[str, Callable[[], object]]] = {
    "an unknown filter": ("'db44'.*Did you mean 'db4'", lambda: DWT("db44", (True,))),
    "no level": ("0 levels", lambda: DWT("haar", (True,), 0)),
    "an axis that is not there": (r"axes \(2,\) of 2", lambda: DWT("haar", (True, True), 1, (2,))),
    "an axis twice": (r"axes \(0, 0\)", lambda: DWT("haar", (True, True), 1, (0, 0))),
    "an odd grid": (
        r"\(12, 10\).*multiples of 4",
        lambda: DWT("haar", (True, True), 2).forward(torch.zeros(12, 10)),
    ),
    "integers": ("int64", lambda: DWT("haar", (True,)).forward(torch.zeros(8, dtype=torch.int64))),
    "bands of another grid": (
        r"4 channels on \(4, 4\)",
        lambda: DWT("haar", (True, True)).unchannels(torch.zeros(1, 4, 4, 5), (8, 8)),
    ),
}


@pytest.mark.parametrize(("said", "act"), BAD.values(), ids=BAD.keys())
def test_what_cannot_be_is_refused(said: str, act: Callable[[], object]) -> None:
    with pytest.raises(InputError, match=said):
        act()
