"""The baselines are the laws that they say: on a red noise about a cycle, and on plain records."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from sciddm.denoise import Context
from sciddm.errors import InputError
from sciddm.forecasters import AboutCycle, Climatology, Cycle, DampedAnomaly, Forecaster, Persistent
from sciddm.random import Streams

DAY = Cycle(8)
RHO = torch.tensor([0.9, 0.6], dtype=torch.float64)


def clock(start: int, frames: int, period: int = 8) -> Tensor:
    """(2, frames): sine and cosine."""
    angle = 2 * math.pi * (start + torch.arange(frames).double()) / period
    return torch.stack([angle.sin(), angle.cos()])


def season(phase: Tensor) -> Tensor:
    """(T, 1, 2): the cycle of two points."""
    angle = 2 * math.pi * phase.double()[:, None, None] / 8
    return torch.tensor([1.0, 3.0]).double() * angle.cos() + 0.5 * (2 * angle).sin()


def red(length: int, start: int = 0, seed: int = 0) -> Tensor:
    """(T, 1, 2): unit red noise about the cycle; the first frame has phase ``start``."""
    noise = torch.from_numpy(np.random.default_rng(seed).standard_normal((length, 1, 2)))
    x = torch.empty_like(noise)
    x[0] = noise[0]
    for n in range(1, length):
        x[n] = RHO * x[n - 1] + (1 - RHO**2).sqrt() * noise[n]
    return x + season(torch.arange(start, start + length))


def drawn(engine: Forecaster, past: Tensor, leads: int, start: int = 0) -> Tensor:
    """Films (B, C, leads, 2) after ``past`` (B, C, T, 2), its newest frame of phase ``start``."""
    history = past.shape[2]
    forcings = clock(start - history + 1, history + leads).expand(len(past), -1, -1)[..., None]
    context = Context(past=past, forcings=forcings)
    return engine((len(past), 1, leads, 2), context, Streams.of(3, len(past)))


def test_the_damped_anomaly_is_the_law_of_red_noise_about_a_cycle() -> None:
    engine = DampedAnomaly.fit(red(40_000, 5), 6, DAY, clock(5, 40_000))
    n = torch.arange(1, 7).double()[:, None]
    torch.testing.assert_close(engine.factor[:, 0], RHO**n, atol=0.03, rtol=0)
    exact = (1 - RHO ** (2 * n)).sqrt()
    torch.testing.assert_close(engine.spread[:, 0], exact, atol=0.02, rtol=0)
    members, past = 20_000, torch.tensor([[[[0.0, 0.0], [2.5, -1.0]]]]).double()
    out = drawn(engine, past.expand(members, 1, 2, 2), 6, start=3)[:, 0]
    now, then = season(torch.tensor([3]))[0], season(torch.arange(4, 10))[:, 0]
    expected = then + RHO**n * (past[0, :, 1] - now)
    torch.testing.assert_close(out.mean(0), expected, atol=0.2, rtol=0)
    torch.testing.assert_close(out.std(0), exact, atol=0.03, rtol=0)


def test_its_spread_is_that_of_new_data_however_short_the_record() -> None:
    ratios = []
    for seed in range(60):
        engine = DampedAnomaly.fit(red(128, seed=seed), 4, DAY, clock(0, 128), harmonics=3, folds=4)
        new = red(2000, seed=1000 + seed)
        gap = new - engine.climatology[torch.arange(2000) % 8]
        error = [(gap[n:] - f * gap[:-n]).square().mean() for n, f in enumerate(engine.factor, 1)]
        ratios.append(engine.spread.square().mean((1, 2)) / torch.stack(error))
    ratio = torch.stack(ratios).mean(0).sqrt()
    assert float(ratio.min()) > 0.96 and float(ratio.max()) < 1.15


def test_climatology_is_the_record_of_that_phase_each_frame_as_often() -> None:
    record = red(8 * 5 + 3, start=6)
    engine = Climatology.fit(record, DAY, clock(6, len(record)))
    members, leads = 4000, 11
    out = drawn(engine, torch.zeros(members, 1, 1, 2).double(), leads, start=1)[:, 0]
    for n in range(leads):
        pool = record[: 8 * 5][(torch.arange(40) + 6) % 8 == (2 + n) % 8][:, 0]
        found = (out[:, n, None] == pool[None]).all(-1)
        assert bool(found.any(1).all())
        share = found.double().mean(0)
        assert float((share - 0.2).abs().max()) < 4 * math.sqrt(0.2 * 0.8 / members)


def test_members_of_climatology_hang_together() -> None:
    record = red(80)
    engine = Climatology.fit(record, DAY, clock(0, 80))
    out = drawn(engine, torch.zeros(50, 1, 1, 2).double(), 20)[:, 0]
    at = (out[:, :, None] == record[None, None, :, 0]).all(-1).double().argmax(-1)
    assert bool((at.diff(dim=1) % 80 == 1).all())


def test_plain_persistence_is_the_newest_frame() -> None:
    past = torch.randn(3, 1, 2, 2).double()
    out = drawn(Persistent(), past, 5)
    torch.testing.assert_close(out, past[:, :, -1:].expand(-1, -1, 5, -1))


@pytest.mark.parametrize("cycle", [Cycle(), DAY], ids=["any hour", "the same hour"])
def test_dressed_persistence_adds_errors_of_persistence_of_that_phase(cycle: Cycle) -> None:
    record, leads = red(64, start=2), 6
    engine = Persistent.fit(record, leads, cycle, clock(2, 64))
    past = torch.tensor([7.0, -5.0]).double().expand(3000, 1, 1, 2)
    change = drawn(engine, past, leads, start=4)[:, 0] - past[:, 0]
    starts = [s for s in range(64 - leads) if cycle.period == 1 or (s + 2) % 8 == 4]
    known = torch.stack([(record[s + 1 : s + 1 + leads] - record[s])[:, 0] for s in starts])
    found = (change[:, None] - known[None]).abs().amax((2, 3)) < 1e-9
    assert bool(found.any(1).all())
    share, expected = found.double().mean(0), 1 / len(starts)
    assert float((share - expected).abs().max()) < 4.5 * math.sqrt(expected / 3000)


def test_a_member_is_the_same_in_any_batch_and_for_any_length() -> None:
    record, past = red(200), torch.randn(6, 1, 1, 2).double()
    known = clock(0, 200)
    for engine in (
        Persistent.fit(record, 9, DAY, known),
        Climatology.fit(record, DAY, known),
        DampedAnomaly.fit(record, 9, DAY, known),
    ):
        whole = drawn(engine, past, 9)
        torch.testing.assert_close(drawn(engine, past[:2], 4), whole[:2, :, :4], rtol=0, atol=0)


def test_a_cycle_without_its_channels_and_a_short_record_are_refused() -> None:
    record = red(64)
    with pytest.raises(InputError, match="sine and cosine"):
        Climatology.fit(record, DAY)
    with pytest.raises(InputError, match="longest"):
        Persistent(record, longest=64)
    with pytest.raises(InputError, match="blocks of at least"):
        DampedAnomaly.fit(record, 12, DAY, clock(0, 64))
    engine = Climatology.fit(record, DAY, clock(0, 64))
    with pytest.raises(InputError, match="0 channels"):
        engine((1, 1, 2, 2), Context(past=torch.zeros(1, 1, 1, 2)), Streams.of(0, 1))


def test_a_forecaster_about_a_cycle_sees_anomalies_and_gives_fields() -> None:
    """Persistence of anomalies, by hand."""
    usual = torch.randn(8, 1, 2, dtype=torch.float64)
    past = torch.randn(4, 1, 3, 2, dtype=torch.float64)
    out = drawn(AboutCycle(Persistent(), usual, DAY), past, 10, start=6)
    expected = (past[:, :, -1] - usual[6])[:, :, None] + usual[(torch.arange(10) + 7) % 8].movedim(
        1, 0
    )
    torch.testing.assert_close(out, expected)
