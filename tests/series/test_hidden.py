"""Laws fitted by the score of hidden cells: the truth where it can be had, the right spread where
the law cannot be true."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sciddm.series import Panel, posterior
from sciddm.series.fitting import fitted
from sciddm.series.hidden import Hidden, gaussian_crps, widening
from sciddm.series.kernel import Mixed, OrnsteinUhlenbeck, Term
from sciddm.series.law import factor


def law(length: float, own: float, rest: float) -> Mixed:
    term = Term(OrnsteinUhlenbeck(length), torch.zeros(1, 0).double(), torch.tensor([own]).double())
    return Mixed((term,), torch.tensor([rest]).double())


def blocks(rows: int, cells: int, true: Mixed, seed: int = 0) -> Panel:
    """Draws of a law at irregular times, a block of each hidden."""
    rng = torch.Generator().manual_seed(seed)
    time = torch.rand(rows, cells, generator=rng).double().sort(1).values * cells / 4
    first = torch.randint(2, cells - 12, (rows, 1), generator=rng)
    at = torch.arange(cells)
    known = (at < first) | (at >= first + 10)
    blank = torch.zeros_like(time)
    panel = Panel(time, blank.long(), blank, known, torch.ones_like(known))
    white = torch.randn(rows, cells, 1, generator=rng).double()
    value = (factor(true.covariance(panel)) @ white)[..., 0]
    return Panel(time, blank.long(), value, known, panel.real)


def rows(panel: Panel, step: int, batch: int = 16) -> Panel:
    return panel.rows((step * batch + torch.arange(batch)) % len(panel))


def test_the_score_is_that_of_a_gaussian() -> None:
    mean, std = torch.tensor([0.3, -1.0]).double(), torch.tensor([0.7, 2.0]).double()
    truth = torch.tensor([1.1, 0.5]).double()
    grid = torch.linspace(-30, 30, 600_001).double()[:, None]
    step = (torch.special.ndtr((grid - mean) / std) - (grid >= truth).double()).square()
    exact = torch.trapezoid(step, grid, dim=0)
    torch.testing.assert_close(gaussian_crps(mean, std, truth), exact, atol=1e-4, rtol=0)


def test_the_score_is_least_at_the_truth_and_the_fit_comes_near_it() -> None:
    true = law(2.0, 1.0, 0.05)
    panel = blocks(160, 30, true)
    score = Hidden(true)
    # its mean under the truth is 1 / sqrt(pi) of the spread
    assert abs(float(score(true, panel)) - 1 / math.sqrt(math.pi)) < 0.04
    start = law(5.0, 3.0, 0.5)
    found = fitted(start, lambda step: rows(panel, step), steps=80, rate=0.1, loss=Hidden(start))
    before, after = (float(score(one, panel)) for one in (start, found))
    assert before > 1.02 * float(score(true, panel))
    assert after < 1.005 * float(score(true, panel))


def inside(one: Mixed, panel: Panel) -> Tensor:
    """Share of the hidden values in the central 90 % interval."""
    found = posterior(one, panel)
    z = (panel.value - found.mean)[panel.wanted] / found.std[panel.wanted]
    return (z.abs() < 1.645).double().mean()


def test_jumps_widen_the_likeliest_law_and_not_the_one_by_score() -> None:
    """A calm path with rare jumps: no law of this form is true."""
    panel = blocks(160, 30, law(6.0, 1.0, 0.0), seed=1)
    rng = torch.Generator().manual_seed(2)
    jumps = (torch.rand(panel.value.shape, generator=rng) < 0.04).double()
    value = panel.value + 1.5 * (jumps * torch.randn(jumps.shape, generator=rng)).cumsum(1)
    mixed = Panel(panel.time, panel.channel, value, panel.known, panel.real)
    start = law(6.0, 2.0, 0.01)
    likely = fitted(start, mixed, steps=80, rate=0.1, batch=16)
    chosen = fitted(
        likely, lambda step: rows(mixed, step), steps=120, rate=0.1, loss=Hidden(likely)
    )
    score = Hidden(likely)
    assert float(score(chosen, mixed)) < float(score(likely, mixed))
    wide, right = float(inside(likely, mixed)), float(inside(chosen, mixed))
    assert abs(right - 0.9) < abs(wide - 0.9) and abs(right - 0.9) < 0.03, (wide, right)


def test_the_widening_of_a_law_that_is_too_narrow_is_what_it_lacks() -> None:
    true = law(2.0, 1.0, 0.05)
    panel = blocks(400, 30, true, seed=3)
    assert abs(widening(true, [panel]) - 1) < 0.05
    narrow = law(2.0, 0.25, 0.0125)
    parts = [panel.rows(slice(k, k + 100)) for k in range(0, 400, 100)]
    assert abs(widening(narrow, parts) - 2 * widening(true, [panel])) < 1e-6
