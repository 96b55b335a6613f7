"""A spread that follows the season: its sizes, and a posterior that is the dense formula's."""

from __future__ import annotations

import math

import torch

from sciddm.series import Panel, posterior
from sciddm.series.kernel import Mixed, OrnsteinUhlenbeck, Term
from sciddm.series.swelling import Swelling


def test_the_spread_swells_by_the_season_and_the_posterior_is_exact() -> None:
    rng = torch.Generator().manual_seed(0)
    time = torch.rand(1, 14, generator=rng).double().sort(1).values * 8
    channel = torch.arange(14)[None] % 2
    known = torch.rand(1, 14, generator=rng) < 0.5
    value = torch.randn(1, 14, generator=rng).double()
    panel = Panel(time, channel, value, known, torch.ones_like(known))
    term = Term(
        OrnsteinUhlenbeck(1.0), torch.tensor([[0.9], [0.5]]).double(), torch.ones(2).double()
    )
    inner = Mixed((term,), torch.tensor([0.1, 0.2]).double())
    law = Swelling(inner, torch.tensor([0.7, -0.3]).double(), 8.0, 2.0)
    cov = law.covariance(panel)[0]
    size = (cov.diagonal() / inner.covariance(panel)[0].diagonal()).sqrt()
    wave = torch.cos(2 * math.pi * (time[0] - 2) / 8)
    torch.testing.assert_close(size.log(), torch.tensor([0.7, -0.3]).double()[channel[0]] * wave)
    k, w = known[0], ~known[0]
    gain = torch.linalg.solve(cov[k][:, k], cov[k][:, w]).mT
    found = posterior(law, panel)
    torch.testing.assert_close(found.mean[0, w], gain @ value[0, k])
    exact = cov[w][:, w] - gain @ cov[k][:, w]
    factor = found.factor[0][w]
    torch.testing.assert_close(factor @ factor.mT, exact, atol=1e-7, rtol=1e-6)
    assert torch.equal(found.mean[0, k], value[0, k])
