"""Baselines of series: exact on the laws that they assume, and refused where they make no sense."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sciddm.errors import InputError
from sciddm.random import Streams
from sciddm.series import Panel
from sciddm.series.baselines import (
    Floor,
    Held,
    Level,
    Line,
    MeanOf,
    Point,
    Pooled,
    SeasonalBlocks,
    Spread,
    Walk,
    pooled,
    spread,
)


def panel(value: Tensor, known: Tensor, time: Tensor | None = None, channels: int = 1) -> Panel:
    """Dense where no times are given."""
    steps = value.shape[1] // channels
    grid = torch.arange(steps, dtype=torch.float64).repeat(channels)
    channel = torch.arange(channels).repeat_interleave(steps).expand(len(value), -1)
    dense = (channels, steps) if time is None else None
    time = grid.expand(len(value), -1) if time is None else time
    real = torch.ones_like(known)
    return Panel(time, channel, value, known, real, dense=dense)


def streams(series: int, members: int, seed: int = 0) -> Streams:
    cases = torch.arange(series).repeat_interleave(members).tolist()
    return Streams(seed, tuple(cases), tuple(range(members)) * series)


def brownian(series: int, cells: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Paths at irregular times."""
    rng = torch.Generator().manual_seed(seed)
    time = torch.rand(series, cells, generator=rng, dtype=torch.float64).sort(1).values * 10
    steps = time.diff(dim=1, prepend=torch.zeros(series, 1, dtype=torch.float64)).sqrt()
    return time, (steps * torch.randn(time.shape, generator=rng, dtype=torch.float64)).cumsum(1)


def test_lines_are_the_posterior_mean_of_a_brownian_path_and_its_bridge_the_variance() -> None:
    time, value = brownian(400, 9)
    known = torch.zeros_like(time, dtype=torch.bool)
    known[:, [0, 3, 4, 8]] = True
    shuffled = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    one = panel(value[:, shuffled], known[:, shuffled], time[:, shuffled])
    back = shuffled.argsort()
    found = Line()(one)[:, back]
    share = (time[:, 5] - time[:, 4]) / (time[:, 8] - time[:, 4])
    exact = value[:, 4] + share * (value[:, 8] - value[:, 4])
    torch.testing.assert_close(found[:, 5], exact)
    torch.testing.assert_close(found[known], value[known])
    miss = (value - found)[:, 5] / ((1 - share) * (time[:, 5] - time[:, 4])).sqrt()
    assert abs(miss.mean()) < 3 / math.sqrt(400)
    assert abs(miss.square().mean() - 1) < 3 * math.sqrt(2 / 400)


def test_edges_are_held_and_an_empty_channel_is_zero() -> None:
    value = torch.tensor([[math.nan, 2.0, math.nan, 5.0, math.nan, math.nan, math.nan, math.nan]])
    known = torch.tensor([[False, True, False, True, False, False, False, False]])
    time = torch.tensor([[0.0, 1.0, 2.0, 4.0, 9.0, 0.0, 1.0, 2.0]]).double()
    channel = torch.tensor([[0, 0, 0, 0, 0, 1, 1, 1]])
    real = torch.tensor([[True] * 7 + [False]])
    one = Panel(time, channel, value, known, real)
    line, held = Line()(one)[0], Held()(one)[0]
    assert line.tolist() == pytest.approx([2, 2, 3, 5, 5, 0, 0, 0])
    assert held.tolist() == pytest.approx([2, 2, 2, 5, 5, 0, 0, 0])
    drawn = Floor(Line(), Spread(torch.ones(2, 1))).draw(one, streams(1, 3))
    assert torch.equal(drawn[0, :, known[0]], value[0, known[0]].expand(3, -1))
    assert bool((drawn[0, :, 7] == 0).all())
    assert len(drawn[0, :, 0].unique()) == 3


@pytest.mark.parametrize("sampler", [Floor(Held(12.0)), Floor(Line(12.0)), SeasonalBlocks(12.0)])
def test_seasonal_ones_are_exact_on_a_periodic_series(sampler: torch.nn.Module) -> None:
    time = torch.arange(70, dtype=torch.float64)
    waves = torch.stack([torch.sin(2 * math.pi * time / 12), torch.cos(2 * math.pi * time / 4)])
    known = (torch.arange(70) < 50).repeat(2)[None]
    one = panel(waves.reshape(1, -1), known, channels=2)
    drawn = sampler.draw(one, streams(1, 4))
    torch.testing.assert_close(drawn, one.value[:, None].expand(-1, 4, -1))


def test_a_season_fills_a_gap_from_the_seasons_beside_it() -> None:
    time = torch.arange(36, dtype=torch.float64)
    value = (torch.sin(2 * math.pi * time / 12) + 0.1 * time)[None]
    known = ((time < 12) | (time >= 24))[None]
    torch.testing.assert_close(Line(12.0)(panel(value, known)), value)
    torch.testing.assert_close(Held(12.0)(panel(value, known))[0, 12:24], value[0, :12])


def test_seasons_need_equal_steps_that_divide_them() -> None:
    time, value = brownian(2, 9)
    known = torch.ones_like(time, dtype=torch.bool)
    for sampler in (Floor(Held(2.0)), SeasonalBlocks(2.0)):
        with pytest.raises(InputError, match="equal steps"):
            sampler.draw(panel(value, known, time), streams(2, 1))
    with pytest.raises(InputError, match="whole number of steps"):
        Line(2.5)(panel(value, known))
    with pytest.raises(InputError, match="at least 12"):
        SeasonalBlocks(4.0).draw(panel(value, known), streams(2, 1))


def test_the_variance_of_a_bootstrap_walk_grows_by_that_of_the_increments() -> None:
    rng = torch.Generator().manual_seed(3)
    value = (0.7 + torch.randn(1, 80, generator=rng, dtype=torch.float64).exp()).cumsum(1)
    known = (torch.arange(80) < 50)[None]
    members = 20_000
    drawn = Walk(window=30).draw(panel(value, known), streams(1, members))[0]
    steps = value[0, 19:50].diff()
    variance = steps.var(correction=0)
    lead = torch.tensor([1, 5, 30], dtype=torch.float64)
    later = drawn[:, 49 + lead.long()] - value[0, 49]
    assert (later.mean(0).abs() < 4 * (variance * lead / members).sqrt()).all()
    ratio = later.var(0) / (variance * lead)
    torch.testing.assert_close(ratio, torch.ones(3).double(), atol=0.06, rtol=0)
    # a step is one of those that were made
    own = (steps - steps.mean())[None]
    assert float((later[:, :1] - own).abs().min(1).values.max()) < 1e-9


def test_a_bootstrap_walk_at_irregular_times_is_brownian_and_its_gaps_are_bridges() -> None:
    time, value = brownian(1, 400, seed=5)
    known = torch.ones_like(time, dtype=torch.bool)
    known[0, 200:230], known[0, 350:] = False, False
    drawn = Walk(window=400).draw(panel(value, known, time), streams(1, 4000))[0]
    t = time[0]
    ahead = drawn[:, 399].var() / (t[399] - t[349])
    share = (t[215] - t[199]) / (t[230] - t[199])
    inside = drawn[:, 215].var() / (share * (1 - share) * (t[230] - t[199]))
    # the scatter of 318 squared increments, and of 4000 draws
    for ratio in (ahead, inside):
        assert abs(float(ratio) - 1) < 4 * math.sqrt(2 / 318 + 2 / 4000)
    centre = value[0, 199] + share * (value[0, 230] - value[0, 199])
    assert abs(float(drawn[:, 215].mean() - centre)) < 4 * float(drawn[:, 215].std()) / 4000**0.5


def test_a_walk_of_logarithms_keeps_prices_positive_and_channels_together() -> None:
    rng = torch.Generator().manual_seed(0)
    steps = 0.3 * torch.randn(1, 60, generator=rng, dtype=torch.float64)
    logs = torch.cat([steps.cumsum(1), 2 * steps.cumsum(1)], 1)
    shift, scale = torch.tensor([4.0, 5.0]).double(), torch.tensor([2.0, 0.5]).double()
    value = (logs.exp() - shift.repeat_interleave(60)) / scale.repeat_interleave(60)
    known = (torch.arange(60) < 40).repeat(2)[None]
    walk = Walk(60, shift, scale)
    drawn = walk.draw(panel(value, known, channels=2), streams(1, 50))[0].unflatten(1, (2, 60))
    price = shift[:, None] + scale[:, None] * drawn
    assert bool((price > 0).all())
    moved = (price[:, :, 40:].log() - price[:, :, 39:40].log()).movedim(1, 0)
    torch.testing.assert_close(moved[1], 2 * moved[0])
    with pytest.raises(InputError, match="not positive"):
        walk.draw(panel(value - 9, known, channels=2), streams(1, 2))
    with pytest.raises(InputError, match="at least 3"):
        Walk().draw(panel(value[:, :5], known[:, :5] & (torch.arange(5) < 2)), streams(1, 2))


def test_blocks_are_seasons_of_past_changes_and_add_up() -> None:
    rng = torch.Generator().manual_seed(2)
    cycles = torch.randn(1, 8, 3, generator=rng, dtype=torch.float64)
    known = (torch.arange(24) < 18)[None]
    drawn = SeasonalBlocks(3.0).draw(panel(cycles.flatten(1), known), streams(1, 200))[0, :, 18:]
    change = cycles[0, :6].diff(dim=0)
    change = change - change.mean(0)
    one = drawn[:, :3] - cycles[0, 5]
    two = drawn[:, 3:] - drawn[:, :3]
    for block in (one, two):
        nearest = (block[:, None] - change).abs().amax(2).min(1)
        assert float(nearest.values.max()) < 1e-9
        assert len(nearest.indices.unique()) == 5


class Known(Point):
    """Wrong by a fixed amount."""

    def forward(self, panel: Panel) -> Tensor:
        return panel.value.double() * panel.known


def test_residual_pools_are_those_of_the_training_panels_by_channel_and_distance() -> None:
    rng = torch.Generator().manual_seed(4)
    size = torch.tensor([1.0, 3.0]).double()
    value = torch.randn(300, 2, 20, generator=rng, dtype=torch.float64) * size[:, None]
    far = torch.arange(20) >= 10
    value[:, :, far] *= 5
    known = (torch.arange(20) == 0).repeat(2).expand(300, -1)
    train = panel(value.flatten(1), known, channels=2)
    law = pooled(Known(), [train, train], edges=(9.5,))
    gauss = spread(Known(), [train], edges=(9.5,))
    torch.testing.assert_close(
        gauss.std, torch.tensor([[1.0, 5.0], [3.0, 15.0]]).double(), rtol=0.06, atol=0
    )
    torch.testing.assert_close(law.quantiles[:, :, 0], torch.stack(
        [value[:, :, 1:10].amin((0, 2)), value[:, :, 10:].amin((0, 2))], 1))  # fmt: skip
    for residual in (law, gauss):
        drawn = Floor(Known(), residual).draw(train.rows(slice(0, 4)), streams(4, 500))
        std = drawn.unflatten(2, (2, 20))[..., 1:].movedim(2, 0).flatten(1, 2).std(1)
        torch.testing.assert_close(std[:, :9].mean(1), gauss.std[:, 0], rtol=0.04, atol=0)
        torch.testing.assert_close(std[:, 9:].mean(1), gauss.std[:, 1], rtol=0.04, atol=0)
    with pytest.raises(InputError, match="no wanted cell"):
        pooled(Known(), [train.given(torch.ones_like(known))])


def test_members_have_addresses_and_series_do_not_meet() -> None:
    time, value = brownian(3, 30, seed=8)
    known = torch.rand(3, 30, generator=torch.Generator().manual_seed(1)) < 0.6
    known[:, :5] = True
    both = panel(value, known, time)
    noise = Pooled(torch.linspace(-1, 1, 11).double()[None, None])
    for sampler in (Floor(Line(), noise), Walk(), Floor(MeanOf(Walk(), 4), noise)):
        drawn = sampler.draw(both, streams(3, 5))
        alone = sampler.draw(both.rows(slice(1, 2)), Streams(0, (1, 1), (3, 4)))
        torch.testing.assert_close(drawn[1:2, 3:], alone, rtol=0, atol=0)
        assert not torch.equal(drawn[0, 0], drawn[0, 1])
        kept = torch.where(known[:, None], drawn - value[:, None], 0.0)
        assert bool((kept == 0).all())


def test_the_training_marginal_forgets_the_series_and_a_mean_of_draws_is_one() -> None:
    time, value = brownian(2, 12)
    known = (torch.arange(12) < 6).expand(2, -1)
    one = panel(value, known, time)
    level = Level(torch.tensor([7.0]))(one)
    assert level[:, 6:].unique().tolist() == [7.0]
    point = MeanOf(Floor(Line(), Spread(torch.ones(1, 1))), members=400)(one)
    assert float((point - Line()(one)).abs().max()) < 4.5 / 20
