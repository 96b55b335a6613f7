"""Denoisers: closed forms against dense algebra, quadrature and integration; what the loss says."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import integrate
from torch import Tensor, nn

from sciddm.basis import Cosine, Periodic
from sciddm.covariance import Covariance, LowRank, Matern, MaternKernel, Points, Spectral, White
from sciddm.denoise import (
    Context,
    CrossFitted,
    Gaussian,
    Mixture,
    Preconditioned,
    denoising_loss,
    interpolate,
)
from sciddm.errors import InputError
from sciddm.nn import SpectralOperator
from sciddm.process import VE, VP, Clocked, Flow, LogLinear, Process
from sciddm.random import Streams

DOUBLE = torch.float64
CLOCK = LogLinear(0.02, 50.0)
N = 12


def lowrank() -> LowRank:
    noise = torch.randn(N, 5, generator=torch.manual_seed(1), dtype=DOUBLE)
    modes = torch.linalg.qr(noise).Q.T.reshape(5, 1, N)
    return LowRank(modes, torch.tensor([9.0, 4.0, 2.0, 1.0, 0.5], dtype=DOUBLE), 0.2)


def smooth(nu: float, length: float, periodic: bool = False) -> Spectral:
    return Spectral(Matern(length, nu, 1.4), (1.0,), Periodic() if periodic else Cosine())


SCATTERED = Points(torch.linspace(0, 1, N, dtype=DOUBLE)[:, None] ** 1.5, MaternKernel(0.4, 1.5))
PAIRS: dict[str, tuple[Covariance, Covariance]] = {
    "smooth in white": (smooth(2.5, 0.3), White(1.0)),
    "periodic in white": (smooth(1.5, 0.3, periodic=True), White(1.5)),
    "smooth in matern": (smooth(2.5, 0.3), smooth(0.5, 0.2)),
    "low rank in white": (lowrank(), White(0.8)),
    "scattered in white": (SCATTERED, White(1.0)),
    "white in matern": (White(0.6), smooth(1.5, 0.2)),
}
pairs = pytest.mark.parametrize(("prior", "noise"), PAIRS.values(), ids=PAIRS.keys())
KINDS: list[type[VE] | type[VP] | type[Flow]] = [VE, VP, Flow]
kinds = pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)


def dense(law: Covariance) -> Tensor:
    return law(torch.eye(N, dtype=DOUBLE).view(N, 1, N)).flatten(1)


def mean_field() -> Tensor:
    return torch.linspace(-1, 2, N, dtype=DOUBLE).view(1, N)


@pairs
@kinds
def test_the_gaussian_denoiser_is_the_dense_formula(
    prior: Covariance, noise: Covariance, kind: type[VE]
) -> None:
    """mu + Sigma (Sigma + kappa^2 C)^-1 (u - mu), one time a row, and its covariance."""
    process = kind(noise, CLOCK)
    gaussian = Gaussian(mean_field(), prior, process)
    t = torch.tensor([0.2, 0.5, 0.9], dtype=DOUBLE).view(3, 1, 1)
    x_t = torch.randn(3, 1, N, generator=torch.manual_seed(0), dtype=DOUBLE)
    x_hat = gaussian(x_t, t, Context())
    sigma, c = dense(prior), dense(noise)
    for i in range(3):
        alpha, kappa = process.coefficients(t[i])[0], process.kappa(t[i])
        gain = sigma @ torch.linalg.inv(sigma + kappa.squeeze() ** 2 * c)
        expected = mean_field()[0] + gain @ (x_t[i, 0] / alpha.squeeze() - mean_field()[0])
        assert torch.allclose(x_hat[i, 0], expected, atol=1e-9)
        unit = torch.eye(N, dtype=DOUBLE).view(N, 1, N)
        covariance = gaussian.covariance(t[i].squeeze())(unit).flatten(1)
        assert torch.allclose(covariance, sigma - gain @ sigma, atol=1e-9)
        average = gaussian.mean_variance(t[i].squeeze(), x_t[:1])
        assert float(average) == pytest.approx(float(covariance.trace()) / N)


@pairs
@kinds
def test_tweedies_covariance(prior: Covariance, noise: Covariance, kind: type[VE]) -> None:
    """Cov[X | x_t] = (sigma^2 / alpha) C J^T, J by automatic differentiation."""
    process = kind(noise, CLOCK)
    gaussian = Gaussian(mean_field(), prior, process)
    for time in (0.1, 0.5, 0.8):
        t = torch.tensor(time, dtype=DOUBLE)
        jacobian = torch.autograd.functional.jacobian(
            lambda x, t=t: gaussian(x.view(1, 1, N), t, Context()).flatten(),
            torch.zeros(N, dtype=DOUBLE),
        )
        alpha, _, sigma = process.coefficients(t)
        expected = sigma**2 / alpha * dense(noise) @ jacobian.T
        unit = torch.eye(N, dtype=DOUBLE).view(N, 1, N)
        assert torch.allclose(gaussian.covariance(t)(unit).flatten(1), expected, atol=1e-10)


@pairs
@kinds
def test_the_flow_is_the_integral_of_its_equation(
    prior: Covariance, noise: Covariance, kind: type[VE]
) -> None:
    """du / dkappa = (u - x_hat) / kappa, by a high-order integrator that knows nothing of us."""
    process = kind(noise, CLOCK)
    gaussian = Gaussian(mean_field(), prior, process)
    t, s = (torch.tensor(v, dtype=DOUBLE) for v in (0.95, 0.15))
    start = torch.randn(1, 1, N, generator=torch.manual_seed(0), dtype=DOUBLE) * 10

    def slope(log_kappa: float, u: np.ndarray) -> np.ndarray:
        now = process.clock.time(torch.tensor(math.exp(log_kappa), dtype=DOUBLE))
        alpha, _, _ = process.coefficients(now)
        x_hat = gaussian(alpha * torch.from_numpy(u).view(1, 1, N), now, Context())
        return u - x_hat.flatten().numpy()

    (a_t, _, _), (a_s, _, _) = process.coefficients(t), process.coefficients(s)
    span = [float(process.kappa(v).log()) for v in (t, s)]
    u = (start / a_t).flatten().numpy()
    end = integrate.solve_ivp(slope, span, u, rtol=1e-9, atol=1e-11).y[:, -1]
    assert np.allclose(gaussian.flow(start, t, s).flatten().numpy(), float(a_s) * end, rtol=1e-6)
    # there and back
    assert torch.allclose(gaussian.flow(gaussian.flow(start, t, s), s, t), start)


def test_expected_error_is_the_root_of_the_mean_variance() -> None:
    gaussian = Gaussian(torch.zeros(()), smooth(1.5, 0.3), VE(clock=CLOCK))
    log_kappa, log_std = gaussian.expected_error(torch.zeros(1, 1, N), 7)
    assert torch.allclose(log_kappa.exp()[[0, -1]], torch.tensor([0.02, 50.0], dtype=DOUBLE))
    sigma = dense(smooth(1.5, 0.3))
    for k, s in zip(log_kappa.exp(), log_std.exp(), strict=True):
        rest = sigma - sigma @ torch.linalg.inv(sigma + k**2 * torch.eye(N, dtype=DOUBLE)) @ sigma
        assert float(s) == pytest.approx(float(rest.trace() / N) ** 0.5)


@kinds
@pytest.mark.parametrize("noise", [1.0, 0.5])
def test_a_mixture_is_the_quadrature_of_bayes(kind: type[VE], noise: float) -> None:
    means, weights, std = [-2.0, 0.5, 3.0], [0.2, 0.5, 0.3], 0.4
    process = kind(White(noise), CLOCK)
    mixture = Mixture(torch.tensor(means).view(3, 1, 1), torch.tensor(weights), std, process)
    x = np.linspace(-8, 9, 20_001)
    density = sum(
        w * np.exp(-0.5 * ((x - m) / std) ** 2) for m, w in zip(means, weights, strict=True)
    )
    x_t = torch.linspace(-4, 4, 9, dtype=DOUBLE).view(9, 1, 1)
    for time in (0.3, 0.5, 0.7):
        t = torch.tensor(time, dtype=DOUBLE)
        alpha, _, sigma = (float(v) for v in process.coefficients(t))
        x_hat = mixture(x_t, t, Context()).flatten()
        for value, found in zip(x_t.flatten(), x_hat, strict=True):
            log = -0.5 * ((float(value) - alpha * x) / (sigma * noise)) ** 2
            posterior = density * np.exp(log - log.max())
            expected = (x * posterior).sum() / posterior.sum()
            assert float(found) == pytest.approx(expected, abs=1e-6)


def test_a_mixture_of_points_is_a_weighted_mean_of_the_data() -> None:
    data = torch.randn(40, 2, 3, generator=torch.manual_seed(0), dtype=DOUBLE)
    empirical = Mixture(data, torch.full((40,), 1 / 40), 0.0, VE(clock=CLOCK))
    x_t = torch.randn(30, 2, 3, dtype=DOUBLE)
    t = torch.linspace(0.3, 0.9, 30, dtype=DOUBLE).view(30, 1, 1)
    kappa = VE(clock=CLOCK).kappa(t)
    distance = (x_t[:, None] - data[None]).square().flatten(2).sum(2)
    weight = torch.softmax(-distance / (2 * kappa.view(30, 1) ** 2), dim=1)
    expected = (weight @ data.flatten(1)).view(30, 2, 3)
    assert torch.allclose(empirical(x_t, t, Context()), expected, atol=1e-8)


def test_closed_forms_refuse_what_they_do_not_know() -> None:
    delay = torch.linspace(0, 1, 2).view(1, 1, 2, 1)
    clocked = Clocked(VE(clock=CLOCK), delay)
    prior = Spectral(Matern(0.3), (1.0, 1.0), Cosine())
    x, t = torch.zeros(2, 1, 2, 6), torch.tensor(0.5)
    gaussian = Gaussian(torch.zeros(()), prior, clocked)
    mixture = Mixture(torch.zeros(2, 1, 2, 6), torch.full((2,), 0.5), 1.0, clocked)
    # two frames and a batch of two: shapes alone would not tell
    for call in (
        lambda: gaussian(x, t, Context()),
        lambda: gaussian.covariance(t),
        lambda: mixture(x, t, Context()),
        lambda: Gaussian(torch.zeros(()), prior, VE())(x, torch.rand(3, 1, 1, 1), Context()),
    ):
        with pytest.raises(InputError, match="one level for every row"):
            call()
    with pytest.raises(InputError, match="expected White"):
        Mixture(torch.zeros(2, 1, 6), torch.full((2,), 0.5), 1.0, VE(smooth(1.5, 0.3), CLOCK))


def test_interpolation_is_piecewise_linear_and_ends_level() -> None:
    knots = torch.tensor([0.0, 1.0, 3.0], dtype=DOUBLE)
    values = torch.tensor([[0.0, 5.0], [2.0, 5.0], [-2.0, 9.0]], dtype=DOUBLE)
    at = torch.tensor([[-1.0, 0.5], [2.0, 4.0]], dtype=DOUBLE)
    expected = torch.tensor([[[0.0, 5.0], [1.0, 5.0]], [[0.0, 7.0], [-2.0, 9.0]]], dtype=DOUBLE)
    assert torch.allclose(interpolate(at, knots, values), expected)
    assert interpolate(at[0, 1], knots, values[:, 0]).shape == ()


def network(channels: int, seed: int = 0, head: float = 0.0) -> SpectralOperator:
    torch.manual_seed(seed)
    net = SpectralOperator(channels, 1, (4,), width=8, blocks=1)
    if head:
        nn.init.normal_(net.head.weight, std=head)
        nn.init.normal_(net.body[0].film.linear.weight, std=0.1)
    return net.double()


@kinds
def test_an_untrained_network_is_its_base(kind: type[VE]) -> None:
    process = kind(White(), CLOCK)
    x_t = torch.randn(3, 1, N, generator=torch.manual_seed(0), dtype=DOUBLE)
    t = torch.tensor([0.2, 0.5, 0.9], dtype=DOUBLE).view(3, 1, 1)
    base = Gaussian(mean_field(), smooth(1.5, 0.3), process)
    found = Preconditioned(network(2), process, base)(x_t, t, Context())
    assert torch.allclose(found, base(x_t, t, Context()))
    # without a base: the posterior mean of N(0, I), which is Karras' skip at sigma_data = 1
    unit = Gaussian(torch.zeros(()), White(1.0), process)
    found = Preconditioned(network(1), process)(x_t, t, Context())
    assert torch.allclose(found, unit(x_t, t, Context()))


def test_an_anchor_is_taken_out_before_anything_sees_x_t() -> None:
    class Pulled(VP):
        def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            alpha, _, sigma = VP.coefficients(self, t)
            return alpha, 0.5 * t.double(), sigma

    x_t, anchor = torch.randn(2, 3, 1, N, generator=torch.manual_seed(0), dtype=DOUBLE)
    t = torch.tensor(0.6, dtype=DOUBLE)
    base = Gaussian(mean_field(), smooth(1.5, 0.3), VP(clock=CLOCK))
    for given in (None, base):
        net = network(1 if given is None else 2, head=0.5)
        free = Preconditioned(net, VP(clock=CLOCK), given)(x_t, t, Context())
        pulled = Preconditioned(net, Pulled(clock=CLOCK), given)
        assert torch.allclose(pulled(x_t + 0.3 * anchor, t, Context(anchor=anchor)), free)


def test_karras_coefficients() -> None:
    """Eq. 7 and table 1 at sigma_data = 1: c_skip, c_out, c_in."""

    class Echo(nn.Module):
        def forward(self, x: Tensor, log_kappa: Tensor, context: Context) -> Tensor:
            self.seen = x, log_kappa
            return torch.ones_like(x)

    echo, process = Echo(), VE(clock=CLOCK)
    x_t, t = torch.full((1, 1, 4), 3.0, dtype=DOUBLE), torch.tensor(0.6, dtype=DOUBLE)
    k = float(process.kappa(t))
    found = Preconditioned(echo, process)(x_t, t, Context())
    assert torch.allclose(found, 3 / (1 + k**2) + k / (1 + k**2) ** 0.5 * torch.ones_like(x_t))
    assert torch.allclose(echo.seen[0], x_t / (1 + k**2) ** 0.5)
    assert float(echo.seen[1]) == pytest.approx(math.log(k))


@pytest.mark.parametrize("based", [False, True])
def test_a_network_answers_the_same_under_another_process(based: bool) -> None:
    """Only kappa is information: x_t = alpha u, the same u and kappa, the same answer."""
    u = torch.randn(3, 1, N, generator=torch.manual_seed(0), dtype=DOUBLE)
    base = Gaussian(mean_field(), smooth(1.5, 0.3), VE(clock=CLOCK)) if based else None
    net = network(2 if based else 1, head=0.5)
    answers = []
    for process in (
        VE(clock=CLOCK),
        VP(clock=CLOCK),
        Flow(clock=CLOCK),
        VP(clock=LogLinear(1e-3, 1e3)),
    ):
        kappa = torch.tensor([0.05, 1.0, 30.0], dtype=DOUBLE).view(3, 1, 1)
        t = process.clock.time(kappa)
        alpha = process.coefficients(t)[0]
        # the base keeps the process it was made with; the model's own one counts
        answers.append(Preconditioned(net, process, base)(alpha * u, t, Context()))
    for answer in answers[1:3]:
        assert torch.allclose(answer, answers[0], atol=1e-10)
    assert torch.allclose(answers[3], answers[0], atol=2e-3)  # the scale is tabulated on the clock
    kappa = torch.tensor(1.0, dtype=DOUBLE)
    if base is not None:
        silent = base(u[1:2], VE(clock=CLOCK).clock.time(kappa), Context())
        assert not torch.allclose(answers[0][1:2], silent, atol=1e-2)


def test_a_scale_belongs_to_its_grid() -> None:
    """What a denoiser saw before must not change its answer on another grid."""
    process, t = VE(clock=CLOCK), torch.tensor(0.5, dtype=DOUBLE)
    base = Gaussian(torch.zeros(()), smooth(1.5, 0.3), process)
    coarse, fine = torch.zeros(1, 1, N, dtype=DOUBLE), torch.zeros(1, 1, 4 * N, dtype=DOUBLE)
    fresh = Preconditioned(network(2), process, base).scale(t, fine)
    used = Preconditioned(network(2), process, base)
    assert float(used.scale(t, coarse)) != pytest.approx(float(fresh), rel=0.05)
    assert float(used.scale(t, fine)) == float(fresh)


def losses(
    denoiser: Preconditioned, x: Tensor, time: float, measure: Tensor | None = None
) -> Tensor:
    t = torch.full((len(x), 1, 1), time, dtype=DOUBLE)
    return denoising_loss(
        denoiser, x, t, Context(), measure=measure, rng=Streams.of(5, len(x)).at("loss")
    ).detach()


@pytest.mark.parametrize("based", [False, True])
@pytest.mark.parametrize("kind", KINDS, ids=lambda k: k.__name__)
def test_the_exact_denoiser_scores_one_and_no_other_is_better(based: bool, kind: type[VE]) -> None:
    process, count = kind(White(), CLOCK), 1500
    prior: Covariance = smooth(1.5, 0.3) if based else White()
    base = Gaussian(mean_field() if based else torch.zeros(()), prior, process)
    x = base.sample(torch.zeros(count, 1, N, dtype=DOUBLE), Streams.of(2, count))
    given = base if based else None
    exact = Preconditioned(network(2 if based else 1), process, given)
    others = [
        Preconditioned(network(2 if based else 1, seed, head=0.3), process, given)
        for seed in (1, 2, 3)
    ]
    for time in (0.05, 0.3, 0.5, 0.7, 0.95):
        best = losses(exact, x, time)
        error = float(best.std()) / count**0.5
        assert float(best.mean()) == pytest.approx(1, abs=4 * error + 1e-3)
        assert error < 0.05
        for other in others:
            worse = losses(other, x, time) - best
            assert float(worse.mean()) > 3 * float(worse.std()) / count**0.5


def test_the_measure_weighs_grid_values() -> None:
    """A mask leaves the masked values out; weights count relative to each other."""
    process = VE(clock=CLOCK)
    denoiser = Preconditioned(network(1, head=0.5), process)
    x = torch.randn(6, 1, N, generator=torch.manual_seed(0), dtype=DOUBLE)
    t = torch.full((6, 1, 1), 0.5, dtype=DOUBLE)
    rng = Streams.of(5, 6).at("loss")
    x_t, _ = process.forward(x, t, None, rng)
    gap2 = ((denoiser(x_t, t, Context()) - x) / denoiser.scale(t, x)).square().detach()
    mask = (torch.arange(N) % 3 > 0).double().view(1, 1, N)
    assert torch.allclose(losses(denoiser, x, 0.5, mask), gap2[:, :, mask[0, 0] > 0].mean((1, 2)))
    weight = torch.linspace(1, 3, N, dtype=DOUBLE).view(1, 1, N)
    expected = (gap2 * weight).sum((1, 2)) / weight.sum()
    assert torch.allclose(losses(denoiser, x, 0.5, 7 * weight), expected)
    assert torch.allclose(losses(denoiser, x, 0.5), gap2.mean((1, 2)))


def test_a_gaussian_draws_its_own_law() -> None:
    gaussian = Gaussian(mean_field(), smooth(1.5, 0.3), VE())
    x = gaussian.sample(torch.zeros(4000, 1, N, dtype=DOUBLE), Streams.of(1, 4000)).flatten(1)
    sigma = dense(smooth(1.5, 0.3))
    z = (x.mean(0) - mean_field()[0]) / (sigma.diagonal() / 4000).sqrt()
    assert float(z.abs().max()) < 4.5
    ratio = x.var(0) / sigma.diagonal()
    assert float((ratio - 1).abs().max()) < 4.5 * (2 / 4000) ** 0.5


def test_processes_are_values() -> None:
    process: Process = VP(clock=CLOCK)
    assert process == VP(clock=LogLinear(0.02, 50.0)) and process != VP()


def test_a_cross_fitted_base_never_sees_its_own_block() -> None:
    """In training each row has the base fitted without its block; in use, that of the whole."""
    process = VP(clock=CLOCK)
    whole, *parts = (
        Gaussian(mean_field() * s, smooth(1.5, length), process)
        for s, length in ((1.0, 0.3), (2.0, 0.2), (3.0, 0.4), (4.0, 0.1))
    )
    crossed = CrossFitted(whole, parts, (0, 5, 7, 20))
    x_t = torch.randn(5, 1, N, generator=torch.manual_seed(0), dtype=DOUBLE)
    t = torch.linspace(0.2, 0.9, 5, dtype=DOUBLE).view(5, 1, 1)
    index = torch.tensor([19, 0, 6, 4, 5])
    found = crossed(x_t, t, Context(index=index))
    for row, block in enumerate((2, 0, 1, 0, 1)):
        alone = parts[block](x_t[row : row + 1], t[row : row + 1], Context())
        assert torch.allclose(found[row : row + 1], alone)
    assert torch.equal(crossed(x_t, t, Context()), whole(x_t, t, Context()))
    # and under the process of the model that it serves
    flow = Flow(clock=CLOCK)
    model = Preconditioned(network(2), flow, crossed)
    u = x_t / flow.coefficients(t)[0]
    same = process.coefficients(t)[0] * u
    assert torch.allclose(
        model(x_t, t, Context(index=index)), crossed(same, t, Context(index=index))
    )
    assert torch.allclose(
        model.scale(t, x_t), Preconditioned(network(2), flow, whole).scale(t, x_t)
    )
