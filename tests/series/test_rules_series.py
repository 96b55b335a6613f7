"""Published rules on a Gaussian series, where the answer is known: each is off, and by how much.

An Ornstein-Uhlenbeck series of correlation 0.82 from step to step, eight steps known, the last of
them high; eight more wanted. The denoiser is exact, so what is found is the rule's own doing.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from sciddm.process import LinearBeta
from sciddm.random import Streams
from sciddm.series import FunctionPrior, Panel, posterior
from sciddm.series.kernel import Mixed, OrnsteinUhlenbeck, Term
from sciddm.series.rules import (
    Matching,
    QuantileEnergy,
    Reconstruction,
    Replacement,
    Rule,
    SelfGuidance,
    SquaredEnergy,
    descents,
)
from sciddm.solve import Uniform

MEMBERS = 300
ALONE = torch.zeros(1, 0, dtype=torch.float64)
LAW = Mixed((Term(OrnsteinUhlenbeck(5.0), ALONE, torch.ones(1)),), torch.zeros(1))
WHITE = Mixed((), torch.ones(1))
TSDIFF = LinearBeta(0.01, 10.0)


class Found(NamedTuple):
    """Of the wanted cells: bias in s.d. of the posterior, s.d. over that of the posterior; and the
    root mean square distance of members to the known values."""

    bias: Tensor
    spread: Tensor
    misfit: float


def panel() -> Panel:
    time = torch.arange(16).double()[None]
    value = torch.tensor([[0.3, -0.4, 0.1, 0.6, 0.2, 0.9, 1.1, 1.5, *[0.0] * 8]])
    known = time < 8
    return Panel(time, torch.zeros_like(time).long(), value, known, torch.ones_like(known))


def found(rule: Rule, noise: Mixed | None = WHITE) -> Found:
    published = isinstance(rule, SelfGuidance | Reconstruction)
    prior = FunctionPrior(LAW, noise=noise, rule=rule, clock=TSDIFF if published else None)
    given = panel()
    x = rule.draw(prior.at(given), Streams.of(0, MEMBERS))
    exact, wanted = posterior(LAW, given), given.wanted[0]
    std = exact.std[0, wanted]
    bias = (x.mean(0) - exact.mean[0])[wanted] / std
    gap = (x - given.value)[:, given.known[0]]
    return Found(bias, x.std(0)[wanted] / std, float(gap.square().mean().sqrt()))


@pytest.mark.parametrize("noise", [None, WHITE], ids=["law", "white"])
def test_moment_matching_is_the_posterior(noise: Mixed | None) -> None:
    got = found(Matching(30), noise)
    assert float(got.bias.abs().max()) < 0.2  # 3.5 standard errors
    assert float((got.spread - 1).abs().max()) < 0.15
    assert got.misfit < 1e-3


def test_corrections_by_the_jacobian_change_nothing_for_a_gaussian() -> None:
    plain, corrected = found(Matching(10)), found(Matching(10, corrections=1))
    torch.testing.assert_close(plain.bias, corrected.bias, atol=1e-4, rtol=0)
    torch.testing.assert_close(plain.spread, corrected.spread, atol=1e-4, rtol=0)


def test_self_guidance_has_no_right_scale() -> None:
    """TSDiff with white noise: the bias crosses zero with the scale, the known cells are missed."""
    low, high = (found(SelfGuidance(s, steps=50, grid=Uniform())) for s in (1.0, 8.0))
    assert float(low.bias[0]) < -0.3
    assert float(high.bias[0]) > 0.3
    assert float(high.spread.mean()) < 0.95
    assert min(low.misfit, high.misfit) > 0.2


def test_quantile_guidance_spreads_members_by_their_level() -> None:
    got = found(SelfGuidance(4.0, QuantileEnergy(MEMBERS), steps=50, grid=Uniform()))
    assert float(got.spread[0]) > 1.3
    levels = QuantileEnergy(9).levels(Streams.of(0, [0, 4, 8, 9]))
    torch.testing.assert_close(levels, torch.tensor([0.1, 0.5, 0.9, 0.1]).double())


def test_energies_have_the_gradients_of_their_laws() -> None:
    gap = torch.tensor([[0.5, -2.0]], dtype=torch.float64, requires_grad=True)
    rng = Streams.of(0, [1])
    (slope,) = torch.autograd.grad(SquaredEnergy()(gap, rng).sum(), gap)
    torch.testing.assert_close(slope, gap.detach())
    (slope,) = torch.autograd.grad(QuantileEnergy(3)(gap, rng).sum(), gap)
    torch.testing.assert_close(slope, torch.tensor([[0.5, -0.5]]).double())


def test_replacement_keeps_what_is_known_and_tells_the_others_too_little() -> None:
    once, often = found(Replacement(25)), found(Replacement(25, repeats=3))
    assert once.misfit < 1e-6
    assert float(once.bias[0]) < -0.5
    assert abs(float(often.bias[0])) < abs(float(once.bias[0]))


def test_replaced_cells_are_not_heard_at_all_where_the_noise_is_the_law() -> None:
    """x_hat of a cell is a multiple of that cell alone: the draws are those of the law."""
    got, exact = found(Replacement(30), None), posterior(LAW, panel())
    wanted = panel().wanted[0]
    unheard = -exact.mean[0, wanted] / exact.std[0, wanted]
    torch.testing.assert_close(got.bias, unheard, atol=0.35, rtol=0)
    assert float(unheard[0]) < -2


def test_reconstruction_guidance_is_near_and_too_sure() -> None:
    got = found(Reconstruction(steps=50))
    assert got.misfit < 0.05
    assert float(got.bias.abs().mean()) > 0.1
    assert [descents(s)[0] for s in (0.95, 0.8, 0.5, 0.01)] == [3, 2, 1, 0]
    assert Reconstruction(steps=50).evaluations > 50


def test_the_rule_of_a_draw_keeps_known_cells_exactly() -> None:
    prior = FunctionPrior(LAW, noise=WHITE, rule=SelfGuidance(2.0, steps=10), clock=TSDIFF)
    given = panel()
    x = prior.draw(given, Streams.of(0, 4))[0]
    seen = given.known[0]
    torch.testing.assert_close(x[:, seen], given.value[:, seen].expand(4, -1).double())
