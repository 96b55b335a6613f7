"""What a Gaussian law says of unknown cells: against textbook formulas and torch's own density."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sciddm.model import CLASSES
from sciddm.random import Streams
from sciddm.series import GaussianSeries, Panel, log_prob, posterior
from sciddm.series.kernel import Matern32, Mixed, OrnsteinUhlenbeck, Product, Season, Term
from sciddm.series.markov import MarkovSeries
from sciddm.tree import Encoder, decode

DOUBLE = torch.float64


def law() -> Mixed:
    loads = torch.tensor([[0.8], [-0.5]], dtype=DOUBLE)
    season = Product((Season(1.0), OrnsteinUhlenbeck(5.0)))
    return Mixed(
        (
            Term(Matern32(0.8), loads, torch.tensor([0.1, 0.4], dtype=DOUBLE)),
            Term(season, loads[:, :0], torch.tensor([0.2, 0.0], dtype=DOUBLE)),
        ),
        torch.tensor([0.05, 0.1], dtype=DOUBLE),
        torch.tensor([0.7, -0.2], dtype=DOUBLE),
    )


def panel(error: bool = False) -> Panel:
    g = torch.Generator().manual_seed(1)
    shape = (2, 9)
    real = torch.ones(shape, dtype=torch.bool)
    real[1, 7:] = False
    return Panel(
        3 * torch.rand(shape, generator=g, dtype=DOUBLE),
        torch.randint(0, 2, shape, generator=g),
        torch.randn(shape, generator=g, dtype=DOUBLE),
        (torch.rand(shape, generator=g) < 0.5) & real,
        real,
        0.1 + torch.rand(shape, generator=g, dtype=DOUBLE) if error else None,
    )


def textbook(cells: Panel, row: int) -> tuple[Tensor, Tensor]:
    """Mean and covariance of all real cells of a row by inverses."""
    cov = law().covariance(cells)[row]
    mean, k, r = law().mean(cells)[row], cells.known[row], cells.real[row]
    error2 = torch.zeros(9, dtype=DOUBLE) if cells.error is None else cells.error[row].square()
    inverse = torch.linalg.inv(cov[k][:, k] + torch.diag(error2[k]))
    gain = cov[r][:, k] @ inverse
    return (
        mean[r] + gain @ (cells.value[row] - mean)[k],
        cov[r][:, r] - gain @ cov[k][:, r],
    )


@pytest.mark.parametrize("error", [False, True])
def test_posterior_is_the_textbook_one(error: bool) -> None:
    cells = panel(error)
    found = posterior(law(), cells)
    cov = found.factor @ found.factor.mT
    for row in range(2):
        r = cells.real[row]
        mean, wanted = textbook(cells, row)
        assert torch.allclose(found.mean[row][r], mean, atol=1e-6)
        assert torch.allclose(cov[row][r][:, r], wanted, atol=1e-6)
        assert not found.mean[row][~r].any() and not cov[row][~r].any()
    if not error:
        assert torch.equal(found.mean[cells.known], cells.value[cells.known])


@pytest.mark.parametrize("error", [False, True])
def test_log_prob_is_the_density_of_torch(error: bool) -> None:
    cells = panel(error)
    found = log_prob(law(), cells)
    for row in range(2):
        k = cells.known[row]
        if not k.any():
            assert found[row].abs() < 1e-7
            continue
        cov = law().covariance(cells)[row][k][:, k]
        if cells.error is not None:
            cov = cov + torch.diag(cells.error[row][k].square())
        dense = torch.distributions.MultivariateNormal(law().mean(cells)[row][k], cov)
        assert torch.allclose(found[row], dense.log_prob(cells.value[row][k]), atol=1e-6)


def test_values_that_are_not_known_are_never_looked_at() -> None:
    cells = panel(True)
    blind = replace(cells, value=torch.where(cells.known, cells.value, torch.nan))
    a, b = posterior(law(), cells), posterior(law(), blind)
    assert torch.equal(a.mean, b.mean) and torch.equal(a.factor, b.factor)
    assert torch.equal(log_prob(law(), cells), log_prob(law(), blind))


def test_padding_changes_nothing() -> None:
    cells = panel()

    def wider(x: Tensor, fill: float) -> Tensor:
        return torch.cat([x, torch.full((2, 4), fill).to(x)], 1)

    wide = Panel(
        wider(cells.time, 1.7), wider(cells.channel, 1), wider(cells.value, 9),
        wider(cells.known, 0), wider(cells.real, 0),
    )  # fmt: skip
    a, b = posterior(law(), cells), posterior(law(), wide)
    assert torch.allclose(a.mean, b.mean[:, :9], atol=1e-9)
    assert torch.allclose(a.factor, b.factor[:, :9, :9], atol=1e-7)
    assert torch.allclose(log_prob(law(), cells), log_prob(law(), wide), atol=1e-7)
    rng = Streams.of(2, 6)
    few, many = (GaussianSeries(law()).draw(p, rng) for p in (cells, wide))
    assert torch.allclose(few, many[..., :9], atol=1e-7) and not many[..., 9:].any()


def test_the_order_of_the_cells_does_not_matter() -> None:
    cells = panel(True)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(4))
    assert cells.error is not None
    moved = Panel(
        cells.time[:, order], cells.channel[:, order], cells.value[:, order],
        cells.known[:, order], cells.real[:, order], cells.error[:, order],
    )  # fmt: skip
    a, b = posterior(law(), cells), posterior(law(), moved)
    assert torch.allclose(a.mean[:, order], b.mean, atol=1e-8)
    assert torch.allclose(a.std[:, order], b.std, atol=1e-8)
    assert torch.allclose(log_prob(law(), cells), log_prob(law(), moved), atol=1e-8)


def test_draws_have_the_posterior_s_moments_and_keep_what_is_known() -> None:
    cells, count = panel(), 4000
    draws = GaussianSeries(law()).draw(cells, Streams.of(0, 2 * count))
    found = posterior(law(), cells)
    assert draws.shape == (2, count, 9)
    assert torch.equal(draws[:, 5][cells.known], cells.value[cells.known])
    gap = (draws.mean(1) - found.mean).abs()
    assert (gap <= 4.5 * found.std / count**0.5 + 1e-12).all()
    off = draws - found.mean[:, None]
    cov = torch.einsum("bmi,bmj->bij", off, off) / count
    scale = found.std[:, :, None] * found.std[:, None]
    assert ((cov - found.factor @ found.factor.mT).abs() <= 0.08 * scale + 1e-12).all()


def test_a_member_is_the_same_in_any_block_and_batch() -> None:
    sampler, cells = GaussianSeries(law()), panel()
    rng = Streams(5, (0, 0, 0, 1, 1, 1), (0, 1, 2, 0, 1, 2))
    both = sampler.draw(cells, rng)
    alone = sampler.draw(cells.rows(torch.tensor([1])), Streams.of(5, (2, 1), case=1))
    assert torch.allclose(both[1, 2], alone[0, 0]) and torch.allclose(both[1, 1], alone[0, 1])
    assert sampler.channels == 2 and sampler.evaluations == 0


def test_saved_as_data_they_draw_the_same(tmp_path: Path) -> None:
    own = torch.tensor([0.3, 0.6], dtype=DOUBLE)
    term = Term(OrnsteinUhlenbeck(1.2), torch.zeros(2, 0, dtype=DOUBLE), own)
    for sampler in (GaussianSeries(law()), MarkovSeries(Mixed((term,), own))):
        encoder = Encoder()
        again = decode(encoder.encode(sampler), encoder.tensors, CLASSES)
        rng = Streams.of(0, 4)
        assert torch.equal(sampler.draw(panel(), rng), again.draw(panel(), rng))
