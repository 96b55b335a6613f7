"""The rules one by one: what each computes in one call, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sciddm.basis import Cosine
from sciddm.covariance import Covariance, Matern, PowerLaw, Spectral, White, ZeroMean
from sciddm.denoise import Context, Denoiser, Gaussian, LinearMap, Moments
from sciddm.errors import InputError
from sciddm.guide import DPS, MMPS, Conditioned, Replace
from sciddm.guide.mmps import conjugate_gradients
from sciddm.guide.moments import Gain, factor, kalman_gain, marginal, solve
from sciddm.observe import Coarsen, Function, Observation, points
from sciddm.pde import Poisson
from sciddm.process import VE, VP, Clocked, Flow, LogLinear, Process
from sciddm.random import Streams
from sciddm.solve import Diffusion

DOUBLE = torch.float64
GRID = (6, 7)
CLOCK = LogLinear(0.02, 100.0)
PRIOR = Spectral(Matern(0.4, 1.5, 1.2), (1.0, 1.0), Cosine())
NOISES: dict[str, Covariance] = {
    "white": White(1.0),
    "matern": Spectral(Matern(0.1, 0.5), (1.0, 1.0), Cosine()),
}
KINDS = [VE, VP, Flow]
kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)
noises = pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES.keys())


def sensors(full: bool = False) -> Observation:
    position = torch.rand(8, 2, generator=torch.manual_seed(1), dtype=DOUBLE) * 5
    operator = points([0] * 8, position, GRID)
    y = torch.randn(8, generator=torch.manual_seed(2), dtype=DOUBLE)
    root = 0.1 * torch.randn(8, 8, generator=torch.manual_seed(3), dtype=DOUBLE)
    variance = root @ root.T + 0.02 * torch.eye(8, dtype=DOUBLE) if full else torch.tensor(0.05)
    return Observation(y, operator, variance)


def field(rows: int = 3) -> Tensor:
    return torch.randn(rows, 1, *GRID, generator=torch.manual_seed(4), dtype=DOUBLE)


@kinds
@noises
@pytest.mark.parametrize("full", [False, True], ids=["diagonal", "full"])
def test_mmps_with_enough_iterations_is_the_closed_form(
    kind: type[VE] | type[VP] | type[Flow], noise: Covariance, full: bool
) -> None:
    """Through the Jacobian or in closed form: the same posterior mean, at every noise level."""
    gaussian = Gaussian(torch.tensor(0.3), PRIOR, kind(noise, CLOCK))
    observation = sensors(full) & Observation(
        torch.zeros(4, dtype=DOUBLE), Coarsen((3, 3)) @ (lambda x: 2 * x), torch.tensor(0.3)
    )
    closed = Conditioned(gaussian, observation, gaussian)
    free = MMPS(gaussian, observation, 40)
    for time in (0.1, 0.5, 0.9):
        t = torch.tensor(time, dtype=DOUBLE)
        x_t = gaussian.process.coefficients(t)[0] * field() * 3
        a, b = closed(x_t, t, Context()), free(x_t, t, Context())
        scale = float((a - gaussian(x_t, t, Context())).norm())
        assert float((a - b).norm()) < 1e-3 * scale
        assert not b.requires_grad


def test_few_iterations_of_mmps_fall_short() -> None:
    gaussian = Gaussian(torch.zeros(()), PRIOR, VE(clock=CLOCK))
    t = torch.tensor(0.8, dtype=DOUBLE)
    exact = Conditioned(gaussian, sensors(), gaussian)(field(), t, Context())
    errors = [
        float((MMPS(gaussian, sensors(), n)(field(), t, Context()) - exact).norm())
        for n in (1, 3, 8)
    ]
    assert errors[0] > 2 * errors[1] > 20 * errors[2]


def test_mmps_takes_one_time_a_row() -> None:
    gaussian = Gaussian(torch.zeros(()), PRIOR, VP(clock=CLOCK))
    t = torch.tensor([0.2, 0.5, 0.8], dtype=DOUBLE).view(3, 1, 1, 1)
    rows = MMPS(gaussian, sensors(), 30)(field(), t, Context())
    for i in range(3):
        alone = MMPS(gaussian, sensors(), 30)(field()[i : i + 1], t[i], Context())
        assert torch.allclose(rows[i : i + 1], alone, atol=1e-9)


class Pointwise(Denoiser):
    """X ~ N(0, 1) at every cell, on any clock."""

    def __init__(self, process: Process) -> None:
        nn.Module.__init__(self)
        self.process = process

    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        alpha, _, sigma = self.process.coefficients(t)
        return x_t / alpha / (1 + (sigma / alpha) ** 2)


def test_mmps_is_exact_on_a_clock_per_frame() -> None:
    """Every cell has its own posterior variance kappa^2 / (1 + kappa^2)."""
    delay = torch.linspace(0, 1, 6, dtype=DOUBLE).view(1, 1, 6, 1)
    prior = Pointwise(Clocked(VP(clock=CLOCK), delay))
    t = torch.tensor(0.5, dtype=DOUBLE)
    found = MMPS(prior, sensors(), 30)(field(), t, Context())
    v = (prior.process.kappa(t) ** 2 / (1 + prior.process.kappa(t) ** 2)).expand(1, 1, *GRID)
    a = sensors().operator.rows(field()[:1])
    gain = kalman_gain(lambda g: v * g, a, sensors().covariance).flatten(1)
    x_hat = prior(field(), t, Context())
    expected = x_hat + (sensors().residual(x_hat) @ gain).view_as(x_hat)
    assert torch.allclose(found, expected, atol=1e-9)


class Learned(Denoiser):
    """x_hat = u W, a Jacobian as a network's: neither symmetric nor free of noise."""

    def __init__(self, weight: Tensor, process: Process) -> None:
        nn.Module.__init__(self)
        self.weight, self.process = weight, process

    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        u = x_t / self.process.coefficients(t)[0]
        return (torch.tanh(0.1 * u).flatten(1) @ self.weight).view_as(x_t)


@noises
def test_mmps_uses_the_symmetric_part_of_a_learned_jacobian(noise: Covariance) -> None:
    size = GRID[0] * GRID[1]
    skew = torch.randn(size, size, generator=torch.manual_seed(0), dtype=DOUBLE) / size**0.5
    weight = 3 * torch.eye(size, dtype=DOUBLE) + skew
    prior, observation = Learned(weight, VP(noise, CLOCK)), sensors()
    t, x_t = torch.tensor(0.4, dtype=DOUBLE), field(1)
    alpha, _, sigma = prior.process.coefficients(t)
    jacobian = torch.autograd.functional.jacobian(
        lambda x: prior(x.view(1, 1, *GRID), t, Context()).flatten(), x_t.flatten()
    )
    unit = torch.eye(size, dtype=DOUBLE).view(size, 1, *GRID)
    v = sigma**2 / alpha * noise(unit).flatten(1) @ jacobian.T
    assert float((v - v.T).norm() / v.norm()) > 0.1
    v = 0.5 * (v + v.T)
    rows = observation.operator.rows(x_t)
    gain = kalman_gain(lambda g: (g.flatten(1) @ v).view_as(g), rows, observation.covariance)
    x_hat = prior(x_t, t, Context())
    expected = x_hat + (observation.residual(x_hat) @ gain.flatten(1)).view_as(x_hat)
    found = MMPS(prior, observation, 30)(x_t, t, Context())
    assert torch.allclose(found, expected, atol=1e-8)


def test_conjugate_gradients_solve_and_stop() -> None:
    """As many steps as unknowns, other rows unaffected; a negative direction ends its own row."""
    root = torch.randn(6, 6, generator=torch.manual_seed(0), dtype=DOUBLE)
    matrix = root @ root.T + torch.diag(torch.logspace(-2, 2, 6, dtype=DOUBLE))
    b = torch.randn(4, 6, dtype=DOUBLE)
    b[2] = 0
    exact = torch.linalg.solve(matrix, b.T).T
    found = conjugate_gradients(lambda p: p @ matrix, b, matrix.diagonal(), 30)
    assert torch.allclose(found, exact, atol=1e-6)
    assert torch.equal(found[2], torch.zeros(6, dtype=DOUBLE))
    # the scale of the values is no matter
    for unit in (1e-8, 1e8):
        small = conjugate_gradients(
            lambda p, u=unit: p @ matrix * u**2, b * unit, matrix.diagonal() * unit**2, 30
        )
        assert torch.allclose(small * unit, exact, atol=1e-6)

    def mixed(p: Tensor) -> Tensor:
        image = p @ matrix
        image[1] = -image[1]
        return image

    ended = conjugate_gradients(mixed, b, torch.ones(6, dtype=DOUBLE), 60)
    assert torch.equal(ended[1], torch.zeros(6, dtype=DOUBLE))
    assert torch.allclose(ended[[0, 3]], exact[[0, 3]], atol=1e-6)


@kinds
@noises
def test_dps_is_its_formula_under_every_process(
    kind: type[VE] | type[VP] | type[Flow], noise: Covariance
) -> None:
    """x_hat - zeta kappa C d|y - A x_hat|/du, u = x_t / alpha: the process changes nothing."""
    gaussian = Gaussian(torch.tensor(0.3), PRIOR, kind(noise, CLOCK))
    observation, u = sensors(), field()
    t = torch.tensor(0.6, dtype=DOUBLE)
    alpha, _, sigma = gaussian.process.coefficients(t)
    found = DPS(gaussian, observation, 0.4)(alpha * u, t, Context())
    kappa = sigma / alpha
    x_hat = gaussian(alpha * u, t, Context())
    gap = observation.residual(x_hat)
    rows = observation.operator.rows(u)

    def pull_back(g: Tensor) -> Tensor:  # J^T of u -> x_hat, by the closed form
        return PRIOR.joint(g, noise, lambda p, c: p / (p + kappa**2 * c))

    direction = (gap / gap.norm(dim=1, keepdim=True)) @ rows.flatten(1)
    gradient = -pull_back(direction.view_as(u))
    assert torch.allclose(found, x_hat - 0.4 * kappa * noise(gradient), atol=1e-9)
    assert not found.requires_grad


def test_dps_moves_nothing_that_fits_already() -> None:
    gaussian = Gaussian(torch.zeros(()), PRIOR, VE(clock=CLOCK))
    t, x_t = torch.tensor(0.6, dtype=DOUBLE), field(1)
    x_hat = gaussian(x_t, t, Context())
    fitting = Observation(sensors().operator(x_hat)[0], sensors().operator, torch.tensor(0.1))
    assert torch.equal(DPS(gaussian, fitting)(x_t, t, Context()), x_hat)


def test_rules_nest() -> None:
    """Conditioning twice on independent sensors is conditioning on both, where the second rule
    knows the covariance that the first one leaves."""

    class After(Moments):
        exact = True

        def __init__(self, before: Moments, observation: Observation) -> None:
            self.before, self.observation = before, observation

        def covariance(self, t: Tensor) -> LinearMap:
            v = self.before.covariance(t)
            rows = self.observation.operator.rows(field()[:1])
            gain = kalman_gain(v, rows, self.observation.covariance).flatten(1)
            return lambda g: v(g) - ((v(g).flatten(1) @ rows.flatten(1).T) @ gain).view_as(g)

        def respond(self, x_hat: Tensor, gap: Tensor, rows: Tensor, update: LinearMap) -> Tensor:
            return update(gap)

    gaussian = Gaussian(torch.tensor(0.3), PRIOR, VP(clock=CLOCK))
    first = sensors()
    second = Observation(torch.zeros(4, dtype=DOUBLE), Coarsen((3, 3)), torch.tensor(0.3))
    both = Conditioned(gaussian, first & second, gaussian)
    nested = Conditioned(Conditioned(gaussian, first, gaussian), second, After(gaussian, first))
    t = torch.tensor(0.4, dtype=DOUBLE)
    expected = both(field(), t, Context())
    assert torch.allclose(nested(field(), t, Context()), expected, atol=1e-9)
    # through the Jacobian of a rule in closed form nothing has to be known
    free = MMPS(Conditioned(gaussian, first, gaussian), second, 30)
    assert torch.allclose(free(field(), t, Context()), expected, atol=1e-6)


def test_affine_operators_are_conditioned_exactly() -> None:
    gaussian = Gaussian(torch.zeros(()), PRIOR, VP(clock=CLOCK))
    plain, t = sensors(), torch.tensor(0.4, dtype=DOUBLE)
    affine = Observation(
        2 * plain.y + 7, Function(lambda x: 2 * plain.operator(x) + 7), 4 * plain.variance
    )
    a = Conditioned(gaussian, plain, gaussian)(field(), t, Context())
    assert torch.allclose(Conditioned(gaussian, affine, gaussian)(field(), t, Context()), a)


def test_gains_are_remembered_within_their_memory() -> None:
    calls = []

    class Counting(Moments):
        exact = True

        def covariance(self, t: Tensor) -> LinearMap:
            calls.append(float(t))
            return lambda g: 2.0 * g

        def respond(self, x_hat: Tensor, gap: Tensor, rows: Tensor, update: LinearMap) -> Tensor:
            return update(gap)

    like = torch.zeros(1, 1, *GRID)
    gain = Gain(sensors(), Counting())
    first = gain.at(torch.tensor(0.5), like)
    assert first.spread.dtype == DOUBLE and first.spread.shape == (8, 8)
    assert gain.at(torch.tensor([0.5]), like) is first and calls == [0.5]
    gain.at(torch.tensor(0.25), like)
    assert calls == [0.5, 0.25]
    small = Gain(sensors(), Counting(), memory=3 * first.spread.nbytes)
    for _ in range(2):
        small.at(torch.tensor(0.5), like)
        small.at(torch.tensor(0.25), like)
    assert calls == [0.5, 0.25, 0.5, 0.25, 0.25]


def test_gains_do_not_lose_digits_in_float32() -> None:
    """Sensors of a Poisson solution with errors of 0.1 %: in float32 the gain is wrong by 1 %."""
    n = 24
    law = Spectral(ZeroMean(PowerLaw(2.0, 3.0, 3.0)), (1.0, 1.0), Cosine())
    gaussian = Gaussian(torch.zeros(()), law, VE(clock=CLOCK))
    position = torch.rand(60, 2, generator=torch.manual_seed(0)) * (n - 1)
    operator = points([0] * 60, position, (n, n)) @ Poisson()
    observation = Observation(torch.zeros(60), operator, torch.tensor(2e-11))
    t = torch.tensor(1.0, dtype=DOUBLE)
    exact = kalman_gain(
        gaussian.covariance(t),
        operator.rows(torch.zeros(1, 1, n, n).double()),
        observation.covariance,
    )
    like, gain = torch.zeros(60, 1, n, n), Gain(observation, gaussian)
    known = gain.at(t, like)
    assert known.chol is not None and known.images is not None
    found = gain.pull(known, solve(known.chol, torch.eye(60)), like)
    assert torch.allclose(
        gain.pull(known._replace(images=None), solve(known.chol, torch.eye(60)), like), found
    )
    assert found.dtype == torch.float32
    assert float((found - exact).norm() / exact.norm()) < 1e-4


class Measured(Moments):
    """The exact covariance times ``share``, said to be measured or exact."""

    exact = False

    def __init__(self, gaussian: Gaussian, share: float, exact: bool) -> None:
        self.gaussian, self.share, self.exact = gaussian, share, exact  # type: ignore[misc]

    def covariance(self, t: Tensor) -> LinearMap:
        v = self.gaussian.covariance(t)
        return lambda g: self.share * v(g)

    def respond(self, x_hat: Tensor, gap: Tensor, rows: Tensor, update: LinearMap) -> Tensor:
        return update(gap)


def test_members_of_a_measured_covariance_that_is_too_small_still_fit_their_sensors() -> None:
    """100 times too small: inflated, members fit; taken for exact, they do not."""
    gaussian = Gaussian(torch.zeros(()), PRIOR, VE(clock=CLOCK))
    operator, variance, count = sensors().operator, torch.tensor(0.05), 40
    truth = gaussian.sample(torch.zeros(count, 1, *GRID, dtype=DOUBLE), Streams.of(0, count))
    error = Streams.of(1, count).normal(torch.zeros(count, 8, dtype=DOUBLE)) * 0.05**0.5
    seen = Observation(operator(truth) + error, operator, variance)

    def misfit(moments: Moments) -> float:
        sampler = Diffusion(Conditioned(gaussian, seen, moments), steps=40)
        x = sampler((count, 1, *GRID), Context(), Streams.of(2, count))
        return float(seen.misfit(x).square().mean().sqrt())

    assert 0.8 < misfit(gaussian) < 1.2
    assert 0.5 < misfit(Measured(gaussian, 0.01, exact=False)) < 1.6
    assert misfit(Measured(gaussian, 0.01, exact=True)) > 2


def test_a_singular_system_is_met_by_a_ridge() -> None:
    v = torch.ones(3, 3, dtype=DOUBLE) - 1e-14 * torch.eye(3, dtype=DOUBLE)
    chol = factor(v)
    assert torch.allclose(chol @ chol.T, v, atol=1e-10)
    with pytest.raises(InputError, match="not positive definite"):
        factor(torch.diag(torch.tensor([1.0, -1.0], dtype=DOUBLE)))
    with pytest.raises(InputError, match="not positive definite"):
        factor(torch.full((2, 2), torch.nan, dtype=DOUBLE))


def test_the_marginal_variance_is_the_diagonal() -> None:
    gaussian = Gaussian(torch.zeros(()), PRIOR, VE())
    like = torch.zeros(1, 1, 24, 24)  # more values than one block holds
    unit = torch.eye(576, dtype=DOUBLE).view(576, 1, 24, 24)
    expected = PRIOR(unit).flatten(1).diagonal().view(1, 24, 24)
    assert torch.allclose(marginal(gaussian, like), expected)


def test_replacement_puts_known_values_in_every_estimate() -> None:
    gaussian = Gaussian(torch.zeros(()), PRIOR, VE(clock=CLOCK))
    keep = torch.rand(1, *GRID, generator=torch.manual_seed(0)) < 0.4
    known, t = field(1)[0], torch.tensor(0.5, dtype=DOUBLE)
    found = Replace(gaussian, known, keep)(field(), t, Context())
    assert torch.equal(found[:, keep], known[keep].expand(3, -1))
    assert torch.equal(found[:, ~keep], gaussian(field(), t, Context())[:, ~keep])


def test_rules_refuse_what_they_cannot_do() -> None:
    gaussian = Gaussian(torch.zeros(()), PRIOR, VE(clock=CLOCK))
    conditioned = Conditioned(gaussian, sensors(), gaussian)
    with pytest.raises(InputError, match="one time a step"):
        conditioned(field(), torch.rand(3, 1, 1, 1), Context())
    clocked = Clocked(VE(clock=CLOCK), torch.linspace(0, 1, 6).view(1, 1, 6, 1))
    other = Conditioned(Pointwise(clocked), sensors(), Gaussian(torch.zeros(()), PRIOR, clocked))
    with pytest.raises(InputError, match="one level for every row"):
        other(field(), torch.tensor(0.5), Context())
    for wrong in (0, -1):
        with pytest.raises(InputError, match="at least 1"):
            MMPS(gaussian, sensors(), wrong)
    for step in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="positive step"):
            DPS(gaussian, sensors(), step)
