"""The transformer over steps: silent at first, blind to levels and to what is not known."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sciddm.errors import InputError
from sciddm.nn import StepTransformer
from sciddm.random import Streams
from sciddm.series.conditional import Conditional, Given
from sciddm.series.kernel import Mixed, OrnsteinUhlenbeck, Term
from sciddm.series.law import posterior
from sciddm.series.panel import Panel

C, N, B, M = 3, 10, 4, 2


def network(
    loud: bool = True, apart: bool = False, patch: int = 1, **numbers: int
) -> StepTransformer:
    torch.manual_seed(0)
    net = StepTransformer(
        C, 1.0, 10.0, width=16, heads=2, periods=(24.0,), apart=apart, patch=patch, **numbers
    )
    if loud:
        for name, weight in net.named_parameters():
            if "head" in name or "level" in name:
                torch.nn.init.normal_(weight, std=0.3)
    return net.eval()


def law() -> Mixed:
    own = torch.ones(C, dtype=torch.float64)
    term = Term(OrnsteinUhlenbeck(4.0), 0.5 * torch.ones(C, 1, dtype=torch.float64), own)
    return Mixed((term,), 0.1 * own)


def panel(seed: int = 0, share: float = 0.6) -> Panel:
    g = torch.Generator().manual_seed(seed)
    time = (torch.randint(50, (B, 1), generator=g) + torch.arange(N)).double().repeat(1, C)
    channel = torch.arange(C).repeat_interleave(N).expand(B, -1)
    known = torch.rand(B, C * N, generator=g) < share
    value = torch.randn(B, C * N, generator=g, dtype=torch.float64)
    return Panel(time, channel, value, known, torch.ones_like(known), dense=(C, N))


def given(panel: Panel) -> Given:
    """As `Conditional` gives it: the wanted cells first, filled up to the most of any row."""
    panel = replace(panel, value=torch.where(panel.known, panel.value, 0.0))
    found = posterior(law(), panel)
    order = torch.argsort(panel.wanted.byte(), dim=1, descending=True, stable=True)
    order = order[:, : int(panel.wanted.sum(1).max())]
    return Given(panel, found.mean.float(), found.std.float(), order, panel.wanted.gather(1, order))


def asked(seen: Given, seed: int = 1) -> Tensor:
    """(B, M, h, 2): white innovations, and values about the posterior mean."""
    g = torch.Generator().manual_seed(seed)
    white = torch.randn(B, M, seen.index.shape[1], generator=g)
    return torch.stack([white, seen.at(seen.mean)[:, None] + white], dim=-1)


def answer(net: StepTransformer, seen: Given, x: Tensor, level: Tensor | None = None) -> Tensor:
    level = torch.linspace(-2, 1, B * M).view(B, M) if level is None else level
    with torch.no_grad():
        out = net(x, level, net.encode(seen))
    return torch.where(seen.wanted[:, None], out, 0.0)


@pytest.mark.parametrize(("apart", "patch"), [(False, 1), (True, 1), (False, 5), (True, 2)])
def test_an_untrained_network_is_silent(apart: bool, patch: int) -> None:
    seen = given(panel())
    assert (
        float(answer(network(loud=False, apart=apart, patch=patch), seen, asked(seen)).abs().max())
        == 0
    )
    assert float(answer(network(apart=apart, patch=patch), seen, asked(seen)).abs().max()) > 0.1


@pytest.mark.parametrize(("apart", "patch"), [(False, 1), (True, 1), (False, 5), (True, 2)])
def test_members_and_series_do_not_see_one_another(apart: bool, patch: int) -> None:
    net, full = network(apart=apart, patch=patch), panel()
    seen = given(full)
    x, level = asked(seen), torch.linspace(-2, 1, B * M).view(B, M)
    whole = answer(net, seen, x, level)
    for i in range(B):
        alone = given(full.rows(slice(i, i + 1)))
        h = alone.index.shape[1]
        one = answer(net, alone, x[i : i + 1, 1:, :h], level[i : i + 1, 1:])
        assert torch.allclose(one[0, 0], whole[i, 1, :h], atol=1e-5)


@pytest.mark.parametrize(("apart", "patch"), [(False, 1), (True, 1), (False, 5), (True, 2)])
def test_one_level_for_all_is_that_level_for_each(apart: bool, patch: int) -> None:
    net, seen = network(apart=apart, patch=patch), given(panel())
    x = asked(seen)
    one = answer(net, seen, x, torch.full((1, 1), 0.7))
    assert torch.allclose(one, answer(net, seen, x, torch.full((B, M), 0.7)), atol=1e-5)


@pytest.mark.parametrize(("apart", "patch"), [(False, 1), (True, 1), (False, 5), (True, 2)])
def test_a_series_at_another_level_is_read_alike(apart: bool, patch: int) -> None:
    """What is added to all values of a channel, known, expected and proposed, is not seen."""
    net, seen = network(apart=apart, patch=patch), given(panel())
    x = asked(seen)
    more = torch.tensor([5.0, -2.0, 0.5])[seen.panel.channel]
    value = torch.where(seen.panel.known, seen.panel.value + more, 0.0)
    moved = replace(seen, panel=replace(seen.panel, value=value), mean=seen.mean + more)
    y = torch.stack([x[..., 0], x[..., 1] + moved.at(more)[:, None]], dim=-1)
    assert torch.allclose(answer(net, moved, y), answer(net, seen, x), atol=1e-4)


@pytest.mark.parametrize(("apart", "patch"), [(False, 1), (True, 1), (False, 5), (True, 2)])
def test_the_order_of_wanted_cells_does_not_matter(apart: bool, patch: int) -> None:
    net, seen = network(apart=apart, patch=patch), given(panel())
    x = asked(seen)
    turned = replace(seen, index=seen.index.flip(1), wanted=seen.wanted.flip(1))
    assert torch.allclose(answer(net, turned, x.flip(2)).flip(2), answer(net, seen, x), atol=1e-5)


@pytest.mark.parametrize(("apart", "patch"), [(False, 1), (True, 1), (False, 5), (True, 2)])
def test_what_fills_a_row_has_no_effect(apart: bool, patch: int) -> None:
    """Filled wanted cells, and steps in front that are not real."""
    net, full = network(apart=apart, patch=patch), panel()
    seen = given(full)
    x = asked(seen)
    other = torch.where(seen.wanted[:, None, :, None], x, 7.0)
    assert torch.allclose(answer(net, seen, other), answer(net, seen, x), atol=1e-6)
    front = (torch.arange(N) < 3).repeat(C).expand(B, -1)
    short = replace(full, real=~front, known=full.known & ~front)
    one = given(short)
    noise = torch.where(front, 3.0, 0.0)
    loud = replace(
        one, panel=replace(one.panel, value=one.panel.value + noise), mean=one.mean + noise
    )
    assert torch.allclose(answer(net, loud, asked(one)), answer(net, one, asked(one)), atol=1e-6)


def test_a_forecast_passes_only_the_steps_ahead() -> None:
    last = (torch.arange(N) >= N - 2).repeat(C).expand(B, -1)
    memory = network().encode(given(panel().given(~last)))
    assert memory.tokens.tolist() == [N - 2, N - 1]


def missed(model: Conditional, full: Panel) -> float:
    """Mean square of what 8 members of each series miss."""
    members = Streams(1, tuple(i for i in range(B) for _ in range(8)), tuple(range(8)) * B)
    gap = model.draw(full, members) - full.value[:, None]
    return float(gap[full.wanted[:, None].expand(-1, 8, -1)].square().mean())


def test_it_learns_what_the_law_does_not_know() -> None:
    """Values that are always 1 where the law expects 0 with some spread: the draws go there."""
    torch.manual_seed(0)
    model = Conditional(network(loud=False), law(), C, steps=6)
    full = replace(panel(), value=torch.ones(B, C * N, dtype=torch.float64))
    untrained = missed(model, full)
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-3)
    rng = Streams(0, tuple(range(B)), (0,) * B)
    for step in range(60):
        optimiser.zero_grad()
        model.loss(full, rng.at("train", step), 0.0).mean().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    assert missed(model, full) < 0.25 * untrained


def test_channels_apart_do_not_see_one_another() -> None:
    """Only the law joins them: given its means, values of a channel move no other."""
    net, seen = network(apart=True), given(panel())
    x, first = asked(seen), seen.panel.channel == 0
    more = torch.where(first & seen.panel.known, 2.0 * torch.rand(first.shape), 0.0)
    value = torch.where(seen.panel.known, seen.panel.value + more, 0.0)
    moved = replace(seen, panel=replace(seen.panel, value=value), mean=seen.mean + more)
    y = torch.where(seen.at(first)[:, None, :, None], x + 1, x)
    gap = (answer(net, moved, y) - answer(net, seen, x)).abs()
    other = ~seen.at(first)[:, None].expand(gap.shape)
    assert float(gap[other].max()) < 1e-5 and float(gap[~other].max()) > 0.01


def test_what_it_cannot_read_is_refused() -> None:
    scattered = given(replace(panel(), dense=None))
    with pytest.raises(InputError, match="Use SetTransformer for irregular cells"):
        network().encode(scattered)
    with pytest.raises(InputError, match="expects 2 covariates"):
        network(covariates=2).encode(given(panel()))
    with pytest.raises(InputError, match="windows of 10 steps for tokens of 4"):
        network(patch=4).encode(given(panel()))
    with pytest.raises(InputError, match="multiple of twice the heads"):
        StepTransformer(C, 1.0, 10.0, width=18, heads=4)
