"""Conditional draws: the posterior of the law while untrained, and what training adds to it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sciddm.errors import InputError
from sciddm.model import CLASSES
from sciddm.nn import SetTransformer
from sciddm.process import VE
from sciddm.random import Streams
from sciddm.series import Panel, posterior
from sciddm.series.conditional import Conditional, Rows
from sciddm.series.kernel import Matern32, Mixed, Term
from sciddm.solve import Euler
from sciddm.tree import Encoder, decode

LAW = Mixed(
    (Term(Matern32(0.3), torch.tensor([[1.0], [0.5]]), torch.tensor([0.1, 0.2])),),
    torch.tensor([0.01, 0.02]),
    torch.tensor([0.3, -0.2]),
)


def cells(rows: int, m: int = 12, seed: int = 0, error: float | None = None) -> Panel:
    """Two channels at random times; the second row and the third are shorter."""
    g = torch.Generator().manual_seed(seed)
    time = torch.rand(rows, m, generator=g, dtype=torch.float64)
    real = torch.arange(m) < m - torch.arange(rows)[:, None] % 3
    known = (torch.rand(rows, m, generator=g) < 0.5) & real
    value = torch.randn(rows, m, generator=g, dtype=torch.float64)
    errors = None if error is None else torch.full((rows, m), error, dtype=torch.float64)
    channel = torch.randint(0, 2, (rows, m), generator=g)
    return Panel(time, channel, value, known, real, errors)


def model(seed: int = 0, trained: bool = False, **numbers: int) -> Conditional:
    torch.manual_seed(seed)
    net = SetTransformer(2, 0.02, 1.0, width=16, heads=2, readers=1, writers=1)
    if trained:
        torch.nn.init.normal_(net.head.weight, std=0.3)
    return Conditional(net, LAW, 2, **numbers)


def members(series: int, count: int) -> Streams:
    return Streams(
        5, tuple(i for i in range(series) for _ in range(count)), tuple(range(count)) * series
    )


@pytest.mark.parametrize("steps", [1, 2, 9])
def test_untrained_it_is_the_posterior_to_rounding(steps: int) -> None:
    panel, rng = cells(3), members(3, 4)
    found = model(steps=steps).draw(panel, rng)
    post = posterior(LAW, panel)
    for i in range(3):
        at = panel.wanted[i].nonzero()[:, 0]
        white = rng.at("start").normal(torch.zeros(12, 1, len(at), dtype=torch.float64))
        lower = post.factor[i][at][:, at]
        expected = post.mean[i].repeat(4, 1)
        expected[:, at] += white[4 * i : 4 * i + 4, 0] @ lower.T
        torch.testing.assert_close(found[i], expected, rtol=0, atol=1e-12)
        # the factor of the wanted cells is all of the posterior's covariance
        cov = (post.factor @ post.factor.mT)[i]
        torch.testing.assert_close(cov[at][:, at], lower @ lower.T, rtol=0, atol=1e-12)
        assert torch.equal(found[i][:, panel.known[i]], panel.value[i, panel.known[i]].repeat(4, 1))
        assert not found[i][:, ~panel.real[i]].any()


def test_known_cells_with_errors_are_drawn_with_the_wanted_ones() -> None:
    panel, count = cells(2, error=0.3), 6000
    found = model(steps=1).draw(panel, members(2, count))
    post = posterior(LAW, panel)
    for i in range(2):
        cov = (post.factor @ post.factor.mT)[i]
        size = cov.diagonal().clamp_min(1e-12)
        tolerance = 5 * torch.sqrt((size[:, None] * size + cov**2) / count)
        assert bool(((torch.cov(found[i].T) - cov).abs() <= tolerance).all())
        assert bool(((found[i].mean(0) - post.mean[i]).abs() <= 5 * (size / count).sqrt()).all())
    # the smallest of errors keeps them as they are
    near = model(trained=True).draw(replace(panel, error=panel.error * 1e-5), members(2, 3))
    gap = (near - panel.value[:, None]).abs().amax(1)
    assert float(gap[panel.known].max()) < 1e-4
    assert not near.transpose(1, 2)[~panel.real].any()


@pytest.mark.parametrize("error", [None, 0.3])
def test_a_member_depends_on_nothing_beside_it(error: float | None) -> None:
    panel = cells(3, error=error)
    found = model(trained=True, steps=4).draw(panel, members(3, 5))
    assert float((found - posterior(LAW, panel).mean[:, None]).abs().max()) > 0.1
    alone = model(trained=True, steps=4).draw(panel.rows(slice(1, 2)), Streams(5, (1, 1), (3, 0)))
    torch.testing.assert_close(alone[0], found[1, [3, 0]], rtol=0, atol=1e-5)
    blind = replace(panel, value=torch.where(panel.known, panel.value, torch.nan))
    assert torch.equal(model(trained=True, steps=4).draw(blind, members(3, 5)), found)


def test_nothing_wanted_gives_what_is_known() -> None:
    panel = cells(2)
    panel = panel.given(panel.real)
    found = model(trained=True).draw(panel, members(2, 3))
    assert torch.equal(found, torch.where(panel.real, panel.value, 0.0)[:, None].repeat(1, 3, 1))


def test_the_loss_of_the_law_itself_is_one() -> None:
    panel = cells(400)
    post = posterior(LAW, panel.given(torch.zeros_like(panel.known)))
    white = torch.randn(400, 12, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    truth = replace(panel, value=post.mean + (post.factor @ white)[..., 0])
    rng = Streams(0, tuple(range(400)), (0,) * 400)
    assert float(model().loss(truth, rng, 0.0).detach().mean()) == pytest.approx(1, abs=0.06)
    # where the law is narrower than its floor, errors are not magnified
    small = Conditional(model().backbone, LAW, 2, floor=10.0)
    assert float(small.loss(truth, rng, 0.0).detach().mean()) < 0.02


def pairs(step: int, rows: int = 48) -> Panel:
    """Two wanted cells about the sign of one coin, whose size the known cell tells."""
    g = torch.Generator().manual_seed(step)
    coin = torch.randint(0, 2, (rows, 1), generator=g).double() * 2 - 1
    size = torch.rand(rows, 1, generator=g, dtype=torch.float64) + 0.5
    truth = coin * size + 0.1 * torch.randn(rows, 2, generator=g, dtype=torch.float64)
    time = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64).expand(rows, 3)
    known = torch.tensor([True, False, False]).expand(rows, 3)
    value = torch.cat([size, truth], 1)
    return Panel(
        time, torch.zeros(rows, 3, dtype=torch.int64), value, known, torch.ones_like(known)
    )


def energy(x: Tensor, y: Tensor) -> float:
    """Mean energy score of draws (B, M, n), the fair form."""
    apart, count = torch.cdist(x, x).sum((1, 2)), x.shape[1]
    return float(((x - y[:, None]).norm(dim=-1).mean(1) - apart / (2 * count * (count - 1))).mean())


def test_training_adds_what_is_not_gaussian() -> None:
    one = torch.ones(1, dtype=torch.float64)
    law = Mixed((Term(Matern32(0.5), one[:, None] * 0.5, one * 0.75),), 0.1 * one)
    torch.manual_seed(0)
    net = SetTransformer(1, 0.1, 1.0, width=32, heads=2, readers=1, writers=1)
    learner = Conditional(net, law, 1, copies=8)
    test, rng = pairs(10**6, 100), members(100, 20)
    before = learner.draw(test, rng)[:, :, 1:]
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-2)
    for step in range(180):
        optimiser.param_groups[0]["lr"] = 1e-2 * (1 - step / 180)
        optimiser.zero_grad()
        streams = Streams(0, tuple(range(48)), (step,) * 48)
        learner.loss(pairs(step), streams, step / 180).mean().backward()
        optimiser.step()
    found = learner.draw(test, rng)[:, :, 1:]
    truth, size = test.value[:, 1:], test.value[:, :1, None]
    assert float((found.sign().prod(-1) > 0).double().mean()) > 0.9
    assert float(((found.abs() - size).abs() < 0.35).double().mean()) > 0.85
    assert energy(found, truth) < 0.9 * energy(before, truth)


def test_saved_as_data_and_built_again() -> None:
    made, coder = model(trained=True, steps=3), Encoder()
    tree = coder.encode(made)
    again = decode(tree, coder.tensors, CLASSES)
    panel, rng = cells(2), members(2, 2)
    assert torch.equal(again.draw(panel, rng), made.draw(panel, rng))
    assert again.evaluations == 3


def test_other_processes_and_solvers_serve() -> None:
    panel, rng = cells(1), members(1, 400)
    made = Conditional(model().backbone, LAW, 2, process=VE(), solver=Euler(eta=1.0), steps=40)
    found, post = made.draw(panel, rng)[0], posterior(LAW, panel)
    at = panel.wanted[0]
    ratio = found.std(0)[at] / post.std[0][at]
    assert bool((ratio > 0.8).all() and (ratio < 1.1).all())


def test_the_noise_of_rows_is_their_covariance() -> None:
    lower = posterior(LAW, cells(2).given(torch.zeros(2, 12, dtype=torch.bool))).factor
    noise, x = Rows(lower), torch.randn(6, 1, 12, dtype=torch.float64)
    expected = x.view(2, 3, 12) @ (lower @ lower.mT)
    torch.testing.assert_close(noise(x), expected.view(6, 1, 12))
    twice = noise.joint(x, noise, lambda a, b: a.sqrt() * b.sqrt())
    torch.testing.assert_close(twice, expected.view(6, 1, 12))
    with pytest.raises(InputError, match="White or the same"):
        noise.joint(x, Rows(lower), lambda a, b: a)


def test_numbers_that_make_no_sense_are_refused() -> None:
    with pytest.raises(InputError, match="positive"):
        model(steps=0)
