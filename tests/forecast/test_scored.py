"""The scored ensemble: its loss knows the true law, and its members are addressed."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from sciddm.denoise import Context
from sciddm.errors import InputError
from sciddm.forecasters import Boundary, Persistence, Scored
from sciddm.forecasters.scored import almost_fair
from sciddm.nn import SpectralOperator
from sciddm.random import Streams


class Affine(nn.Module):
    """x -> shift + spread z + slope x, the same in every cell: the law N(shift + slope x, spread^2)
    of the change."""

    def __init__(self, shift: float, spread: float, slope: float = 0.0) -> None:
        nn.Module.__init__(self)
        self.weights = nn.Parameter(torch.tensor([shift, spread, slope], dtype=torch.float64))

    def forward(self, z: Tensor, level: Tensor, context: Context) -> Tensor:
        shift, spread, slope = self.weights
        assert context.fields is not None
        return shift + spread * z + slope * context.fields[:, -1:]


def small(**numbers: int | float) -> Scored:
    torch.manual_seed(0)
    backbone = SpectralOperator(3, 1, (3,), 8, 2, kernel=3, periodic=True)
    nn.init.normal_(backbone.head.weight)
    return Scored(backbone, Persistence(), torch.full((1, 1), 0.3), **numbers)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("members", [2, 5])
def test_almost_fair_is_the_sum_over_pairs_and_lies_between_plain_and_fair(
    alpha: float, members: int
) -> None:
    errors = Streams.of(3, members).normal(torch.zeros(members, 4, 3, dtype=torch.float64))
    pairs = sum(abs(errors[i] - errors[j]) for i, j in itertools.product(range(members), repeat=2))
    plain = errors.abs().mean(0) - pairs / (2 * members**2)
    fair = errors.abs().mean(0) - pairs / (2 * members * (members - 1))
    torch.testing.assert_close(almost_fair(errors, alpha), alpha * fair + (1 - alpha) * plain)


@pytest.mark.parametrize("alpha", [1.0, 0.9])
def test_the_loss_is_least_at_the_true_gaussian_law_and_only_for_the_fair_score(
    alpha: float,
) -> None:
    """The truth changes by N(m, s^2). For members N(a, b^2), with phi of s.d. r = hypot(b, s),

        E|X - Y| = (a - m)(2 Phi(.) - 1) + 2 r phi(.),   E|X - X'| = 2 b / sqrt(pi),

    so that the gradient by (a, b) at the truth is (0, (1 - (1 - eps)) / sqrt(pi)), eps = (1 -
    alpha) / 2: zero for the fair score alone, and its sampling error is known from the rows.
    """
    shift, spread, scale, films, cells = 0.4, 0.7, 0.5, 256, 256
    engine = Scored(
        Affine(shift, spread), Persistence(), torch.tensor([[scale]], dtype=torch.float64),
        noises=1, members=2, alpha=alpha,
    )  # fmt: skip
    rng = Streams.of(1, films)
    start = rng.at("start").normal(torch.zeros(films, 1, 1, cells, dtype=torch.float64))
    noise = rng.at("truth").normal(start)
    film = torch.cat([start, start + scale * (shift + spread * noise)], dim=2)
    losses = engine.loss(film, Context(), rng.at("train"), 0.0)
    parts = [
        torch.autograd.grad(part.mean(), engine.backbone.weights, retain_graph=True)[0][:2]
        for part in losses.split(8)
    ]
    rows = torch.stack(parts)
    gradient, error = rows.mean(0), rows.std(0) / math.sqrt(len(rows))
    expected = torch.tensor([0.0, (1 - alpha) / 2 / math.sqrt(math.pi)], dtype=torch.float64)
    assert bool(((gradient - expected).abs() < 4 * error).all()), (gradient, expected, error)
    assert float(error.max()) < 0.006  # smaller than what tells the two scores apart
    value = spread / math.sqrt(math.pi) * (1 + (1 - alpha) / 2)
    assert float(losses.detach().mean()) == pytest.approx(value, rel=0.01)


def test_training_on_two_members_finds_mean_slope_and_spread() -> None:
    engine = Scored(
        Affine(0.0, 0.1), Persistence(), torch.ones(1, 1, dtype=torch.float64), noises=1
    )
    optimiser = torch.optim.Adam(engine.parameters(), 0.1)
    for step in range(200):
        for group in optimiser.param_groups:
            group["lr"] = 0.1 * (1 - step / 200)
        rng = Streams.of(2, 64).inside("training step", step)
        start = rng.at("start").normal(torch.zeros(64, 1, 1, 64, dtype=torch.float64))
        noise = rng.at("truth").normal(start)
        film = torch.cat([start, start + 0.5 - 0.3 * start + 0.8 * noise], dim=2)
        optimiser.zero_grad()
        engine.loss(film, Context(), rng, step / 200).mean().backward()
        optimiser.step()
    shift, spread, slope = engine.backbone.weights.tolist()
    assert (shift, abs(spread), slope) == pytest.approx((0.5, 0.8, -0.3), abs=0.01)


def test_later_frames_of_the_training_are_made_of_the_members_own() -> None:
    """With x -> (1 + slope) x + spread z the error of frame n is known by hand."""
    engine = Scored(
        Affine(0.0, 0.2, -0.5), Persistence(), torch.ones(1, 1, dtype=torch.float64),
        noises=1, unroll=3, turn=0.4,
    )  # fmt: skip
    assert engine.window == 4 and engine.stages == (0.4,)
    rng = Streams.of(4, 5)
    film = rng.at("film").normal(torch.zeros(5, 1, 4, 16, dtype=torch.float64))
    members, total = [film[:, :, 0], film[:, :, 0]], torch.zeros(5, dtype=torch.float64)
    for n in (1, 2, 3):
        for i in (0, 1):
            z = rng.inside("member", i).inside("frame", n).at("noise").normal(members[i])
            members[i] = 0.5 * members[i] + 0.2 * z
        errors = torch.stack(members) - film[:, :, n]
        total += almost_fair(errors).flatten(1).mean(1)
        if n == 1:
            torch.testing.assert_close(engine.loss(film, Context(), rng, 0.39), total)
    torch.testing.assert_close(engine.loss(film, Context(), rng, 0.4), total / 3)


def test_a_member_is_the_same_in_any_batch_and_a_frame_however_many_are_asked_for() -> None:
    engine = small()
    past = Streams.of(0, 3).normal(torch.zeros(3, 1, 1, 16))
    every = engine((3, 1, 5, 16), Context(past=past), Streams.of(7, 3))
    alone = engine((1, 1, 3, 16), Context(past=past[2:]), Streams.of(7, [2]))
    torch.testing.assert_close(every[2:, :, :3], alone)
    one = past[:1].expand(3, -1, -1, -1)
    members = engine((3, 1, 2, 16), Context(past=one), Streams.of(7, 3))
    change = members[:, :, 1] - members[:, :, 0]
    assert not torch.allclose(members[0], members[1]) and not torch.allclose(change[0], change[1])


def test_numbers_for_the_whole_network_are_a_noise_too_and_forcings_line_up() -> None:
    torch.manual_seed(0)
    backbone = SpectralOperator(3 + 2 * 4, 1, (3,), 8, 2, periodic=True, scalars=2)
    nn.init.normal_(backbone.head.weight)
    engine = Scored(
        backbone, Persistence(), torch.ones(1, 1), history=3, noises=0, vector=2, unroll=2, turn=0.0
    )
    with torch.no_grad():  # films are the numbers' doing: they enter by the scale of every block
        for block in backbone.body:
            nn.init.normal_(block.film.linear.weight)
    rng = Streams.of(0, 2)
    film = rng.normal(torch.zeros(2, 1, 5, 16))
    forcings = rng.at("forcings").normal(torch.zeros(2, 2, 5, 1))
    known = Context(past=film[:, :, :3], forcings=forcings)
    members = engine((2, 1, 2, 16), Context(past=film[:1, :, :3].expand(2, -1, -1, -1),
                     forcings=forcings[:1]), Streams.of(1, 2))  # fmt: skip
    assert not torch.allclose(members[0], members[1])
    late = Context(past=known.past, forcings=forcings + torch.tensor([0.0, 0, 0, 0, 1])[:, None])
    first, second = (engine((2, 1, 2, 16), c, rng) for c in (known, late))
    torch.testing.assert_close(first[:, :, 0], second[:, :, 0])
    assert not torch.allclose(first[:, :, 1], second[:, :, 1])
    assert bool(torch.isfinite(engine.loss(film, Context(forcings=forcings), rng, 0.5)).all())


def test_known_values_are_held_and_add_nothing_to_the_loss() -> None:
    engine, free = small(), small()
    mask = torch.zeros(1, 16, dtype=torch.bool)
    mask[:, :4] = True
    engine.boundary = Boundary(mask)
    film = Streams.of(0, 2).normal(torch.zeros(2, 1, 2, 16))
    film[..., :4] = film[:, :, :1, :4]
    drawn = engine((2, 1, 3, 16), Context(past=film[:, :, :1]), Streams.of(1, 2))
    torch.testing.assert_close(drawn[..., :4], film[:, :, :1, :4].expand(-1, -1, 3, -1))
    members = []
    for i in (0, 1):
        noise = free.noise(film[:, :, 0], Streams.of(1, 2).inside("member", i).inside("frame", 1))
        members.append(free.step(film[:, :, :1], Context(), 1, noise, 1))
    cells = almost_fair((torch.stack(members) - film[:, :, 1]) / free.scale)
    loss = engine.loss(film, Context(), Streams.of(1, 2), 0.5)
    torch.testing.assert_close(loss, cells[..., 4:].sum((1, 2)) / 16)


@pytest.mark.parametrize(
    "numbers",
    [{"members": 1}, {"history": 0}, {"unroll": 0}, {"noises": 0}, {"alpha": 1.5}, {"turn": 1.0}],
    ids=str,
)
def test_numbers_out_of_range_are_refused(numbers: dict[str, float]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(numbers))}="):
        small(**numbers)
