"""The backbone of films: a level a frame, frames that meet in time and not before they are told."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from sciddm.denoise import Context
from sciddm.errors import InputError
from sciddm.nn import FilmNet, UNet
from sciddm.tree import Encoder, decode

DOUBLE = torch.float64
KINDS = {
    "1-D": ((5,), (6,), (12,), False),
    "1-D on a circle, two levels": ((3,), (4, 6), (12,), True),
    "2-D, three levels": ((3, 3), (4, 4, 6), (9, 8), False),
    "2-D on a torus": ((3, 2), (4, 6), (8, 8), True),
}
kinds = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())


def built(kind: tuple, causal: bool = True, inputs: int = 2, scalars: int = 0) -> FilmNet:
    """With every weight away from zero, as after training."""
    modes, widths, _, periodic = kind
    torch.manual_seed(0)
    net = FilmNet(
        inputs, 1, modes, widths, 2, periodic=periodic, scalars=scalars, causal=causal
    ).double()
    with torch.no_grad():
        for weight in net.parameters():
            if not bool(weight.any()):
                nn.init.normal_(weight, std=0.3)
    return net


def film(rows: int, channels: int, frames: int, grid: tuple[int, ...], seed: int = 1) -> Tensor:
    return torch.randn(
        rows, channels, frames, *grid, generator=torch.manual_seed(seed), dtype=DOUBLE
    )


def levels(frames: int, grid: tuple[int, ...]) -> Tensor:
    return torch.linspace(-2, 2, frames, dtype=DOUBLE).view(1, 1, -1, *[1] * len(grid))


@kinds
def test_a_causal_film_does_not_know_what_comes_and_the_other_does(kind: tuple) -> None:
    grid = kind[2]
    x, other = film(2, 2, 4, grid), film(2, 2, 4, grid, seed=2)
    later = torch.cat([x[:, :, :2], other[:, :, 2:]], dim=2)
    k = levels(4, grid)
    moved = k.clone()
    moved[:, :, 2:] += 1.0
    for causal in (True, False):
        net = built(kind, causal)
        a, b = net(x, k, Context()), net(later, moved, Context())
        same = torch.allclose(a[:, :, :2], b[:, :, :2], atol=1e-12)
        assert same == causal
        # what was is seen by what comes
        earlier = torch.cat([other[:, :, :1], x[:, :, 1:]], dim=2)
        assert not torch.allclose(net(earlier, k, Context())[:, :, 3], a[:, :, 3], atol=1e-6)


@kinds
def test_equal_levels_are_one_level_and_a_row_may_have_its_own(kind: tuple) -> None:
    grid, net = kind[2], built(kind)
    x, ones = film(3, 2, 4, grid), [1] * (1 + len(grid))
    one = net(x, torch.tensor(0.7, dtype=DOUBLE), Context())
    equal = net(x, torch.full((1, 1, 4, *ones[1:]), 0.7, dtype=DOUBLE), Context())
    assert torch.allclose(one, equal, atol=1e-12)
    rows = torch.tensor([0.7, -1.0, 2.0], dtype=DOUBLE).view(3, 1, *ones)
    by_row = net(x, rows, Context())
    assert torch.allclose(by_row[0], one[0], atol=1e-12)
    for i in range(3):
        assert torch.allclose(by_row[i], net(x[i : i + 1], rows[i], Context())[0], atol=1e-12)
    assert not torch.allclose(by_row[1], one[1], atol=1e-3)


@kinds
def test_until_frames_meet_each_is_a_film_of_its_own(kind: tuple) -> None:
    """With attention at zero, as it starts, frames are one by one and their order is nothing."""
    grid, net = kind[2], built(kind)
    for meeting in net.meeting:
        for weight in meeting.out.parameters():
            nn.init.zeros_(weight)
    x, k = film(2, 2, 3, grid), levels(3, grid)
    whole = net(x, k, Context())
    for i in range(3):
        alone = net(x[:, :, i : i + 1], k[:, :, i : i + 1], Context())
        assert torch.allclose(whole[:, :, i : i + 1], alone, atol=1e-12)


def test_conditions_reach_every_frame_and_forcings_their_own() -> None:
    kind = KINDS["2-D, three levels"]
    grid, net = kind[2], built(kind, inputs=5, scalars=1)
    x, k = film(2, 2, 3, grid), levels(3, grid)
    fields, scalars = film(2, 1, 1, grid, 5)[:, :, 0], torch.ones(2, 1, dtype=DOUBLE)
    forcings = film(1, 2, 3, (1, 1), 6)
    given = Context(fields=fields, scalars=scalars, forcings=forcings)
    wide = torch.cat(
        [x, fields[:, :, None].expand(2, 1, 3, *grid), forcings.expand(2, 2, 3, *grid)], dim=1
    )
    assert torch.allclose(net(x, k, given), net(wide, k, Context(scalars=scalars)), atol=1e-12)
    with pytest.raises(InputError, match="forcings of 2 frames for a film of 3"):
        net(x, k, Context(fields=fields, scalars=scalars, forcings=forcings[:, :, :2]))
    with pytest.raises(InputError, match="one level a frame"):
        net(x, levels(2, grid), given)


def test_on_a_torus_the_film_moves_with_its_frames() -> None:
    kind = KINDS["2-D on a torus"]
    net, x, k = built(kind), film(2, 2, 3, (8, 8)), levels(3, (8, 8))
    moved = net(x.roll((2, 4), (3, 4)), k, Context())
    assert torch.allclose(moved, net(x, k, Context()).roll((2, 4), (3, 4)), atol=1e-10)


def test_one_frame_of_one_width_learns_what_a_net_of_fields_learns() -> None:
    """A film of one frame is a field: the same numbers of weights, less the attention."""
    film_net = FilmNet(2, 1, (3, 3), (4, 6), 2)
    fields = UNet(2, 1, (3, 3), (4, 6))
    count = [sum(p.numel() for p in net.parameters()) for net in (film_net, fields)]
    assert count[0] - sum(p.numel() for p in film_net.meeting.parameters()) == count[1]


def test_it_is_saved_as_data() -> None:
    net = built(KINDS["1-D on a circle, two levels"]).float()
    coder = Encoder()
    node = json.loads(json.dumps(coder.encode(net)))
    again = decode(node, load(save(coder.tensors)), {"FilmNet": FilmNet})
    x, k = film(2, 2, 3, (12,)).float(), levels(3, (12,)).float()
    assert torch.equal(net(x, k, Context()), again(x, k, Context()))


def test_heads_that_do_not_divide_the_widths_are_refused() -> None:
    with pytest.raises(InputError, match="3 heads"):
        FilmNet(1, 1, (2,), (4,), heads=3)
