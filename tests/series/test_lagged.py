"""Laws of regular records: the exact law of a table, what a record tells, local scales."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from sciddm.errors import InputError
from sciddm.series.kernel import Mixed, OrnsteinUhlenbeck, Term
from sciddm.series.lagged import Lagged, Seasonal, measured
from sciddm.series.law import Law, posterior
from sciddm.series.panel import Panel

DOUBLE = torch.float64


@dataclass(frozen=True, eq=False)
class Plain(Law):
    """The law of another with nothing said of how it is built."""

    law: Law

    def mean(self, panel: Panel) -> Tensor:
        return self.law.mean(panel)

    def covariance(self, panel: Panel) -> Tensor:
        return self.law.covariance(panel).clone()


def windows(rows: int, channels: int, n: int, seed: int = 0, share: float = 0.7) -> Panel:
    """Dense panels of white values, each from a time of its own, known at random."""
    g = torch.Generator().manual_seed(seed)
    start = torch.randint(100, (rows, 1), generator=g).double()
    time = (start + torch.arange(n)).repeat(1, channels)
    channel = torch.arange(channels).repeat_interleave(n).expand(rows, -1)
    known = torch.rand(rows, channels * n, generator=g) < share
    value = torch.randn(rows, channels * n, generator=g, dtype=DOUBLE)
    return Panel(time, channel, value, known, torch.ones_like(known), dense=(channels, n))


def autoregression(n: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Y(t) = A Y(t - 1) + noise of unit variance, (n, 2), with A and its stationary variance."""
    a = np.array([[0.8, 0.1], [-0.3, 0.6]])
    variance = np.linalg.solve(np.eye(4) - np.kron(a, a), np.eye(2).ravel()).reshape(2, 2)
    rng = np.random.default_rng(seed)
    y = np.empty((n, 2))
    y[0] = np.linalg.cholesky(variance) @ rng.standard_normal(2)
    for t in range(1, n):
        y[t] = a @ y[t - 1] + rng.standard_normal(2)
    return torch.from_numpy(y), torch.from_numpy(a), torch.from_numpy(variance)


def exact(a: Tensor, variance: Tensor, lags: int) -> Tensor:
    """Cov[Y(t + k), Y(t)] = A^k V."""
    return torch.stack([torch.linalg.matrix_power(a, k) @ variance for k in range(lags)])


def test_a_table_of_exponentials_is_the_ornstein_uhlenbeck_law() -> None:
    between = torch.tensor([[1.0, 0.4], [0.4, 0.7]], dtype=DOUBLE)
    decay = torch.exp(-torch.arange(30, dtype=DOUBLE) / 5)
    law = Lagged(decay[:, None, None] * between, level=0.3, rest=0.01)
    loads = torch.linalg.cholesky(between)
    terms = (
        Term(OrnsteinUhlenbeck(5.0), loads, torch.zeros(2, dtype=DOUBLE)),
        Term(
            OrnsteinUhlenbeck(1e12), torch.zeros(2, 0, dtype=DOUBLE), torch.full((2,), 0.3).double()
        ),
    )
    other = Mixed(terms, torch.full((2,), 0.01, dtype=DOUBLE))
    panel = windows(3, 2, 20)
    assert torch.allclose(law.covariance(panel), other.covariance(panel), atol=1e-9)
    ours, theirs = posterior(law, panel), posterior(other, panel)
    assert torch.allclose(ours.mean, theirs.mean, atol=1e-5)
    assert torch.allclose(ours.factor, theirs.factor, atol=1e-5)


def test_the_past_and_the_future_of_a_table_are_told_apart() -> None:
    """The best guess of Y(t + 1) from the past of an autoregression is A Y(t)."""
    _, a, variance = autoregression(2)
    law = Lagged(exact(a, variance, 12))
    panel = windows(4, 2, 8)
    last = torch.arange(8).repeat(2) == 7
    panel = panel.given(~last.expand(4, -1))
    found = posterior(law, panel)
    value = panel.value.view(4, 2, 8)
    assert torch.allclose(found.mean.view(4, 2, 8)[:, :, 7], value[:, :, 6] @ a.T, atol=1e-5)
    left = found.factor[:, last][:, :, last]
    assert torch.allclose(left @ left.mT, torch.eye(2, dtype=DOUBLE).expand(4, 2, 2), atol=1e-5)


def test_between_lags_the_table_is_linear_and_stays_positive() -> None:
    _, a, variance = autoregression(2)
    law = Lagged(exact(a, variance, 40), step=0.5)
    time = torch.rand(1, 24, generator=torch.Generator().manual_seed(1)).double() * 8
    channel = torch.arange(24)[None] % 2
    live = torch.ones_like(channel, dtype=torch.bool)
    panel = Panel(time, channel, torch.zeros_like(time), live, live)
    assert float(torch.linalg.eigvalsh(law.covariance(panel)).min()) > -1e-9
    at = torch.tensor([[0.0, 0.5, 0.75, 1.0]], dtype=DOUBLE)
    few = Panel(at, torch.tensor([[0, 1, 1, 1]]), at, *(torch.ones(1, 4, dtype=torch.bool),) * 2)
    row = law.covariance(few)[0, 0]
    assert torch.allclose(row[2], (row[1] + row[3]) / 2)


def test_a_record_tells_its_law() -> None:
    y, a, variance = autoregression(40_000)
    found = measured(y, lags=12, support=10**6, rest=0.0)
    assert isinstance(found.inner, Lagged)
    size = found.spread.double()
    table = found.inner.table.double() * size[0][:, None] * size[0][None, :]
    assert float((table - exact(a, variance, 12)).abs().max()) < 0.12  # variances of 3, 200 lengths
    alone = measured(y, lags=12, support=10**6, together=0.0).inner
    assert isinstance(alone, Lagged)
    off = alone.table[:, 0, 1].abs().max() + alone.table[:, 1, 0].abs().max()
    assert float(off) == 0


def test_a_short_record_gives_a_positive_law() -> None:
    """However few rows and however many channels, with gaps between stretches or anywhere."""
    y = torch.from_numpy(np.random.default_rng(3).standard_normal((150, 6))).cumsum(0)
    y[50:90] = torch.nan
    y[torch.rand(150, generator=torch.Generator().manual_seed(1)) < 0.2, 2] = torch.nan
    law = measured(y, lags=40, support=10**6, rest=0.0)
    panel = windows(1, 6, 40)
    values = torch.linalg.eigvalsh(law.covariance(panel))[0]
    assert float(values.min()) > -1e-6 * float(values.max())


def test_missing_values_change_what_a_record_tells_little() -> None:
    y, _, _ = autoregression(40_000, seed=5)
    whole = measured(y, lags=8, support=1000).inner
    gone = torch.rand(y.shape, generator=torch.Generator().manual_seed(2)) < 0.3
    part = measured(torch.where(gone, torch.nan, y), lags=8, support=1000).inner
    assert isinstance(whole, Lagged) and isinstance(part, Lagged)
    assert float((whole.table - part.table).abs().max()) < 0.05


def test_seasons_of_mean_and_size_are_found() -> None:
    y, _, _ = autoregression(48_000, seed=7)
    phase = torch.arange(len(y)) % 6
    centre = torch.linspace(-2, 2, 6, dtype=DOUBLE)[:, None] * torch.tensor([1.0, -3.0]).double()
    size = torch.tensor([0.5, 1.0, 2.0, 1.5, 1.0, 0.7], dtype=DOUBLE)
    record = centre[phase] + size[phase, None] * y
    law = measured(record, phases=6, lags=8, support=1000)
    assert float((law.centre - centre).abs().max()) < 0.2
    ratio = law.spread.double() / size[:, None]
    assert float((ratio / ratio.mean(0) - 1).abs().max()) < 0.05
    shifted = measured(record[2:], phases=6, first=2, lags=8, support=9)
    assert torch.allclose(shifted.centre, law.centre, atol=0.01)


def seasonal(recent: float) -> Seasonal:
    _, a, variance = autoregression(2)
    g = torch.Generator().manual_seed(4)
    centre = torch.randn(5, 2, generator=g, dtype=DOUBLE)
    spread = 0.5 + torch.rand(5, 2, generator=g, dtype=DOUBLE)
    return Seasonal(Lagged(exact(a, variance, 30), rest=0.01), centre, spread, 1.0, recent, 2.0)


@pytest.mark.parametrize("recent", [0.0, 6.0])
@pytest.mark.parametrize("errors", [False, True])
def test_the_posterior_of_a_rescaled_law_is_that_of_its_moments(
    recent: float, errors: bool
) -> None:
    law, panel = seasonal(recent), windows(4, 2, 15)
    if errors:
        panel = replace(panel, error=0.1 + 0.2 * panel.known.double())
    ours, theirs = posterior(law, panel), posterior(Plain(law), panel)
    assert torch.allclose(ours.mean, theirs.mean, atol=1e-6)
    assert torch.allclose(ours.factor, theirs.factor, atol=1e-6)


def test_rows_that_share_a_covariance_are_as_alone() -> None:
    law, panel = seasonal(6.0), windows(4, 2, 15)
    same = panel.given(panel.known[:1].expand(4, -1))
    for case in (panel, same):
        found = posterior(law, case)
        for i in range(4):
            alone = posterior(law, case.rows(slice(i, i + 1)))
            assert torch.allclose(found.mean[i], alone.mean[0], atol=1e-9)
            assert torch.allclose(found.factor[i], alone.factor[0], atol=1e-9)


def test_a_local_scale_follows_its_series_and_sees_known_values_alone() -> None:
    """Without prior changes the whole law scales with the values; a channel says nothing of the
    other."""
    law, panel = replace(seasonal(50.0), prior=0.0), windows(3, 2, 15)
    still = replace(law, centre=torch.zeros_like(law.centre))
    one, three = posterior(still, panel), posterior(still, replace(panel, value=3 * panel.value))
    assert torch.allclose(three.factor, 3 * one.factor, atol=1e-6)
    assert torch.allclose(three.mean, 3 * one.mean, atol=1e-6)
    other = torch.where(panel.known, panel.value, 99.0)
    assert torch.equal(posterior(law, panel).mean, posterior(law, replace(panel, value=other)).mean)
    first = panel.channel == 0
    louder = replace(panel, value=torch.where(first, panel.value, 5 * panel.value))
    size, loud = (still.affine(p)[1] for p in (panel, louder))
    assert torch.allclose(size[first], loud[first]) and torch.allclose(
        5 * size[~first], loud[~first]
    )


def test_local_scales_of_a_white_series_of_the_law_are_about_one() -> None:
    law = Seasonal(
        Lagged(torch.eye(1, dtype=DOUBLE)[None]), torch.zeros(1, 1), torch.ones(1, 1), recent=1e9,
        prior=0.0,
    )  # fmt: skip
    size = law.affine(windows(200, 1, 400, share=0.5))[1]
    assert float((size[:, 0].mean() - 1).abs()) < 0.02


def test_records_that_tell_nothing_are_refused() -> None:
    y, _, _ = autoregression(30)
    with pytest.raises(InputError, match="more rows than lags"):
        measured(y, lags=40, support=10)
    y[::3, 1] = torch.nan
    with pytest.raises(InputError, match="no value at one of 3 phases"):
        measured(y, phases=3, lags=4, support=10)
