"""Measured covariances: of the exact denoiser they are the exact ones, between the levels too."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sciddm.basis import Cosine
from sciddm.calibrate import Calibrated, Scaled, calibrate, errors, scale
from sciddm.covariance import LowRank, Matern, Spectral, White
from sciddm.denoise import Context, Denoiser, Gaussian, Moments
from sciddm.process import VE, VP, LogLinear, Process
from sciddm.random import Streams

DOUBLE = torch.float64
CLOCK = LogLinear(0.003, 300.0)
SHAPE = (2, 8)
SIZE = 16
COUNT = 4000


def prior(modes: int) -> LowRank:
    noise = torch.randn(SIZE, SIZE, generator=torch.manual_seed(1), dtype=DOUBLE)
    directions = torch.linalg.qr(noise).Q.T[:modes].reshape(modes, *SHAPE)
    return LowRank(directions, 20 * 0.6 ** torch.arange(modes, dtype=DOUBLE), 0.02)


def dense(moments: Moments, t: Tensor) -> Tensor:
    return moments.covariance(t)(torch.eye(SIZE, dtype=DOUBLE).view(SIZE, *SHAPE)).flatten(1)


def whitened(found: Tensor, exact: Tensor) -> Tensor:
    """exact^-1/2 found exact^-1/2: the identity where they agree, in every direction."""
    values, vectors = torch.linalg.eigh(exact)
    root = vectors / values.sqrt()
    return root.T @ found @ root


@pytest.mark.parametrize(("modes", "kind"), [(SIZE, VE), (6, VP)], ids=["all modes", "some"])
def test_calibrating_the_exact_denoiser_gives_its_covariance(
    modes: int, kind: type[VE] | type[VP]
) -> None:
    """At the measured levels within Monte Carlo error (s.d. 2.2 % of a variance), between them
    within the interpolation; directions outside the modes as well as inside."""
    law = prior(modes)
    gaussian = Gaussian(torch.zeros(()), law, kind(clock=CLOCK))
    x = law.sample(torch.zeros(COUNT, *SHAPE, dtype=DOUBLE), Streams.of(0, COUNT))
    found = calibrate(gaussian, x, law.modes, Context(), shrinkage=0.0)
    times = gaussian.process.times(len(found.log_kappa)).flip(0)
    for i, t in enumerate(times[:-1]):
        middle = 0.5 * (t + times[i + 1])
        for time, tolerance in ((t, 0.1), (middle, 0.13)):
            ratio = whitened(dense(found, time), dense(gaussian, time))
            assert torch.allclose(ratio.diagonal(), torch.ones_like(ratio[0]), atol=tolerance)
            assert float((ratio - torch.diag(ratio.diagonal())).abs().max()) < 0.08


def test_shrinkage_gives_up_correlations_and_keeps_variances() -> None:
    """Modes that do not diagonalise the error: the truth rotated against them."""
    law = prior(SIZE)
    modes = torch.eye(SIZE, dtype=DOUBLE).view(SIZE, *SHAPE)
    gaussian = Gaussian(torch.zeros(()), law, VE(clock=CLOCK))
    x = law.sample(torch.zeros(500, *SHAPE, dtype=DOUBLE), Streams.of(0, 500))
    full, half, none = (
        calibrate(gaussian, x, modes, Context(), 3, shrinkage=s).inside for s in (0.0, 0.5, 1.0)
    )
    assert torch.allclose(none, torch.diag_embed(full.diagonal(dim1=1, dim2=2)))
    assert torch.allclose(half, 0.5 * (full + none))
    assert float((full - none).abs().max()) > 1


class Silent(Denoiser):
    """Says zero: its error is the field itself, whatever the noise."""

    def __init__(self, process: Process) -> None:
        nn.Module.__init__(self)
        self.process = process

    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        said = torch.zeros_like(x_t)
        return said if context.fields is None else said + context.fields


def test_the_rest_is_measured_per_channel() -> None:
    """Two channels of white fields, of variance 4 and 0.25, and one mode that leaves them alone."""
    std = torch.tensor([2.0, 0.5], dtype=DOUBLE).view(1, 2, 1)
    x = std * Streams.of(1, COUNT).normal(torch.zeros(COUNT, *SHAPE, dtype=DOUBLE))
    mode = torch.zeros(1, *SHAPE, dtype=DOUBLE)
    mode[0, 0, 3] = 1
    found = calibrate(Silent(VE(clock=CLOCK)), x, mode, Context(), 2)
    assert found.rest[0].tolist() == pytest.approx([4.0, 0.25], rel=0.05)
    c = dense(found, torch.tensor(0.5, dtype=DOUBLE))
    assert torch.allclose(c, torch.diag(c.diagonal()), atol=1e-12)
    assert torch.allclose(c.diagonal().view(SHAPE), (std[0] ** 2).expand(SHAPE), rtol=0.09)


def test_the_rest_stays_outside_modes_that_join_channels() -> None:
    """U^T V U is the measured E, though the channels' rests differ; V is symmetric, positive."""
    modes = prior(3).modes
    inside = torch.diag(torch.tensor([3.0, 2.0, 1.0], dtype=DOUBLE)).expand(2, 3, 3)
    rest = torch.tensor([[4.0, 0.25]], dtype=DOUBLE).expand(2, 2)
    knots = torch.tensor([-1.0, 1.0], dtype=DOUBLE)
    found = Calibrated(VE(clock=CLOCK), modes, knots, inside, rest)
    v, u = dense(found, torch.tensor(0.5, dtype=DOUBLE)), modes.flatten(1)
    assert torch.allclose(v, v.T, atol=1e-12)
    assert torch.allclose(u @ v @ u.T, inside[0], atol=1e-12)
    outside = torch.eye(SIZE, dtype=DOUBLE) - u.T @ u
    expected = outside @ torch.diag(rest[0].repeat_interleave(8)) @ outside
    assert torch.allclose(outside @ v @ outside, expected, atol=1e-12)
    assert torch.allclose(v, u.T @ inside[0] @ u + expected, atol=1e-12)


def test_a_covariance_stays_positive_between_levels() -> None:
    """Interpolated from levels whose correlations differ in sign."""
    modes = torch.eye(SIZE, dtype=DOUBLE).view(SIZE, *SHAPE)
    a = torch.randn(SIZE, 3, generator=torch.manual_seed(0), dtype=DOUBLE)
    b = torch.randn(SIZE, 3, dtype=DOUBLE) * torch.logspace(-3, 2, SIZE, dtype=DOUBLE)[:, None]
    inside = torch.stack([a @ a.T, b @ b.T])
    process = VE(clock=CLOCK)
    ends = process.kappa(torch.tensor([0.0, 1.0], dtype=DOUBLE)).log()
    found = Calibrated(process, modes, ends, inside, torch.zeros(2, 2, dtype=DOUBLE))
    assert torch.allclose(dense(found, torch.tensor(0.0)), inside[0], atol=1e-9)
    assert torch.allclose(dense(found, torch.tensor(1.0)), inside[1], atol=1e-9)
    for time in (0.2, 0.5, 0.9):
        c = dense(found, torch.tensor(time, dtype=DOUBLE))
        assert float(torch.linalg.eigvalsh(0.5 * (c + c.T)).min()) > -1e-9
        geometric = inside[0].diagonal() ** (1 - time) * inside[1].diagonal() ** time
        assert torch.allclose(c.diagonal(), geometric)


def test_errors_see_the_context_of_their_own_row() -> None:
    """More fields than a batch: conditions on the grid and the anchor move with them."""
    x = torch.randn(10, *SHAPE, generator=torch.manual_seed(0), dtype=DOUBLE)
    times = VE(clock=CLOCK).times(2)
    denoiser = Silent(VE(clock=CLOCK))
    for rows in errors(denoiser, x, times, Context(fields=x, anchor=x), batch=4):
        assert torch.allclose(rows, torch.zeros_like(x))
    shared = Context(fields=x[:1])
    for rows in errors(denoiser, x, times, shared, batch=4):
        assert torch.allclose(rows, x[:1] - x)


def test_errors_are_the_same_at_every_call_and_in_every_batch() -> None:
    gaussian = Gaussian(torch.zeros(()), prior(6), VE(clock=CLOCK))
    x = torch.randn(10, *SHAPE, dtype=DOUBLE)
    times = gaussian.process.times(3)
    first = list(errors(gaussian, x, times, Context(), batch=10))
    for a, b in zip(first, errors(gaussian, x, times, Context(), batch=3), strict=True):
        assert torch.allclose(a, b, atol=1e-12)
    assert not torch.allclose(first[0], first[1])


def test_the_exact_denoiser_needs_no_scale() -> None:
    """Factors of one, on a field whose variance lies in few modes (s.d. of a factor: 2.5 %)."""
    law = Spectral(Matern(0.3, 1.5), (1.0, 1.0), Cosine())
    base = Gaussian(torch.zeros(()), law, VE(clock=CLOCK))
    x = law.sample(torch.zeros(1500, 1, 12, 12, dtype=DOUBLE), Streams.of(0, 1500))
    found = scale(base, base, x, Context(), levels=6)
    assert torch.allclose(found.factor, torch.ones(6, dtype=DOUBLE), atol=0.08)
    # a base that is twice too sure of itself is told so, by a factor of four where data decide
    sure = Gaussian(torch.zeros(()), Spectral(Matern(0.3, 1.5, 0.5), (1.0, 1.0), Cosine()), VE())
    sure.process = base.process
    told = scale(base, sure, x, Context(), levels=6)
    assert float(told.factor[-1]) == pytest.approx(4, rel=0.08)
    assert float(told.factor[0]) == pytest.approx(1, rel=0.02)


def test_scaled_is_the_base_times_its_factor() -> None:
    base = Gaussian(torch.zeros(()), prior(6), VE(clock=CLOCK))
    ends = base.process.kappa(torch.tensor([0.0, 1.0], dtype=DOUBLE)).log()
    found = Scaled(base, ends, torch.tensor([1.0, 3.0], dtype=DOUBLE))
    t = torch.tensor(0.25, dtype=DOUBLE)
    assert torch.allclose(dense(found, t), 1.5 * dense(base, t))
    white = Scaled(
        Gaussian(torch.zeros(()), White(), VE(clock=CLOCK)), ends, torch.ones(2, dtype=DOUBLE)
    )
    kappa2 = float(base.process.kappa(t)) ** 2
    assert torch.allclose(dense(white, t).diagonal(), torch.tensor(kappa2 / (1 + kappa2)).double())
