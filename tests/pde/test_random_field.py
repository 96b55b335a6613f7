from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sciddm.errors import InputError
from sciddm.pde.elliptic import Poisson
from sciddm.pde.grid import dct2, idct2
from sciddm.pde.random_field import GaussianField, PeriodicField, _places


def _solution_variance(size: int) -> float:
    """Mean over the grid of Var u for Poisson's equation, summed over modes in closed form."""
    j, k = torch.arange(size).double(), torch.arange(size).double()
    synthesis = torch.cos(math.pi * (2 * j[:, None] + 1) * k / (2 * size)) * math.sqrt(2 / size)
    synthesis[:, 0] = math.sqrt(1 / size)
    m = torch.arange(1, size - 1).double()
    analysis = torch.sin(math.pi * m[:, None] * m / (size - 1)) * math.sqrt(2 / (size - 1))
    p = (analysis @ synthesis[1:-1]).square()
    along = (2.0 * (size - 1)) ** 2 * torch.sin(math.pi * m / (2 * (size - 1))) ** 2
    modes = p @ (size * GaussianField().spectrum(size)).square() @ p.T
    return float((modes / (along[:, None] + along).square()).sum()) / size**2


def test_published_standard_deviations() -> None:
    assert float(GaussianField().spectrum(128).norm()) == pytest.approx(0.2921, abs=1e-4)
    assert math.sqrt(_solution_variance(128)) == pytest.approx(0.0041763, rel=2e-4)


def test_every_mode_through_the_solver_gives_the_closed_form() -> None:
    size = 16
    scale = (size * GaussianField().spectrum(size)).reshape(-1)
    modes = idct2(torch.diag(scale).reshape(size**2, 1, size, size))
    variance = float(Poisson()(modes).square().sum()) / size**2
    assert variance == pytest.approx(_solution_variance(size), rel=1e-11)


@pytest.mark.parametrize("field", [GaussianField(), GaussianField(alpha=3.0, tau=4.0)])
def test_modes_of_the_draws_have_the_law(field: GaussianField) -> None:
    size, samples = 24, 64
    standard = dct2(field.draw(samples, size)) / (size * field.spectrum(size))
    xi = standard.reshape(samples, -1)[:, 1:]
    n = xi.numel()
    assert abs(float(xi.mean())) < 4 / math.sqrt(n)
    assert abs(float(xi.square().mean()) - 1) < 4 * math.sqrt(2 / n)
    # Each mode on its own: the largest of 575 variances, and the low modes by themselves.
    assert float(xi.square().mean(0).max()) < 1 + 5 * math.sqrt(2 / samples)
    low = standard.reshape(samples, size, size)[:, :3, :3].reshape(samples, -1)[:, 1:]
    assert abs(float(low.square().mean()) - 1) < 4 * math.sqrt(2 / low.numel())


def test_the_mean_mode_is_empty_and_the_law_does_not_depend_on_the_grid() -> None:
    field = GaussianField()
    assert float(field.draw(3, 20).mean((1, 2, 3)).abs().max()) < 1e-15
    fine = field.spectrum(96)
    torch.testing.assert_close(field.spectrum(32), fine[:32, :32])
    # What the coarse grid leaves out is the tail of the spectrum, less than 1 % of the s.d.
    assert float(field.spectrum(32).norm() / fine.norm()) == pytest.approx(1, abs=0.01)
    k = math.pi * math.hypot(2, 5)
    assert float(fine[2, 5]) == pytest.approx(3 / (k**2 + 9))


def test_a_sample_is_the_same_in_any_batch() -> None:
    field = GaussianField()
    whole = field.draw(6, 17, seed=5)
    assert torch.equal(field.draw(2, 17, seed=5, start=3), whole[3:5])
    flat: list[Tensor] = [f.flatten() for f in (*whole, *field.draw(6, 17, seed=6))]
    assert len({float(f[0]) for f in flat}) == 12


def test_bad_numbers_are_named() -> None:
    with pytest.raises(InputError, match="alpha > 1"):
        GaussianField(alpha=1.0)
    with pytest.raises(InputError, match="tau=nan"):
        GaussianField(tau=math.nan)
    for numbers in ({"seed": -1}, {"seed": 2**32}, {"start": -1}):
        with pytest.raises(InputError, match="expected numbers of at least 0"):
            GaussianField().draw(1, 8, **numbers)


def test_the_periodic_field_has_the_published_standard_deviation() -> None:
    assert float(PeriodicField().spectrum(128).norm()) == pytest.approx(0.26196, abs=2e-5)


@pytest.mark.parametrize(
    "field", [PeriodicField(), PeriodicField(alpha=2.0, tau=5.0, axes=1, sigma=25.0)]
)
def test_waves_of_the_periodic_draws_have_the_law(field: PeriodicField) -> None:
    """Both parts of a wave have variance c^2 / 2: half of xi(n) and of xi(-n) conjugate."""
    size, samples = 24, 96
    axes = tuple(range(-field.axes, 0))
    waves = torch.fft.rfftn(field.draw(samples, size), dim=axes) / size**field.axes
    c = field.spectrum(size)[..., : size // 2 + 1]
    inner = (slice(None), 0, *(slice(1, size // 2) for _ in axes))
    ratio = torch.view_as_real(waves[inner] / (c[inner[2:]] / math.sqrt(2)))
    n = ratio.numel()
    assert abs(float(ratio.mean())) < 4 / math.sqrt(n)
    assert abs(float(ratio.square().mean()) - 1) < 4 * math.sqrt(2 / n)
    assert float(waves[(slice(None), 0, *(0 for _ in axes))].abs().max()) < 1e-16
    point = field.draw(samples, size).square().mean()
    low = float(c.square().max())  # a few long waves carry most of the variance
    spread = math.sqrt(2 * low / float(field.spectrum(size).square().sum()) / samples) + 0.02
    assert float(point / field.spectrum(size).square().sum()) == pytest.approx(1, abs=4 * spread)


@pytest.mark.parametrize("axes", [1, 2])
@pytest.mark.parametrize(("small", "large"), [(16, 32), (15, 16), (9, 64)])
def test_a_periodic_sample_is_one_field_at_any_size(axes: int, small: int, large: int) -> None:
    field = PeriodicField(axes=axes)
    dims = tuple(range(-axes, 0))
    coarse = torch.fft.fftn(field.draw(2, small), dim=dims) / small**axes
    fine = torch.fft.fftn(field.draw(2, large), dim=dims) / large**axes
    held = (..., *(slice(0, (small - 1) // 2 + 1) for _ in dims))
    torch.testing.assert_close(coarse[held], fine[held], atol=1e-15, rtol=1e-9)


@pytest.mark.parametrize("size", [3, 8, 17])
def test_no_two_waves_share_a_number(size: int) -> None:
    for axes in (1, 2):
        places = _places(size, axes).flatten().sort().values
        assert torch.equal(places, torch.arange(size**axes))


def test_periodic_samples_are_addressed() -> None:
    field = PeriodicField()
    assert torch.equal(field.draw(1, 12, seed=7, start=3), field.draw(5, 12, seed=7)[3:4])
    assert not torch.equal(field.draw(1, 12, seed=8), field.draw(1, 12, seed=7))


@pytest.mark.parametrize(
    "make",
    [
        lambda: PeriodicField(alpha=1.0),
        lambda: PeriodicField(alpha=0.5, axes=1),
        lambda: PeriodicField(axes=3),
        lambda: PeriodicField(tau=0.0),
        lambda: PeriodicField(sigma=-1.0),
        lambda: PeriodicField().draw(1, 2),
        lambda: PeriodicField().draw(-1, 8),
        lambda: PeriodicField().draw(1, 8, seed=2**32),
    ],
)
def test_impossible_periodic_fields_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(InputError, match="expected"):
        make()
