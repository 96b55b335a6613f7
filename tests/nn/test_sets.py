"""A transformer over sets: no order, no filling and no origin of time matters."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sciddm.errors import InputError
from sciddm.nn import SetTransformer
from sciddm.series import Panel
from sciddm.series.conditional import Given


def given(panel: Panel) -> Given:
    order = torch.argsort(panel.wanted.byte(), dim=1, descending=True, stable=True)
    index = order[:, : int(panel.wanted.sum(1).max())]
    mean = torch.where(panel.real, panel.value, 0.0).float()
    std = torch.where(panel.wanted, 0.5, 0.0).float()
    return Given(panel, mean, std, index, panel.wanted.gather(1, index))


def cells(m: int = 9, rows: int = 2) -> Panel:
    g = torch.Generator().manual_seed(3)
    time = 5 + torch.rand(rows, m, generator=g, dtype=torch.float64)
    known = torch.rand(rows, m, generator=g) < 0.5
    return Panel(
        time, torch.randint(0, 3, (rows, m), generator=g), torch.randn(rows, m, generator=g),
        known, torch.ones_like(known), covariates=torch.randn(rows, 2, m, generator=g),
        static=torch.randn(rows, 1, generator=g),
    )  # fmt: skip


def network(head: float = 1.0, periods: tuple[float, ...] = ()) -> SetTransformer:
    torch.manual_seed(0)
    net = SetTransformer(
        3, 0.05, 2.0, width=16, heads=2, readers=2, writers=2, periods=periods, covariates=2,
        static=1,
    )  # fmt: skip
    for name, weight in net.named_parameters():  # as after training: no part is silent
        if name.startswith("head") or "level" in name:
            torch.nn.init.normal_(weight, std=0.3 * head)
    return net


def answer(net: SetTransformer, panel: Panel, x: Tensor, level: float = 0.3) -> Tensor:
    """(B, M, m), at the wanted cells of ``x`` (B, M, m, 2)."""
    seen = given(panel)
    at = seen.index[:, None, :, None].expand(-1, x.shape[1], -1, 2)
    out = net(x.gather(2, at), torch.full((1, 1), level), net.encode(seen))
    out = torch.where(seen.wanted[:, None], out, 0.0)
    return torch.zeros_like(x[..., 0]).scatter_add(2, at[..., 0], out).detach()


def noise(panel: Panel, count: int = 3) -> Tensor:
    g = torch.Generator().manual_seed(1)
    return torch.randn(len(panel), count, panel.cells, 2, generator=g)


def moved(panel: Panel, order: Tensor) -> Panel:
    assert panel.covariates is not None
    return replace(
        panel, time=panel.time[:, order], channel=panel.channel[:, order],
        value=panel.value[:, order], known=panel.known[:, order], real=panel.real[:, order],
        covariates=panel.covariates[:, :, order],
    )  # fmt: skip


def test_the_order_of_cells_does_not_matter() -> None:
    net, panel = network(), cells()
    order = torch.randperm(9, generator=torch.Generator().manual_seed(2))
    x = noise(panel)
    here, there = answer(net, panel, x), answer(net, moved(panel, order), x[:, :, order])
    assert float(here.abs().max()) > 0.1
    torch.testing.assert_close(there, here[:, :, order], rtol=0, atol=1e-5)


def test_filling_has_no_effect() -> None:
    net, panel = network(), cells()
    assert panel.covariates is not None
    more = replace(
        panel, time=torch.cat([panel.time, torch.full((2, 4), -70.0)], 1),
        channel=torch.nn.functional.pad(panel.channel, (0, 4)),
        value=torch.cat([panel.value, torch.full((2, 4), 9.0)], 1),
        known=torch.nn.functional.pad(panel.known, (0, 4)),
        real=torch.nn.functional.pad(panel.real, (0, 4)),
        covariates=torch.cat([panel.covariates, torch.full((2, 2, 4), 9.0)], 2),
    )  # fmt: skip
    x = noise(panel)
    wide = torch.nn.functional.pad(x, (0, 0, 0, 4))
    torch.testing.assert_close(
        answer(net, more, wide)[:, :, :9], answer(net, panel, x), rtol=0, atol=1e-5
    )


def test_a_series_and_a_member_alone_answer_as_among_others() -> None:
    net, panel = network(), cells()
    known = panel.known.clone()
    known[0, known[0].nonzero()[:2, 0]] = False
    panel = panel.given(known)
    x = noise(panel)
    whole = answer(net, panel, x)
    # their known and wanted cells are not equally many, so one of them is filled up
    assert len(set(panel.known.sum(1).tolist())) == 2
    for row in range(2):
        alone = answer(net, panel.rows(slice(row, row + 1)), x[row : row + 1, 2:])
        torch.testing.assert_close(alone, whole[row : row + 1, 2:], rtol=0, atol=1e-5)


def test_time_has_no_origin_but_known_periods_have() -> None:
    panel = cells()
    later, x = replace(panel, time=panel.time + 1000.3), noise(panel)
    net, daily = network(), network(periods=(1.0,))
    torch.testing.assert_close(answer(net, later, x), answer(net, panel, x), rtol=0, atol=1e-4)
    assert float((answer(daily, later, x) - answer(daily, panel, x)).abs().max()) > 1e-2
    days = replace(panel, time=panel.time + 1000.0)
    torch.testing.assert_close(answer(daily, days, x), answer(daily, panel, x), rtol=0, atol=1e-4)


@pytest.mark.parametrize("what", ["time", "value", "channel", "covariates", "static", "level"])
def test_everything_known_is_seen(what: str) -> None:
    net, panel = network(), cells()
    x = noise(panel)
    other, level = panel, 0.3
    if what == "level":
        level = 1.7
    elif what == "channel":
        other = replace(panel, channel=(panel.channel + 1) % 3)
    else:
        old = getattr(panel, what)
        other = replace(panel, **{what: old * 1.3})
    assert float((answer(net, other, x, level) - answer(net, panel, x)).abs().max()) > 1e-3


def test_nothing_known_and_silence_at_the_start() -> None:
    panel = cells()
    fresh = panel.given(torch.zeros_like(panel.known))
    assert bool(torch.isfinite(answer(network(), fresh, noise(panel))).all())
    assert not answer(network(head=0.0), panel, noise(panel)).any()


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="twice the heads"):
        SetTransformer(1, 0.1, 1.0, width=18, heads=4)
    with pytest.raises(InputError, match="2 covariates"):
        network().encode(given(replace(cells(), covariates=None)))
    with pytest.raises(InputError, match="1 static"):
        network().encode(given(replace(cells(), static=None)))
