"""Error laws beyond Gaussian: their moments by quadrature, and draws against exact posteriors."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from sciddm.basis import Cosine
from sciddm.covariance import Matern, Spectral, White
from sciddm.denoise import Context, Gaussian
from sciddm.errors import InputError
from sciddm.guide import MMPS, Conditioned, sites
from sciddm.guide.linear import factor
from sciddm.guide.sites import weights
from sciddm.observe import Noise, Observation, noise, points
from sciddm.observe.tilted import hazard
from sciddm.process import VE, LogLinear
from sciddm.solve import Multistep, trajectory

DOUBLE = torch.float64


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=DOUBLE)


LAWS: dict[str, Noise] = {
    "gaussian": noise.Gaussian(number(0.25)),
    "cauchy": noise.StudentT(number(0.3), 1.0),
    "student": noise.StudentT(number(0.3), 4.0),
    "counts": noise.Poisson(number(2.0)),
    "counts of a rate": noise.Poisson(number(3.0), log_rate=False),
    "censored": noise.Censored(number(0.04), low=number(-1.0), high=number(1.5)),
}
VALUES = {
    "gaussian": (1.0,),
    "cauchy": (0.5, 3.0),
    "student": (1.0, 5.0),
    "counts": (0.0, 5.0),
    "counts of a rate": (0.0, 2.0),
    "censored": (-1.0, 0.4, 1.5),
}
CASES = [(name, y) for name, values in VALUES.items() for y in values]
cases = pytest.mark.parametrize(("name", "y"), CASES, ids=[f"{n} {y}" for n, y in CASES])


def posterior(law: Noise, y: float, mean: float, variance: float) -> tuple[Tensor, Tensor]:
    """A fine grid and the weights of N(mean, variance) p(y | z) on it."""
    std = variance**0.5
    positive = isinstance(law, noise.Poisson) and not law.log_rate
    low, high = max(mean - 9 * std, 0.0) if positive else mean - 9 * std, mean + 9 * std
    z = low + (high - low) * (torch.arange(60000, dtype=DOUBLE) + 0.5) / 60000
    log_p = law_of_one(law, y, z) - (z - mean) ** 2 / (2 * variance)
    return z, torch.softmax(log_p, dim=0)


def law_of_one(law: Noise, y: float, z: Tensor) -> Tensor:
    """log p(y | z) for every z."""
    return law.log_prob(torch.full((len(z), 1), y, dtype=DOUBLE), z[:, None])


@cases
def test_tilted_moments_are_those_of_a_fine_grid(name: str, y: float) -> None:
    law = LAWS[name]
    for mean, variance in ((0.0, 1.0), (0.7, 0.1), (-0.6, 9.0)):
        z, weight = posterior(law, y, mean, variance)
        first = (weight * z).sum()
        second = (weight * (z - first) ** 2).sum()
        found = law.tilted(*(number(v).view(1, 1) for v in (y, mean, variance)))
        assert abs(float(found[0] - first)) < 1e-6 * float(second.sqrt())
        assert float(found[1] / second) == pytest.approx(1, abs=1e-6)


def test_log_probabilities_are_those_of_scipy() -> None:
    z = torch.tensor([[0.3, -0.8, 1.1], [2.0, 0.1, 0.5]], dtype=DOUBLE)
    y = torch.tensor([1.0, 0.0, 3.0], dtype=DOUBLE)
    found = LAWS["student"].log_prob(y, z)
    expected = stats.t.logpdf((y - z).numpy() / 0.3, 4).sum(1) - 3 * math.log(0.3)
    assert torch.allclose(found, torch.from_numpy(expected))
    found = LAWS["counts"].log_prob(y, z)
    assert torch.allclose(
        found, torch.from_numpy(stats.poisson.logpmf(y.numpy(), 2 * z.exp().numpy()).sum(1))
    )
    rate = z.abs()
    found = LAWS["counts of a rate"].log_prob(y, rate)
    assert torch.allclose(
        found, torch.from_numpy(stats.poisson.logpmf(y.numpy(), 3 * rate.numpy()).sum(1))
    )
    assert float(LAWS["counts of a rate"].log_prob(y[:1], number(-1.0).view(1, 1))) == -math.inf
    y = torch.tensor([-1.0, 0.2, 1.5], dtype=DOUBLE)
    error = stats.norm(scale=0.2)
    found = LAWS["censored"].log_prob(y, z[:1])
    expected = error.logcdf(-1.0 - 0.3) + error.logpdf(0.2 + 0.8) + error.logsf(1.5 - 1.1)
    assert float(found) == pytest.approx(float(expected))


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("z", [-1.2, 0.4, 1.4])
def test_the_square_has_mean_one_at_the_truth(name: str, z: float) -> None:
    """E[chi^2] over p(y | z) is 1, and p(y | z) sums to 1: by sums and integrals over y."""
    law = LAWS[name]
    if name.startswith("counts"):
        z = abs(z)
        y, measure = torch.arange(200, dtype=DOUBLE), torch.ones(200, dtype=DOUBLE)
    elif name == "censored":
        middle = torch.linspace(-1, 1.5, 20001, dtype=DOUBLE)[1:-1]
        y = torch.cat([number(-1.0).view(1), middle, number(1.5).view(1)])
        measure = torch.full_like(y, 2.5 / 20000)
        measure[0] = measure[-1] = 1.0
    else:  # the tails of Student's law need a wide range: y = z + sinh(u)
        u = torch.linspace(-25, 25, 40001, dtype=DOUBLE)
        y, measure = z + u.sinh(), u.cosh() * 50 / 40000
    at = torch.full((len(y), 1), z, dtype=DOUBLE)
    p = law.log_prob(y[:, None], at).exp() * measure
    assert float(p.sum()) == pytest.approx(1, abs=2e-3)
    assert float((p * law.chi_square(y[:, None], at)[:, 0]).sum()) == pytest.approx(1, abs=4e-3)


def test_the_hazard_is_right_in_both_tails() -> None:
    z = torch.tensor([-1e8, -2e3, -30.0, -1.0, 0.0, 3.0, 40.0], dtype=DOUBLE)
    rate, fall = hazard(z)
    assert torch.allclose(rate[:2], -z[:2], rtol=1e-6)
    exact = torch.from_numpy(stats.norm.pdf(z[2:].numpy()) / stats.norm.cdf(z[2:].numpy()))
    assert torch.allclose(rate[2:], exact)
    assert torch.allclose(fall[2:], exact * (z[2:] + exact), atol=1e-9)
    assert torch.allclose(fall[:2], torch.ones(2, dtype=DOUBLE), atol=1e-6)


@cases
def test_one_value_gives_the_exact_posterior(name: str, y: float) -> None:
    """A draw is an increasing function of its noise, so its quantiles are known: the default
    solver at 40 evaluations, without Monte Carlo. The Gaussian rule on the same value is far."""
    process = VE(clock=LogLinear(1e-3, 300.0))
    gaussian = Gaussian(torch.zeros(()), White(), process)
    observation = Observation(number(y).view(1), points([0], torch.zeros(1, 1), (1,)), LAWS[name])
    guided = Conditioned(gaussian, observation, gaussian, sweeps=1)
    chance = (torch.arange(101, dtype=DOUBLE) + 0.5) / 101
    start = 300 * torch.special.ndtri(chance).view(-1, 1, 1)
    *_, x = trajectory(guided, start, process.times(40), Context(), Multistep())
    z, weight = posterior(LAWS[name], y, 0.0, 1.0)
    mean = (weight * z).sum()
    std = (weight * (z - mean) ** 2).sum().sqrt()
    below = torch.cumsum(weight, 0)
    at = below[torch.searchsorted(z, x.flatten()).clamp_max(len(z) - 1)]
    assert float((at - chance).abs().max()) < 0.012
    assert abs(float(x.mean() - mean)) < 0.02 * float(std)
    # the mean over 101 quantiles misses the tails: their share is about 2 % of the s.d.
    assert float(x.std(unbiased=False) / std) == pytest.approx(1, abs=0.04)


GRID = (8, 8)
PRIOR = Spectral(Matern(0.4, 1.5), (1.0, 1.0), Cosine())


def sensors(n: int, law: Noise | Tensor, y: Tensor) -> Observation:
    position = 7 * torch.rand(n, 2, generator=torch.manual_seed(5), dtype=DOUBLE)
    return Observation(y, points([0] * n, position, GRID), law)


@pytest.mark.parametrize(
    ("law", "y", "far"),
    [
        (noise.StudentT(number(0.3), 4.0), (0.5, 2.5), 0.02),
        (noise.Poisson(number(2.0)), (6.0, 0.0), 0.02),
        (noise.Censored(number(0.04), low=number(-0.5)), (-0.5, 0.8), 0.02),
    ],
    ids=["student", "poisson", "censored"],
)
def test_sites_of_two_correlated_values_against_a_grid(
    law: Noise, y: tuple[float, float], far: float
) -> None:
    """Mean of both values under the exact law, on a 2-D grid; the distance in s.d."""
    spread = torch.tensor([[1.0, 0.6], [0.6, 0.8]], dtype=DOUBLE)
    mean = torch.tensor([[0.2, -0.3]], dtype=DOUBLE)
    axis = torch.linspace(-6, 6, 601, dtype=DOUBLE)
    z = torch.cartesian_prod(axis, axis)
    gap = z - mean
    log_p = law.log_prob(torch.tensor([y], dtype=DOUBLE).expand(len(z), 2), z)
    weight = torch.softmax(log_p - 0.5 * (gap @ torch.linalg.inv(spread) * gap).sum(1), dim=0)
    exact = weight @ z
    std = (weight @ (z - exact).square()).sqrt()
    w = weights(law, torch.tensor(y, dtype=DOUBLE), mean, spread, 10)
    found = (mean + w @ spread)[0]
    assert float(((found - exact) / std).abs().max()) < far
    assert float(((mean[0] - exact) / std).abs().max()) > 10 * far


def test_a_site_that_leaves_no_covariance_gives_up_its_negative_part() -> None:
    tau = torch.tensor([[-2.0, 1.0], [-0.5, 1.0]], dtype=DOUBLE)
    chol, kept = sites._factor(torch.eye(2, dtype=DOUBLE), tau)
    assert torch.equal(kept, torch.tensor([[0.0, 1.0], [-0.5, 1.0]], dtype=DOUBLE))
    assert torch.allclose(chol.square(), torch.diag_embed(1 + kept))


def test_values_that_contradict_each_other_stay_finite() -> None:
    """Six values of nearly one thing, far apart, with errors of heavy tails: some sites fail."""
    g = torch.manual_seed(0)
    for _ in range(40):
        share = 0.9 + 0.0999 * float(torch.rand((), generator=g))
        spread = share * torch.ones(6, 6).double() + (1 - share) * torch.eye(6).double()
        y = 10 * torch.randn(6, generator=g).double()
        w = weights(noise.StudentT(number(0.1), 2.0), y, torch.zeros(1, 6).double(), spread, 8)
        assert bool(((w @ spread).abs() < 1.1 * y.abs().max()).all())


def test_gaussian_sites_are_the_closed_form() -> None:
    """Also where the spread is singular, and with a joined law."""
    half = torch.randn(9, 4, generator=torch.manual_seed(0), dtype=DOUBLE)
    spread, mean = half @ half.T, torch.randn(3, 9, dtype=DOUBLE)
    variance, y = torch.linspace(0.01, 2, 9, dtype=DOUBLE), torch.randn(9, dtype=DOUBLE)
    exact = torch.cholesky_solve((y - mean).T, factor(spread + torch.diag(variance))).T
    joined = noise.Joined((noise.Gaussian(variance[:4]), noise.Gaussian(variance[4:])), (4, 5))
    for law in (noise.Gaussian(variance), joined):
        assert torch.allclose(weights(law, y, mean, spread, 6), exact, rtol=1e-5, atol=1e-7)


def test_many_degrees_of_freedom_are_gaussian() -> None:
    """With correlated Gaussian errors beside them, through the whitened observation."""
    root = 0.1 * torch.randn(5, 5, generator=torch.manual_seed(0), dtype=DOUBLE)
    full = root @ root.T + 0.01 * torch.eye(5, dtype=DOUBLE)
    y = torch.randn(12, generator=torch.manual_seed(1), dtype=DOUBLE)
    other = points([0] * 5, 7 * torch.rand(5, 2, generator=torch.manual_seed(9)), GRID)
    correlated = Observation(y[7:], other, full)
    plain = sensors(7, number(0.09), y[:7]) & correlated
    heavy = sensors(7, noise.StudentT(number(0.3), 1e7), y[:7]) & correlated
    gaussian = Gaussian(torch.zeros(()), PRIOR, VE(clock=LogLinear(0.01, 100.0)))
    x_t, t = torch.randn(3, 1, *GRID, dtype=DOUBLE), number(0.5)
    a, b = (Conditioned(gaussian, o, gaussian)(x_t, t, Context()) for o in (plain, heavy))
    assert torch.allclose(a, b, atol=1e-4)
    x = torch.randn(2, 1, *GRID, dtype=DOUBLE)
    assert torch.allclose(plain.log_prob(x), heavy.log_prob(x), atol=1e-4)
    assert torch.allclose(plain.misfit(x), heavy.misfit(x), rtol=1e-4)


def test_a_gross_error_loses_its_pull() -> None:
    """One of twenty sensors is wrong by 40 errors: the robust mean is that without it."""
    gaussian = Gaussian(torch.zeros(()), PRIOR, VE(clock=LogLinear(0.01, 100.0)))
    truth = gaussian.sample(torch.zeros(1, 1, *GRID, dtype=DOUBLE))
    blank = sensors(20, number(0.01), torch.zeros(20, dtype=DOUBLE))
    y = blank.operator(truth)[0]
    wrong = y.clone()
    wrong[3] += 4.0
    t, x_t = number(1.0), 100 * torch.randn(2, 1, *GRID, generator=torch.manual_seed(1)).double()

    def estimate(law: Noise | Tensor, values: Tensor) -> Tensor:
        return Conditioned(gaussian, sensors(20, law, values), gaussian)(x_t, t, Context())

    right = estimate(number(0.01), y)
    robust = estimate(noise.StudentT(number(0.1), 4.0), wrong)
    naive = estimate(number(0.01), wrong)
    assert float((robust - right).norm()) < 0.1 * float((naive - right).norm())


def test_members_do_not_hear_of_each_other() -> None:
    gaussian = Gaussian(torch.zeros(()), PRIOR, VE(clock=LogLinear(0.01, 100.0)))
    y = torch.tensor([3.0, 0.0, 1.0, 8.0, 2.0, 0.0], dtype=DOUBLE)
    guided = Conditioned(gaussian, sensors(6, noise.Poisson(number(1.5)), y), gaussian)
    x_t, t = torch.randn(4, 1, *GRID, dtype=DOUBLE), number(0.6)
    together = guided(x_t, t, Context())
    for i in range(4):
        assert torch.allclose(together[i : i + 1], guided(x_t[i : i + 1], t, Context()), atol=1e-12)


@pytest.mark.parametrize(
    ("law", "y", "said"),
    [
        (noise.StudentT(number(0.3), -1.0), 1.0, "degrees of freedom"),
        (noise.StudentT(number(0.3), math.nan), 1.0, "degrees of freedom"),
        (noise.StudentT(number(0.0)), 1.0, "hard constraint"),
        (noise.StudentT(torch.ones(4)), 1.0, "for 1 values"),
        (noise.Poisson(number(1.0)), 1.5, "no integer"),
        (noise.Poisson(number(1.0)), -1.0, "negative"),
        (noise.Poisson(number(-1.0)), 1.0, "above 0"),
        (noise.Censored(number(0.0)), 1.0, "hard constraint"),
        (noise.Censored(number(1.0), low=number(math.nan)), 1.0, "not a number"),
        (noise.Censored(number(1.0), low=number(2.0), high=number(1.0)), 1.0, "not below"),
        (noise.Gaussian(number(0.0)), 1.0, "hard constraint"),
        (noise.Gaussian(number(1.0)), math.nan, "not finite"),
        (noise.Gaussian(number(1.0)), math.inf, "not finite"),
    ],
)
def test_wrong_laws_and_values_are_refused(law: Noise, y: float, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Observation(number(y).view(1), points([0], torch.zeros(1, 1), (1,)), law)


def test_what_needs_a_covariance_says_so() -> None:
    gaussian = Gaussian(torch.zeros(()), PRIOR, VE(clock=LogLinear(0.01, 100.0)))
    observation = sensors(2, noise.Poisson(number(1.0)), torch.ones(2, dtype=DOUBLE))
    for wrong in (lambda: observation.covariance, lambda: MMPS(gaussian, observation)):
        with pytest.raises(InputError, match="guide.Conditioned takes every law"):
            wrong()
    guided = Conditioned(gaussian, observation, gaussian)
    with pytest.raises(InputError, match="not sampled"):
        guided.fluctuation(number(0.5), torch.zeros(2, 1, *GRID, dtype=DOUBLE))
