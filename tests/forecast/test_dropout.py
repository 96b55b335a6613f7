"""Dropout with given masks, the ensemble that it makes, and perturbed beginnings."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from sciddm.covariance import White
from sciddm.denoise import Context
from sciddm.errors import InputError
from sciddm.forecasters import Boundary, Dropout, Perturbed
from sciddm.forecasters.fair import fair_crps, uniform
from sciddm.model import CLASSES
from sciddm.nn import Dropped, SpectralOperator, UNet
from sciddm.random import Streams
from sciddm.tree import Encoder, decode

GRID = (6, 5)


def backbone(blocks: int = 2, seed: int = 0) -> SpectralOperator:
    torch.manual_seed(seed)
    out = SpectralOperator(4, 2, (3, 3), width=8, blocks=blocks, kernel=3)
    nn.init.normal_(out.head.weight, std=0.3)
    return out


def past(rows: int) -> Context:
    return Context(past=Streams.of(5, rows).normal(torch.empty(rows, 2, 1, *GRID)))


def film(
    model: nn.Module, frames: int, members: list[int], context: Context | None = None
) -> Tensor:
    given = past(8).past if context is None else context.past
    assert given is not None
    x = given[members] if len(given) > 1 else given.expand(len(members), -1, -1, -1, -1)
    out: Tensor = model((len(members), 2, frames, *GRID), Context(past=x), Streams.of(7, members))
    return out


def test_the_mean_over_masks_is_the_network_itself() -> None:
    """With one block the answer is linear in its mask, whose mean is 1 and variance r / (1 - r)."""
    rate, rows = 0.3, 3000
    network = backbone(1)
    one = Streams.of(0, 1).normal(torch.empty(1, 4, *GRID))
    mask = Streams.of(1, rows).normal(torch.empty(rows, 8))
    with torch.no_grad():
        plain = network(one, torch.zeros(1), Context())
        whole = one.expand(rows, -1, -1, -1)
        drawn = Dropped(network, rate)(whole, torch.zeros(rows), Context(scalars=mask))
        branch = network.body[0](network.lift(torch.cat([one, coordinates(one)], 1)),
                                 network.level(torch.zeros(1), Context(), one))  # fmt: skip
        branch = branch - network.lift(torch.cat([one, coordinates(one)], 1))
        weight = network.head.weight[:, :, 0, 0]
        variance = rate / (1 - rate) * torch.einsum("oc,bcyx->boyx", weight**2, branch**2)
    error = (drawn.mean(0) - plain[0]) / (variance[0] / rows).sqrt()
    assert float(error.abs().max()) < 4.5 and float(error.abs().mean()) < 1.2
    torch.testing.assert_close(drawn.var(0), variance[0], rtol=0.2, atol=1e-4)


def coordinates(x: Tensor) -> Tensor:
    from sciddm.nn.spectral import coordinates as found

    return found(x)


@pytest.mark.parametrize("network", [backbone(), UNet(4, 2, (3, 3), (8, 12))])
def test_without_a_mask_or_a_rate_nothing_is_dropped(network: nn.Module) -> None:
    x, level = Streams.of(0, 3).normal(torch.empty(3, 4, *GRID)), torch.zeros(3)
    nn.init.normal_(network.head.weight, std=0.3)
    plain, dropped = network(x, level, Context()), Dropped(network, 0.5)
    mask = Streams.of(1, 3).normal(torch.empty(3, dropped.masks))
    torch.testing.assert_close(dropped(x, level, Context()), plain)
    torch.testing.assert_close(Dropped(network, 0.0)(x, level, Context(scalars=mask)), plain)
    other = dropped(x, level, Context(scalars=mask))
    assert float((other - plain).abs().mean()) > 1e-3
    torch.testing.assert_close(network(x, level, Context()), plain)  # no hook is left behind
    with pytest.raises(InputError, match="dropout mask"):
        dropped(x, level, Context(scalars=mask[:, 1:]))


def test_scalars_behind_the_mask_are_the_backbone_s() -> None:
    torch.manual_seed(0)
    network = SpectralOperator(4, 2, (3, 3), width=8, blocks=1, scalars=2)
    nn.init.normal_(network.head.weight)
    for film in [m for m in network.modules() if type(m).__name__ == "Film"]:
        nn.init.normal_(film.linear.weight)
    x, scalars = torch.randn(2, 4, *GRID), torch.randn(2, 2)
    given = torch.cat([torch.full((2, 8), 9.0), scalars], 1)
    found = Dropped(network, 0.0)(x, torch.zeros(2), Context(scalars=given))
    torch.testing.assert_close(found, network(x, torch.zeros(2), Context(scalars=scalars)))


def test_a_member_is_one_network_all_along_its_forecast() -> None:
    model = Dropout(Dropped(backbone(), 0.4))
    x = film(model, 4, [0, 1])
    first = past(8).past
    assert first is not None
    mask = Streams.of(7, 2).at("mask", 0).normal(torch.empty(2, model.network.masks))
    state = first[:2, :, 0]
    for n in range(4):
        context = Context(fields=state, scalars=mask)
        with torch.no_grad():
            state = state + model.network(state, torch.full((2,), 5.0), context)
        torch.testing.assert_close(x[:, :, n], state)
    same = film(model, 4, [0, 1], Context(past=first[:1]))
    assert float((same[0] - same[1]).abs().mean()) > 0.01  # another member, another network


def test_members_have_addresses_and_torch_s_generator_is_left_alone() -> None:
    model = Dropout(Dropped(backbone(), 0.4), ahead=3)
    before = torch.get_rng_state()
    whole = film(model, 7, [0, 1, 2, 3])
    torch.testing.assert_close(film(model, 4, [2, 0]), whole[[2, 0], :, :4])
    model.loss(torch.randn(2, 2, 4, *GRID, generator=torch.Generator().manual_seed(0)), Context(),
               Streams.of(0, 2), 0.0)  # fmt: skip
    assert torch.equal(before, torch.get_rng_state())


def test_a_plain_network_forecasts_one_future_in_blocks() -> None:
    model = Dropout(backbone(), ahead=3)
    given = past(1)
    x = film(model, 7, [0, 1], given)
    torch.testing.assert_close(x[0], x[1])
    torch.testing.assert_close(film(model, 4, [0], Context(past=x[:1, :, 2:3])), x[:1, :, 3:])
    assert model.evaluations == 1


def test_the_loss_is_the_error_of_a_frame_of_the_block() -> None:
    model = Dropout(backbone(), ahead=3)
    truth = Streams.of(3, 50).normal(torch.empty(50, 2, 4, *GRID))
    rng = Streams.of(0, 50)
    place = (uniform(rng.at("frame"), 50) * 3).long()
    assert set(place.tolist()) == {0, 1, 2}
    found = model((50, 2, 3, *GRID), Context(past=truth[:, :, :1]), rng)
    rows = torch.arange(50)
    error = (found[rows, :, place] - truth[rows, :, 1 + place]).abs().flatten(1).mean(1)
    torch.testing.assert_close(model.loss(truth, Context(), rng, 0.5), error)


def test_fair_crps_is_that_of_all_pairs_and_is_least_at_the_law() -> None:
    draws = Streams.of(0, 4).normal(torch.empty(4, 30, 2, 3))
    truth = Streams.of(1, 30).normal(torch.empty(30, 2, 3))
    pairs = sum((a - b).abs() for a in draws for b in draws)
    by_hand = (draws - truth).abs().mean(0) - pairs / (2 * 4 * 3)
    torch.testing.assert_close(fair_crps(draws, truth), by_hand.flatten(1).mean(1))
    torch.testing.assert_close(
        fair_crps(draws[:1], truth), (draws[0] - truth).abs().flatten(1).mean(1)
    )
    big = Streams.of(2, 3).normal(torch.empty(3, 40_000))
    scores = [float(fair_crps((s * big[:2])[:, None], big[2:]).mean()) for s in (0.7, 1.0, 1.4)]
    assert scores[1] < min(scores[0], scores[2])
    assert scores[1] == pytest.approx(1 / math.sqrt(math.pi), rel=0.02)


def test_perturbed_beginnings_of_what_never_moves_stay_as_they_are() -> None:
    torch.manual_seed(0)
    still = Dropout(SpectralOperator(4, 2, (3, 3), width=4, blocks=1))  # untrained: persistence
    given = past(1)
    assert given.past is not None
    x = film(Perturbed(still, 0.3), 3, list(range(200)), given)
    torch.testing.assert_close(x[:, :, 0], x[:, :, 2])
    gap = (x[:, :, 0] - given.past[:, :, 0]).flatten()
    assert abs(float(gap.std()) / 0.3 - 1) < 4 / math.sqrt(2 * gap.numel())
    twice = film(Perturbed(still, 0.3, White(2.0)), 1, list(range(200)), given)
    torch.testing.assert_close(twice[:, :, 0] - given.past[:, :, 0],
                               2 * (x[:, :, 0] - given.past[:, :, 0]))  # fmt: skip


def test_without_noise_it_is_the_forecaster_and_what_is_known_is_not_perturbed() -> None:
    mask = torch.zeros(2, *GRID, dtype=torch.bool)
    mask[:, -1] = True
    inner = Dropout(backbone(), boundary=Boundary(mask))
    torch.testing.assert_close(film(Perturbed(inner, 0.0), 3, [0, 1]), film(inner, 3, [0, 1]))
    given = past(8).past
    assert given is not None
    x = film(Perturbed(inner, 0.5), 3, [0, 1])
    for n in range(3):
        torch.testing.assert_close(x[:, :, n, -1], given[:2, :, 0, -1])
    assert float((x - film(inner, 3, [0, 1])).abs().mean()) > 0.1


def test_both_are_saved_and_built_again() -> None:
    model = Perturbed(Dropout(Dropped(backbone(), 0.4), ahead=2), 0.1)
    encoder = Encoder()
    again = decode(encoder.encode(model, "sampler"), encoder.tensors, CLASSES)
    torch.testing.assert_close(film(again, 3, [0, 1]), film(model, 3, [0, 1]))


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(InputError, match="rate"):
        Dropped(backbone(), 1.0)
    with pytest.raises(InputError, match="residual blocks"):
        Dropped(nn.Conv2d(4, 2, 1), 0.1)
    with pytest.raises(InputError, match="expected 1 or more"):
        Dropout(backbone(), ahead=0)
    with pytest.raises(InputError, match="0 or more"):
        Perturbed(Dropout(backbone()), -1.0)
