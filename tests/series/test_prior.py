"""The unconditional prior of series: exact for a Gaussian law, whatever the noise."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from sciddm.denoise import Context
from sciddm.errors import InputError
from sciddm.model import CLASSES
from sciddm.nn import LongConv, SetTransformer, Unconditional
from sciddm.process import LogLinear
from sciddm.random import Streams
from sciddm.series import (
    Direct,
    FunctionPrior,
    Matching,
    Panel,
    Spectrum,
    log_prob,
    posterior,
)
from sciddm.series.kernel import Matern32, Mixed, OrnsteinUhlenbeck, Term
from sciddm.series.law import factor
from sciddm.solve import Multistep
from sciddm.tree import Encoder, decode

ALONE = torch.zeros(2, 0, dtype=torch.float64)
LAW = Mixed(
    (Term(OrnsteinUhlenbeck(2.0), torch.tensor([[0.8], [0.5]]), torch.tensor([0.3, 0.6])),),
    torch.tensor([0.05, 0.1]),
    torch.tensor([1.0, -1.0]),
)
WHITE = Mixed((), torch.ones(2))
SMOOTH = Mixed((Term(Matern32(1.0), ALONE, torch.ones(2)),), torch.full((2,), 0.05))


class Unit(Streams):
    """No noise for member 0, and the k-th unit vector for member k: a linear sampler in full."""

    def normal(self, like: Tensor) -> Tensor:
        out = torch.zeros_like(like).flatten(1)
        for row, member in enumerate(self.members):
            if member:
                out[row, member - 1] = 1
        return out.view_as(like)


def scattered(m: int = 20, share: float = 0.5, error: float | None = None) -> Panel:
    """One series of two channels at irregular times."""
    g = torch.Generator().manual_seed(0)
    time = (10 * torch.rand(1, m, generator=g).double()).sort().values
    channel = torch.randint(0, 2, (1, m), generator=g)
    known = torch.rand(1, m, generator=g) < share
    noise = None if error is None else torch.full((1, m), error)
    value = torch.randn(1, m, generator=g)
    return Panel(time, channel, value, known, torch.ones_like(known), noise)


def regular(rows: int, n: int, channels: int = 1) -> Panel:
    """Series of zeros on a regular grid, nothing known."""
    time = torch.arange(n).double().repeat(rows, channels)
    channel = torch.arange(channels).repeat_interleave(n).repeat(rows, 1)
    none = torch.zeros_like(channel, dtype=torch.bool)
    return Panel(time, channel, torch.zeros(rows, channels * n), none, ~none, dense=(channels, n))


def law_of_draws(prior: FunctionPrior, panel: Panel) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the draws of a linear sampler, without sampling error."""
    count = panel.cells + 1
    x = prior.draw(panel, Unit(0, (0,) * count, tuple(range(count))))[0]
    turn = (x[1:] - x[0]).mT
    return x[0], turn @ turn.mT


@pytest.mark.parametrize("steps", [2, 20])
def test_without_a_network_the_draws_are_the_exact_posterior(steps: int) -> None:
    panel = scattered()
    mean, cov = law_of_draws(FunctionPrior(LAW, rule=Matching(steps)), panel)
    exact = posterior(LAW, panel)
    torch.testing.assert_close(mean, exact.mean[0], atol=1e-7, rtol=0)
    whole = (exact.factor @ exact.factor.mT)[0]
    torch.testing.assert_close(cov, whole, atol=1e-4, rtol=0)  # the square of the least level


def test_with_nothing_known_the_draws_have_the_law_at_any_times() -> None:
    panel = scattered(share=0.0)
    mean, cov = law_of_draws(FunctionPrior(LAW, rule=Matching(3)), panel)
    torch.testing.assert_close(mean, LAW.mean(panel)[0], atol=1e-9, rtol=0)
    torch.testing.assert_close(cov, LAW.covariance(panel)[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize("noise", [None, WHITE, SMOOTH], ids=["law", "white", "smooth"])
@pytest.mark.parametrize("error", [None, 0.3])
def test_any_noise_tends_to_the_posterior_with_the_steps(
    noise: Mixed | None, error: float | None
) -> None:
    panel = scattered(error=error)
    exact = posterior(LAW, panel)
    whole = (exact.factor @ exact.factor.mT)[0]
    gaps = []
    for steps in (15, 60):
        prior = FunctionPrior(LAW, noise=noise, rule=Matching(steps), clock=LogLinear(1e-3, 100.0))
        mean, cov = law_of_draws(prior, panel)
        torch.testing.assert_close(mean, exact.mean[0], atol=1e-6, rtol=0)
        gaps.append(float((cov - whole).abs().max()))
    assert gaps[1] < max(0.2 * gaps[0], 1e-4)
    assert gaps[1] < 5e-3


def test_every_solver_of_the_library_serves() -> None:
    panel = scattered()
    mean, cov = law_of_draws(FunctionPrior(LAW, rule=Matching(80, solver=Multistep())), panel)
    exact = posterior(LAW, panel)
    torch.testing.assert_close(mean, exact.mean[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(cov, (exact.factor @ exact.factor.mT)[0], atol=5e-3, rtol=0)


@pytest.mark.parametrize("noise", [None, SMOOTH], ids=["law", "smooth"])
def test_the_denoiser_is_the_score_in_the_geometry_of_the_noise(noise: Mixed | None) -> None:
    """C grad log p(u) = (x_hat - u) / kappa^2, against the density by automatic differentiation."""
    panel, kappa = scattered(), 0.7
    bound = FunctionPrior(LAW, noise=noise).at(panel)
    c = (LAW if noise is None else noise).covariance(panel)[0]
    total = LAW.covariance(panel)[0] + kappa**2 * c
    mean = LAW.mean(panel)[0]
    u = torch.randn(1, panel.cells, generator=torch.Generator().manual_seed(1)).double()
    u.requires_grad_()
    density = torch.distributions.MultivariateNormal(mean, total).log_prob(u)
    (score,) = torch.autograd.grad(density.sum(), u)
    t = bound.process.clock.time(torch.tensor(kappa, dtype=torch.float64))
    alpha = bound.process.coefficients(t)[0]
    x_hat = bound((alpha * u.detach())[:, None], t, Context())[:, 0]
    torch.testing.assert_close((x_hat - u) / kappa**2, score @ c, atol=1e-6, rtol=1e-6)
    z_hat = bound.process.residual((alpha * u)[:, None], x_hat[:, None], t)[:, 0]
    torch.testing.assert_close(-z_hat / kappa, score @ c, atol=1e-6, rtol=1e-6)


def test_the_likelihood_along_the_flow_is_that_of_the_law() -> None:
    panel = scattered()
    exact = log_prob(LAW, panel)
    found = FunctionPrior(LAW, clock=LogLinear(1e-3, 200.0)).log_prob(panel, steps=60)
    torch.testing.assert_close(found, exact, atol=2e-2, rtol=0)


def test_a_fresh_network_is_the_law_and_scores_one_at_every_level() -> None:
    net = LongConv(1, 2, width=8, blocks=1)
    prior, plain = FunctionPrior(LAW, net), FunctionPrior(LAW)
    panel = regular(1, 12, 2)
    panel = replace(panel, known=panel.time < 6)
    rng = Streams.of(0, 5)
    torch.testing.assert_close(prior.draw(panel, rng), plain.draw(panel, rng))
    blank = regular(200, 12, 2)
    x = factor(LAW.covariance(blank)) @ torch.randn(200, 24, 1, dtype=torch.float64)
    truth = replace(blank, value=LAW.mean(blank) + x[..., 0])
    for level in (-3.0, 0.0, 2.0):
        fixed = FunctionPrior(LAW, net, noise_mean=level, noise_std=0.0)
        with torch.no_grad():
            loss = fixed.loss(truth, Streams.of(1, 200), 0.0)
        assert float(loss.mean()) == pytest.approx(1, abs=0.1)


def test_cells_without_a_value_are_no_cells() -> None:
    torch.manual_seed(0)
    net = LongConv(1, 1, width=8, blocks=1)
    torch.nn.init.normal_(net.head.weight)
    law = Mixed((Term(OrnsteinUhlenbeck(3.0), ALONE[:1], torch.ones(1)),), torch.zeros(1))
    prior = FunctionPrior(law, net, spectrum=Spectrum(0.1))
    panel = regular(3, 16)
    real = torch.ones_like(panel.real)
    real[:, 5:9] = False
    value = torch.randn(3, 16)
    rng = Streams.of(0, 3)
    first = prior.loss(replace(panel, real=real, value=value), rng, 0.0)
    spoilt = torch.where(real, value, torch.nan)
    second = prior.loss(replace(panel, real=real, value=spoilt), rng, 0.0)
    assert bool(torch.isfinite(first).all())
    torch.testing.assert_close(first, second)
    few = replace(regular(200, 16), real=regular(200, 16).time < 4, value=torch.zeros(200, 16))
    silent = FunctionPrior(law, LongConv(1, 1, width=8, blocks=1), noise_mean=-3.0, noise_std=0.0)
    with torch.no_grad():  # the mean over four cells, not over sixteen
        loss = silent.loss(few, Streams.of(0, 200), 0.0).mean()
    assert float(loss) == pytest.approx(1, abs=0.15)
    known = real & (panel.time < 4)
    drawn = prior.draw(replace(panel, real=real, value=spoilt, known=known), rng)
    assert bool((drawn[:, 0][~real] == 0).all())
    assert bool(torch.isfinite(drawn).all())


def test_a_member_depends_on_its_address_and_on_what_is_known() -> None:
    torch.manual_seed(0)
    net = LongConv(1, 2, width=8, blocks=1)
    torch.nn.init.normal_(net.head.weight, std=0.1)
    prior, panel = FunctionPrior(LAW, net, rule=Matching(6)), regular(2, 10, 2)
    panel = replace(panel, value=torch.randn(2, 20), known=(panel.time % 3 == 0))
    rng = Streams(0, (0, 0, 0, 1, 1, 1), (0, 1, 2, 0, 1, 2))
    both = prior.draw(panel, rng)
    assert both.shape == (2, 3, 20)
    one = prior.draw(panel.rows(slice(1, 2)), Streams(0, (1, 1), (2, 0)))
    torch.testing.assert_close(one[0], both[1, [2, 0]], atol=1e-4, rtol=1e-4)
    other = replace(panel, value=torch.where(panel.known, panel.value, 1e6))
    torch.testing.assert_close(prior.draw(other, rng), both)
    seen = panel.known[:, None].expand_as(both)
    values = panel.value[:, None].expand_as(both)
    torch.testing.assert_close(both[seen], values[seen].to(both))


def two_valued(rows: int, n: int, seed: int) -> Panel:
    """Series about 1 or about -1: a law with the same moments is far from it between."""
    g = torch.Generator().manual_seed(seed)
    side = 2.0 * torch.randint(0, 2, (rows, 1), generator=g) - 1
    value = side + 0.2 * torch.randn(rows, n, generator=g)
    return replace(regular(rows, n), value=value)


def test_training_adds_what_is_not_gaussian() -> None:
    torch.manual_seed(0)
    n = 8
    law = Mixed(
        (Term(OrnsteinUhlenbeck(1e3), torch.ones(1, 1), torch.zeros(1)),), torch.tensor([0.04])
    )
    prior = FunctionPrior(law, LongConv(1, 1, width=16, blocks=2, states=4), rule=Matching(24))
    optimiser = torch.optim.AdamW(prior.parameters(), lr=5e-3)
    losses = []
    for step in range(120):
        rng = Streams.of(step, 64)
        loss = prior.loss(two_valued(64, n, step), rng, 0.0).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-20:]) < 0.85 * sum(losses[:5]) * 4
    level = prior.draw(regular(1, n), Streams.of(0, 200))[0].mean(1)
    plain = FunctionPrior(law).draw(regular(1, n), Streams.of(0, 200))[0].mean(1)
    far = [float(((x.abs() - 1).abs() > 0.4).double().mean()) for x in (level, plain)]
    assert far[0] < 0.5 * far[1]
    half = regular(1, n)
    half = replace(half, value=torch.ones(1, n), known=half.time < 1)
    drawn = prior.draw(half, Streams.of(0, 100))[0, :, 1:].mean()
    assert float(drawn) == pytest.approx(1.0, abs=0.15)


def test_a_prior_of_sets_knows_no_order_and_no_filling() -> None:
    torch.manual_seed(0)
    net = SetTransformer(2, 0.3, 10.0, width=16, heads=2, readers=1, writers=1)
    torch.nn.init.normal_(net.head.weight)
    prior, panel = FunctionPrior(LAW, Unconditional(net), SMOOTH), scattered(12)
    panel = replace(panel, value=panel.value.double())
    t = torch.tensor(0.5, dtype=torch.float64)
    x = torch.randn(1, 1, 12, generator=torch.Generator().manual_seed(4)).double()
    answer = prior.at(panel)(x, t, Context())
    turned = torch.randperm(12, generator=torch.Generator().manual_seed(5))
    cells = {k: getattr(panel, k)[:, turned] for k in ("time", "channel", "value", "known", "real")}
    again = prior.at(Panel(**cells))(x[..., turned], t, Context())
    torch.testing.assert_close(again, answer[..., turned], atol=1e-5, rtol=1e-5)
    more = {k: torch.cat([getattr(panel, k), getattr(panel, k)[:, :3]], 1) for k in cells}
    more["real"][:, 12:] = more["known"][:, 12:] = False
    filled = prior.at(Panel(**more))(torch.cat([x, x[..., :3]], -1), t, Context())
    torch.testing.assert_close(filled[..., :12], answer, atol=1e-5, rtol=1e-5)


def test_a_saved_prior_is_the_same_prior() -> None:
    torch.manual_seed(0)
    net = LongConv(2, 2, width=8, blocks=1)
    torch.nn.init.normal_(net.head.weight, std=0.1)
    prior = FunctionPrior(LAW, net, SMOOTH, Matching(5), Direct(), Spectrum(0.2), channels=2)
    encoder = Encoder()
    tree = encoder.encode(prior)
    copy = decode(tree, encoder.tensors, CLASSES)
    panel, rng = regular(1, 10, 2), Streams.of(0, 3)
    panel = replace(panel, known=panel.time < 4)
    torch.testing.assert_close(copy.draw(panel, rng), prior.draw(panel, rng))
    assert copy.evaluations == 5


def test_what_cannot_be_done_is_refused() -> None:
    prior = FunctionPrior(LAW)
    panel = scattered()
    with pytest.raises(InputError, match="nothing to train"):
        prior.loss(panel, Streams.of(0, 1), 0.0)
    with pytest.raises(InputError, match="addresses"):
        prior.draw(panel.repeated(2), Streams.of(0, 3))
