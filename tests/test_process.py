"""Processes: the law of x_t, what only kappa decides, the one kernel, a clock per cell."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from sciddm.basis import Cosine
from sciddm.covariance import Covariance, Matern, Spectral, White
from sciddm.denoise import Context, Denoiser, Gaussian
from sciddm.errors import InputError
from sciddm.process import VE, VP, Clocked, Flow, LinearSigma, LogLinear, Process
from sciddm.random import Streams
from sciddm.solve import Diffusion, Euler, Heun, Multistep, Solver, trajectory, transition

DOUBLE = torch.float64
CLOCK = LogLinear(0.05, 20.0)
MATERN = Spectral(Matern(0.3, 1.5), (1.0,), Cosine())
PROCESSES = [VE(clock=CLOCK), VP(clock=CLOCK), Flow(clock=CLOCK)]
processes = pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
noises = pytest.mark.parametrize("noise", [White(1.0), MATERN], ids=["white", "matern"])


def dense(law: Covariance, shape: tuple[int, ...]) -> Tensor:
    size = torch.Size(shape).numel()
    return law(torch.eye(size, dtype=DOUBLE).view(size, *shape)).flatten(1)


def test_what_defines_each_process() -> None:
    t = torch.linspace(0, 1, 21, dtype=DOUBLE).view(-1, 1, 1)
    ve, vp, flow = (p.coefficients(t) for p in PROCESSES)
    assert torch.equal(ve[0], torch.ones_like(t))
    assert torch.allclose(vp[0] ** 2 + vp[2] ** 2, torch.ones_like(t))
    assert torch.allclose(flow[0] + flow[2], torch.ones_like(t))
    for process in PROCESSES:
        alpha, beta, sigma = process.coefficients(t)
        assert torch.allclose(sigma / alpha, CLOCK.kappa(t))
        assert torch.allclose(process.kappa(t), CLOCK.kappa(t))
        assert torch.equal(beta, torch.zeros_like(t))
        assert alpha.dtype == DOUBLE and alpha.shape == t.shape
        # float32 times lose nothing but their own digits
        assert process.coefficients(t.float())[0].dtype == DOUBLE


@pytest.mark.parametrize("clock", [LogLinear(1e-3, 1e3), LinearSigma(1e-3)], ids=str)
def test_a_clock_rises_and_has_an_inverse(clock: LogLinear | LinearSigma) -> None:
    t = torch.linspace(0, 1, 101, dtype=DOUBLE)
    kappa = clock.kappa(t)
    assert bool((kappa.diff() > 0).all()) and float(kappa[0]) > 0
    assert torch.allclose(clock.time(kappa), t, atol=1e-12)


def test_the_clocks_are_what_they_say() -> None:
    t = torch.linspace(0, 1, 11, dtype=DOUBLE)
    steps = LogLinear(1e-2, 1e2).kappa(t).log().diff()
    assert torch.allclose(steps, steps.mean().expand(10))
    sigma = Flow(clock=LinearSigma(1e-3)).coefficients(t)[2]
    assert torch.allclose(sigma, 1e-3 + (1 - 2e-3) * t)


@processes
@noises
def test_the_marginal_law(process: Process, noise: Covariance) -> None:
    """x_t given x is N(alpha x, sigma^2 C): mean and whitened covariance by their own errors."""
    process, count = replace(process, noise=noise), 6000
    x = torch.linspace(-2, 3, 9, dtype=DOUBLE).view(1, 1, 9)
    t = torch.tensor(0.6, dtype=DOUBLE)
    alpha, _, sigma = process.coefficients(t)
    x_t, z = process.forward(x.expand(count, 1, 9), t, rng=Streams.of(3, count))
    values, vectors = torch.linalg.eigh(dense(noise, (1, 9)))
    white = (x_t - alpha * x).flatten(1) @ vectors / (sigma * values.sqrt())
    assert float((white.mean(0) * count**0.5).abs().max()) < 4
    eye = torch.eye(9, dtype=DOUBLE)
    assert float(((white.T @ white / count - eye) * (count / (1 + eye)).sqrt()).abs().max()) < 4.5
    # the clean field and the noise are found again
    assert torch.allclose(process.residual(x_t, x, t), z, atol=1e-12)
    start = process.start(x.expand(count, 1, 9), t, rng=Streams.of(3, count))
    assert torch.allclose(start, sigma * z)


def test_one_time_a_row_is_the_same_as_each_alone() -> None:
    process, x = VP(noise=MATERN, clock=CLOCK), torch.randn(4, 1, 9, dtype=DOUBLE)
    t = torch.tensor([0.1, 0.4, 0.8, 1.0], dtype=DOUBLE).view(4, 1, 1)
    together, _ = process.forward(x, t, rng=Streams.of(0, 4))
    for i in range(4):
        alone, _ = process.forward(x[i : i + 1], t[i, 0, 0], rng=Streams.of(0, [i]))
        assert torch.allclose(together[i : i + 1], alone)


def test_an_anchor_enters_with_its_own_weight() -> None:
    class Pulled(VE):
        def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            alpha, _, sigma = VE.coefficients(self, t)
            return alpha, 0.3 * t.double(), sigma

    process, x = Pulled(clock=CLOCK), torch.randn(2, 1, 5, dtype=DOUBLE)
    anchor, t = torch.randn(2, 1, 5, dtype=DOUBLE), torch.tensor(0.7, dtype=DOUBLE)
    rng = Streams.of(0, 2)
    x_t, z = process.forward(x, t, anchor, rng)
    assert torch.allclose(x_t - process.forward(x, t, None, rng)[0], 0.21 * anchor)
    assert torch.allclose(process.residual(x_t, x, t, anchor), z)
    s = torch.tensor(0.2, dtype=DOUBLE)
    moved = transition(process, x_t, x, t, s, anchor=anchor)
    assert torch.allclose(moved, process.forward(x, s, anchor, rng)[0])


@processes
def test_grids_are_even_in_log_kappa(process: Process) -> None:
    times = process.times(17)
    kappa = process.kappa(times)
    assert kappa[0].item() == pytest.approx(20.0) and kappa[-1].item() == pytest.approx(0.05)
    steps = kappa.log().diff()
    assert bool((steps < 0).all()) and float(steps.std() / steps.mean().abs()) < 1e-9
    inner = process.kappa(process.times(5, kappa_max=10.0, kappa_min=0.1))
    assert inner[[0, -1]].tolist() == pytest.approx([10.0, 0.1])


@pytest.mark.parametrize(
    ("steps", "high", "low", "said"),
    [
        (1, None, None, "at least 2"),
        (8, 30.0, None, "within the clock"),
        (8, None, 0.01, "within the clock"),
        (8, 0.1, 1.0, "increasing pair"),
        (8, float("nan"), None, "within the clock"),
    ],
)
def test_grids_outside_the_clock_are_refused(
    steps: int, high: float | None, low: float | None, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        VE(clock=CLOCK).times(steps, high, low)


@pytest.mark.parametrize("pair", [(0.0, 1.0), (1.0, 1.0), (2.0, 1.0), (1.0, float("inf"))])
def test_a_clock_without_two_finite_ends_is_refused(pair: tuple[float, float]) -> None:
    with pytest.raises(InputError, match="kappa_min < kappa_max"):
        LogLinear(*pair)


@processes
def test_an_ancestral_step_has_the_reverse_markov_law(process: Process) -> None:
    """One dimension, X known: u_t = u_s + sqrt(kappa_t^2 - kappa_s^2) w gives
    u_s | u_t, x ~ N(x + (kappa_s/kappa_t)^2 (u_t - x), kappa_s^2 (1 - (kappa_s/kappa_t)^2))."""
    t, s = (torch.tensor(v, dtype=DOUBLE) for v in (0.7, 0.55))
    (alpha_t, _, _), (alpha_s, _, _) = process.coefficients(t), process.coefficients(s)
    k_t, k_s = process.kappa(t), process.kappa(s)
    x, u = torch.full((5, 1, 1), 0.8, dtype=DOUBLE), torch.linspace(-3, 3, 5).double().view(5, 1, 1)
    rng = Streams.of(0, 5)
    u_s = transition(process, alpha_t * u, x, t, s, eta=1.0, rng=rng) / alpha_s
    silent = replace(process, noise=White(0.0))
    mean = transition(silent, alpha_t * u, x, t, s, eta=1.0, rng=rng) / alpha_s
    assert torch.allclose(mean, x + (k_s / k_t) ** 2 * (u - x))
    std = (u_s - mean) / rng.normal(u)
    assert torch.allclose(std**2, (k_s**2 * (1 - (k_s / k_t) ** 2)).expand_as(std))


@processes
@noises
def test_every_eta_keeps_the_marginal(process: Process, noise: Covariance) -> None:
    """X known: from N(x, kappa_t^2 C) a step leads to N(x, kappa_s^2 C), whatever eta."""
    process = replace(process, noise=noise)
    t, s = (torch.tensor(v, dtype=DOUBLE) for v in (0.7, 0.55))
    (_, _, sigma_t), (_, _, sigma_s) = process.coefficients(t), process.coefficients(s)
    x = torch.zeros(9, 1, 9, dtype=DOUBLE)
    z = torch.eye(9, dtype=DOUBLE).view(9, 1, 9)
    c = dense(noise, (1, 9))
    for eta in (0.0, 0.5, 1.0):
        silent = replace(process, noise=White(0.0))
        kept = transition(silent, sigma_t * z, x, t, s, eta=eta).flatten(1)
        rng = Streams.of(0, 1)
        still = torch.zeros(1, 1, 9, dtype=DOUBLE)
        fresh = transition(process, still, still, t, s, eta=eta, rng=rng)
        drawn = noise.sample(still, rng)
        scale = float((fresh * drawn).sum() / drawn.square().sum())
        assert torch.allclose(fresh, scale * drawn, atol=1e-12)
        total = kept.T @ c @ kept + scale**2 * c
        assert torch.allclose(total, sigma_s**2 * c)


def draws(process: Process, solver: Solver, clock_range: tuple[float, float]) -> Tensor:
    prior = Spectral(Matern(0.4, 2.5, 1.5), (1.0,), Cosine())
    denoiser = Gaussian(torch.tensor(0.3), prior, process)
    sampler = Diffusion(denoiser, solver, 12, *clock_range)
    return sampler((5, 1, 8), Context(), Streams.of(1, 5))


@pytest.mark.parametrize(
    "solver", [Euler(), Euler(1.0), Heun(), Multistep()], ids=["ode", "sde", "heun", "multistep"]
)
@noises
def test_only_kappa_is_information(solver: Solver, noise: Covariance) -> None:
    """The same noise gives the same draw under another scale, and on another clock."""
    first = draws(VE(noise, CLOCK), solver, (10.0, 0.1))
    for kind in (VE, VP, Flow):
        for clock in (CLOCK, LogLinear(1e-3, 1e3), LinearSigma(1e-3)):
            other = draws(kind(noise, clock), solver, (10.0, 0.1))
            assert torch.allclose(other, first, atol=2e-4)
    assert not torch.allclose(draws(VE(noise, CLOCK), solver, (10.0, 0.2)), first, atol=2e-3)


DELAY = torch.tensor([0.0, 0.3, 1.0], dtype=DOUBLE).view(1, 1, 3, 1)


@processes
def test_a_clock_per_frame_starts_and_ends_like_its_base(process: Process) -> None:
    t = torch.linspace(0, 1, 9, dtype=DOUBLE)
    still = Clocked(process, DELAY, span=0.0)
    for time in t:
        for a, b in zip(still.coefficients(time), process.coefficients(time), strict=True):
            assert torch.allclose(a, b.expand_as(a))
    moving = Clocked(process, DELAY, span=1.5)
    for time in (t[0], t[-1]):
        assert torch.allclose(moving.kappa(time), process.kappa(time).expand(1, 1, 3, 1))
    kappa = torch.cat([moving.kappa(time) for time in t])[:, 0, :, 0]
    assert bool((kappa.diff(dim=0) >= 0).all())
    # a larger delay becomes clean later
    assert bool((kappa.diff(dim=1) >= 0).all()) and bool((kappa[4].diff() > 0).all())
    # delay 0 is clean at span / (1 + span), delay 1 starts to move at 1 / (1 + span)
    clean, start = (torch.tensor(v, dtype=DOUBLE) for v in (1.5 / 2.5, 1 / 2.5))
    assert float(moving.kappa(clean)[0, 0, 0, 0]) == pytest.approx(0.05)
    assert float(moving.kappa(start)[0, 0, 2, 0]) == pytest.approx(20.0)


def test_one_delay_for_all_is_the_base_on_a_later_clock() -> None:
    base = VP(clock=CLOCK)
    late = Clocked(base, torch.tensor(0.4), span=2.0)
    t = torch.linspace(0, 1, 41, dtype=DOUBLE)
    local = (3 * t - 2 * 0.6).clamp(0, 1)
    for a, b in zip(late.coefficients(t), base.coefficients(local), strict=True):
        assert torch.allclose(a, b, rtol=1e-6)


@processes
def test_each_frame_follows_its_own_marginal(process: Process) -> None:
    clocked, count = Clocked(process, DELAY, span=1.0), 3000
    x = torch.linspace(-1, 2, 12, dtype=DOUBLE).view(1, 1, 3, 4)
    t = torch.tensor(0.55, dtype=DOUBLE)
    x_t, z = clocked.forward(x.expand(count, 1, 3, 4), t, rng=Streams.of(9, count))
    for frame in range(3):
        local = (2 * t - (1 - DELAY[0, 0, frame, 0])).clamp(0, 1)
        alpha, _, sigma = process.coefficients(local)
        gap = (x_t - alpha * x)[:, :, frame]
        assert float((gap.mean(0) / sigma).abs().max()) < 4 / count**0.5
        assert float(gap.square().mean() / sigma**2) == pytest.approx(1, abs=4 * (2 / 12000) ** 0.5)
    assert torch.allclose(clocked.residual(x_t, x, t), z)


class Pointwise(Denoiser):
    """X ~ N(0, variance) at every cell, on any clock."""

    def __init__(self, variance: float, process: Process) -> None:
        nn.Module.__init__(self)
        self.variance, self.process = variance, process

    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        alpha, _, sigma = self.process.coefficients(t)
        gain = self.variance / (self.variance + (sigma / alpha) ** 2)
        return gain * x_t / alpha


@pytest.mark.parametrize("solver", [Euler(), Heun(), Multistep()], ids=lambda s: type(s).__name__)
@processes
def test_a_clock_per_frame_draws_every_frame(process: Process, solver: Solver) -> None:
    """Each cell ends where its own flow ends, though it stood still for a part of the way."""
    clocked = Clocked(process, DELAY, span=1.0)
    denoiser = Pointwise(2.0, clocked)
    times = clocked.times(401)
    x = torch.linspace(-25, 25, 24, dtype=DOUBLE).view(2, 1, 3, 4)
    *_, last, _ = trajectory(denoiser, x, times, Context(), solver)
    ends = torch.tensor([1.0, 0.0], dtype=DOUBLE)
    (high, low), (kappa_t, kappa_s) = process.coefficients(ends)[0], process.kappa(ends)
    exact = low / high * x * torch.sqrt((2 + kappa_s**2) / (2 + kappa_t**2))
    tolerance = 2e-2 if isinstance(solver, Euler) else 4e-4
    assert torch.allclose(last, exact, rtol=tolerance)
