"""Anomaly scores of series: the closed forms, the ranking of neighbours, planted faults found."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor

from sciddm.errors import InputError
from sciddm.model import CLASSES
from sciddm.random import Streams
from sciddm.series import DiffusionTime, FunctionPrior, Panel, Surprise, TimeNet, log_prob
from sciddm.series.kernel import Mixed, OrnsteinUhlenbeck, Term
from sciddm.series.law import factor
from sciddm.tree import Encoder, decode

N = 24
ALONE = torch.zeros(1, 0, dtype=torch.float64)
LAW = Mixed((Term(OrnsteinUhlenbeck(8.0), ALONE, torch.ones(1)),), torch.tensor([0.02]))


def series(rows: int, seed: int) -> Panel:
    time = torch.arange(N).double().expand(rows, -1)
    whole = torch.ones(rows, N, dtype=torch.bool)
    blank = Panel(time, torch.zeros_like(time).long(), torch.zeros_like(time), whole, whole)
    white = torch.randn(rows, N, 1, generator=torch.Generator().manual_seed(seed)).double()
    return replace(blank, value=(factor(LAW.covariance(blank)) @ white)[..., 0], dense=(1, N))


def spikes(panel: Panel, size: float) -> Panel:
    g = torch.Generator().manual_seed(7)
    at = torch.randint(1, N - 1, (len(panel), 1), generator=g)
    sign = torch.sign(torch.randn(len(panel), 1, generator=g)).double()
    return replace(panel, value=panel.value.scatter_add(1, at, size * sign))


def shifts(panel: Panel, size: float) -> Panel:
    g = torch.Generator().manual_seed(8)
    at = torch.randint(6, N - 6, (len(panel), 1), generator=g)
    sign = torch.sign(torch.randn(len(panel), 1, generator=g)).double()
    return replace(panel, value=panel.value + size * sign * (torch.arange(N) >= at))


def auroc(normal: Tensor, strange: Tensor) -> float:
    above = (strange[:, None] > normal).double() + 0.5 * (strange[:, None] == normal).double()
    return float(above.mean())


TRAIN, TEST = series(1000, 0), series(150, 1)


def neighbours(panel: Panel) -> Tensor:
    """Mean distance to the 5 nearest standardised training windows, written out."""
    mean, std = TRAIN.value.mean(0), TRAIN.value.std(0, unbiased=False)
    a, b = ((p.value - mean) / std for p in (panel, TRAIN))
    gap = (a[:, None] - b).square().sum(-1).sqrt()
    return gap.sort(dim=1).values[:, :5]


def test_diffusion_time_ranks_as_the_nearest_neighbours() -> None:
    score, panel = DiffusionTime(TRAIN.value), spikes(TEST, 1.5)
    gaps = neighbours(panel)
    torch.testing.assert_close(score(panel), gaps.square().mean(1) / N)
    root = gaps.square().mean(1).sqrt()
    assert spearmanr(score(panel), root).statistic == pytest.approx(1.0, abs=1e-12)
    assert spearmanr(score.time(panel), root).statistic == pytest.approx(1.0, abs=1e-9)
    assert spearmanr(score(panel), gaps.mean(1)).statistic > 0.999
    assert len(score(panel).unique()) == len(panel)  # no ties


def test_the_density_of_the_variance_is_inverse_gamma_with_its_mode_at_the_score() -> None:
    score, panel = DiffusionTime(TRAIN.value), TEST.rows(slice(0, 3))
    r2, mode = score.distance2(panel), score(panel)
    v = torch.linspace(1e-3, 20, 40_000, dtype=torch.float64)
    density = score.log_density(v, panel)
    mass = torch.trapezoid(density.exp(), v, dim=1)
    torch.testing.assert_close(mass, torch.ones(3).double(), atol=1e-3, rtol=0)
    torch.testing.assert_close(v[density.argmax(1)], mode, atol=1e-3, rtol=0)
    # of a noised window: N(y; x, v I) under the prior 1 / v, up to a constant
    direct = -0.5 * N * v.log() - 0.5 * r2[:, None] / v
    gap = density - direct
    torch.testing.assert_close(gap, gap[:, :1].expand_as(gap), atol=1e-6, rtol=1e-6)


def test_planted_faults_are_found_as_by_neighbours_and_better_by_the_law() -> None:
    score, surprise = DiffusionTime(TRAIN.value), Surprise(LAW)
    for fault, size in ((spikes, 2.0), (shifts, 2.5)):
        strange = fault(series(150, 2), size)
        near = [neighbours(p).mean(1) for p in (TEST, strange)]
        knn = auroc(*near)
        assert auroc(score(TEST), score(strange)) > knn - 0.01
        assert auroc(surprise(TEST), surprise(strange)) > max(0.9, knn - 0.01)


def test_a_network_estimates_the_time_in_one_pass() -> None:
    torch.manual_seed(0)
    net = TimeNet.of(TRAIN.value, 48)
    optimiser = torch.optim.AdamW(net.parameters(), lr=5e-3)
    steps, g = 300, torch.Generator().manual_seed(0)
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = 5e-3 * (1 - step / steps)
        rows = TRAIN.rows(torch.randint(0, len(TRAIN.value), (48,), generator=g))
        loss = net.loss(rows, Streams.of(step, 48)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    found = []
    for fault, size in ((spikes, 2.0), (shifts, 2.5)):
        strange = fault(series(150, 2), size)
        knn = auroc(neighbours(TEST).mean(1), neighbours(strange).mean(1))
        found.append((auroc(net(TEST), net(strange)), knn))
    mine, theirs = (sum(column) / 2 for column in zip(*found, strict=True))
    assert mine > theirs - 0.03
    assert min(found)[0] > 0.8
    far = replace(TEST, value=100 * TEST.value)
    assert bool((net(far) > net(TEST)).all())


def test_the_surprise_of_a_prior_is_that_of_its_law_and_knows_gaps() -> None:
    panel = TEST.rows(slice(0, 2))
    panel = panel.given(torch.rand(2, N, generator=torch.Generator().manual_seed(3)) < 0.7)
    exact = Surprise(LAW)(panel)
    torch.testing.assert_close(exact, -log_prob(LAW, panel) / panel.known.sum(1))
    hidden = replace(panel, value=torch.where(panel.known, panel.value, 1e3))
    torch.testing.assert_close(Surprise(LAW)(hidden), exact)
    found = Surprise(FunctionPrior(LAW), 40)(hidden)
    torch.testing.assert_close(found, exact, atol=1e-2, rtol=0)


def test_training_windows_are_not_their_own_neighbours() -> None:
    few = TRAIN.rows(slice(0, 40))
    own = DiffusionTime(few.value, own=True)(few)
    gap = torch.cdist(*(2 * [(few.value - few.value.mean(0)) / few.value.std(0, unbiased=False)]))
    direct = gap.square().sort(dim=1).values[:, 1:6].mean(1) / N
    torch.testing.assert_close(own, direct, atol=1e-6, rtol=1e-6)
    assert bool((DiffusionTime(few.value)(few) < own).all())


def test_windows_that_do_not_fit_are_refused() -> None:
    score = DiffusionTime(TRAIN.value)
    with pytest.raises(InputError, match="whole windows"):
        score(TEST.given(TEST.time < 5))
    with pytest.raises(InputError, match="more windows than neighbours"):
        DiffusionTime(TRAIN.value[:3])


def test_saved_scores_are_the_same() -> None:
    torch.manual_seed(0)
    for score in (Surprise(LAW), DiffusionTime(TRAIN.value[:50]), TimeNet.of(TRAIN.value, 8)):
        encoder = Encoder()
        copy = decode(encoder.encode(score), encoder.tensors, CLASSES).eval()
        torch.testing.assert_close(copy(TEST), score(TEST))
