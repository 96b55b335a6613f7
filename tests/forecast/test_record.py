"""Means and covariances for short records: what they are fitted to, they find."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from sciddm.covariance import LowRank, White
from sciddm.denoise import Context
from sciddm.errors import InputError
from sciddm.forecasters import (
    Blended,
    Cyclic,
    Factored,
    LinearGaussian,
    Mean,
    Persistence,
    Stencils,
)
from sciddm.forecasters.record import Stretch, regression, unseen
from sciddm.forecasters.regression import cycle, cycle_at, patterns
from sciddm.random import Streams

GRID = (6, 7)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


def clock(frames: int, first: int = 0) -> Tensor:
    """(2, frames): sine and cosine of a cycle of 8."""
    angle = 2 * math.pi * (first + torch.arange(frames).double()) / 8
    return torch.stack([angle.sin(), angle.cos()])


def stencils(channels: int = 2, periodic: bool = False) -> Stencils:
    """Damping, diffusion, drift and tendency of two channels, stronger where the weight is."""
    u = 0.02 * noise(2, channels, channels, 2, 4, seed=1)
    u[0, :, :, 0, 0] -= 0.1 * torch.eye(channels)
    return Stencils(u, noise(channels, *GRID, seed=2), (1.0,), (1.0,), periodic)


@pytest.mark.parametrize("periodic", [False, True])
def test_a_fit_finds_the_stencils_that_made_the_film(periodic: bool) -> None:
    truth = stencils(periodic=periodic)
    film, shaken = [noise(2, *GRID, seed=3), noise(2, *GRID, seed=4)], noise(2500, 2, *GRID, seed=5)
    for n in range(2500):
        recent = torch.stack(film[-2:], dim=1)[None]
        film.append(truth(recent, Context(), 1)[0] + 0.3 * shaken[n])
    found = Stencils.fit(
        [torch.stack(film, dim=1)], truth.weight, history=2, widths=(1.0,), slopes=(1.0,),
        ridge=0.0, thin=1, periodic=periodic,
    )  # fmt: skip
    recent = torch.stack([torch.stack(film[n - 1 : n + 1], dim=1) for n in range(2300, 2400)])
    added = truth(recent, Context(), 1) - recent[:, :, -1]
    off = found(recent, Context(), 1) - recent[:, :, -1] - added
    assert float(off.square().mean()) < 0.04 * float(added.square().mean())


def test_a_stencil_on_a_circle_moves_with_the_field() -> None:
    engine, x = stencils(periodic=True), noise(3, 2, 2, *GRID, seed=6)
    flat = Stencils(engine.coefficients, torch.ones(2, *GRID), (1.0,), (1.0,), True)
    moved = flat(x.roll((2, 3), (-2, -1)), Context(), 1)
    torch.testing.assert_close(moved, flat(x, Context(), 1).roll((2, 3), (-2, -1)))


def test_slopes_are_exact_on_straight_fields_and_averages_keep_the_constant() -> None:
    u = torch.zeros(2, 1, 1, 1, 4, dtype=torch.float64)
    u[0, 0, 0, 0, 2], u[0, 0, 0, 0, 1] = 1.0, 0.5
    engine = Stencils(u, torch.zeros(1, *GRID), (2.0,), (0.1,))
    rows = torch.arange(6.0).double()[:, None].expand(GRID)
    out = engine((2 * rows)[None, None, None], Context(), 1)[0, 0]
    smooth = Stencils(u * torch.tensor([0, 1, 0, 0]), engine.weight, (2.0,), (0.1,))
    half = smooth((2 * rows)[None, None, None], Context(), 1)[0, 0]
    torch.testing.assert_close(out - half, torch.full(GRID, 2.0).double())
    still = smooth(torch.full((1, 1, 1, *GRID), 3.0).double(), Context(), 1)
    torch.testing.assert_close(still, torch.full((1, 1, *GRID), 4.5).double())


def test_a_cycle_is_found_and_persistence_about_it_is_anomaly_persistence() -> None:
    waves = noise(5, 1, *GRID, seed=7)
    hours = clock(400, 3)
    usual = cycle_at(waves, hours[None])[0].movedim(1, 0)
    found = cycle(usual + 0.01 * noise(400, 1, *GRID, seed=8), hours, 2)
    torch.testing.assert_close(found, waves, atol=0.005, rtol=0)
    past = noise(3, 1, 4, *GRID, seed=9)
    context = Context(past=past, forcings=hours[None, :, :14].expand(3, -1, -1)[..., None, None])
    ahead = Cyclic(Persistence(), waves).ahead(past, context, 1, 10)
    expected = (past[:, :, -1] - usual[3])[:, :, None] + usual[4:14].movedim(0, 1)
    torch.testing.assert_close(ahead, expected)
    with pytest.raises(InputError, match="calendar"):
        Cyclic(Persistence(), waves).ahead(past, context, 1, 11)


def test_patterns_are_the_regression_that_made_the_film() -> None:
    e = torch.linalg.qr(noise(42, 2, seed=10)).Q.T.unflatten(1, (1, *GRID))
    a = torch.tensor([[[0.9, 0.3], [-0.3, 0.8]], [[-0.2, 0.0], [0.1, -0.1]]]).double()
    law = LinearGaussian(e, a, torch.eye(2).double(), torch.zeros((), dtype=torch.float64))
    film = law((1, 1, 4000, *GRID), Context(past=torch.zeros(1, 1, 2, *GRID).double()),
               Streams.of(0, 1))[0]  # fmt: skip
    found = patterns([film[:, :2000], film[:, 2000:]], e, 2, 0.0)
    torch.testing.assert_close(found.transition, a, atol=0.06, rtol=0)
    recent = noise(3, 1, 2, *GRID, seed=11)
    whole = Blended(Persistence(), law, 1.0)(recent, Context(), 1)
    rest = recent[:, :, -1] - law.fields(law.coefficients(recent[:, :, -1:]))[:, :, 0]
    torch.testing.assert_close(whole, law.expected(recent) + rest)
    none = Blended(Persistence(), law, 0.0)(recent, Context(), 1)
    torch.testing.assert_close(none, recent[:, :, -1])


def test_a_factored_law_is_the_covariance_of_its_blocks() -> None:
    """Whole where nothing is cut off, and of the same total variance where it is."""
    mix = noise(36, 36, seed=12) / 6
    blocks = (noise(500, 36, seed=13) @ mix).unflatten(1, (2, 3, 2, 3))
    flat = blocks.flatten(1, 2).flatten(1)
    exact = flat.T @ flat / 500
    law = Factored.fit(blocks, 12, 36)
    eye = torch.eye(36).double().view(36, 6, 2, 3)
    torch.testing.assert_close(law(eye).flatten(1), exact, atol=1e-5, rtol=1e-5)
    cut = Factored.fit(blocks, 5, 8)
    total = float(cut.diagonal(eye[:1]).sum())
    assert total == pytest.approx(float(exact.trace()), rel=1e-6)
    best = cut.variances.sum() + 28 * cut.floor
    assert float(best) == pytest.approx(total, rel=1e-6)
    root = cut.sqrt(eye).flatten(1)
    torch.testing.assert_close(root @ root.T, cut(eye).flatten(1), atol=1e-5, rtol=1e-5)
    half = cut.joint(eye, White(), lambda own, other: own / (own + other)).flatten(1)
    c = cut(eye).flatten(1)
    torch.testing.assert_close(half, torch.linalg.solve(c + torch.eye(36), c), atol=1e-5, rtol=1e-5)
    assert isinstance(cut._whole, LowRank)


def test_a_factored_law_of_parts_that_do_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="links"):
        Factored(torch.zeros(4, 1, 3), torch.zeros(2, 5, 3), torch.ones(2))


def test_errors_are_of_frames_that_the_fit_has_not_seen() -> None:
    record, seen = noise(120, 1, 3, seed=14), []

    class Known(Mean):
        """Zero, and a count of whose frames it was given."""

        def forward(self, recent: Tensor, context: Context, frame: int) -> Tensor:
            return torch.zeros_like(recent[:, :, -1])

    def fitted(stretches: Sequence[Stretch]) -> Mean:
        seen.append(torch.cat([x for x, _ in stretches])[:, 0, 0])
        return Known()

    left = torch.cat(unseen(record, clock(120), fitted, 5, folds=4, gap=2))
    assert left.shape == (4 * 26 - 1, 1, 5, 3)
    per = [left[:25], *left[25:].split(26)]
    for errors, known in zip(per, seen, strict=True):
        assert not bool(torch.isin(errors[:, 0, :, 0], known).any())
    whole = torch.cat([record[1:5, 0, 0], record[30:34, 0, 0]])
    assert bool(torch.isin(whole, left[..., 0]).all())


def test_a_regression_of_a_short_record_beats_persistence_on_new_hours() -> None:
    """A drifting wave about a daily cycle, in noise: fitted on 200 hours."""
    x = torch.arange(16).double() * 2 * math.pi / 16
    n = torch.arange(400).double()
    wave = torch.cos(x - 0.15 * n[:, None]) + torch.cos(2 * math.pi * n / 8)[:, None]
    record = (wave + 0.05 * noise(400, 16, seed=15))[:, None]
    hours = clock(400)
    mean = regression([(record[:200], hours[:, :200])], eofs=4, periodic=True)
    first = torch.arange(240, 380, 5)
    span = first[:, None] - 3 + torch.arange(9)
    film = record[span].movedim(2, 1)
    context = Context(past=film[:, :, :3], forcings=hours[:, span].movedim(1, 0))
    ahead = mean.ahead(film[:, :, :3], context, 1, 6)
    error = (ahead - film[:, :, 3:]).square().mean((0, 1, 3)).sqrt()
    still = (film[:, :, 2:3] - film[:, :, 3:]).square().mean((0, 1, 3)).sqrt()
    assert bool((error < 0.35 * still).all())


def test_a_cycle_that_was_wider_stays_wider_by_its_swing() -> None:
    waves = noise(5, 1, *GRID, seed=16)
    hours = clock(20)
    usual = cycle_at(waves, hours[None])[0].movedim(1, 0)
    swings = usual - waves[0]
    recent = (usual + 0.7 * swings)[:8].movedim(1, 0)[None]
    context = Context(past=recent, forcings=hours[None])
    engine = Cyclic(Persistence(), waves, swing=0.5, turn=8)
    plain = Cyclic(Persistence(), waves)(recent, context, 1)
    wider = engine(recent, context, 1) - plain
    torch.testing.assert_close(wider, 0.35 * (swings[8] - swings[7])[None])
