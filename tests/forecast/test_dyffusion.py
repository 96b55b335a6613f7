"""DYffusion: what cold sampling is exact for, where its noise comes from, what it costs."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from sciddm.denoise import Context
from sciddm.errors import InputError
from sciddm.forecasters import Boundary, DYffusion, Mean
from sciddm.model import CLASSES
from sciddm.nn import Dropped, SpectralOperator
from sciddm.random import Streams
from sciddm.tree import Encoder, decode

GRID = (6, 5)
CHOICES = [
    {"extra": extra, "stride": stride, "refine": refine}
    for extra, stride, refine in itertools.product((0, 2), (1, 3, 5), (True, False))
]


class Zero(nn.Module):
    """A network that knows nothing."""

    def forward(self, x: Tensor, log_kappa: Tensor, context: Context) -> Tensor:
        return torch.zeros_like(x[:, :2])


class Slope(nn.Module):
    """The change over ``ahead`` frames of a film that is straight in time, of its last two."""

    def __init__(self, ahead: int) -> None:
        nn.Module.__init__(self)
        self.ahead = ahead

    def forward(self, x: Tensor, log_kappa: Tensor, context: Context) -> Tensor:
        assert context.fields is not None
        before, now = context.fields[:, :2], context.fields[:, 2:4]
        return self.ahead * (now - before)


class Oracle(nn.Module):
    """F(s, tau) = ``end``, whatever s is."""

    def __init__(self, end: Tensor) -> None:
        nn.Module.__init__(self)
        self.end = end

    def forward(self, x: Tensor, log_kappa: Tensor, context: Context) -> Tensor:
        tau = ((log_kappa + 5) / 10).view(-1, 1, 1, 1)
        return ((self.end - x[:, :2]) / (1 - tau)).to(x)


class Watched(nn.Module):
    """A network that keeps what it was asked."""

    def __init__(self, network: nn.Module) -> None:
        nn.Module.__init__(self)
        self.network, self.asked = network, []

    def forward(self, x: Tensor, log_kappa: Tensor, context: Context) -> Tensor:
        self.asked.append(x)
        out: Tensor = self.network(x, log_kappa, context)
        return out


class Bridge(nn.Module):
    """What the noise of a Brownian bridge over ``ahead`` frames of unit variance each adds."""

    def __init__(self, ahead: int) -> None:
        nn.Module.__init__(self)
        self.ahead = ahead

    def forward(self, x: Tensor, log_kappa: Tensor, context: Context) -> Tensor:
        tau = ((log_kappa + 5) / 10).view(-1, 1, 1, 1)
        spread = (self.ahead * tau * (1 - tau)).sqrt() / (4 * tau * (1 - tau)).clamp_min(1e-9)
        return (spread * x[:, 2:4]).to(x)


class Walk(nn.Module):
    """What the rest of a block adds to a random walk of unit variance a frame."""

    def __init__(self, ahead: int) -> None:
        nn.Module.__init__(self)
        self.ahead = ahead

    def forward(self, x: Tensor, log_kappa: Tensor, context: Context) -> Tensor:
        tau = ((log_kappa + 5) / 10).view(-1, 1, 1, 1)
        return ((self.ahead / (1 - tau)).sqrt() * x[:, 2:4]).to(x)


class Growth(Mean):
    """Every frame 1.1 times the one before it."""

    def forward(self, recent: Tensor, context: Context, frame: int) -> Tensor:
        return 1.1 * recent[:, :, -1]


def network(inputs: int = 6, seed: int = 0) -> SpectralOperator:
    """A backbone with random weights, its head too."""
    torch.manual_seed(seed)
    out = SpectralOperator(inputs, 2, (3, 3), width=8, blocks=2, kernel=3)
    nn.init.normal_(out.head.weight, std=0.2)
    return out


def past(rows: int, history: int = 1, seed: int = 5) -> Context:
    x = Streams.of(seed, rows).normal(torch.empty(rows, 2, history, *GRID))
    return Context(past=x)


def film(model: DYffusion, frames: int, rows: int = 3, members: list[int] | None = None) -> Tensor:
    context = past(8, model.history)
    who = list(range(rows)) if members is None else members
    assert context.past is not None
    return model((len(who), 2, frames, *GRID), Context(past=context.past[who]), Streams.of(7, who))


@pytest.mark.parametrize("how", CHOICES)
def test_a_film_that_is_straight_in_time_goes_on_straight(how: dict[str, int]) -> None:
    model = DYffusion(Zero(), Slope(5), ahead=5, history=2, noise=0, **how)
    context = past(3, 2)
    assert context.past is not None
    found = model((3, 2, 12, *GRID), context, Streams.of(0, 3))
    start, slope = context.past[:, :, 1:], context.past[:, :, 1:] - context.past[:, :, :1]
    ahead = torch.arange(1, 13.0).view(1, 1, -1, 1, 1)
    torch.testing.assert_close(found, start + ahead * slope, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("how", CHOICES)
def test_with_an_exact_forecaster_the_frames_are_the_interpolator_s(how: dict[str, int]) -> None:
    """The steps of the sampling telescope, so that it does not matter how many there are."""
    end = Streams.of(1, 3).normal(torch.empty(3, 2, *GRID))
    model = DYffusion(network(), Oracle(end), ahead=5, **how)
    found = film(model, 5)
    plain = DYffusion(model.interpolator, Oracle(end), ahead=5, stride=5)
    torch.testing.assert_close(found[:, :, -1], end, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found, film(plain, 5), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("how", CHOICES)
def test_untrained_it_is_the_run_of_its_mean(how: dict[str, int]) -> None:
    model = DYffusion(Zero(), Zero(), ahead=5, mean=Growth(), **how)
    given = past(8).past
    assert given is not None
    growth = (1.1 ** torch.arange(1, 8.0)).view(1, 1, -1, 1, 1)
    torch.testing.assert_close(film(model, 7), given[:3] * growth)


@pytest.mark.parametrize("refine", [True, False])
@pytest.mark.parametrize("stride", [1, 2])
def test_real_leads_pass_through_the_frames_and_are_continuous(refine: bool, stride: int) -> None:
    model = DYffusion(network(), network(seed=1), ahead=3, refine=refine, stride=stride)
    frames, rng = film(model, 7), Streams.of(7, 3)
    given = past(8).past
    assert given is not None
    context = Context(past=given[:3])
    at = model.at([float(k) for k in (7, 1, 2, 3, 4, 5, 6)], context, rng)
    torch.testing.assert_close(at.roll(-1, 2), frames)
    for k in range(1, 7):  # half a thousandth of a lead before and behind
        near = model.at([k - 5e-4, k + 5e-4], context, rng)
        assert float((near - frames[:, :, k - 1 : k]).abs().max()) < 0.02
    middle = model.at([1.5], context, rng)[:, :, 0]
    assert float((middle - frames[:, :, 0]).abs().max()) > 0.02
    with pytest.raises(InputError, match="positive"):
        model.at([0.0], context, rng)


@pytest.mark.parametrize("how", CHOICES)
def test_it_costs_what_it_says(how: dict[str, int]) -> None:
    between, ahead = Watched(network()), Watched(network(seed=1))
    model = DYffusion(between, ahead, ahead=5, **how)
    film(model, 10, rows=1)
    assert len(between.asked) + len(ahead.asked) == pytest.approx(10 * model.evaluations)


def test_the_noise_of_a_member_is_one_a_block_and_its_own() -> None:
    between, ahead = Watched(network()), Watched(network(seed=1))
    model = DYffusion(between, ahead, ahead=3)
    film(model, 6)
    for watched in (between, ahead):
        noise = torch.stack([x[:, 2:] for x in watched.asked])
        half = len(noise) // 2  # of the first block, and of the second
        assert all(torch.equal(n, noise[0]) for n in noise[:half])
        assert all(torch.equal(n, noise[half]) for n in noise[half:])
        assert not torch.equal(noise[0], noise[half])
        assert not torch.equal(noise[0][0], noise[0][1])
        watched.asked.clear()
    film(DYffusion(between, ahead, ahead=3, held=True), 6)
    noise = torch.stack([x[:, 2:] for x in ahead.asked])
    assert all(torch.equal(n, noise[0]) for n in noise)


def test_a_member_is_the_same_in_any_batch_and_for_any_length() -> None:
    model = DYffusion(Dropped(network(), 0.3), Dropped(network(seed=1), 0.3), ahead=3)
    whole = film(model, 7, members=[0, 1, 2, 3])
    torch.testing.assert_close(film(model, 4, members=[2, 0]), whole[[2, 0], :, :4])
    apart = (whole[0] - film(model, 7, members=[0, 1])[1]).abs().mean()
    assert float(apart) > 0.05


def test_without_noise_and_dropout_it_is_deterministic() -> None:
    model = DYffusion(network(4), network(4, seed=1), ahead=3, noise=0)
    given = past(1).past
    assert given is not None
    found = model((4, 2, 5, *GRID), Context(past=given.expand(4, -1, -1, -1, -1)), Streams.of(0, 4))
    for row in found[1:]:
        torch.testing.assert_close(row, found[0])


def test_what_is_known_is_imposed_on_every_state_that_a_network_sees() -> None:
    mask = torch.zeros(2, *GRID, dtype=torch.bool)
    mask[:, -1] = True
    between, ahead = Watched(network()), Watched(network(seed=1))
    model = DYffusion(between, ahead, ahead=3, boundary=Boundary(mask))
    found = film(model, 6)
    given = past(8).past
    assert given is not None
    known = given[:3, :, -1, -1]
    for x in (*(a[:, :2] for a in between.asked + ahead.asked), *found.unbind(2)):
        torch.testing.assert_close(x[:, :, -1], known)
    assert not torch.equal(found[:, :, 0, 0], given[:3, :, -1, 0])


def test_one_step_a_block_draws_the_law_of_exact_networks() -> None:
    """A random walk: x_h from x_0, the frames between from the Brownian bridge. Frame j of a block
    has variance j, and two frames i < j covariance i: within four standard errors."""
    ahead, rows = 4, 400
    model = DYffusion(Bridge(ahead), Walk(ahead), ahead=ahead, stride=ahead)
    zero = Context(past=torch.zeros(rows, 2, 1, *GRID))
    x = model((rows, 2, 2 * ahead, *GRID), zero, Streams.of(3, rows)).transpose(0, 2).flatten(1)
    count = x.shape[1]
    for j in range(1, 2 * ahead + 1):
        assert abs(float(x[j - 1].var()) / j - 1) < 4 * math.sqrt(2 / count)
    # the last of one block and the last of the next
    assert abs(float((x[3] * x[7]).mean()) / 4 - 1) < 4 * math.sqrt(3 / count)


def test_training_has_two_stages_that_leave_each_other_alone() -> None:
    between, ahead = network(), network(seed=1)
    model = DYffusion(between, ahead, ahead=3, share=0.4)
    assert model.stages == (0.4,)
    x = Streams.of(2, 4).normal(torch.empty(4, 2, model.window, *GRID))
    for share, trained, still in ((0.39, between, ahead), (0.4, ahead, between)):
        for step in range(6):  # both terms of the second stage
            rng = Streams.of(0, 4).inside("training step", step)
            model.zero_grad()
            loss = model.loss(x, Context(), rng, share)
            assert loss.shape == (4,) and torch.equal(loss, model.loss(x, Context(), rng, share))
            loss.mean().backward()
            assert all(p.grad is None for p in still.parameters())
            assert (
                float(sum(p.grad.abs().sum() for p in trained.parameters() if p.grad is not None))
                > 0
            )


def test_the_loss_of_exact_networks_is_the_least_and_known() -> None:
    """Of a random walk the fair CRPS of the exact bridge at frame i is its s.d. over root pi."""
    ahead, rows = 4, 600
    steps = Streams.of(4, rows).normal(torch.empty(rows, 2, ahead + 1, *GRID))
    x = steps.cumsum(2)
    exact = DYffusion(Bridge(ahead), Walk(ahead), ahead=ahead)
    blind = DYffusion(Zero(), Walk(ahead), ahead=ahead)
    rng = Streams.of(1, rows)
    best = float(exact.loss(x, Context(), rng, 0.0).mean())
    spread = [math.sqrt(i * (ahead - i) / ahead) for i in range(1, ahead)]
    assert best == pytest.approx(sum(spread) / len(spread) / math.sqrt(math.pi), rel=0.02)
    # without its noise the best that is left is the mean absolute error, root 2 times as much
    ratio = float(blind.loss(x, Context(), rng, 0.0).mean()) / best
    assert ratio == pytest.approx(math.sqrt(2), rel=0.02)


def test_it_is_saved_and_built_again() -> None:
    model = DYffusion(Dropped(network(), 0.2), network(seed=1), ahead=3, extra=1)
    encoder = Encoder()
    tree = encoder.encode(model, "sampler")
    again = decode(tree, encoder.tensors, CLASSES)
    torch.testing.assert_close(film(again, 4), film(model, 4))


@pytest.mark.parametrize(
    "wrong", [{"ahead": 1}, {"ahead": 3, "stride": 0}, {"ahead": 3, "share": 1.0}]
)
def test_numbers_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match="expected"):
        DYffusion(Zero(), Zero(), **wrong)
