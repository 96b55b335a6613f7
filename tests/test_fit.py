"""Fitted laws: the parameters of drawn fields are found, sample covariances are reproduced."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate
from torch import Tensor

from sciddm import fit
from sciddm.basis import Basis, Cosine, Periodic, Sine
from sciddm.covariance import LowRank, Matern, PowerLaw, Spectral, ZeroMean
from sciddm.errors import InputError
from sciddm.random import Streams

DOUBLE = torch.float64
bases = pytest.mark.parametrize(
    "basis", [Periodic(), Cosine(), Sine()], ids=lambda b: type(b).__name__
)


def drawn(law: Spectral, count: int, *shape: int) -> Tensor:
    return law.sample(torch.zeros(count, 1, *shape, dtype=DOUBLE), Streams.of(4, count))


@bases
def test_a_power_law_is_found(basis: Basis) -> None:
    """alpha, tau and scale within 5 %, on a box that is not the unit square."""
    truth, lengths = PowerLaw(2.2, 9.0, 25.0), (1.0, 1.5)
    x = drawn(Spectral(truth, lengths, basis), 150, 32, 48)
    found = fit.power_law(x, basis, lengths)
    assert found.alpha == pytest.approx(truth.alpha, rel=0.05)
    assert found.tau == pytest.approx(truth.tau, rel=0.05)
    # scale and alpha trade places far from k = 1: the density is what counts
    k2 = torch.tensor([10.0, 60.0, 100.0], dtype=DOUBLE) ** 2
    assert torch.allclose(found(k2, 2), truth(k2, 2), rtol=0.05)


def test_the_elliptic_benchmark_is_found_whole() -> None:
    truth = PowerLaw(2.0, 3.0, 3.0)
    x = drawn(Spectral(ZeroMean(truth), (1.0, 1.0), Cosine()), 300, 32, 32)
    found = fit.power_law(x, Cosine(), (1.0, 1.0))
    assert [found.alpha, found.tau, found.scale] == pytest.approx([2.0, 3.0, 3.0], rel=0.05)


@bases
def test_a_spectrum_is_found(basis: Basis) -> None:
    """The fitted density is the true one at its knots (a ring of one mode has an s.d. of 4.5 %),
    and carries over to a finer grid."""
    truth, lengths = Matern(0.15, 1.5, 1.3), (1.0, 1.4)
    x = drawn(Spectral(truth, lengths, basis), 1000, 24, 24)
    found = fit.spectrum(x, basis, lengths)
    k2 = torch.tensor(found.wavenumber, dtype=DOUBLE) ** 2
    ratio = found(k2, 2) / truth(k2, 2)
    assert torch.allclose(ratio, torch.ones_like(k2), atol=0.16)
    assert float(ratio.log().mean()) == pytest.approx(0, abs=0.03)
    fine, exact = (Spectral(d, lengths, basis).eigenvalues((48, 48)) for d in (found, truth))
    inner = basis.wavenumbers((48, 48), lengths) > 0  # the constant is not fitted
    assert float(fine[inner].sum() / exact[inner].sum()) == pytest.approx(1, abs=0.05)


def dense(law: LowRank) -> Tensor:
    shape = law.modes.shape[1:]
    size = math.prod(shape)
    return law(torch.eye(size, dtype=DOUBLE).view(size, *shape)).flatten(1)


@pytest.mark.parametrize("count", [9, 200], ids=["fewer fields than values", "more"])
def test_eofs_reproduce_the_sample_covariance(count: int) -> None:
    x = torch.randn(count, 2, 3, 4, generator=torch.manual_seed(0), dtype=DOUBLE)
    x = (x * torch.linspace(0.2, 3, 24, dtype=DOUBLE).view(2, 3, 4)).cumsum(-1)
    x = x - x.mean(0)
    flat = x.flatten(1)
    sample = flat.T @ flat / count
    whole = fit.eof(x, 100)
    assert torch.allclose(dense(whole), sample, atol=1e-5 * float(sample.max()))
    modes = whole.modes.flatten(1).double()
    # centred fields span one direction fewer; rounding makes no mode
    assert len(modes) == min(count - 1, 24)
    assert torch.allclose(modes @ modes.T, torch.eye(len(modes), dtype=DOUBLE), atol=1e-5)


@pytest.mark.parametrize("count", [9, 200])
def test_truncated_eofs_keep_the_leading_modes_and_the_variance(count: int) -> None:
    x = torch.randn(count, 1, 4, 6, generator=torch.manual_seed(0), dtype=DOUBLE).cumsum(-1)
    flat = x.flatten(1)
    sample = flat.T @ flat / count
    values, vectors = torch.linalg.eigh(sample)
    plain, shrunk = fit.eof(x, 5), fit.eof(x, 5, shrinkage=0.3)
    assert torch.allclose(plain.variances.double(), values.flip(0)[:5], rtol=1e-5)
    assert torch.allclose(shrunk.variances.double(), 0.7 * values.flip(0)[:5], rtol=1e-5)
    for law in (plain, shrunk):
        c = dense(law)
        assert float(c.trace()) == pytest.approx(float(sample.trace()), rel=1e-5)
        rest = vectors[:, :-5]
        assert torch.allclose(rest.T @ c @ rest, law.floor * torch.eye(19, dtype=DOUBLE), atol=1e-4)


def test_all_eofs_of_few_fields_stay_a_covariance_under_shrinkage() -> None:
    x = torch.randn(8, 1, 6, 6, generator=torch.manual_seed(0), dtype=DOUBLE)
    law = fit.eof(x - x.mean(0), 8, shrinkage=0.2)
    values = torch.linalg.eigvalsh(dense(law))
    assert float(values.min()) == pytest.approx(law.floor, rel=1e-4)


def test_the_taper_is_gaspari_and_cohns() -> None:
    r = torch.linspace(0, 1.2, 1201, dtype=DOUBLE)
    w = fit.taper(r)
    assert float(w[0]) == 1 and bool((w[r >= 1].abs() < 1e-12).all())
    assert bool((w.diff() <= 1e-15).all()) and float(w.diff().abs().max()) < 0.004
    # eq. 4.10 is the self-convolution in space of a cone: its transform is the cone's squared

    def transform(f: np.ndarray, top: float, k: float) -> float:
        at = np.linspace(0, top, len(f))
        return float(integrate.simpson(at * f * np.sin(k * at) / k, x=at))

    for k in (1.0, 7.0, 15.0):
        own, cone = (
            [transform(f, top, kk) for kk in (1e-3, k)]
            for f, top in ((w[r <= 1].numpy(), 1.0), (np.linspace(1, 0, 1001), 0.5))
        )
        assert own[1] / own[0] == pytest.approx((cone[1] / cone[0]) ** 2, abs=1e-6)


def test_the_taper_is_positive_definite() -> None:
    x = torch.arange(60, dtype=DOUBLE)
    for radius in (3.0, 10.0, 100.0):
        values = torch.linalg.eigvalsh(fit.taper((x[:, None] - x).abs() / radius))
        assert float(values.min()) > -1e-10
    square = torch.cartesian_prod(torch.arange(8.0), torch.arange(8.0)).double()
    assert float(torch.linalg.eigvalsh(fit.taper(torch.cdist(square, square) / 4)).min()) > -1e-10


def record() -> tuple[Tensor, Tensor]:
    x = torch.randn(10, 1, 5, 6, generator=torch.manual_seed(0), dtype=DOUBLE).cumsum(-1)
    at = torch.cartesian_prod(torch.arange(5.0), torch.arange(6.0)).double()
    return x - x.mean(0), torch.cdist(at, at)


def test_a_localised_covariance_is_the_tapered_sample_and_shrinks_to_its_target() -> None:
    x, distance = record()
    flat = x.flatten(1)
    sample = flat.T @ flat / len(x)
    std = sample.diagonal().sqrt()
    tapered = sample * fit.taper(distance / 4.0)
    target = torch.outer(std, std) * torch.exp(-distance / 1.0)
    eye = torch.eye(30, dtype=DOUBLE)
    for shrinkage, expected in ((0.0, tapered), (1.0, target), (0.3, 0.7 * tapered + 0.3 * target)):
        found = dense(fit.localised(x, distance, 4.0, shrinkage, modes=30, nugget=1e-4))
        assert torch.allclose(found, expected + 1e-4 * eye, atol=1e-5 * float(std.max()) ** 2)


def test_a_localised_covariance_is_positive_at_every_truncation() -> None:
    x, distance = record()
    sample = dense(fit.eof(x, 30))
    for modes in (None, 4, 12):
        law = fit.localised(x, distance, 4.0, 0.2, modes)
        c = dense(law)
        assert torch.allclose(c, c.T, atol=1e-6)
        assert float(torch.linalg.eigvalsh(c).min()) > 0.9e-4
        assert float(c.trace()) == pytest.approx(float(sample.trace()) + 30e-4, rel=1e-4)
    # the sample alone has no variance outside ten fields
    assert float(torch.linalg.eigvalsh(sample)[:20].max()) < 1e-5
    kept = fit.localised(x, distance, 4.0, 0.2)
    share = kept.variances.double().sum() / (float(sample.trace()))
    assert float(share) > 0.9998


def test_channels_apart_make_one_orthonormal_basis() -> None:
    x = torch.randn(50, 2, 3, 4, generator=torch.manual_seed(0)).cumsum(-1)
    modes = fit.by_channel(x, (5, 3))
    assert modes.shape == (8, 2, 3, 4)
    assert torch.allclose(modes.flatten(1) @ modes.flatten(1).T, torch.eye(8), atol=1e-5)
    assert not bool(modes[:5, 1].any()) and not bool(modes[5:, 0].any())
    assert torch.allclose(modes[:5, 0], fit.eof(x[:, :1], 5).modes[:, 0])
    assert torch.allclose(modes[5:, 1], fit.eof(x[:, 1:], 3).modes[:, 0])


@pytest.mark.parametrize("bad", [torch.zeros(1, 1, 4, 4), torch.full((3, 1, 4, 4), math.nan)])
def test_fields_that_say_nothing_are_refused(bad: Tensor) -> None:
    for call in (
        lambda: fit.eof(bad, 2),
        lambda: fit.power_law(bad, Cosine(), (1.0, 1.0)),
        lambda: fit.spectrum(bad, Cosine(), (1.0, 1.0)),
        lambda: fit.localised(bad, torch.zeros(16, 16), 1.0, 0.1),
    ):
        with pytest.raises(InputError, match="finite values"):
            call()
