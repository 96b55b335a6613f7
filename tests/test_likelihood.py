"""Log-likelihoods against closed forms and quadrature; the mean that a score should not have."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from sciddm.basis import Cosine, Periodic
from sciddm.covariance import (
    Covariance,
    LowRank,
    Matern,
    MaternKernel,
    Points,
    Spectral,
    White,
    ZeroMean,
)
from sciddm.denoise import Context, Denoiser, Gaussian, Mixture, Preconditioned
from sciddm.errors import InputError
from sciddm.guide import DPS
from sciddm.likelihood import Centred, centred, gaussian_log_prob, log_prob, quadrature, rademacher
from sciddm.nn import SpectralOperator
from sciddm.observe import Observation, points
from sciddm.process import VE, VP, Bridge, Clocked, Flow, LogLinear, MeanReverting, Process, SubVP
from sciddm.random import Streams, normal
from sciddm.solve import Euler, Heun, Multistep, Singlestep, Solver

DOUBLE = torch.float64
N = 16
CLOCK = LogLinear(0.02, 1000.0)
SMOOTH = Spectral(Matern(0.3, 1.5, 1.4), (1.0,), Cosine())
ROUGH = Spectral(Matern(0.2, 0.5), (1.0,), Cosine())
MEAN = torch.linspace(-1, 2, N, dtype=DOUBLE).view(1, N)
LIKE = torch.zeros(6, 1, N, dtype=DOUBLE)


def lowrank() -> LowRank:
    noise = torch.randn(N, 5, generator=torch.manual_seed(1), dtype=DOUBLE)
    modes = torch.linalg.qr(noise).Q.T.reshape(5, 1, N)
    return LowRank(modes, torch.tensor([9.0, 4.0, 2.0, 1.0, 0.5], dtype=DOUBLE), 0.2)


SCATTERED = Points(torch.linspace(0, 1, N, dtype=DOUBLE)[:, None] ** 1.5, MaternKernel(0.4, 1.5))
PAIRS: dict[str, tuple[Covariance, Covariance]] = {
    "smooth in white": (SMOOTH, White(1.5)),
    "periodic in white": (Spectral(Matern(0.3, 0.5), (1.0,), Periodic()), White(1.0)),
    "smooth in matern": (SMOOTH, ROUGH),
    "low rank in white": (lowrank(), White(0.8)),
    "scattered in white": (SCATTERED, White(1.0)),
}
pairs = pytest.mark.parametrize(("prior", "noise"), PAIRS.values(), ids=PAIRS.keys())


class Opaque(Denoiser):
    """A denoiser that nobody knows to be Gaussian, moved by the context's fields where given."""

    def __init__(self, inner: Denoiser, bias: float = 0.0) -> None:
        nn.Module.__init__(self)
        self.inner, self.process, self.bias = inner, inner.process, bias

    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        if context.fields is None:
            return self.inner(x_t, t, context) + self.bias
        alpha = self.process.coefficients(t)[0].to(x_t)
        return context.fields + self.inner(x_t - alpha * context.fields, t, Context())


def gaussian(process: Process, prior: Covariance = SMOOTH) -> Gaussian:
    return Gaussian(MEAN, prior, process)


def drawn(law: Gaussian, rows: int = 6) -> Tensor:
    """Fields at the least noise level of the clock, where the closed form is exact."""
    like = LIKE[:1].expand(rows, 1, N)
    noise = law.process.noise.sample(like, Streams.of(2, rows))
    return law.sample(like, Streams.of(1, rows)) + CLOCK.kappa_min * noise


@pairs
def test_the_gaussian_density_is_the_dense_one(prior: Covariance, noise: Covariance) -> None:
    law, kappa = gaussian(VP(noise, CLOCK), prior), torch.tensor(0.3, dtype=DOUBLE)
    unit = torch.eye(N, dtype=DOUBLE).view(N, 1, N)
    dense = (prior(unit) + kappa**2 * noise(unit)).flatten(1)
    u = torch.randn(5, 1, N, generator=torch.manual_seed(0), dtype=DOUBLE)
    normal = torch.distributions.MultivariateNormal(MEAN[0], 0.5 * (dense + dense.T))
    assert torch.allclose(gaussian_log_prob(law, u, kappa), normal.log_prob(u[:, 0]), atol=1e-8)


@pairs
def test_the_gaussian_oracle(prior: Covariance, noise: Covariance) -> None:
    """Within 1e-4 nats a dimension of the closed form at 64 steps; within 1e-3 at 24 with nothing
    but the trace of the network and the noise at the end."""
    law = gaussian(VP(noise, CLOCK), prior)
    x = drawn(law)
    truth = gaussian_log_prob(law, x, torch.tensor(CLOCK.kappa_min))
    found = log_prob(law, x)
    assert float((found - truth).abs().max()) < 1e-4 * N
    assert float((log_prob(Opaque(law), x, steps=24) - truth).abs().max()) < 1e-3 * N


@pytest.mark.parametrize(
    "process",
    [
        VE(clock=CLOCK),
        SubVP(clock=CLOCK),
        Flow(clock=CLOCK),
        MeanReverting(clock=CLOCK),
        Bridge(VP(clock=CLOCK), 2.0),
    ],
    ids=lambda p: type(p).__name__,
)
def test_the_density_is_the_same_under_every_process(process: Process) -> None:
    x = drawn(gaussian(VP(clock=CLOCK)))
    context = Context(anchor=torch.randn(x.shape, generator=torch.manual_seed(2), dtype=DOUBLE))
    found = log_prob(Opaque(gaussian(process)), x, context, steps=16)
    assert torch.allclose(
        found, log_prob(Opaque(gaussian(VP(clock=CLOCK))), x, steps=16), atol=1e-6
    )


@pytest.mark.parametrize(
    ("solver", "order", "noise"),
    [
        (Euler(), 1, White()),
        (Multistep(), 2, ROUGH),
        (Heun(), 2, White()),
        (Singlestep(3), 3, ROUGH),
    ],
    ids=["Euler", "Multistep", "Heun", "Singlestep"],
)
def test_the_error_has_the_order_of_the_solver(
    solver: Solver, order: int, noise: Covariance
) -> None:
    law = gaussian(VP(noise, CLOCK))
    x = drawn(law)
    truth = gaussian_log_prob(law, x, torch.tensor(CLOCK.kappa_min))
    steps = (129, 257)
    coarse, fine = (
        float((log_prob(law, x, steps=n, solver=solver) - truth).abs().mean()) for n in steps
    )
    assert coarse / fine == pytest.approx(2**order, rel=0.2)


@pytest.mark.parametrize("count", [4, 5, 9])
def test_the_quadrature_is_exact_for_cubics(count: int) -> None:
    nodes = torch.linspace(0.5, 2, count, dtype=DOUBLE) ** 2
    powers = nodes ** torch.arange(4, dtype=DOUBLE)[:, None]
    found, order = powers @ quadrature(nodes), torch.arange(1, 5, dtype=DOUBLE)
    assert torch.allclose(found, (nodes[-1] ** order - nodes[0] ** order) / order)
    assert torch.allclose(quadrature(nodes[:2]).sum(), nodes[1] - nodes[0])


def test_unit_vectors_give_the_closed_trace() -> None:
    """The same path, the same density: only the trace is found another way."""
    law = gaussian(VP(ROUGH, CLOCK))
    x = drawn(law)
    assert torch.allclose(
        log_prob(Opaque(law), x, steps=24, base=law), log_prob(law, x, steps=24), atol=1e-8
    )


@pytest.mark.parametrize("kind", [VE, VP, Flow], ids=lambda k: k.__name__)
def test_the_mixture_oracle(kind: type[VE]) -> None:
    """Three separate modes in four dimensions, within 1e-3 nats a dimension at 96 steps."""
    means = 3 * torch.randn(3, 1, 4, generator=torch.manual_seed(3), dtype=DOUBLE)
    weights = torch.tensor([0.5, 0.3, 0.2], dtype=DOUBLE)
    clock = LogLinear(0.05, 300.0)
    mixture = Mixture(means, weights, 0.4, kind(White(), clock))
    x = means.repeat_interleave(3, 0) + 0.6 * torch.randn(
        9, 1, 4, generator=torch.manual_seed(4), dtype=DOUBLE
    )
    variance = 0.4**2 + clock.kappa_min**2
    square = (x[:, None] - means[None]).square().sum((-1, -2))
    parts = weights.log() - 0.5 * square / variance - 2 * math.log(2 * math.pi * variance)
    truth = parts.logsumexp(1)
    errors = [float((log_prob(mixture, x, steps=n) - truth).abs().max()) for n in (48, 96)]
    assert errors[1] < 1e-3 * 4
    assert errors[0] / errors[1] > 5


class Bent(Denoiser):
    """No posterior mean of any law, but a smooth flow."""

    def __init__(self, process: Process) -> None:
        nn.Module.__init__(self)
        self.process = process

    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        alpha, kappa = self.process.coefficients(t)[0], self.process.kappa(t)
        u = x_t / alpha
        return (u + 0.3 * torch.sin(2 * u)) / (1 + kappa**2)


@pytest.mark.parametrize("kind", [VE, Flow], ids=lambda k: k.__name__)
def test_the_density_of_any_network_integrates_to_one(kind: type[VE]) -> None:
    denoiser = Bent(kind(White(0.7), LogLinear(0.1, 100.0)))
    grid = torch.linspace(-12, 12, 1601, dtype=DOUBLE)
    density = log_prob(denoiser, grid.view(-1, 1, 1), steps=64).exp()
    assert float(torch.trapezoid(density, grid)) == pytest.approx(1, abs=2e-3)


def test_hutchinson_is_the_trace_on_average() -> None:
    """Over the probes sqrt(D) e_i, all D of them, the estimate is the trace itself."""

    def each(like: Tensor, rng: Streams) -> Tensor:
        probe = torch.zeros_like(like)
        probe[..., rng.step % N] = N**0.5
        return probe

    law = gaussian(VP(ROUGH, CLOCK))
    x, rng = drawn(law), Streams.of(0, 6)
    exact = log_prob(Opaque(law), x, steps=16)
    found = log_prob(Opaque(law), x, steps=16, probes=N, rng=rng, probe=each)
    assert torch.allclose(found, exact, atol=1e-8)


@pytest.mark.parametrize("probe", [rademacher, normal], ids=["rademacher", "normal"])
def test_hutchinson_scatters_as_its_variance_says(probe: object) -> None:
    """Signs: 2 sum of the squares off the diagonal of the symmetric part; normals: all of them."""
    law = gaussian(VE(White(), CLOCK))
    rows = 400
    x = drawn(law)[:1].expand(rows, 1, N)
    exact = log_prob(Opaque(law), x[:1], steps=16)
    found = log_prob(Opaque(law), x, steps=16, probes=2, rng=Streams.of(5, rows), probe=probe)  # type: ignore[arg-type]
    level = law.process.kappa(law.process.times(16))
    width = quadrature(level.log().flip(0)).flip(0)
    unit = torch.eye(N, dtype=DOUBLE)
    variance = 0.0
    for k, w in zip(level, width, strict=True):
        jacobian = SMOOTH.joint(unit.view(N, 1, N), White(), lambda p, c, k=k: p / (p + k**2 * c))
        square = jacobian.flatten(1).square()
        part = square.sum() - (square.diagonal().sum() if probe is rademacher else 0)
        variance += float(w**2 * 2 * part / 2)
    assert abs(float((found - exact).mean())) < 4 * (variance / rows) ** 0.5
    assert float(found.var()) == pytest.approx(variance, rel=4 * (2 / rows) ** 0.5)


def test_probes_are_addressed_and_a_base_takes_its_part() -> None:
    law = gaussian(VE(White(), CLOCK))
    x = drawn(law)
    first = log_prob(Opaque(law), x, steps=12, probes=1, rng=Streams.of(3, 6))
    other = log_prob(Opaque(law), x[[4, 1]], steps=12, probes=1, rng=Streams.of(3, (4, 1)))
    assert torch.allclose(other, first[[4, 1]], rtol=0, atol=1e-9)
    assert not torch.allclose(
        first, log_prob(Opaque(law), x, steps=12, probes=1, rng=Streams.of(4, 6))
    )
    # the base explains the whole of this trace: one probe is exact
    found = log_prob(Opaque(law), x, steps=12, probes=1, rng=Streams.of(3, 6), base=law)
    assert torch.allclose(found, log_prob(law, x, steps=12), atol=1e-8)


def test_a_condition_moves_the_density() -> None:
    law = gaussian(VP(White(), CLOCK))
    x, field = drawn(law), torch.randn(6, 1, N, generator=torch.manual_seed(8), dtype=DOUBLE)
    moved = log_prob(Opaque(law), x + field, Context(fields=field), steps=24, base=law)
    # the base stands elsewhere; the law at the end takes its mean from the denoiser
    assert torch.allclose(moved, log_prob(law, x, steps=24), atol=1e-5)


def test_a_float32_network_with_a_base() -> None:
    """Exact trace and 60 probes agree; so do blocks of unit vectors and the whole Jacobian."""
    torch.manual_seed(0)
    process = VE(White(), LogLinear(0.05, 50.0))
    base = Gaussian(torch.zeros(()), SMOOTH, process)
    backbone = SpectralOperator(2, 1, (8,), width=8, blocks=1)
    nn.init.normal_(backbone.head.weight, std=0.2)
    network = Preconditioned(backbone, process, base)
    x = base.sample(LIKE[:2], Streams.of(0, 2))
    exact = log_prob(network, x, steps=12, base=base)
    assert exact.dtype == DOUBLE and bool(torch.isfinite(exact).all())
    found = log_prob(network, x, steps=12, base=base, probes=60, rng=Streams.of(1, 2))
    assert torch.allclose(found, exact, atol=0.5)
    assert float((exact - log_prob(base, x, steps=12)).abs().min()) > 0.1


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"x": LIKE.log()}, "not finite"),
        ({"x": LIKE[0]}, "B, C"),
        ({"steps": 1}, "at least 2"),
        ({"probes": 4}, "addresses"),
        ({"probes": 0, "rng": Streams.of(0, 6)}, "at least one probe"),
        ({"solver": Euler(1.0)}, "deterministic"),
        ({"kappa_max": 1e9}, "within"),
        ({"denoiser": gaussian(VE(Spectral(ZeroMean(Matern(0.3)), (1.0,), Cosine())))}, "ZeroMean"),
        ({"denoiser": gaussian(Clocked(VE(), torch.linspace(0, 1, N)))}, "no clock per"),
    ],
    ids=lambda c: "-".join(c) if isinstance(c, dict) else "",
)
def test_bad_input(change: dict[str, object], match: str) -> None:
    given: dict[str, object] = {"denoiser": gaussian(VE()), "x": LIKE, **change}
    with pytest.raises(InputError, match=match):
        log_prob(**given)  # type: ignore[arg-type]


def test_a_rule_without_a_gradient_is_refused() -> None:
    law = gaussian(VE())
    seen = Observation(torch.ones(1), points([0], torch.zeros(1, 1), (N,)), torch.tensor(0.1))
    with pytest.raises(InputError, match="gives no gradient"):
        log_prob(DPS(law, seen), LIKE, steps=4)


def test_centring_takes_exactly_the_squared_mean() -> None:
    """At every knot and between them; with its weight; and more likely data for it."""
    law = gaussian(VP(White(), LogLinear(0.05, 50.0)))
    x = law.sample(LIKE, Streams.of(0, 6))
    x = torch.cat([x, 2 * MEAN - x])
    rng = Streams.of(1, 12)
    exact, biased = centred(law, x, rng), Opaque(law, bias=0.3)
    assert float(exact.means.abs().max()) < 1e-12  # a score has no mean
    mended = centred(biased, x, rng)
    t = torch.tensor([0.31, 0.77], dtype=DOUBLE).repeat(6).view(12, 1, 1)
    x_t, _ = law.process.forward(x, t, rng=rng)
    assert torch.allclose(mended(x_t, t, Context()), law(x_t, t, Context()))
    assert float(log_prob(mended, x, steps=24).mean()) > float(log_prob(biased, x, steps=24).mean())

    # an error that is no constant: the loss over the very draws that it was measured on
    bent = Bent(law.process)
    mended = centred(bent, x, rng, levels=5)
    for k, t in enumerate(law.process.times(5).flip(0)):
        alpha, _, sigma = law.process.coefficients(t)
        z = rng.at("centre", k).normal(x)
        noised = torch.cat([alpha * x + sigma * z, alpha * x - sigma * z])
        twice = torch.cat([x, x])
        loss, less = (
            ((d(noised, t, Context()) - twice) ** 2).mean(0) * 7.0 for d in (bent, mended)
        )
        assert torch.allclose(loss - less, 7.0 * mended.means[k] ** 2)
        assert float(mended.means[k].abs().max()) > 1e-3


def test_centring_wants_a_mean_a_knot() -> None:
    with pytest.raises(InputError, match="as many"):
        Centred(gaussian(VE()), torch.tensor([0.0, 1.0]), torch.zeros(3, 1, N))
