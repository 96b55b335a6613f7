"""Refinement of another forecaster's draws: nearer to the law, and exact at its own fixed point."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sciddm.errors import InputError
from sciddm.model import CLASSES
from sciddm.random import Streams
from sciddm.series import FunctionPrior, GaussianSeries, Panel, Refined
from sciddm.series.baselines import Floor, Held, pooled
from sciddm.series.cells import Cells
from sciddm.series.kernel import Mixed, OrnsteinUhlenbeck, Product, Season, Term
from sciddm.series.law import factor, posterior
from sciddm.series.refine import noise_loss, representative
from sciddm.tree import Encoder, decode

ALONE = torch.zeros(1, 0, dtype=torch.float64)
SHAPE = Product((Season(12.0), OrnsteinUhlenbeck(40.0)))
LAW = Mixed((Term(SHAPE, ALONE, torch.ones(1)),), torch.tensor([0.05]))
ROWS, MEMBERS = 12, 12


def series(rows: int, seed: int, n: int = 36) -> Panel:
    """Draws of the law; the last season is wanted."""
    time = torch.arange(n).double().expand(rows, -1)
    none = torch.zeros(rows, n, dtype=torch.bool)
    blank = Panel(time, none.long(), torch.zeros(rows, n), none, ~none, dense=(1, n))
    g = torch.Generator().manual_seed(seed)
    white = torch.randn(rows, n, 1, generator=g, dtype=torch.float64)
    value = (factor(LAW.covariance(blank)) @ white)[..., 0]
    return replace(blank, value=value, known=time < n - 12)


def addresses(rows: int, members: int) -> Streams:
    cases = tuple(i for i in range(rows) for _ in range(members))
    return Streams(0, cases, tuple(range(members)) * rows)


def crps(x: Tensor, panel: Panel) -> float:
    """Fair, over the wanted cells."""
    count = x.shape[1]
    first = (x - panel.value[:, None]).abs().mean(1)
    pairs = (x[:, :, None] - x[:, None]).abs().sum((1, 2)) / (count * (count - 1))
    return float((first - 0.5 * pairs)[panel.wanted].mean())


def seasonal_naive() -> Floor:
    return Floor(Held(12.0), pooled(Held(12.0), [series(60, 1)]))


def test_seasonal_naive_is_lowered_to_the_exact_posterior() -> None:
    panel, rng = series(ROWS, 2), addresses(ROWS, MEMBERS)
    base, prior = seasonal_naive(), FunctionPrior(LAW)
    start = crps(base.draw(panel, rng), panel)
    refined = crps(Refined(base, prior).draw(panel, rng), panel)
    exact = crps(GaussianSeries(LAW).draw(panel, rng), panel)
    assert exact < start
    assert refined < start - 0.5 * (start - exact)


def test_without_heat_a_draw_ends_at_the_mean_where_nothing_holds_it() -> None:
    panel, rng = series(2, 3), addresses(2, 3)
    base = GaussianSeries(LAW)
    cold = Refined(base, FunctionPrior(LAW), kappa=100.0, steps=60, rate=0.2, pull=0.0, heat=0.0)
    mean = posterior(LAW, panel).mean[:, None].expand(-1, 3, -1)
    torch.testing.assert_close(cold.draw(panel, rng), mean, atol=2e-2, rtol=0)
    held = Refined(base, FunctionPrior(LAW), kappa=100.0, steps=60, rate=0.2, pull=1.0, heat=0.0)
    halfway = 0.5 * (mean + base.draw(panel, rng))
    torch.testing.assert_close(held.draw(panel, rng), halfway, atol=2e-2, rtol=0)


def test_known_cells_never_move_and_members_stand_alone() -> None:
    panel = series(2, 4)
    refined = Refined(seasonal_naive(), FunctionPrior(LAW), steps=3)
    both = refined.draw(panel, addresses(2, 3))
    seen = panel.known[:, None].expand_as(both)
    torch.testing.assert_close(both[seen], panel.value[:, None].expand_as(both)[seen])
    one = refined.draw(panel.rows(slice(1, 2)), Streams(0, (1,), (2,)))
    torch.testing.assert_close(one[0, 0], both[1, 2])


def test_the_loss_is_that_of_white_noise_in_expectation() -> None:
    """Under the law of the noise E|w - w_hat|^2 = 1 / (1 + kappa^2) a cell."""
    panel, prior = series(300, 5), FunctionPrior(LAW)
    cells = Cells.of(panel, LAW)
    for kappa in (0.3, 2.0):
        loss = noise_loss(prior, cells, panel.value, kappa, panel, Streams.of(0, 300)).mean() / 36
        assert float(loss) == pytest.approx(1 / (1 + kappa**2), rel=0.05)
    kappa, levels, losses = representative(prior, panel, Streams.of(0, 300), levels=12)
    assert kappa in levels.tolist()
    gap = (losses - losses.mean()).abs()
    assert float(gap.min()) == float(gap[levels == kappa][0])


def test_a_saved_refinement_is_the_same() -> None:
    refined = Refined(GaussianSeries(LAW), FunctionPrior(LAW), steps=2, heat=0.5)
    encoder = Encoder()
    copy = decode(encoder.encode(refined), encoder.tensors, CLASSES)
    panel, rng = series(1, 6), Streams.of(0, 2)
    torch.testing.assert_close(copy.draw(panel, rng), refined.draw(panel, rng))


def test_numbers_out_of_range_are_refused() -> None:
    for bad in ({"steps": 0}, {"rate": 1.5}, {"heat": -1.0}, {"kappa": 0.0}):
        with pytest.raises(InputError, match="steps of rate"):
            Refined(seasonal_naive(), FunctionPrior(LAW), **bad)
