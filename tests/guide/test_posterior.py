"""Draws of the posterior against the exact one, without Monte Carlo where algebra can do it.

With a Gaussian prior and a deterministic solver a draw is an affine function of the noise it starts
from, so the law of the whole ensemble is known from its images of zero and of unit fields.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from sciddm import fit
from sciddm.basis import Cosine, Periodic, Sine
from sciddm.covariance import (
    Covariance,
    LowRank,
    Matern,
    MaternKernel,
    Points,
    Spectral,
    White,
)
from sciddm.denoise import Context, Denoiser, Gaussian, Preconditioned
from sciddm.errors import InputError
from sciddm.guide import DPS, MMPS, Conditioned, Replace, linear_posterior, prior_fit
from sciddm.guide.moments import marginal
from sciddm.nn import SpectralOperator
from sciddm.observe import Coarsen, Observation, points
from sciddm.process import VE, VP, Flow, LogLinear
from sciddm.random import Streams
from sciddm.solve import Diffusion, Heun, Multistep, Solver, trajectory

DOUBLE = torch.float64
GRID = (10, 10)
SIZE = 100
CLOCK = LogLinear(0.01, 300.0)
SMOOTH = Spectral(Matern(0.35, 1.5, 1.2), (1.0, 1.0), Cosine())


def lowrank() -> LowRank:
    x = SMOOTH.sample(torch.zeros(60, 1, *GRID, dtype=DOUBLE), Streams.of(9, 60))
    law = fit.eof(x, 30, shrinkage=0.02)
    modes = torch.linalg.qr(law.modes.flatten(1).double().T).Q.T.reshape(law.modes.shape)
    return LowRank(modes, law.variances.double(), law.floor)


PRIORS: dict[str, Covariance] = {"spectral": SMOOTH, "low rank": lowrank()}
MATERN = Spectral(Matern(0.1, 0.5), (1.0, 1.0), Cosine())
MEAN = torch.linspace(-1, 1, SIZE, dtype=DOUBLE).view(1, *GRID)


def seen(where: str, noise: float = 0.15) -> Observation:
    """Twelve point sensors of a field drawn from the prior, with errors of ``noise``."""
    position = 9 * torch.rand(12, 2, generator=torch.manual_seed(5), dtype=DOUBLE)
    if where == "on the grid":
        position = position.round()
    operator = points([0] * 12, position, GRID)
    truth = MEAN + SMOOTH.sample(torch.zeros(1, 1, *GRID, dtype=DOUBLE), Streams.of(3, 1))
    error = noise * torch.randn(12, dtype=DOUBLE, generator=torch.manual_seed(6))
    return Observation(operator(truth)[0] + error, operator, torch.tensor(noise**2, dtype=DOUBLE))


def dense(law: Covariance, shape: tuple[int, ...] = (1, *GRID)) -> Tensor:
    size = torch.Size(shape).numel()
    return law(torch.eye(size, dtype=DOUBLE).view(size, *shape)).flatten(1)


def exact(prior: Covariance, observation: Observation) -> tuple[Tensor, Tensor]:
    """Mean (D,) and covariance (D, D) of the posterior, by dense algebra."""
    sigma, size = dense(prior), SIZE
    unit = torch.eye(size, dtype=DOUBLE).view(size, 1, *GRID)
    a = observation.operator(unit).T
    gain = sigma @ a.T @ torch.linalg.inv(a @ sigma @ a.T + observation.covariance)
    mean = MEAN.flatten()
    return mean + gain @ (observation.y - a @ mean), sigma - gain @ a @ sigma


def ensemble(denoiser: Denoiser, solver: Solver, steps: int) -> tuple[Tensor, Tensor]:
    """Mean (D,) and covariance (D, D) of all the members that a deterministic solver can draw."""
    process = denoiser.process
    times = process.times(steps)
    z = torch.cat([torch.zeros(1, SIZE, dtype=DOUBLE), torch.eye(SIZE, dtype=DOUBLE)])
    _, _, sigma = process.coefficients(times[0])
    x = sigma * process.noise.sqrt(z.view(-1, 1, *GRID))
    *_, last = trajectory(denoiser, x, times, Context(), solver)
    mean, moved = last[0].flatten(), last[1:].flatten(1)
    return mean, (moved - mean).T @ (moved - mean)


def compare(
    found: tuple[Tensor, Tensor], truth: tuple[Tensor, Tensor]
) -> tuple[float, float, float]:
    """Distance of the means in posterior s.d. (rms), and the range of the s.d. ratio."""
    std = truth[1].diagonal().sqrt()
    distance = float(((found[0] - truth[0]) / std).square().mean().sqrt())
    ratio = found[1].diagonal().sqrt() / std
    return distance, float(ratio.square().mean().sqrt()), float((ratio.log()).abs().max().exp())


@pytest.mark.parametrize("where", ["on the grid", "between"])
@pytest.mark.parametrize("prior", PRIORS.values(), ids=PRIORS.keys())
def test_linear_posterior_is_the_dense_one(prior: Covariance, where: str) -> None:
    observation = seen(where)
    gaussian = Gaussian(MEAN, prior, VE(clock=CLOCK))
    like = torch.zeros(1, 1, *GRID, dtype=DOUBLE)
    mean, gain, variance = linear_posterior(gaussian, observation, like)
    m, c = exact(prior, observation)
    assert torch.allclose(mean.flatten(), m, atol=1e-9)
    assert torch.allclose(variance.flatten(), c.diagonal(), atol=1e-9)
    # the gain moves a prior draw to a posterior draw (Matheron's rule): same affine map
    gap = torch.randn(4, 12, dtype=DOUBLE)
    other = Observation(observation.y + gap[0], observation.operator, observation.variance)
    moved, _, _ = linear_posterior(gaussian, other, like)
    assert torch.allclose(moved, mean + gain(gap)[:1], atol=1e-9)


@pytest.mark.parametrize("where", ["on the grid", "between"])
@pytest.mark.parametrize("prior", PRIORS.values(), ids=PRIORS.keys())
@pytest.mark.parametrize("kind", [VE, VP, Flow], ids=lambda k: k.__name__)
def test_conditioned_draws_the_posterior(
    kind: type[VE] | type[VP] | type[Flow], prior: Covariance, where: str
) -> None:
    """The default sampler at 20 and at 50 evaluations: mean and spread."""
    gaussian, observation = Gaussian(MEAN, prior, kind(clock=CLOCK)), seen(where)
    guided, truth = Conditioned(gaussian, observation, gaussian), exact(prior, observation)
    for steps, far, low, high, worst in ((20, 0.06, 0.95, 1.08, 1.2), (50, 0.02, 0.97, 1.04, 1.08)):
        distance, ratio, extreme = compare(ensemble(guided, Multistep(), steps), truth)
        assert distance < far
        assert low < ratio < high
        assert extreme < worst
    # and the prior itself is far away, in mean and in spread
    distance, ratio, _ = compare((MEAN.flatten(), dense(prior)), truth)
    assert distance > 1 and ratio > 1.5


@pytest.mark.parametrize("where", ["on the grid", "between"])
def test_conditioned_draws_the_posterior_under_coloured_noise(where: str) -> None:
    gaussian, observation = Gaussian(MEAN, SMOOTH, VP(MATERN, LogLinear(0.01, 1000.0))), seen(where)
    guided = Conditioned(gaussian, observation, gaussian)
    distance, ratio, extreme = compare(
        ensemble(guided, Multistep(), 50), exact(SMOOTH, observation)
    )
    assert distance < 0.02 and 0.97 < ratio < 1.04 and extreme < 1.08


def test_the_whole_covariance_is_right_and_tends_to_be_exact() -> None:
    """Not its diagonal alone; the error falls with the square of the step."""
    gaussian, observation = Gaussian(MEAN, SMOOTH, VE(clock=LogLinear(1e-3, 1e4))), seen("between")
    guided, (mean, c) = Conditioned(gaussian, observation, gaussian), exact(SMOOTH, observation)
    errors = []
    for steps in (65, 129, 257):
        m, found = ensemble(guided, Heun(), steps)
        errors.append(float((found - c).norm() / c.norm()))
        assert float((m - mean).norm() / mean.norm()) < 2e-2
    assert errors[2] < 2e-3
    assert errors[0] / errors[1] == pytest.approx(4, abs=1) == errors[1] / errors[2]


def test_every_kind_of_error_and_operator() -> None:
    """Correlated errors, block means after a map and joined sensors, against dense algebra."""
    gaussian = Gaussian(MEAN, SMOOTH, VE(clock=CLOCK))
    root = torch.randn(12, 12, generator=torch.manual_seed(0), dtype=DOUBLE) * 0.05
    correlated = seen("between")
    correlated = Observation(
        correlated.y, correlated.operator, root @ root.T + 0.01 * torch.eye(12, dtype=DOUBLE)
    )
    blocks = Coarsen((5, 2)) @ (lambda x: x.roll(1, -1) + x)
    means = Observation(torch.randn(10, dtype=DOUBLE), blocks, torch.tensor(0.02))
    for observation in (correlated, means, correlated & means):
        guided = Conditioned(gaussian, observation, gaussian)
        truth = exact(SMOOTH, observation)
        distance, ratio, extreme = compare(ensemble(guided, Multistep(), 50), truth)
        assert distance < 0.03 and 0.97 < ratio < 1.04 and extreme < 1.1


def test_values_by_row_and_shared_gains() -> None:
    """Each row its own values: the same as each alone, and as `given` on shared gains."""
    gaussian, observation = Gaussian(MEAN, SMOOTH, VE(clock=CLOCK)), seen("between")
    y = observation.y + torch.randn(3, 12, generator=torch.manual_seed(0), dtype=DOUBLE)
    together = Conditioned(
        gaussian, Observation(y, observation.operator, observation.variance), gaussian
    )
    first = Conditioned(gaussian, observation, gaussian)
    x_t, t = torch.randn(3, 1, *GRID, dtype=DOUBLE), torch.tensor(0.6, dtype=DOUBLE)
    rows = together(x_t, t, Context())
    for i in range(3):
        other = Observation(y[i], observation.operator, observation.variance)
        alone = Conditioned(gaussian, other, gaussian)(x_t[i : i + 1], t, Context())
        assert torch.allclose(rows[i : i + 1], alone)
        assert torch.equal(first.given(other)(x_t[i : i + 1], t, Context()), alone)


@pytest.mark.parametrize(
    "law",
    [
        lowrank(),
        White(0.7),
        *(Spectral(Matern(0.3), (1.0, 1.0), b) for b in (Periodic(), Cosine(), Sine())),
        Points(torch.rand(SIZE, 2, generator=torch.manual_seed(0)), MaternKernel(0.3)),
    ],
    ids=["low rank", "white", "periodic", "cosine", "sine", "points"],
)
def test_the_marginal_variance_is_the_dense_diagonal(law: Covariance) -> None:
    shapes = [(1, SIZE)] if isinstance(law, Points) else [(1, *GRID), (1, 10, 10)]
    if isinstance(law, Spectral | White):
        shapes.append((2, 5, 6))
    for shape in shapes:
        found = marginal(Gaussian(torch.zeros(()), law, VE()), torch.zeros(1, *shape))
        assert found.dtype == DOUBLE
        assert torch.allclose(found.flatten(), dense(law, shape).diagonal(), atol=1e-12)


@pytest.mark.parametrize("time", [0.2, 0.6, 1.0])
def test_one_preconditioned_iteration_is_exact(time: float) -> None:
    gaussian, observation = Gaussian(MEAN, SMOOTH, VP(clock=CLOCK)), seen("between")
    x_t, t = torch.randn(3, 1, *GRID, dtype=DOUBLE), torch.tensor(time, dtype=DOUBLE)
    closed = Conditioned(gaussian, observation, gaussian)(x_t, t, Context())
    found = MMPS(gaussian, observation, 1, gaussian)(x_t, t, Context())
    assert torch.allclose(found, closed, atol=1e-8)
    plain = MMPS(gaussian, observation, 1)(x_t, t, Context())
    assert float((plain - closed).norm()) > 1e-2


@pytest.mark.parametrize("time", [0.35, 0.6, 0.9])
def test_iterations_correct_a_base_of_the_wrong_spectrum(time: float) -> None:
    """A third of the length: five iterations leave less than half of the closed form's error, and
    less than five without the base."""
    gaussian, observation = Gaussian(MEAN, SMOOTH, VE(clock=CLOCK)), seen("between")
    wrong = Gaussian(MEAN, Spectral(Matern(0.12, 1.5), (1.0, 1.0), Cosine()), VE(clock=CLOCK))
    t = torch.tensor(time, dtype=DOUBLE)
    x_t = gaussian.process.kappa(t) * torch.randn(3, 1, *GRID, dtype=DOUBLE)
    exact_ = Conditioned(gaussian, observation, gaussian)(x_t, t, Context())

    def error(guided: Denoiser) -> float:
        return float((guided(x_t, t, Context()) - exact_).norm())

    corrected = error(MMPS(gaussian, observation, 5, wrong))
    assert corrected < 0.5 * error(Conditioned(gaussian, observation, wrong))
    assert corrected < 0.5 * error(MMPS(gaussian, observation, 5))


class Skew(Denoiser):
    """A trained Jacobian: not symmetric, with negative directions."""

    def __init__(self, weight: Tensor) -> None:
        nn.Module.__init__(self)
        self.weight, self.process = weight, VE(clock=CLOCK)

    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        return (torch.tanh(0.1 * x_t).flatten(1) @ self.weight).view_as(x_t)


def test_a_skew_jacobian_does_not_diverge_under_preconditioning() -> None:
    noise = torch.randn(SIZE, SIZE, generator=torch.manual_seed(0), dtype=DOUBLE) / SIZE**0.5
    observation, base = seen("between"), Gaussian(MEAN, SMOOTH, VE(clock=CLOCK))
    t, x_t = torch.tensor(0.5, dtype=DOUBLE), torch.randn(4, 1, *GRID, dtype=DOUBLE)
    for share, bound in ((1.0, 1.0), (10.0, 4.0)):  # positive on the whole, and wildly indefinite
        prior = Skew(3 * torch.eye(SIZE, dtype=DOUBLE) + share * noise)
        first = observation.misfit(prior(x_t, t, Context()))
        for iterations in (1, 5, 40):
            found = MMPS(prior, observation, iterations, base)(x_t, t, Context())
            assert bool((observation.misfit(found) < bound * first).all())
    settled = MMPS(Skew(3 * torch.eye(SIZE, dtype=DOUBLE) + noise), observation, 60, base)
    plain = MMPS(Skew(3 * torch.eye(SIZE, dtype=DOUBLE) + noise), observation, 60)
    assert torch.allclose(settled(x_t, t, Context()), plain(x_t, t, Context()), atol=1e-6)


def test_preconditioners_are_kept_within_their_memory() -> None:
    gaussian, observation = Gaussian(MEAN, SMOOTH, VE(clock=CLOCK)), seen("between")
    x_t = torch.randn(2, 1, *GRID, dtype=DOUBLE)
    guided = MMPS(gaussian, observation, 1, gaussian, memory=2 * 12 * 12 * 8)
    for time in (0.9, 0.5, 0.1, 0.9):
        guided(x_t, torch.tensor(time, dtype=DOUBLE), Context())
    assert len(guided._factors) == 2
    with pytest.raises(InputError, match="one time"):
        guided(x_t, torch.rand(2, 1, 1, 1, dtype=DOUBLE), Context())


def test_values_20_deviations_from_the_prior_are_met_exactly() -> None:
    """Finite, the exact posterior of what was said, and a chi-square that says so."""
    gaussian, near = Gaussian(MEAN, SMOOTH, VE(clock=LogLinear(0.01, 3000.0))), seen("between")
    operator = near.operator
    std = marginal(gaussian, torch.zeros(1, 1, *GRID)).sqrt()
    far = Observation(near.y + 20 * operator(std[None])[0], operator, near.variance)
    guided = Conditioned(gaussian, far, gaussian)
    found, truth = ensemble(guided, Multistep(), 50), exact(SMOOTH, far)
    assert bool(torch.isfinite(found[0]).all())
    assert float((found[0] - truth[0]).norm() / truth[0].norm()) < 1e-2
    distance, ratio, extreme = compare((truth[0], found[1]), truth)
    assert distance == 0 and 0.97 < ratio < 1.05 and extreme < 1.1
    a = operator(torch.eye(SIZE, dtype=DOUBLE).view(SIZE, 1, *GRID)).T
    total = a @ dense(SMOOTH) @ a.T + far.covariance
    like = torch.zeros(1, 1, *GRID, dtype=DOUBLE)
    for observation, surprising in ((near, False), (far, True)):
        gap = observation.y - a @ MEAN.flatten()
        fit = prior_fit(gaussian, observation, like)
        assert fit.chi_square[0] == pytest.approx(float(gap @ torch.linalg.inv(total) @ gap))
        assert fit.low < 12 < fit.high and fit.surprising is surprising
    assert fit.chi_square[0] > 400


def flagged(draws: Tensor, mean: float, variance: float) -> bool:
    """Whether a sample is not from N(mean, variance), at 5 standard errors."""
    count = len(draws)
    z = float((draws.mean() - mean) / (variance / count) ** 0.5)
    w = float((draws.var() / variance - 1) / (2 / count) ** 0.5)
    return not (abs(z) < 5 and abs(w) < 5)


@pytest.mark.parametrize("zeta", [0.1, 0.3, 1.0])
def test_dps_is_biased_and_the_check_sees_it(zeta: float) -> None:
    """One dimension, prior N(0, 1), y = 1 with variance 1/4: the posterior is N(0.80, 0.20)."""
    gaussian = Gaussian(torch.zeros(()), White(), VE(clock=LogLinear(1e-3, 300.0)))
    observation = Observation(
        torch.tensor([1.0]), points([0], torch.zeros(1, 1), (1,)), torch.tensor(0.25)
    )

    def drawn(denoiser: Denoiser) -> Tensor:
        sampler = Diffusion(denoiser, Heun(), 100)
        return sampler((3000, 1, 1), Context(), Streams.of(2, 3000)).flatten()

    assert not flagged(drawn(Conditioned(gaussian, observation, gaussian)), 0.8, 0.2)
    assert not flagged(drawn(MMPS(gaussian, observation, 2)), 0.8, 0.2)
    biased = drawn(DPS(gaussian, observation, zeta))
    assert bool(torch.isfinite(biased).all())  # where a member fits exactly too
    assert flagged(biased, 0.8, 0.2)


def calibrated(distort: Callable[[Tensor], Tensor], cases: int = 400, members: int = 15) -> float:
    """p of the chi-square test that the truth's rank among its posterior members is uniform.

    Truths from the prior, values from the truths, members from the sampler (and distorted): Talts
    et al. 2018. Ranks of two functionals, a value between sensors and the mean of the field.
    """
    grid = (6, 6)
    prior = Spectral(Matern(0.4, 1.5), (1.0, 1.0), Cosine())
    gaussian = Gaussian(torch.zeros(()), prior, VE(clock=LogLinear(0.01, 100.0)))
    operator = points([0] * 4, torch.tensor([[0.5, 1.0], [4.2, 4.4], [1.0, 4.0], [4.0, 0.3]]), grid)
    truth = gaussian.sample(torch.zeros(cases, 1, *grid), Streams.of(0, cases))
    y = operator(truth) + 0.3 * torch.randn(cases, 4, generator=torch.manual_seed(0))
    values = y.repeat_interleave(members, 0)
    guided = Conditioned(gaussian, Observation(values, operator, torch.tensor(0.09)), gaussian)
    rows = cases * members
    x = Diffusion(guided, Multistep(), 24)((rows, 1, *grid), Context(), Streams.of(1, rows))
    x = distort(x.view(cases, members, *grid))
    p = []
    for f in (lambda v: v[..., 2, 2], lambda v: v.mean((-1, -2))):
        rank = (f(x) < f(truth)).sum(1).numpy()
        p.append(stats.chisquare(np.bincount(rank, minlength=members + 1)).pvalue)
    return float(min(p))


def test_ranks_of_the_truth_are_uniform_and_wrong_samplers_are_flagged() -> None:
    def about_the_mean(x: Tensor, factor: float, shift: float) -> Tensor:
        mean, std = x.mean(1, keepdim=True), x.std(1, keepdim=True)
        return mean + factor * (x - mean) + shift * std

    assert calibrated(lambda x: x) > 1e-4
    assert calibrated(lambda x: about_the_mean(x, 0.5, 0.0)) < 1e-4
    assert calibrated(lambda x: about_the_mean(x, 2.0, 0.0)) < 1e-4
    assert calibrated(lambda x: about_the_mean(x, 1.0, 0.7)) < 1e-4


def test_replacement_keeps_values_and_is_too_wide_between() -> None:
    """Known values exactly; between them wider than the posterior, the reason it is a baseline."""
    keep = torch.zeros(1, *GRID, dtype=torch.bool)
    keep[0, ::3, ::3] = True
    truth = MEAN + SMOOTH.sample(torch.zeros(1, 1, *GRID, dtype=DOUBLE), Streams.of(3, 1))[0]
    gaussian = Gaussian(MEAN, SMOOTH, VE(clock=CLOCK))
    mean, c = ensemble(Replace(gaussian, truth, keep), Multistep(), 50)
    assert torch.allclose(mean[keep.flatten()], truth.flatten()[keep.flatten()])
    assert float(c.diagonal()[keep.flatten()].abs().max()) < 1e-20
    where = torch.nonzero(keep[0]).double()
    nearly = Observation(truth[keep], points([0] * len(where), where, GRID), torch.tensor(1e-6))
    spread = exact(SMOOTH, nearly)[1].diagonal()
    free = ~keep.flatten()
    assert float((c.diagonal()[free] / spread[free]).mean()) > 1.1


@pytest.mark.parametrize("rule", ["closed", "matrix-free", "gradient"])
def test_a_posterior_member_is_the_same_wherever_it_stands(rule: str) -> None:
    """A float32 network in a batch of fixed size: any place, any company, to the bit."""
    torch.manual_seed(0)
    backbone = SpectralOperator(1, 1, (4, 4), width=8, blocks=1)
    nn.init.normal_(backbone.head.weight, std=0.2)
    process = VE(clock=LogLinear(0.05, 50.0))
    prior = Preconditioned(backbone, process)
    full = seen("between")
    observation = Observation(full.y.float(), full.operator, full.variance.float())
    guided: Denoiser = {
        "closed": Conditioned(prior, observation, Gaussian(torch.zeros(()), SMOOTH, process)),
        "matrix-free": MMPS(prior, observation, 3),
        "gradient": DPS(prior, observation, 0.3),
    }[rule]
    sampler = Diffusion(guided, steps=6)

    def members(*numbers: int) -> Tensor:
        return sampler((6, 1, *GRID), Context(), Streams.of(3, numbers))

    first = members(*range(6))
    assert torch.equal(members(4, 0, 5, 1, 3, 2), first[[4, 0, 5, 1, 3, 2]])
    assert torch.equal(members(50, 51, 2, 52, 53, 54)[2], first[2])
    assert not bool((first[0] == first[1]).all())
