"""The published rules against closed forms: their formulas, their laws, their known biases.

Where the prior is Gaussian and the operator linear a step is affine in the field and its noise, so
means and variances are carried through exactly, without Monte Carlo.
"""

from __future__ import annotations

import math

import pytest
import torch
from scipy.integrate import quad
from torch import Tensor

from sciddm.basis import Cosine
from sciddm.covariance import Covariance, LowRank, Matern, Spectral, White
from sciddm.denoise import Context, Denoiser, Gaussian
from sciddm.errors import InputError
from sciddm.guide import (
    SDA,
    TMPD,
    Blind,
    ClassifierFree,
    Conditioned,
    DiffusionPDELoop,
    DPSLoop,
    FunDPSLoop,
    HardProjection,
    PiGDM,
    PiGDMLoop,
    REDDiff,
    Replace,
    ReSample,
    Resampling,
)
from sciddm.guide.published import LAST_FIFTH
from sciddm.observe import Function, Mask, Observation
from sciddm.process import VE, VP, Flow, LogLinear
from sciddm.random import Streams
from sciddm.solve import Diffusion, Euler, Heun, History, Multistep, Solver

DOUBLE = torch.float64
N = 12
CLOCK = LogLinear(0.01, 100.0)
PRIOR = Spectral(Matern(0.4, 1.5, 1.2), (1.0,), Cosine())
NOISES: dict[str, Covariance] = {
    "white": White(1.0),
    "matern": Spectral(Matern(0.2, 0.5), (1.0,), Cosine()),
}
KINDS = [VE, VP, Flow]
kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)
noises = pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES.keys())
MEAN = torch.linspace(-1, 1, N, dtype=DOUBLE).view(1, N)
A = torch.randn(4, N, generator=torch.manual_seed(1), dtype=DOUBLE)
Y = torch.randn(4, generator=torch.manual_seed(2), dtype=DOUBLE)
R = torch.tensor([0.1, 0.2, 0.05, 0.3], dtype=DOUBLE)
OPERATOR = Function(lambda x: x.flatten(1) @ A.T.to(x))
OBSERVATION = Observation(Y, OPERATOR, R)
UNIT = torch.eye(N, dtype=DOUBLE).view(N, 1, N)


def gaussian(kind: type[VE] | type[VP] | type[Flow] = VE, noise: Covariance = White()) -> Gaussian:  # noqa: B008
    return Gaussian(MEAN, PRIOR, kind(noise, CLOCK))


def dense(law: Covariance) -> Tensor:
    return law(UNIT).flatten(1)


def field(rows: int = 3) -> Tensor:
    return torch.randn(rows, 1, N, generator=torch.manual_seed(4), dtype=DOUBLE)


def parts(prior: Gaussian, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """alpha, kappa and the Jacobian d x_hat / du of a Gaussian prior, (N, N)."""
    alpha, _, sigma = prior.process.coefficients(t)
    kappa = sigma / alpha
    sigma_, c = dense(prior.prior), dense(prior.process.noise)
    return alpha, kappa, sigma_ @ torch.linalg.inv(sigma_ + kappa**2 * c)


# --- one dimension ------------------------------------------------------------------------------

ONE = Gaussian(torch.zeros(()), White(), VE(clock=LogLinear(2e-3, 80.0)))
DATUM = Observation(
    torch.ones(1, dtype=DOUBLE), Mask(torch.ones(1, 1, dtype=torch.bool)), torch.tensor(0.25)
)


class Unit(Streams):
    """Stands for addressed noise: 0, 0 and 1 in a batch of three."""

    def normal(self, like: Tensor) -> Tensor:
        return torch.tensor([0.0, 0.0, 1.0], dtype=DOUBLE).view(3, 1, 1)


def law(denoiser: Denoiser, solver: Solver, steps: int) -> tuple[float, float]:
    """Mean and variance of the draws: each step is x -> a x + b + c z, read off three fields."""
    times = denoiser.process.times(steps)
    mean, variance = 0.0, float(denoiser.process.kappa(times[0])) ** 2
    probe = torch.tensor([0.0, 1.0, 0.0], dtype=DOUBLE).view(3, 1, 1)
    rng = Unit(0, (0,) * 3, (0,) * 3)
    for t, s in zip(times[:-1], times[1:], strict=True):
        b, ab, bc = solver.step(denoiser, probe, t, s, Context(), History(), rng)[0].flatten()
        mean, variance = float(b + (ab - b) * mean), float((ab - b) ** 2 * variance + (bc - b) ** 2)
    b, ab, _ = denoiser(probe, times[-1], Context()).flatten()
    return float(b + (ab - b) * mean), float((ab - b) ** 2 * variance)


def limit(denoiser: Denoiser, solver: Solver, order: int, steps: int) -> tuple[float, float]:
    """Mean and variance in the limit of many steps, from two step sizes."""
    coarse, fine = law(denoiser, solver, steps), law(denoiser, solver, 2 * steps)
    share = 1 / (2**order - 1)
    mean, variance = (f + share * (f - c) for c, f in zip(coarse, fine, strict=True))
    return mean, variance


def test_plug_in_guidance_has_the_known_bias() -> None:
    """Prior N(0, 1), R = 1/4, y = 1: the posterior is N(0.80, 0.20); plug-in guidance draws
    N(0.98, 0.125) by the reverse equation and N(1.27, 0.018) by the flow from kappa 80, where
    the mean is 4 e^-2 times the integral of exp(2 w^2) from 1/80 to 1 and the variance e^-4."""
    plug_in = SDA(ONE, DATUM, gamma=0.0)
    mean, variance = limit(plug_in, Heun(), 2, 150)
    assert mean == pytest.approx(1.27, abs=0.005) and variance == pytest.approx(0.018, abs=5e-4)
    exact = 4 * math.exp(-2) * quad(lambda w: math.exp(2 * w**2), 1 / 80, 1)[0]
    assert mean == pytest.approx(exact, abs=1e-3)
    assert variance == pytest.approx(math.exp(-4), rel=2e-3)
    mean, variance = limit(plug_in, Euler(eta=1.0), 1, 400)
    assert mean == pytest.approx(0.98, abs=0.005) and variance == pytest.approx(0.125, abs=5e-4)


@pytest.mark.parametrize("order", [2, 1], ids=["flow", "reverse"])
def test_the_right_covariance_removes_it(order: int) -> None:
    """The same steps with Cov[X | x_t]; in one dimension row sums and r^2 of the data are it."""
    solver: Solver = Heun() if order == 2 else Euler(eta=1.0)
    for rule in (Conditioned(ONE, DATUM, ONE), TMPD(ONE, DATUM), PiGDM(ONE, DATUM, std=1.0)):
        mean, variance = limit(rule, solver, order, 100)
        assert mean == pytest.approx(0.8, abs=0.01)
        assert variance == pytest.approx(0.2, rel=0.01)


def test_gamma_trades_one_bias_for_another() -> None:
    """SDA with the data's own variance, gamma = 1, is too wide; no gamma is right in both."""
    variances = [law(SDA(ONE, DATUM, g), Heun(), 100)[1] for g in (0.0, 0.1, 1.0)]
    assert variances[0] < variances[1] < 0.2 < variances[2]


# --- formulas on fields -------------------------------------------------------------------------


@kinds
@noises
def test_scores_are_their_formulas(
    kind: type[VE] | type[VP] | type[Flow], noise: Covariance
) -> None:
    """x_hat + kappa^2 C J^T A^T S^{-1} d with J = dx_hat/du, whatever the process."""
    prior, u = gaussian(kind, noise), field()
    t = torch.tensor(0.6, dtype=DOUBLE)
    alpha, kappa, jacobian = parts(prior, t)
    x_hat = prior(alpha * u, t, Context())
    d = Y - OPERATOR(x_hat)
    c, r = dense(noise), torch.diag(R)
    r2 = kappa**2 * 0.7**2 / (kappa**2 + 0.7**2)
    v = kappa**2 * c @ jacobian.T
    sums = torch.diag((A @ v @ A.T) @ torch.ones(4, dtype=DOUBLE))
    for rule, total in (
        (SDA(prior, OBSERVATION, 0.3), r + 0.3 * kappa**2 * torch.eye(4)),
        (PiGDM(prior, OBSERVATION, 0.7), r + r2 * A @ A.T),
        (TMPD(prior, OBSERVATION), r + sums),
    ):
        expected = x_hat.flatten(1) + torch.linalg.solve(total, d.T).T @ A @ v.T
        found = rule(alpha * u, t, Context())
        assert torch.allclose(found.flatten(1), expected, atol=1e-9), type(rule).__name__
        assert not found.requires_grad


def loops() -> dict[str, tuple[Solver, float]]:
    """Every loop beside the factor of |d| or |d|^2 / 2 whose gradient it descends."""
    return {
        "dps": (DPSLoop(OBSERVATION, 0.3, Euler()), 0.6),
        "fundps": (FunDPSLoop(OBSERVATION, 5.0, Euler()), 5.0 * 2 / 4),
        "pde": (DiffusionPDELoop(OBSERVATION, 0.2, solver=Euler()), 0.2),
    }


@kinds
@pytest.mark.parametrize("kappa", [5.0, 0.3, 0.05])
@pytest.mark.parametrize("name", ["dps", "fundps", "pde"])
def test_a_loop_is_its_solver_and_a_push(
    name: str, kappa: float, kind: type[VE] | type[VP] | type[Flow]
) -> None:
    """x_s + factor J^T A^T d (over |d| for the two lengths), after the plain step."""
    prior = gaussian(kind)
    loop, factor = loops()[name]
    t = prior.process.clock.time(torch.tensor(kappa, dtype=DOUBLE))
    s = prior.process.clock.time(torch.tensor(0.8 * kappa, dtype=DOUBLE))
    alpha, kappa_t, jacobian = parts(prior, t)
    x_t = alpha * field()
    plain, _ = Euler().step(prior, x_t, t, s, Context(), History(), None)
    found, _ = loop.step(prior, x_t, t, s, Context(), History(), None)
    d = Y - OPERATOR(prior(x_t, t, Context()))
    if name == "fundps":
        push = min(1.0, float(kappa_t)) * d
    else:
        late = name == "pde" and kappa < LAST_FIFTH
        push = (0.1 if late else 1.0) * d / d.norm(dim=1, keepdim=True)
    expected = plain.flatten(1) + factor / alpha * (push @ A @ jacobian)
    assert torch.allclose(found.flatten(1), expected, atol=1e-9)
    assert not found.requires_grad


def test_a_loop_around_heun_differentiates_both_evaluations() -> None:
    """The misfit is that of the second estimate, the gradient that of the whole step."""
    prior, x_t = gaussian(), field()
    t, s = torch.tensor(0.6, dtype=DOUBLE), torch.tensor(0.55, dtype=DOUBLE)
    _, kappa, first = parts(prior, t)
    _, after, second = parts(prior, s)
    eye = torch.eye(N, dtype=DOUBLE)
    moved = eye + (after - kappa) / kappa * (eye - first)  # the Euler guess
    guess, _ = Euler().step(prior, x_t, t, s, Context(), History(), None)
    d = Y - OPERATOR(prior(guess, s, Context()))
    plain, _ = Heun().step(prior, x_t, t, s, Context(), History(), None)
    found, _ = FunDPSLoop(OBSERVATION, 2.0).step(prior, x_t, t, s, Context(), History(), None)
    expected = plain.flatten(1) + 2.0 * 2 / 4 * min(1, float(kappa)) * d @ A @ second @ moved
    assert torch.allclose(found.flatten(1), expected, atol=1e-9)
    assert FunDPSLoop(OBSERVATION, 2.0).evaluations(500) == 999


@kinds
def test_pigdm_as_published(kind: type[VE] | type[VP] | type[Flow]) -> None:
    prior = gaussian(kind)
    t, s = torch.tensor(0.6, dtype=DOUBLE), torch.tensor(0.5, dtype=DOUBLE)
    alpha, kappa, jacobian = parts(prior, t)
    x_t = alpha * field()
    loop = PiGDMLoop(OBSERVATION, 0.7, Euler())
    found, _ = loop.step(prior, x_t, t, s, Context(), History(), None)
    plain, _ = Euler().step(prior, x_t, t, s, Context(), History(), None)
    d = Y - OPERATOR(prior(x_t, t, Context()))
    r2 = kappa**2 * 0.7**2 / (kappa**2 + 0.7**2)
    g = torch.linalg.solve(A @ A.T + torch.diag(R) / r2, d.T).T @ A @ jacobian / alpha
    assert torch.allclose(found.flatten(1), plain.flatten(1) + alpha * g, atol=1e-9)


def test_loops_move_nothing_that_fits_and_keep_the_history() -> None:
    prior, x_t = gaussian(), field(1)
    t, s = torch.tensor(0.6, dtype=DOUBLE), torch.tensor(0.5, dtype=DOUBLE)
    x_hat = prior(x_t, t, Context())
    fitting = Observation(OPERATOR(x_hat)[0], OPERATOR, R)
    plain, _ = Multistep().step(prior, x_t, t, s, Context(), History(), None)
    for loop in (
        DPSLoop(fitting, 1.0, Multistep()),
        DiffusionPDELoop(fitting, 1.0, solver=Euler()),
    ):
        found, state = loop.step(prior, x_t, t, s, Context(), History(), None)
        assert torch.allclose(found, plain, atol=1e-12)
        assert not any(v.requires_grad for v in state.x_hat)


def test_the_equation_is_used_in_the_last_phase_and_lowers_its_residual() -> None:
    """An equation that the prior does not know: x_1 = x_2."""

    def residual(x: Tensor) -> Tensor:
        return x[:, 0, 1:2] - x[:, 0, 2:3]

    equation = Function(residual)
    with_it, without = (
        DiffusionPDELoop(OBSERVATION, 0.01, 0.1, eq, 0.02, Euler()) for eq in (equation, None)
    )
    prior, x_t = gaussian(), field()
    early, late = (prior.process.clock.time(torch.tensor(k, dtype=DOUBLE)) for k in (0.2, 0.05))
    for t, same in ((early, True), (late, False)):
        a, b = (
            loop.step(prior, x_t, t, 0.9 * t, Context(), History(), None)[0]
            for loop in (with_it, without)
        )
        assert torch.equal(a, b) is same
    # late: a tenth of the misfit's push, less the gradient of |x_1 - x_2|
    alpha, _, jacobian = parts(prior, late)
    found, _ = with_it.step(prior, x_t, late, 0.9 * late, Context(), History(), None)
    plain, _ = Euler().step(prior, x_t, late, 0.9 * late, Context(), History(), None)
    x_hat = prior(x_t, late, Context())
    d, r = Y - OPERATOR(x_hat), residual(x_hat)
    row = UNIT[1:2, 0] - UNIT[2:3, 0]
    push = 0.1 * 0.01 * d / d.norm(dim=1, keepdim=True) @ A - 0.02 * r.sign() @ row
    expected = plain.flatten(1) + push @ jacobian / alpha
    assert torch.allclose(found.flatten(1), expected, atol=1e-9)
    errors = []
    for loop in (with_it, without):
        x = Diffusion(prior, loop, 200)((8, 1, N), Context(), RNG)
        errors.append(float(residual(x).abs().mean()))
    assert errors[0] < 0.5 * errors[1]


RNG = Streams.of(3, 8)


# --- hard values --------------------------------------------------------------------------------


@kinds
def test_hard_projection_is_the_shortest_way(kind: type[VE] | type[VP] | type[Flow]) -> None:
    """A x = y after it, nothing moved in the null space, an offset of the operator respected."""
    prior, t = gaussian(kind), torch.tensor(0.5, dtype=DOUBLE)
    affine = Function(lambda x: OPERATOR(x) + 3.0)
    found = HardProjection(prior, affine, Y)(field(), t, Context())
    assert torch.allclose(affine(found), Y.expand(3, -1), atol=1e-9)
    moved = (found - prior(field(), t, Context())).flatten(1)
    null = torch.eye(N, dtype=DOUBLE) - torch.linalg.pinv(A) @ A
    assert float((moved @ null).abs().max()) < 1e-9
    # drawn to the end, every member has the values
    x = Diffusion(HardProjection(prior, affine, Y))((4, 1, N), Context(), Streams.of(0, 4))
    assert torch.allclose(affine(x.double()), Y.expand(4, -1), atol=1e-4)


@noises
@kinds
def test_resample_draws_the_product_of_two_gaussians(
    kind: type[VE] | type[VP] | type[Flow], noise: Covariance
) -> None:
    """A linear decoder of a Gaussian latent: the law of u_s is
    N(u; x_0, kappa_s^2 C) N(u; u'_s, v C) normalised, mean and covariance, by dense algebra."""
    decoder = torch.randn(N, N, generator=torch.manual_seed(7), dtype=DOUBLE)
    operator = OPERATOR @ (lambda z: z @ decoder.to(z))
    prior = gaussian(kind, noise)
    rule, solver = HardProjection(prior, operator, Y), ReSample(gamma=0.8)
    t, s = torch.tensor(0.6, dtype=DOUBLE), torch.tensor(0.5, dtype=DOUBLE)
    alpha = prior.process.coefficients(s)[0]
    kt, ks = (prior.process.kappa(v) for v in (t, s))
    x_t = field(1)
    own, _ = Euler().step(prior, x_t, t, s, Context(), History(), None)
    clean = rule.project(prior(x_t, t, Context()))
    c = dense(noise)
    p1, p2 = torch.linalg.inv(ks**2 * c), torch.linalg.inv(0.8 * ks**2 * (kt**2 - ks**2) * c)
    covariance = torch.linalg.inv(p1 + p2)
    mean = covariance @ (p1 @ clean.flatten() + p2 @ (own / alpha).flatten())

    class Still(Streams):
        def normal(self, like: Tensor) -> Tensor:
            return torch.cat([torch.zeros(1, 1, N, dtype=DOUBLE), UNIT])

    rows = N + 1
    rng = Still(0, (0,) * rows, (0,) * rows)
    x, _ = solver.step(rule, x_t.expand(rows, 1, N), t, s, Context(), History(), rng)
    u = (x / alpha).flatten(1)
    assert torch.allclose(u[0], mean, atol=1e-9)
    spread = (u[1:] - u[0]).T @ (u[1:] - u[0])
    assert torch.allclose(spread, covariance, atol=1e-9)
    # between its visits it is the prior's own step
    between, _ = ReSample(0.8, every=2).step(
        rule, x_t.expand(rows, 1, N), t, s, Context(), History(), rng.at("step", 1)
    )
    assert torch.allclose(between, own.expand_as(between))


def test_resample_ends_on_the_values() -> None:
    """Where the latent gradient loop stalls above them."""
    prior = gaussian()
    hard = Diffusion(HardProjection(prior, OPERATOR, Y), ReSample(1.0, 5), 60)
    x = hard((8, 1, N), Context(), RNG).double()
    stalled = Diffusion(prior, DPSLoop(OBSERVATION, 0.05), 60)((8, 1, N), Context(), RNG).double()
    assert float(OBSERVATION.misfit(x).max()) < 1e-3 < 1 < float(OBSERVATION.misfit(stalled).min())


def test_hard_values_are_refused_where_they_contradict() -> None:
    prior, t = gaussian(), torch.tensor(0.5, dtype=DOUBLE)
    twice = Function(lambda x: OPERATOR(x)[:, [0, 0, 1, 2]])
    with pytest.raises(InputError, match="depend on each other"):
        HardProjection(prior, twice, Y)(field(), t, Context())
    with pytest.raises(InputError, match="one column a value"):
        HardProjection(prior, OPERATOR, Y[:3])(field(), t, Context())
    for wrong in (Y * torch.nan, torch.zeros(()), Y.view(1, 1, 4)):
        with pytest.raises(InputError, match="expected finite"):
            HardProjection(prior, OPERATOR, wrong)
    rule = HardProjection(prior, OPERATOR, Y)
    for denoiser, rng in ((prior, RNG), (rule, None)):
        with pytest.raises(InputError, match="HardProjection and Streams"):
            ReSample().step(denoiser, field(8), t, 0.9 * t, Context(), History(), rng)


# --- replacement --------------------------------------------------------------------------------


class Counted(Streams):
    """Notes the addresses asked for."""

    seen: list[tuple[str, int]] = []  # noqa: RUF012

    def normal(self, like: Tensor) -> Tensor:
        self.seen.append((self.purpose, self.step))
        return super().normal(like)


def test_resampling_goes_back_with_the_right_noise() -> None:
    """One repeat is the solver; noise is fresh each time; a field of the law at s goes back to the
    law at t, for any process (the mean and variance of the renoised field, by unit noise)."""
    keep = torch.zeros(1, N, dtype=torch.bool)
    keep[0, ::3] = True
    rule = Replace(gaussian(VP), field(1)[0], keep)
    t, s = torch.tensor(0.6, dtype=DOUBLE), torch.tensor(0.5, dtype=DOUBLE)
    rng = Counted.of(0, 3)
    rng = Counted(0, rng.cases, rng.members, "step", 4)
    once, _ = Resampling(1).step(rule, field(), t, s, Context(), History(), rng)
    plain, _ = Euler(eta=1.0).step(rule, field(), t, s, Context(), History(), rng)
    assert torch.equal(once, plain)
    Counted.seen.clear()
    Resampling(3).step(rule, field(), t, s, Context(), History(), rng)
    assert len(Counted.seen) == len(set(Counted.seen)) == 5
    assert Resampling(4).evaluations(11) == 41


@kinds
def test_resampling_keeps_the_law_of_the_prior(kind: type[VE] | type[VP] | type[Flow]) -> None:
    """Without known values, x_s -> x_t -> x_s leaves the law at s as an exact step would: measured
    in one mode, where one ancestral step is x -> a x + c z."""
    one = Gaussian(torch.zeros(()), White(1.0), kind(clock=CLOCK))
    t, s = torch.tensor(0.5, dtype=DOUBLE), torch.tensor(0.499, dtype=DOUBLE)
    alpha, _, sigma = one.process.coefficients(t)
    start = float(alpha**2 + sigma**2)
    alpha, _, sigma = one.process.coefficients(s)

    class Passes(Streams):
        """Row i of 6 gets unit noise in its own draw alone."""

        order = (("step", 0), ("back", 1), ("again", 1), ("back", 2), ("again", 2))

        def normal(self, like: Tensor) -> Tensor:
            row = self.order.index((self.purpose.split()[-1], self.step)) + 1
            return torch.eye(6, dtype=DOUBLE)[row].view(6, 1, 1)

    x = torch.tensor([1.0, 0, 0, 0, 0, 0], dtype=DOUBLE).view(6, 1, 1)
    rng = Passes(0, (0,) * 6, (0,) * 6, "step")
    moved, _ = Resampling(3).step(one, x, t, s, Context(), History(), rng)
    variance = float(moved[0] ** 2) * start + float(moved[1:].square().sum())
    assert variance == pytest.approx(float(alpha**2 + sigma**2), rel=3e-4)


def test_resampling_narrows_what_replacement_leaves_too_wide() -> None:
    """The unknown value between two known ones: its variance comes nearer to the posterior's."""
    keep = torch.zeros(1, N, dtype=torch.bool)
    keep[0, ::2] = True
    known = MEAN + PRIOR.sample(torch.zeros(1, 1, N, dtype=DOUBLE), Streams.of(1, 1))[0]
    rule = Replace(gaussian(), known, keep)
    rows = 100
    spread = []
    for repeats in (1, 5):
        x = Diffusion(rule, Resampling(repeats), 24)((rows, 1, N), Context(), Streams.of(0, rows))
        spread.append(float(x[:, ~keep].var(0).mean()))
    mask = Mask(keep)
    a = mask(UNIT).T
    sigma = dense(PRIOR)
    gain = sigma @ a.T @ torch.linalg.inv(a @ sigma @ a.T + 1e-9 * torch.eye(len(a)))
    exact = float((sigma - gain @ a @ sigma).diagonal()[~keep[0]].mean())
    assert abs(spread[1] / exact - 1) < 0.7 * abs(spread[0] / exact - 1)


def test_replacement_refuses_other_shapes() -> None:
    keep = torch.zeros(1, N, dtype=torch.bool)
    keep[0, 3] = True
    bad = torch.full((1, N), torch.nan)
    for known, mask in ((MEAN[:, :5], keep), (MEAN, keep.double())):
        with pytest.raises(InputError, match="for both, the mask bool"):
            Replace(gaussian(), known, mask)
    with pytest.raises(InputError, match="not finite"):
        Replace(gaussian(), bad, keep)
    Replace(gaussian(), bad, ~keep & False)
    with pytest.raises(InputError, match="at least 1"):
        Resampling(0)


# --- classifier-free ----------------------------------------------------------------------------


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0, 2.0, 3.0])
def test_classifier_free_draws_a_gaussian_of_the_wrong_width(weight: float) -> None:
    """Variance v1^w v0^(1-w), not that of the tilted law; the mean by one integral."""
    m1, v1, m0, v0 = 1.0, 0.25, -0.5, 1.0
    process = VE(clock=LogLinear(1e-3, 1e3))
    one, zero = (
        Gaussian(torch.tensor(m, dtype=DOUBLE), White(v**0.5), process)
        for m, v in ((m1, v1), (m0, v0))
    )
    mean, variance = limit(ClassifierFree(one, zero, weight), Heun(), 2, 100)
    assert variance == pytest.approx(v1**weight * v0 ** (1 - weight), rel=0.01)
    tilted = 1 / (weight / v1 + (1 - weight) / v0)
    if weight in (0.0, 1.0):
        assert variance == pytest.approx(tilted, rel=0.01)
    else:
        assert abs(variance / tilted - 1) > 0.1

    def growth(k: float) -> float:
        return (v1 + k**2) ** (weight / 2) * (v0 + k**2) ** ((1 - weight) / 2)

    def push(k: float) -> float:
        return k * (weight * m1 / (v1 + k**2) + (1 - weight) * m0 / (v0 + k**2)) / growth(k)

    expected = growth(0) * quad(push, 0, 1e3, limit=500)[0]
    assert mean == pytest.approx(expected, abs=0.01)


def test_classifier_free_is_linear_in_its_weight_and_may_be_blind() -> None:
    prior, t = gaussian(), torch.tensor(0.5, dtype=DOUBLE)

    class Sees(Denoiser):
        def __init__(self) -> None:
            torch.nn.Module.__init__(self)
            self.process = prior.process

        def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
            return x_t if context.fields is None else x_t + context.fields

    shown = Context(fields=field())
    for weight in (0.0, 1.0, 2.5):
        rule = ClassifierFree(Sees(), Blind(Sees()), weight)
        assert torch.allclose(rule(field(), t, shown), field() + weight * field())
    for wrong in (-0.1, math.nan, math.inf):
        with pytest.raises(InputError, match="at least 0"):
            ClassifierFree(prior, prior, wrong)
    with pytest.raises(InputError, match="one process"):
        ClassifierFree(prior, gaussian(VP), 2.0)


# --- RED-diff -----------------------------------------------------------------------------------


@kinds
@noises
def test_red_diff_stands_still_at_its_shrinkage(
    kind: type[VE] | type[VP] | type[Flow], noise: Covariance
) -> None:
    """The mean direction over levels and noises vanishes at the closed form of the module."""
    prior = gaussian(kind, noise)
    rule = REDDiff(prior, OBSERVATION, steps=20, weight=0.7)
    times = prior.process.times(20)
    c, sigma = dense(noise), dense(PRIOR)
    average = torch.zeros(N, N, dtype=DOUBLE)
    for t in times:
        k2 = prior.process.kappa(t) ** 2
        average += k2 * torch.linalg.inv(sigma + k2 * c) / len(times)
    pull = A.T @ torch.diag(1 / R)
    m = MEAN.flatten()
    mu = m + torch.linalg.solve(pull @ A + 0.7 * average, pull @ (Y - A @ m))
    z = noise.sqrt(field())
    both, at = torch.cat([z, -z]), mu.view(1, 1, N).expand(6, 1, N)  # affine: the mean over z
    total = sum(rule.direction(at, t, both, Context()).mean(0) for t in times)
    size = sum(rule.direction(at + 0.1, t, both, Context()).mean(0).abs().max() for t in times)
    assert float(torch.as_tensor(total).abs().max()) < 1e-9 * float(size)


def test_red_diff_finds_its_shrinkage() -> None:
    """At a narrow band of levels, where the fixed point is that of one, from a field that fits as
    well but is off by one unit where nothing is seen."""
    prior = gaussian()
    rule = REDDiff(prior, OBSERVATION, 400, rate=0.02, kappa_max=1.0, kappa_min=0.99)
    shrink = torch.linalg.inv(dense(PRIOR) + torch.eye(N, dtype=DOUBLE))
    pull = A.T @ torch.diag(1 / R)
    m = MEAN.flatten()
    mu = m + torch.linalg.solve(pull @ A + shrink, pull @ (Y - A @ m))
    unseen = torch.eye(N, dtype=DOUBLE) - torch.linalg.pinv(A) @ A
    off = unseen @ torch.ones(N, dtype=DOUBLE)
    start = (mu + off).expand(12, 1, N)
    times = prior.process.times(800, 1.0, 0.99)
    x = rule.descend(start, times, Context(), Streams.of(0, 12))
    assert float((x.mean(0).flatten() - mu).norm() / off.norm()) < 0.08
    # from noise to a field that fits far better than the prior's
    found = rule((8, 1, N), Context(), RNG).double()
    assert float(OBSERVATION.misfit(found).max()) < 2
    assert rule.evaluations == 401


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [0.0, -1.0, math.nan, math.inf])
def test_weights_are_positive_and_finite(wrong: float) -> None:
    prior = gaussian()
    for make in (
        lambda: DPSLoop(OBSERVATION, wrong),
        lambda: FunDPSLoop(OBSERVATION, wrong),
        lambda: DiffusionPDELoop(OBSERVATION, wrong),
        lambda: DiffusionPDELoop(OBSERVATION, 1.0, late=wrong),
        lambda: PiGDM(prior, OBSERVATION, wrong),
        lambda: PiGDMLoop(OBSERVATION, wrong),
        lambda: ReSample(wrong),
        lambda: REDDiff(prior, OBSERVATION, weight=wrong),
        lambda: REDDiff(prior, OBSERVATION, rate=wrong),
    ):
        with pytest.raises(InputError, match="expected a positive finite number"):
            make()
    if wrong != 0:
        with pytest.raises(InputError, match="at least 0"):
            SDA(prior, OBSERVATION, wrong)
    with pytest.raises(InputError, match="at least 2"):
        REDDiff(prior, OBSERVATION, steps=1)
    with pytest.raises(InputError, match="at least 1"):
        ReSample(every=0)


def test_operators_of_another_size_and_priors_without_a_gradient_are_refused() -> None:
    prior, t = gaussian(), torch.tensor(0.5, dtype=DOUBLE)
    short = Observation(Y, Function(lambda x: OPERATOR(x)[:, :3]), R)
    for rule in (SDA(prior, short), TMPD(prior, short)):
        with pytest.raises(InputError, match="one column a value"):
            rule(field(), t, Context())
    with pytest.raises(InputError, match="one column a value"):
        FunDPSLoop(short, 1.0).step(prior, field(), t, 0.9 * t, Context(), History(), None)
    guided = SDA(prior, OBSERVATION)
    with pytest.raises(InputError, match="no gradient"):
        SDA(guided, OBSERVATION)(field(), t, Context())
    with pytest.raises(InputError, match="no gradient"):
        FunDPSLoop(OBSERVATION, 1.0).step(guided, field(), t, 0.9 * t, Context(), History(), None)
    with pytest.raises(InputError, match="one time a step"):
        SDA(prior, OBSERVATION)(field(), torch.rand(3, 1, 1, dtype=DOUBLE), Context())


def test_values_may_differ_by_row() -> None:
    """Each row its own values: the same as each alone, for every rule."""
    y = Y + torch.randn(3, 4, generator=torch.manual_seed(0), dtype=DOUBLE)
    many = Observation(y, OPERATOR, R)
    law_ = LowRank(UNIT[:5], torch.arange(1.0, 6.0, dtype=DOUBLE), 0.3)
    prior, t = Gaussian(MEAN, law_, VE(clock=CLOCK)), torch.tensor(0.5, dtype=DOUBLE)
    for rule in (SDA, TMPD, PiGDM):
        together = rule(prior, many)(field(), t, Context())
        for i in range(3):
            alone = rule(prior, Observation(y[i], OPERATOR, R))(field()[i : i + 1], t, Context())
            assert torch.allclose(together[i : i + 1], alone)
    hard = HardProjection(prior, OPERATOR, y)(field(), t, Context())
    assert torch.allclose(OPERATOR(hard), y)
