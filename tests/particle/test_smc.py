"""Twisted sequential Monte Carlo against exact posteriors, evidence and mode weights."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sciddm.basis import Cosine
from sciddm.covariance import Matern, Spectral, White
from sciddm.denoise import Context, Denoiser, Gaussian, Mixture
from sciddm.errors import InputError
from sciddm.observe import Coarsen, Function, Observation, noise, points
from sciddm.particle import Ancestral, Cloud, Matched, Reweighted, Twist, TwistedSMC
from sciddm.particle.smc import Tally, systematic
from sciddm.particle.twist import View
from sciddm.process import VE, VP, Clocked, Flow, LogLinear
from sciddm.random import Streams

DOUBLE = torch.float64
CLOCK = LogLinear(0.02, 100.0)
SMOOTH = Spectral(Matern(0.4, 1.5, 1.2), (1.0,), Cosine())
ROUGH = Spectral(Matern(0.1, 0.5), (1.0,), Cosine())
MEAN = torch.linspace(-1, 1, 8, dtype=DOUBLE).view(1, 8)
KINDS = [VE, VP, Flow]
ONE = Gaussian(torch.tensor(0.3, dtype=DOUBLE), White(1.3), VP(clock=CLOCK))
SHAPE = (1, 1)


def draw(
    twist: Twist, count: int, first: int = 0, shape: tuple[int, ...] = SHAPE, **numbers: float
) -> Cloud:
    steps = int(numbers.pop("steps", 8))
    smc = TwistedSMC(twist, steps, dtype=DOUBLE, **numbers)  # type: ignore[arg-type]
    return smc.cloud((count, *shape), Context(), Streams.of(3, range(first, first + count)))


def seen(full: bool = False) -> Observation:
    """Three points between those of the grid and two means; errors that may be correlated."""
    position = torch.tensor([[0.7], [3.2], [6.9]], dtype=DOUBLE)
    root = 0.4 * torch.randn(5, 5, generator=torch.manual_seed(1), dtype=DOUBLE)
    variance = root @ root.T if full else torch.zeros(5, 5, dtype=DOUBLE)
    some = points([0] * 3, position, (8,))
    both = Function(lambda x: torch.cat([some(x), Coarsen((4,))(x)], dim=1))
    y = torch.tensor([0.5, -1.0, 2.0, 0.0, 1.0], dtype=DOUBLE)
    return Observation(y, both, variance + 0.04 * torch.eye(5, dtype=DOUBLE))


def exact(gaussian: Gaussian, observation: Observation) -> tuple[Tensor, Tensor, float]:
    """Mean, covariance and log evidence, by dense algebra."""
    unit = torch.eye(8, dtype=DOUBLE).view(8, 1, 8)
    sigma, a = gaussian.prior(unit).flatten(1), observation.operator(unit).T
    total = a @ sigma @ a.T + observation.covariance
    gain = torch.linalg.solve(total, a @ sigma).T
    gap = observation.y - a @ MEAN.flatten()
    law = torch.distributions.MultivariateNormal(torch.zeros(5, dtype=DOUBLE), total)
    return MEAN.flatten() + gain @ gap, sigma - gain @ a @ sigma, float(law.log_prob(gap))


@pytest.mark.parametrize("steps", [2, 9])
@pytest.mark.parametrize("linear", [True, False], ids=["linear", "linearised"])
@pytest.mark.parametrize("full", [False, True], ids=["diagonal", "full"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)
def test_a_gaussian_is_exact_at_any_number_of_steps(
    kind: type[VE] | type[VP] | type[Flow], full: bool, linear: bool, steps: int
) -> None:
    """Equal weights, the exact evidence, and independent draws of the exact posterior."""
    gaussian = Gaussian(MEAN, SMOOTH, kind(ROUGH if full else White(), CLOCK))
    observation, count = seen(full), 1500
    mean, covariance, evidence = exact(gaussian, observation)
    twist = Matched(gaussian, observation, gaussian, linear)
    cloud = draw(twist, count, shape=(1, 8), steps=steps)
    assert cloud.log_evidence == pytest.approx(evidence, abs=1e-7)
    assert min(cloud.effective) > 1 - 1e-9
    white = torch.linalg.solve_triangular(
        torch.linalg.cholesky(covariance), (cloud.particles.flatten(1) - mean).T, upper=False
    )
    # count |mean|^2 ~ chi^2(8); entries of the covariance have s.d. (1 + I) / sqrt(count)
    assert float(count * white.mean(1).square().sum()) < 30
    gap = white @ white.T / count - torch.eye(8, dtype=DOUBLE)
    assert float((gap / (1 + torch.eye(8)).sqrt()).abs().max()) < 4.5 / math.sqrt(count)


def means(clouds: list[Cloud], of: Callable[[Cloud], float]) -> tuple[float, float]:
    """Mean and standard error over independent clouds."""
    values = torch.tensor([of(c) for c in clouds], dtype=DOUBLE)
    return float(values.mean()), float(values.std() / math.sqrt(len(values)))


class Broken(Twist):
    """Forgets one factor of the weights: log p(x_s | x_t) / q(x_s | x_t)."""

    def __init__(self, inner: Matched) -> None:
        self.inner, self.prior = inner, inner.prior

    def start(self, like: Tensor, t: Tensor, context: Context, rng: Streams) -> tuple[View, Tensor]:
        return self.inner.start(like, t, context, rng)

    def move(
        self, view: View, t: Tensor, s: Tensor, context: Context, rng: Streams
    ) -> tuple[View, Tensor]:
        ahead, _ = self.inner.move(view, t, s, context, rng)
        return ahead, ahead.log_psi - view.log_psi

    def finish(self, view: View, t: Tensor, rng: Streams) -> tuple[Tensor, Tensor]:
        return self.inner.finish(view, t, rng)


def value(function: Callable[[Tensor], Tensor], y: float, std: float) -> Observation:
    """One value of a field of one point."""
    operator = Function(lambda x: function(x.flatten(1)))
    return Observation(
        torch.tensor([y], dtype=DOUBLE), operator, torch.tensor(std**2, dtype=DOUBLE)
    )


BENT = value(lambda x: x + 0.15 * x**3, 2.0, 0.3)
FOLDED = value(lambda x: x + 0.5 * x**2, 1.2, 0.3)
"""Two modes, at -2.9 and 0.85, the right one with nine tenths of the mass."""


def quadrature(log_target: Callable[[Tensor], Tensor]) -> tuple[float, float, float]:
    """Integral, mean and variance of a density on the line under N(0.3, 1.3^2)."""
    x = torch.linspace(-12, 12, 40001, dtype=DOUBLE)
    prior = torch.distributions.Normal(0.3, 1.3).log_prob(x)
    weight = (prior + log_target(x.view(-1, 1, 1))).exp() * float(x[1] - x[0])
    total = float(weight.sum())
    mean = float((weight * x).sum()) / total
    return total, mean, float((weight * x**2).sum()) / total - mean**2


def test_the_evidence_has_no_bias_and_broken_weights_are_seen() -> None:
    """Clouds of eight, an operator that bends: exp(log evidence) is right on average."""
    total, _, _ = quadrature(BENT.log_prob)
    twists = Matched(ONE, BENT, ONE, caution=0), Reweighted(ONE, BENT.log_prob, ONE)
    for twist, count in zip(twists, (8, 100), strict=True):
        clouds = [draw(twist, count, 1000 * k, steps=3) for k in range(100)]
        mean, error = means(clouds, lambda c: math.exp(c.log_evidence) / total)
        assert abs(mean - 1) < 4 * error < 0.6
    clouds = [draw(Broken(twists[0]), 8, 100 * k, steps=3) for k in range(40)]
    mean, error = means(clouds, lambda c: math.exp(c.log_evidence) / total)
    assert abs(mean - 1) > 10 * error


def close(clouds: list[Cloud], truth: tuple[float, float, float], loose: float = 0.0) -> None:
    """Evidence, mean and variance within 4.5 standard errors, which are small."""
    of = (lambda c: math.exp(c.log_evidence) / truth[0], lambda c: float(c.mean))
    for found, wanted in zip((*of, lambda c: float(c.variance)), (1, *truth[1:]), strict=True):
        mean, error = means(clouds, found)
        assert abs(mean - wanted) < 4.5 * error + loose
        assert error < 0.05


@pytest.mark.parametrize("caution", [0.0, 1.0])
def test_a_nonlinear_operator_is_exact_as_the_cloud_grows(caution: float) -> None:
    """Also where the last level is far from clean, and the last draw has weights of its own."""
    truth = quadrature(BENT.log_prob)
    twist = Matched(ONE, BENT, ONE, caution=caution)
    for low in (0.02, 1.0):
        close([draw(twist, 800, 1000 * k, kappa_min=low) for k in range(8)], truth)


def test_a_mode_that_no_linearisation_reaches() -> None:
    """Found by blind proposals; missed by the one that follows a mode, as its page says."""
    truth = quadrature(FOLDED.log_prob)
    blind = Reweighted(ONE, FOLDED.log_prob, ONE, onset=0.15)
    close([draw(blind, 4000, 4000 * k) for k in range(8)], truth)
    assert float(draw(Matched(ONE, FOLDED, ONE), 600).mean) > truth[1] + 0.1


def test_a_cloud_keeps_the_weights_of_two_modes() -> None:
    """A mixture whose posterior has the modes 0.9 / 0.1: means, weights and evidence."""
    means_of = torch.tensor([[[-3.0, 0.0]], [[3.0, 0.0]]], dtype=DOUBLE)
    mixture = Mixture(means_of, torch.tensor([0.5, 0.5], dtype=DOUBLE), 0.5, VP(clock=CLOCK))
    # y sees x_0 with s.d. 2: likelihood ratio 9 between the modes
    spread = 0.25 + 4.0
    y = -math.log(9) * spread / 6
    observation = Observation(
        torch.tensor([y], dtype=DOUBLE),
        Function(lambda x: x[:, 0, :1]),
        torch.tensor(4.0, dtype=DOUBLE),
    )
    clouds = [
        draw(Ancestral(mixture, observation), 600, 1000 * k, (1, 2), steps=60) for k in range(3)
    ]
    for cloud in clouds:
        left = float(cloud.log_weight.exp()[cloud.particles[:, 0, 0] < 0].sum())
        assert left == pytest.approx(0.9, abs=0.05)
        assert float((cloud.members[:, 0, 0] < 0).double().mean()) == pytest.approx(0.9, abs=0.05)
    law = torch.distributions.Normal(torch.tensor([-3.0, 3.0], dtype=DOUBLE), math.sqrt(spread))
    evidence = float(law.log_prob(observation.y).exp().mean())
    found, _ = means(clouds, lambda c: math.exp(c.log_evidence))
    assert found / evidence == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("known", [True, False], ids=["moments", "ancestral"])
def test_products_and_tempering_by_weights(known: bool) -> None:
    """p(x) g(x) for another Gaussian g, and p(x)^3: mean, variance and normaliser."""
    law, steps, loose = (ONE, 6, 0.0) if known else (None, 60, 0.03)
    other = torch.distributions.Normal(torch.tensor(1.0, dtype=DOUBLE), 0.8)
    own = torch.distributions.Normal(torch.tensor(0.3, dtype=DOUBLE), 1.3)
    for potential in (lambda x: other.log_prob(x[:, 0, 0]), lambda x: 2 * own.log_prob(x[:, 0, 0])):
        twist = Reweighted(ONE, potential, law)
        clouds = [draw(twist, 500, 1000 * k, steps=steps) for k in range(8)]
        close(clouds, quadrature(potential), loose)


def test_a_hard_constraint_is_met() -> None:
    """log g = -inf below zero: the truncated normal, and its probability as the evidence."""
    inside = Reweighted(ONE, lambda x: torch.where(x[:, 0, 0] > 0, 0.0, -math.inf), ONE)
    cloud = draw(inside, 3000)
    assert bool((cloud.members > 0).all())
    share = float(torch.special.ndtr(torch.tensor(0.3 / 1.3)))
    assert math.exp(cloud.log_evidence) == pytest.approx(share, abs=0.05)
    nowhere = Reweighted(ONE, lambda x: torch.full((len(x),), -math.inf), ONE)
    with pytest.raises(InputError, match="No particle has a positive"):
        draw(nowhere, 10)


def test_the_ancestral_law_is_reached_as_steps_grow() -> None:
    line = value(lambda x: 2 * x, 1.5, 0.5)
    total, mean, variance = quadrature(line.log_prob)
    clouds = [draw(Ancestral(ONE, line), 1500, 2000 * k, steps=s) for k, s in enumerate((10, 80))]
    errors = [abs(c.log_evidence - math.log(total)) for c in clouds]
    assert errors[1] < 0.06 < errors[0]
    assert float(clouds[1].mean) == pytest.approx(mean, abs=0.03)
    assert float(clouds[1].variance) == pytest.approx(variance, rel=0.15)


def test_two_twists_of_one_transition_agree() -> None:
    """At few steps, ending far from clean: guided and blind proposals weigh the same path law."""
    line = value(lambda x: 2 * x, 1.5, 0.5)
    found = []
    for twist in (Ancestral(ONE, line), Reweighted(ONE, line.log_prob)):
        clouds = [draw(twist, 500, 1000 * k, steps=6, kappa_min=1.0) for k in range(12)]
        found.append([means(clouds, of) for of in (lambda c: c.log_evidence, lambda c: c.mean)])
    for (a, low), (b, high) in zip(*found, strict=True):
        assert abs(a - b) < 4.5 * math.hypot(low, high) < 0.4


def test_systematic_resampling() -> None:
    """Every particle comes floor(B w) or ceil(B w) times, B w on average."""
    weight = torch.softmax(torch.randn(40, generator=torch.manual_seed(0), dtype=DOUBLE), 0)
    counts = torch.stack(
        [
            torch.bincount(systematic(weight.log(), Streams.of(k, 40)), minlength=40)
            for k in range(2000)
        ]
    ).double()
    wanted = 40 * weight
    assert bool(((counts - wanted).abs() < 1).all())
    assert bool(((counts.mean(0) - wanted).abs() < 5 * 0.5 / math.sqrt(2000)).all())


def test_weights_multiply_up_until_a_resampling() -> None:
    ratio = torch.tensor([0.0, 1.0, -2.0, 0.5], dtype=DOUBLE)
    tally = Tally(4, 0.1)
    assert tally.add(ratio, Streams.of(0, 4)) is None
    assert tally.add(ratio, Streams.of(0, 4)) is None
    assert torch.allclose(tally.log_weight, torch.log_softmax(2 * ratio, 0))
    assert tally.log_evidence == pytest.approx(float((2 * ratio).exp().mean().log()))
    tally = Tally(4, 1.0)
    assert tally.add(ratio, Streams.of(0, 4)) is not None
    tally.add(ratio, None)
    assert tally.log_evidence == pytest.approx(2 * float(ratio.exp().mean().log()))


def test_a_cloud_has_one_address() -> None:
    """The first row's: nothing else of the rows counts, and torch's generator is not touched."""
    twist, before = Matched(ONE, BENT, ONE), torch.get_rng_state()
    smc = TwistedSMC(twist, 4)
    clouds = [
        smc.cloud((6, 1, 1), Context(), Streams.of(3, rows))
        for rows in (range(6), [0, 9, 8, 7, 6, 5], range(6, 12))
    ]
    assert torch.equal(clouds[0].particles, clouds[1].particles)
    assert not torch.equal(clouds[0].particles, clouds[2].particles)
    assert torch.equal(smc((6, 1, 1), Context(), Streams.of(3, 6)), clouds[0].members)
    assert clouds[0].members.dtype == torch.float32
    assert torch.equal(torch.get_rng_state(), before)
    assert smc.evaluations == 4 and len(clouds[0].effective) == 5


def test_a_derivative_that_is_known_replaces_back_propagation() -> None:
    def derivative(x: Tensor) -> tuple[Tensor, Tensor]:
        return BENT.operator(x), (1 + 0.45 * x**2)[:, None]

    a, b = (
        draw(Matched(ONE, BENT, ONE), 50),
        draw(Matched(ONE, BENT, ONE, derivative=derivative), 50),
    )
    assert torch.allclose(a.particles, b.particles)
    assert a.log_evidence == pytest.approx(b.log_evidence)


def test_bad_input() -> None:
    twist = Matched(ONE, BENT, ONE)
    for threshold in (0.0, 1.5, math.nan):
        with pytest.raises(InputError, match="resampling threshold"):
            TwistedSMC(twist, threshold=threshold)
    with pytest.raises(InputError, match="at least 2"):
        TwistedSMC(twist, 1)
    with pytest.raises(InputError, match="at least 2 particles"):
        draw(twist, 1)
    with pytest.raises(InputError, match="one address a particle and one case"):
        TwistedSMC(twist).cloud((2, 1, 1), Context(), Streams(0, (0, 1), (0, 1)))
    wrong = Observation(torch.zeros(2, dtype=DOUBLE), BENT.operator, BENT.variance)
    for rule in (Matched(ONE, wrong, ONE), Ancestral(ONE, wrong)):
        with pytest.raises(InputError, match="values of shape"):
            draw(rule, 4)
    rows = Observation(torch.zeros(2, 1, dtype=DOUBLE), BENT.operator, BENT.variance)
    heavy = Observation(BENT.y, BENT.operator, noise.StudentT(torch.tensor(1.0), 4.0))
    for observation, words in ((rows, "one set of values"), (heavy, "expected Gaussian ones")):
        with pytest.raises(InputError, match=words):
            Matched(ONE, observation, ONE)
        with pytest.raises(InputError, match=words):
            Ancestral(ONE, observation)
    with pytest.raises(InputError, match="caution"):
        Matched(ONE, BENT, ONE, caution=-1)
    with pytest.raises(InputError, match="onset"):
        Reweighted(ONE, BENT.log_prob, onset=0)
    with pytest.raises(InputError, match="one number a field"):
        draw(Reweighted(ONE, lambda x: x), 4)
    with pytest.raises(InputError, match="another noise"):
        Matched(ONE, BENT, ONE.under(VP(White(2.0), CLOCK)))
    cells: Denoiser = ONE.under(Clocked(VP(clock=CLOCK), torch.linspace(0, 1, 8)))
    with pytest.raises(InputError, match="no clock per cell"):
        draw(Reweighted(cells, lambda x: x[:, 0, 0]), 4, shape=(1, 8))
