"""Ornstein-Uhlenbeck series by recursion: the same law as by dense matrices."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sciddm.errors import InputError
from sciddm.random import Streams
from sciddm.series import Panel, log_prob, posterior
from sciddm.series.kernel import Matern32, Mixed, OrnsteinUhlenbeck, Term
from sciddm.series.markov import (
    MarkovSeries,
    markov_log_prob,
    markov_posterior,
    ornstein_uhlenbeck,
)

DOUBLE = torch.float64


def law(rest: tuple[float, float] = (0.1, 0.3)) -> Mixed:
    term = Term(
        OrnsteinUhlenbeck(0.8), torch.zeros(2, 0).double(), torch.tensor([1.5, 0.6]).double()
    )
    return Mixed((term,), torch.tensor(rest).double(), torch.tensor([0.3, -1.0]).double())


def panel(cells: int = 14, rows: int = 3, error: bool = False) -> Panel:
    """Irregular times in no order, two channels, two cells that are no cells."""
    g = torch.Generator().manual_seed(3)
    shape = (rows, cells)
    real = torch.ones(shape, dtype=torch.bool)
    real[0, -2:] = False
    known = (torch.rand(shape, generator=g) < 0.5) & real
    return Panel(
        4 * torch.rand(shape, generator=g, dtype=DOUBLE),
        torch.randint(0, 2, shape, generator=g),
        torch.randn(shape, generator=g, dtype=DOUBLE),
        known, real,
        0.2 + torch.rand(shape, generator=g, dtype=DOUBLE) if error else None,
    )  # fmt: skip


@pytest.mark.parametrize("error", [False, True])
def test_filter_and_smoother_are_the_dense_law(error: bool) -> None:
    cells = panel(error=error)
    mean, variance = markov_posterior(law(), cells)
    dense = posterior(law(), cells)
    spread = torch.where(cells.real & (cells.wanted if not error else cells.real), variance, 0.0)
    assert torch.allclose(mean, dense.mean, atol=1e-8)
    assert torch.allclose(spread, dense.std.square(), atol=1e-8)
    assert torch.allclose(markov_log_prob(law(), cells), log_prob(law(), cells), atol=1e-7)


def test_exact_values_of_the_process_itself() -> None:
    cells, exact = panel(), law((0.0, 0.0))
    mean, variance = markov_posterior(exact, cells)
    dense = posterior(exact, cells)
    assert torch.allclose(mean, dense.mean, atol=1e-7)
    assert torch.allclose(variance * cells.wanted, dense.std.square(), atol=1e-7)


def test_the_recursion_has_the_covariance_of_the_process() -> None:
    """The map from noise to values, squared, is exp(-|s - t| / length), to rounding."""
    time = torch.tensor([[0.3, 2.0, 0.1, 0.9, 0.9]], dtype=DOUBLE)
    eye = torch.eye(5, dtype=DOUBLE)
    root = ornstein_uhlenbeck(time.expand(5, -1), 0.7, eye)
    wanted = torch.exp(-(time.T - time).abs() / 0.7)
    assert torch.allclose(root.T @ root, wanted, atol=1e-12)


@pytest.mark.parametrize("error", [False, True])
def test_draws_have_the_moments_of_the_posterior(error: bool) -> None:
    cells = panel(error=error)
    count = 4000
    draws = MarkovSeries(law()).draw(cells, Streams.of(1, count * len(cells)))
    dense = posterior(law(), cells)
    gap = (draws.mean(1) - dense.mean).abs()
    assert (gap <= 4.5 * dense.std / count**0.5 + 1e-9).all()
    cov = torch.einsum("bmi,bmj->bij", draws - dense.mean[:, None], draws - dense.mean[:, None])
    wanted = dense.factor @ dense.factor.mT
    scale = dense.std[:, :, None] * dense.std[:, None]
    assert ((cov / count - wanted).abs() <= 0.09 * scale + 1e-9).all()
    if not error:
        kept = torch.where(cells.known, draws.transpose(0, 1) - cells.value, 0.0)
        assert not kept.any()


def test_padding_changes_no_draw() -> None:
    cells = panel()
    pad = 5

    def wider(x: Tensor) -> Tensor:
        return torch.cat([x, torch.full((len(x), pad), 7).to(x)], 1)

    real = torch.cat([cells.real, torch.zeros(3, pad, dtype=torch.bool)], 1)
    wide = Panel(
        wider(cells.time), wider(cells.channel).clamp_max(1), wider(cells.value),
        wider(cells.known) & real, real,
    )  # fmt: skip
    rng = Streams.of(0, 6)
    few, many = MarkovSeries(law()).draw(cells, rng), MarkovSeries(law()).draw(wide, rng)
    assert torch.equal(few, many[..., : cells.cells])


def test_other_laws_are_refused() -> None:
    term = law().terms[0]
    with pytest.raises(InputError, match="OrnsteinUhlenbeck"):
        MarkovSeries(replace(law(), terms=(replace(term, shape=Matern32(1.0)),)))
    with pytest.raises(InputError, match="loads"):
        MarkovSeries(replace(law(), terms=(replace(term, loads=torch.ones(2, 1).double()),)))
