"""Backbones of series on a regular grid: the filter is a convolution, parts are what they say."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sciddm.errors import InputError
from sciddm.model import CLASSES
from sciddm.nn import LongConv, TrendSeason
from sciddm.nn.series import Kernels
from sciddm.nn.trend import largest, polynomial
from sciddm.series import Panel, Spectrum
from sciddm.tree import Encoder, decode

LEVEL = torch.tensor(0.3)


def panel(rows: int, n: int, channels: int = 1) -> Panel:
    time = torch.arange(n).double().repeat(rows, channels)
    channel = torch.arange(channels).repeat_interleave(n).repeat(rows, 1)
    none = torch.zeros_like(channel, dtype=torch.bool)
    return Panel(time, channel, torch.zeros_like(time), none, ~none, dense=(channels, n))


def awake(net: LongConv) -> LongConv:
    torch.nn.init.normal_(net.head.weight)
    return net


def test_a_filter_is_the_convolution_with_its_kernels() -> None:
    torch.manual_seed(0)
    n, layer = 33, Kernels(4, 8, (2.0, 50.0)).double()
    x = torch.randn(2, 4, n, dtype=torch.float64)
    ahead, back = layer.kernels(n)
    lag = torch.arange(n)[:, None] - torch.arange(n)
    matrix = torch.where(lag >= 0, ahead[:, lag.clamp_min(0)], back[:, (-lag).clamp_min(0)])
    direct = torch.einsum("hij,bhj->bhi", matrix, x) + layer.skip[:, None] * x
    torch.testing.assert_close(layer(x), direct, atol=1e-5, rtol=1e-5)


def test_kernels_are_those_of_a_state_space() -> None:
    """k(j) = 2 Re c A^j with the diagonal A = exp(-(a + i w) d), by recursion."""
    torch.manual_seed(0)
    layer = Kernels(3, 5, (2.0, 20.0)).double()
    step, states = layer.log_step.exp(), torch.ones(2, 3, 5, dtype=torch.complex128)
    move = torch.exp(-step * torch.complex(layer.log_decay.exp(), layer.wave))
    weight = torch.complex(layer.weight[0], layer.weight[1])
    rows = []
    for _ in range(7):
        # real cos + imag sin is the real part of (real + i imag) exp(-i phase)
        rows.append(2 * step[..., 0].clamp_max(1).sqrt() * (weight * states).sum(-1).real)
        states = states * move
    torch.testing.assert_close(layer.kernels(7), torch.stack(rows, dim=-1))


@pytest.mark.parametrize("kind", [LongConv, TrendSeason])
def test_a_fresh_backbone_answers_zero_and_any_length_serves(kind: type) -> None:
    net = kind(2, 3, width=8, blocks=2)
    for n in (1, 2, 7, 24):
        out = net(torch.randn(4, 2, 3 * n), LEVEL, panel(4, n, 3))
        assert out.shape == (4, 1, 3 * n)
        assert bool((out == 0).all())


def test_the_first_step_is_heard_at_the_last() -> None:
    torch.manual_seed(0)
    net, n = awake(LongConv(1, 1, width=8, blocks=1, reach=(2.0, 300.0))), 200
    x = torch.randn(1, 1, n)
    moved = x.clone()
    moved[..., 0] += 1
    gap = (net(moved, LEVEL, panel(1, n)) - net(x, LEVEL, panel(1, n))).abs()[0, 0]
    assert float(gap[-1].detach()) > 1e-4


def test_what_stands_where_there_is_no_cell_is_not_heard() -> None:
    torch.manual_seed(0)
    net, cells = awake(LongConv(1, 2, width=8, blocks=1)), panel(2, 12, 2)
    real = torch.rand(2, 24) < 0.7
    x, junk = torch.randn(2, 1, 24), torch.randn(2, 1, 24)
    other = torch.where(real[:, None], x, junk)
    cells = replace(cells, real=real)
    torch.testing.assert_close(net(x, LEVEL, cells), net(other, LEVEL, cells))


def test_levels_covariates_periods_and_static_features_are_heard() -> None:
    torch.manual_seed(0)
    net = awake(LongConv(1, 1, width=8, blocks=1, covariates=2, static=3, periods=(6.0,)))
    for p in net.parameters():  # the level's maps start at zero
        if bool((p == 0).all()):
            torch.nn.init.normal_(p, std=0.3)
    full = replace(panel(2, 12), covariates=torch.randn(2, 2, 12), static=torch.randn(2, 3))
    x = torch.randn(2, 1, 12)

    def moved(log_kappa: Tensor, cells: Panel) -> float:
        return float((net(x, log_kappa, cells) - net(x, LEVEL, full)).detach().abs().max())

    assert moved(torch.tensor(1.0), full) > 1e-4
    assert moved(LEVEL, replace(full, covariates=torch.zeros(2, 2, 12))) > 1e-4
    assert moved(LEVEL, replace(full, static=torch.zeros(2, 3))) > 1e-4
    assert moved(LEVEL, replace(full, time=full.time + 1.0)) > 1e-4
    assert moved(LEVEL, replace(full, time=full.time + 6.0)) < 1e-5


def test_a_panel_that_does_not_fit_is_refused() -> None:
    net = LongConv(1, 2, width=8, blocks=1, covariates=1)
    x = torch.zeros(1, 1, 8)
    with pytest.raises(InputError, match="covariates"):
        net(x, LEVEL, panel(1, 4, 2))
    with pytest.raises(InputError, match="regular grid"):
        net(x, LEVEL, replace(panel(1, 4, 2), dense=None))
    with pytest.raises(InputError, match="as many rows"):
        net(x, LEVEL, panel(2, 4, 2))


def test_projections_of_trend_and_season() -> None:
    at = torch.arange(20).double()
    cubic = 1 + 0.3 * at - 0.02 * at**2 + 1e-3 * at**3
    torch.testing.assert_close(polynomial(cubic[None], 3)[0], cubic)
    waves = torch.stack([(2 * math.pi * f * at / 20).cos() for f in (2, 5, 7)])
    total = (torch.tensor([3.0, 2.0, 1.0]).double()[:, None] * waves).sum(0) + 5
    kept = 3 * waves[0] + 2 * waves[1]
    torch.testing.assert_close(largest(total[None], 2)[0], kept)
    torch.testing.assert_close(largest(torch.ones(1, 20).double(), 3), torch.zeros(1, 20).double())


def test_the_loss_on_the_spectrum_is_on_the_coefficients() -> None:
    gap = torch.randn(3, 16, dtype=torch.float64)
    lines = torch.stack([torch.fft.rfft(r) / math.sqrt(8) for r in gap.reshape(6, 8)])
    mean = (lines.real.abs() + lines.imag.abs()).reshape(3, -1).mean(1)
    torch.testing.assert_close(Spectrum(0.5)(gap, panel(3, 8, 2)), 0.5 * mean)


def trend_and_season(rows: int, n: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """A parabola and two sinusoids, (B, n) each."""
    place, at = torch.linspace(-1, 1, n), torch.arange(n)
    a, b = torch.randn(2, rows, 1, generator=g)
    season = torch.zeros(rows, n)
    for frequency in (4, 7):
        phase, size = torch.rand(2, rows, 1, generator=g)
        wave = torch.sin(2 * math.pi * (frequency * at / n + phase))
        season = season + (0.5 + size) * wave
    return a * place + 0.7 * b * (place.square() - 1 / 3), season


def test_the_parts_of_a_sum_of_trend_and_sinusoids_are_found() -> None:
    torch.manual_seed(0)
    g, n, rows, steps = torch.Generator().manual_seed(1), 48, 16, 100
    net = TrendSeason(1, 1, width=16, blocks=2, degree=2, modes=3, states=8)
    optimiser = torch.optim.AdamW(net.parameters(), lr=8e-3)
    cells, spectrum = panel(rows, n), Spectrum(0.1)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 4e-3 * (1 + math.cos(math.pi * step / steps))
        x = sum(trend_and_season(rows, n, g))
        kappa = torch.exp(3 * torch.rand(rows, 1, generator=g) - 2.5)
        u = (x + kappa * torch.randn(rows, n, generator=g)) * torch.rsqrt(1 + kappa**2)
        gap = net(u[:, None], kappa.log(), cells)[:, 0] - x
        loss = (gap.square().mean(1) + spectrum(gap, cells)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    trend, season = trend_and_season(100, n, g)
    u = (trend + season + 0.2 * torch.randn(100, n, generator=g)) / math.sqrt(1.04)
    with torch.no_grad():
        parts = net.components(u[:, None], torch.tensor(math.log(0.2)), panel(100, n))
    for part, truth in ((parts.trend, trend), (parts.season, season)):
        pair = torch.stack([part[:, 0].flatten(), truth.flatten()])
        assert float(torch.corrcoef(pair)[0, 1]) > 0.95


@pytest.mark.parametrize("kind", [LongConv, TrendSeason])
def test_a_saved_backbone_is_the_same(kind: type) -> None:
    torch.manual_seed(0)
    net = kind(1, 2, width=8, blocks=1, periods=(24.0,))
    for p in net.parameters():
        torch.nn.init.normal_(p, std=0.1)
    encoder = Encoder()
    copy = decode(encoder.encode(net), encoder.tensors, CLASSES)
    x, cells = torch.randn(3, 1, 20), panel(3, 10, 2)
    torch.testing.assert_close(copy(x, LEVEL, cells), net(x, LEVEL, cells))
