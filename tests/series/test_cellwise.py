"""A set transformer as the backbone of a prior of irregular series."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from sciddm.errors import InputError
from sciddm.model import CLASSES
from sciddm.nn import Cellwise, SetTransformer
from sciddm.random import Streams
from sciddm.series import GaussianSeries, Panel
from sciddm.series.kernel import Matern32, Mixed, Term
from sciddm.series.prior import FunctionPrior
from sciddm.tree import Encoder, decode

DOUBLE = torch.float64
OWN = torch.tensor([1.0, 0.5], dtype=DOUBLE)
LAW = Mixed((Term(Matern32(0.5), OWN[:, None][:, :0], OWN),), 0.1 * OWN)


def model(silent: bool = False) -> FunctionPrior:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = SetTransformer(2, 0.02, 1.0, width=16, heads=2, readers=1, writers=2)
        if not silent:
            torch.nn.init.normal_(net.head.weight, std=0.3)
    return FunctionPrior(LAW, Cellwise(net), channels=2)


def panel() -> Panel:
    g = torch.Generator().manual_seed(0)
    time = torch.rand(3, 7, generator=g, dtype=DOUBLE)
    real = torch.ones(3, 7, dtype=torch.bool)
    real[1, 5:] = False
    value = torch.randn(3, 7, generator=g, dtype=DOUBLE)
    return Panel(time, torch.randint(0, 2, (3, 7), generator=g), value, real & (time < 0.5), real)


def test_a_silent_network_is_the_posterior_of_the_law() -> None:
    """The same mean and spread, to the noise of the draws."""
    rng = Streams.of(0, 3 * 400)
    draws, wanted = model(silent=True).draw(panel(), rng), GaussianSeries(LAW).draw(panel(), rng)
    spread = wanted.std(1)
    assert ((draws.mean(1) - wanted.mean(1)).abs() <= 0.3 * spread + 1e-6).all()
    assert ((draws.std(1) - spread).abs() <= 0.2 * spread + 1e-6).all()


def test_order_and_filling_of_cells_make_no_difference() -> None:
    prior, cells = model(), panel()
    x = torch.randn(3, 1, 7, generator=torch.Generator().manual_seed(1))
    level = torch.tensor([[0.3], [-1.0], [0.0]])
    net = prior.backbone
    assert net is not None
    answer = net(x, level, cells)
    assert answer.shape == (3, 1, 7) and answer[0].abs().min() > 0
    assert not answer[1, 0, 5:].any()
    order = torch.tensor([3, 1, 0, 2, 6, 5, 4])
    moved = Panel(*(v[:, order] for v in (
        cells.time, cells.channel, cells.value, cells.known, cells.real)))  # fmt: skip
    assert torch.allclose(net(x[..., order], level, moved), answer[..., order], atol=1e-5)
    short = Panel(*(v[1:2, :5] for v in (
        cells.time, cells.channel, cells.value, cells.known, cells.real)))  # fmt: skip
    assert torch.allclose(net(x[1:2, :, :5], level[1:2], short), answer[1:2, :, :5], atol=1e-5)


def test_many_rows_of_one_series_are_read_once_and_the_same() -> None:
    prior, cells = model(), panel()
    x = torch.randn(4, 1, 7, generator=torch.Generator().manual_seed(1))
    level = torch.tensor([[0.3], [-1.0], [0.0], [2.0]])
    assert prior.backbone is not None
    one = cells.rows(slice(1, 2))
    many = prior.backbone(x, level, one.repeated(4))
    beside = prior.backbone(x[:3], level[:3], cells.rows(torch.tensor([1, 0, 1])))
    assert torch.allclose(many[[0, 2]], beside[[0, 2]], atol=1e-5)
    same = prior.backbone(x, torch.tensor(0.3), one.repeated(4))
    assert torch.allclose(same[0], many[0], atol=1e-5)


def test_no_value_is_seen_but_the_noised_ones() -> None:
    prior, cells = model(), panel()
    x = torch.randn(3, 1, 7, generator=torch.Generator().manual_seed(1))
    level, other = torch.zeros(3, 1), replace(cells, value=cells.value + 3, known=cells.real)
    assert prior.backbone is not None
    assert torch.equal(prior.backbone(x, level, cells), prior.backbone(x, level, other))


def test_trained_and_saved_as_data() -> None:
    prior = model()
    loss = prior.loss(panel(), Streams.of(0, 3), 0.0)
    loss.mean().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in prior.parameters())
    encoder = Encoder()
    again = decode(encoder.encode(prior), encoder.tensors, CLASSES)
    rng = Streams.of(3, 6)
    assert torch.equal(prior.draw(panel(), rng), again.draw(panel(), rng))


def test_wrong_inputs_are_refused() -> None:
    net = model().backbone
    assert net is not None
    with pytest.raises(InputError, match="1 or 2"):
        net(torch.zeros(3, 3, 7), torch.zeros(3, 1), panel())
