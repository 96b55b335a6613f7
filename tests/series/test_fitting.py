"""The likeliest law: known estimates, the true law found again, windows that lose no cell."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from sciddm.errors import InputError
from sciddm.series import Panel, log_prob
from sciddm.series.fitting import (
    fitted,
    guess,
    likeliest,
    maximum_likelihood,
    mean_log_prob,
    median_gap,
    moments,
    polished,
    windows,
)
from sciddm.series.kernel import Matern32, Mixed, OrnsteinUhlenbeck, Season, Term
from sciddm.series.law import factor

DOUBLE = torch.float64


def truth() -> Mixed:
    loads = torch.tensor([[0.8], [-0.5]], dtype=DOUBLE)
    term = Term(OrnsteinUhlenbeck(2.0), loads, torch.tensor([0.3, 0.6], dtype=DOUBLE))
    return Mixed((term,), torch.tensor([0.05, 0.1]).double(), torch.tensor([1.0, -1.0]).double())


def panel(rows: int = 48, cells: int = 40) -> Panel:
    """Draws of `truth` at irregular times of two channels, the first third known."""
    g = torch.Generator().manual_seed(0)
    time = 15 * torch.rand(rows, cells, generator=g, dtype=DOUBLE)
    none = torch.zeros(rows, cells, dtype=torch.bool)
    blank = Panel(time, torch.randint(0, 2, time.shape, generator=g), time, none, ~none)
    noise = torch.randn(rows, cells, 1, generator=g, dtype=DOUBLE)
    value = truth().mean(blank) + (factor(truth().covariance(blank)) @ noise)[..., 0]
    return replace(blank, value=value, known=time < 5)


def factor_of(law: Mixed, cells: Panel) -> torch.Tensor:
    return factor(law.covariance(cells))


def test_white_cells_give_their_mean_and_variance() -> None:
    """Of independent cells the likeliest law is known in closed form."""
    cells = panel(48, 10)

    def build(free: dict[str, torch.Tensor]) -> Mixed:
        none = Term(OrnsteinUhlenbeck(1.0), torch.zeros(2, 0), torch.zeros(2))
        return Mixed((none,), free["power"].exp(), free["mean"])

    zero = torch.zeros(2)
    law = maximum_likelihood(build, {"power": zero, "mean": zero}, cells, steps=150, batch=48)
    mean, variance = moments(cells, 2)
    assert isinstance(law, Mixed) and law.offset is not None
    assert torch.allclose(law.offset, mean, atol=2e-3)
    assert torch.allclose(law.rest, variance, rtol=5e-3)
    one = cells.value[cells.channel == 1]
    assert float(mean[1]) == pytest.approx(float(one.mean()))
    assert float(variance[1]) == pytest.approx(float(one.var(correction=0)))


def test_the_law_of_the_data_is_found_again() -> None:
    cells = panel()
    start = guess(cells, 2, [OrnsteinUhlenbeck(10 * median_gap(cells))], rank=1)
    law = fitted(start, cells, steps=80, batch=48)
    assert isinstance(law, Mixed) and isinstance(law.terms[0].shape, OrnsteinUhlenbeck)
    assert isinstance(law.terms[0].shape.length, float)
    assert float(law.terms[0].shape.length) == pytest.approx(2.0, rel=0.2)
    assert torch.allclose(law.terms[0].between, truth().terms[0].between, atol=0.15)
    # the likeliest is likelier than the truth, by about half a unit a free number
    gain = float((mean_log_prob(law, cells) - mean_log_prob(truth(), cells)) * cells.real.sum())
    assert 0 < gain < 12
    assert likeliest([truth(), start, law], cells) is law


def test_polished_is_a_maximum() -> None:
    """Likelier than after many small steps, with a gradient of 0, and no variance that is not."""
    cells = panel()
    law = fitted(truth(), cells, steps=20, batch=48)
    best = polished(law, cells)
    assert isinstance(best, Mixed) and isinstance(best.terms[0].shape, OrnsteinUhlenbeck)
    assert float(mean_log_prob(best, cells)) >= float(mean_log_prob(law, cells))
    for share in (0.99, 1.01):
        length = best.terms[0].shape.length * share
        off = replace(best.terms[0], shape=OrnsteinUhlenbeck(length))
        worse = mean_log_prob(replace(best, terms=(off,)), cells)
        assert float(worse) < float(mean_log_prob(best, cells))
    smooth = Term(Matern32(1.0), torch.zeros(1, 0).double(), torch.ones(1).double())
    time = cells.time[:, :25]
    exact = Panel(time, torch.zeros_like(time).long(), time, time > -1, time > -1)
    noise = torch.randn(48, 25, 1, generator=torch.Generator().manual_seed(3), dtype=DOUBLE)
    chol = factor_of(Mixed((smooth,), torch.zeros(1).double()), exact)
    exact = replace(exact, value=(chol @ noise)[..., 0])
    found = polished(guess(exact, 1, [Matern32(3.0)], centred=True), exact)
    assert isinstance(found, Mixed) and isinstance(found.terms[0].shape, Matern32)
    assert float(found.rest[0]) < 1e-6
    assert float(found.terms[0].shape.length) == pytest.approx(1.0, rel=0.15)


def test_what_is_fixed_or_zero_stays() -> None:
    cells = panel(8, 12)
    own = torch.tensor([0.5, 0.0], dtype=DOUBLE)
    terms = (
        Term(Season(3.0, 1.0), torch.zeros(2, 0, dtype=DOUBLE), own),
        Term(Matern32(2.0), torch.zeros(2, 1, dtype=DOUBLE), own.flip(0)),
    )
    start = Mixed(terms, torch.tensor([0.3, 0.3], dtype=DOUBLE))
    law = fitted(start, cells, steps=5)
    assert isinstance(law, Mixed) and isinstance(law.terms[0].shape, Season)
    assert law.offset is None and law.terms[0].shape.period == 3.0
    assert law.terms[0].shape.roughness != 1.0
    assert float(law.terms[0].own[1]) == 0 != float(law.terms[0].own[0])
    same = fitted(start, cells, steps=5, fixed=("terms", "rest"))
    assert torch.equal(same.covariance(cells), start.covariance(cells))


def test_known_or_not_makes_no_difference_and_panels_may_come_by_the_step() -> None:
    cells = panel(8, 12)
    start = guess(cells, 2, [OrnsteinUhlenbeck(1.0)])
    one = fitted(start, cells, steps=4)
    two = fitted(start, lambda step: cells.given(cells.real), steps=4)
    assert torch.equal(one.covariance(cells), two.covariance(cells))


def test_windows_keep_every_cell_once_in_order_of_time() -> None:
    cells = panel(5, 23)
    real = cells.real.clone()
    real[2, 11:] = False
    cells = replace(cells, real=real, known=cells.known & real, error=cells.value.abs())
    cut = windows(cells, 6)
    assert cut.cells == 6 and int(cut.real.sum()) == int(cells.real.sum())
    assert len(cut) == 4 * 4 + 2
    inside = torch.where(cut.real, cut.time, torch.inf)
    assert (inside.sort(1).values == inside).all()
    for name in ("value", "time", "error"):
        a, b = getattr(cut, name)[cut.real], getattr(cells, name)[cells.real]
        assert torch.equal(a.sort().values, b.sort().values)
    assert torch.equal(cut.known, cut.real & (cut.time < 5))


def test_windows_of_a_white_law_lose_no_likelihood() -> None:
    cells = panel(3, 20)
    none = Term(OrnsteinUhlenbeck(1.0), torch.zeros(2, 0), torch.zeros(2))
    law = Mixed((none,), torch.tensor([0.4, 0.9], dtype=DOUBLE))
    whole = log_prob(law, cells.given(cells.real)).sum()
    cut = windows(cells, 7)
    assert torch.allclose(log_prob(law, cut.given(cut.real)).sum(), whole)


def test_starts_from_data() -> None:
    time = torch.tensor([[0.0, 1.0, 3.0, 0.0, 5.0, 99.0]], dtype=DOUBLE)
    channel = torch.tensor([[0, 0, 0, 1, 1, 1]])
    real = torch.tensor([[True] * 5 + [False]])
    cells = Panel(time, channel, time, real, real)
    assert median_gap(cells) == 2.0
    law = guess(cells, 2, [Matern32(2.0), Season(1.0)], rank=2)
    _, variance = moments(cells, 2)
    power = law.covariance(cells)[0].diagonal()
    assert torch.allclose(law.terms[0].between.trace() * 2 + law.rest.sum(), variance.sum())
    assert (power > 0).all() and math.isclose(float(law.rest[0]), 0.1 * float(variance[0]))


def test_series_without_values_are_refused() -> None:
    cells = panel(2, 4)
    none = torch.zeros_like(cells.real)
    with pytest.raises(InputError, match="without any value"):
        fitted(truth(), replace(cells, real=none, known=none))
    with pytest.raises(InputError, match="two times"):
        median_gap(replace(cells, real=none, known=none))
