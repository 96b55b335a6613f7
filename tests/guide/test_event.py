"""Events of a Gaussian trajectory: their probability, and draws of the truncated law."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from sciddm.covariance import Covariance, LowRank, Matern, Spectral, White
from sciddm.denoise import Context, Gaussian, LinearMap
from sciddm.errors import InputError
from sciddm.guide import Event, EventProbability, Exceeds, event_probability
from sciddm.process import VE, VP, Flow, LogLinear
from sciddm.random import Streams
from sciddm.solve import Diffusion, Multistep, trajectory

DOUBLE = torch.float64
TIMES = 32
OU = Spectral(Matern(0.3, 0.5), (4.0,))
"""An Ornstein-Uhlenbeck series of 32 times."""
LIKE = torch.zeros(256, 1, TIMES, dtype=DOUBLE)
ONE = torch.eye(TIMES, dtype=DOUBLE).view(TIMES, 1, TIMES)


def lowrank() -> LowRank:
    values, vectors = torch.linalg.eigh(OU(ONE)[:, 0])
    return LowRank(vectors.T[-12:].reshape(12, 1, TIMES), values[-12:], 0.3)


def window(x: Tensor) -> Tensor:
    """The mean of the second quarter."""
    return x[:, 0, 8:16].mean(-1)


def spread(prior: Covariance) -> float:
    return float(window(prior(ONE[8:16].mean(0, keepdim=True)))) ** 0.5


def ladder(prior: Covariance, chance: float) -> Event:
    return Event(window, spread(prior) * float(stats.norm.isf(chance)))


CLOCK = LogLinear(1e-3, 1e3)
PROBLEMS: dict[str, Gaussian] = {
    "VE, spectral": Gaussian(torch.zeros(()), OU, VE(clock=CLOCK)),
    "VP, low rank": Gaussian(torch.zeros(()), lowrank(), VP(clock=CLOCK)),
    "flow, coloured noise": Gaussian(
        torch.zeros(()), OU, Flow(Spectral(Matern(0.1, 0.5), (4.0,)), CLOCK)
    ),
}


@pytest.mark.parametrize("chance", [1e-1, 1e-2, 1e-3, 1e-6])
@pytest.mark.parametrize("problem", PROBLEMS)
def test_the_probability_is_the_normal_tail(problem: str, chance: float) -> None:
    """256 paths of 8 evaluations, within 2 %, and the draws have the truncated normal law."""
    prior = PROBLEMS[problem]
    event = ladder(prior.prior, chance)
    found = event_probability(prior, event, prior, LIKE, Streams.of(0, 256), steps=8)
    assert found.probability == pytest.approx(chance, rel=0.02)
    assert found.standard_error < 0.01 * chance
    assert found.effective > 250
    assert found.evaluations == 2048
    inside = found.draws[found.weight > 0]
    assert len(inside) > 250
    tail = stats.norm.sf((window(inside) / spread(prior.prior)).numpy()) / chance
    assert stats.kstest(tail, "uniform").pvalue > 1e-3


def test_the_conditional_mean_is_that_of_the_truncated_normal() -> None:
    """By the dense regression on c(X), whose mean above the threshold scipy knows."""
    prior = PROBLEMS["VE, spectral"]
    event, t = ladder(OU, 1e-2), torch.tensor(0.55, dtype=DOUBLE)
    x_t = 3 * torch.randn(5, 1, TIMES, generator=torch.manual_seed(0), dtype=DOUBLE)
    v = prior.covariance(t)(ONE)[:, 0]
    g = torch.zeros(TIMES, dtype=DOUBLE)
    g[8:16] = 1 / 8
    x_hat = prior(x_t, t, Context())[:, 0]
    s = float(g @ v @ g) ** 0.5
    low = (event.threshold - (x_hat @ g)) / s
    mean = torch.from_numpy(stats.truncnorm(low.numpy(), math.inf).mean())
    expected = x_hat + (s * mean)[:, None] * (v @ g) / s**2
    for moments in (prior, None):
        found = Exceeds(prior, event, moments)(x_t, t, Context())
        assert torch.allclose(found[:, 0], expected, atol=1e-7)


@pytest.mark.parametrize("chance", [1e-1, 1e-3])
def test_a_guided_scalar_has_the_truncated_law(chance: float) -> None:
    """Draws are increasing in their noise: quantiles without Monte Carlo, 60 evaluations."""
    prior = Gaussian(torch.zeros(()), White(), VE(clock=CLOCK))
    guided = Exceeds(prior, Event(lambda x: x.flatten(1), float(stats.norm.isf(chance))), prior)
    at = (torch.arange(101, dtype=DOUBLE) + 0.5) / 101
    start = 1e3 * torch.special.ndtri(at).view(-1, 1, 1)
    *_, x = trajectory(guided, start, prior.process.times(60), Context(), Multistep())
    below = 1 - torch.special.ndtr(-x.flatten()) / chance
    assert float((below - at).abs().max()) < 0.02


def test_guided_series_are_in_the_event_and_of_its_law() -> None:
    prior = PROBLEMS["VE, spectral"]
    event = ladder(OU, 1e-2)
    x = Diffusion(Exceeds(prior, event, prior), Multistep(), 48)(
        LIKE.shape, Context(), Streams.of(1, 256)
    ).double()
    assert bool(event.happens(x).all())
    tail = stats.norm.sf((window(x) / spread(OU)).numpy()) / 1e-2
    assert stats.kstest(tail, "uniform").pvalue > 1e-3
    assert stats.kstest(tail**2, "uniform").pvalue < 1e-3  # and the test can see it


def union_by_samples(threshold: float, count: int = 200_000) -> float:
    """P(any of the 32 times above), by the exact mixture of the dense law (Owen et al. 2019)."""
    cov = OU(ONE)[:, 0]
    g = torch.manual_seed(0)
    std = cov.diagonal().sqrt()
    tail = torch.special.ndtr(-threshold / std)
    x = torch.randn(count, TIMES, generator=g, dtype=DOUBLE) @ torch.linalg.cholesky(cov).T
    i = torch.multinomial(tail / tail.sum(), count, replacement=True, generator=g)
    chance = torch.rand(count, generator=g, dtype=DOUBLE)
    top = -std[i] * torch.special.ndtri(chance * tail[i])
    x = x + cov[i] / cov.diagonal()[i][:, None] * (top - x[torch.arange(count), i])[:, None]
    return float((tail.sum() / (x > threshold - 1e-12).sum(1)).mean())


@pytest.mark.parametrize("threshold", [2.5, 3.9])
def test_any_of_several_thresholds(threshold: float) -> None:
    """The maximum of the series as 32 thresholds: probabilities near 0.1 and 0.001."""
    prior = PROBLEMS["VE, spectral"]
    event = Event(lambda x: x[:, 0], threshold)
    found = event_probability(prior, event, prior, LIKE, Streams.of(0, 256), steps=12)
    exact = union_by_samples(threshold)
    assert found.probability == pytest.approx(exact, rel=0.10)
    assert abs(found.probability - exact) < 4 * found.standard_error
    assert found.effective > 150


@pytest.mark.parametrize("name", ["range", "exponential"])
def test_a_function_that_bends(name: str) -> None:
    """Against plain Monte Carlo of the prior: within the errors of both."""
    function = {
        "range": lambda x: x[:, 0].amax(1) - x[:, 0].amin(1),
        "exponential": lambda x: x[:, 0].exp().mean(1),
    }[name]
    prior = PROBLEMS["VE, spectral"]
    x = torch.randn(200_000, TIMES, generator=torch.manual_seed(0), dtype=DOUBLE)
    values = function((x @ torch.linalg.cholesky(OU(ONE)[:, 0]).T)[:, None])
    event = Event(function, float(values.quantile(0.99)))
    found = event_probability(prior, event, prior, LIKE, Streams.of(0, 256), steps=30)
    assert found.effective > 30
    assert abs(found.probability - 0.01) < 4 * (found.standard_error**2 + 0.0002**2) ** 0.5
    drawn = Diffusion(Exceeds(prior, event, prior), Multistep(), 24)(
        (64, 1, TIMES), Context(), Streams.of(1, 64)
    )
    assert float(event.happens(drawn).double().mean()) > 0.95


class Wrong(Gaussian):
    """The right denoiser with a covariance of twice its size."""

    def covariance(self, t: Tensor) -> LinearMap:
        inner = super().covariance(t)
        return lambda g: 2 * inner(g)

    def fluctuation(self, t: Tensor, like: Tensor, rng: Streams | None = None) -> Tensor:
        return 2**0.5 * super().fluctuation(t, like, rng)


def test_weights_are_right_whatever_the_covariance() -> None:
    """Twice too large: the steps themselves are too wide, and the weighed probability is theirs,
    that of unguided paths (the weights of an event that always happens are 1)."""
    prior = PROBLEMS["VE, spectral"]
    wrong = Wrong(prior.mean, prior.prior, prior.process)
    event = ladder(OU, 0.1)
    many = torch.zeros(3000, 1, TIMES, dtype=DOUBLE)
    always = Event(window, -1e3)
    plain = event_probability(prior, always, wrong, many, Streams.of(5, 3000), steps=8)
    assert torch.allclose(plain.weight, torch.ones(3000, dtype=DOUBLE))
    share = float(event.happens(plain.draws).double().mean())
    found = event_probability(prior, event, wrong, LIKE, Streams.of(0, 256), steps=8)
    error = (found.standard_error**2 + share * (1 - share) / 3000) ** 0.5
    assert abs(found.probability - share) < 4 * error
    assert found.probability > 0.1 + 5 * found.standard_error
    assert 50 < found.effective < 250


def test_paths_to_an_event_that_always_happens_are_the_prior() -> None:
    """Many small steps, in which c(X) is far from known: its variance at the end, at 4 s.e."""
    prior, many = PROBLEMS["VE, spectral"], torch.zeros(1000, 1, TIMES, dtype=DOUBLE)
    rng = Streams.of(6, 1000)
    x = event_probability(prior, Event(window, -1e3), prior, many, rng, steps=24).draws
    assert float(window(x).var() / spread(OU) ** 2) == pytest.approx(1, abs=4 * 0.002**0.5)
    assert float(x.var() / OU(ONE)[0, 0, 0]) == pytest.approx(1, abs=0.05)


def test_an_event_that_no_path_reaches() -> None:
    found = EventProbability(0.0, 0.0, LIKE[:2], torch.zeros(2, dtype=DOUBLE), 2)
    assert found.effective == 0.0


def test_wrong_events_are_refused() -> None:
    prior = PROBLEMS["VE, spectral"]
    for wrong in (math.nan, math.inf):
        with pytest.raises(InputError, match="finite number"):
            Event(window, wrong)
    with pytest.raises(InputError, match="for 256 fields"):
        Event(lambda x: x.mean(), 0.0).happens(LIKE)
    with pytest.raises(InputError, match="one time"):
        Exceeds(prior, Event(window, 1.0), prior)(LIKE[:2], torch.rand(2, 1, 1), Context())
