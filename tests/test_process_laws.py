"""The same identities for every process: forward and reverse laws, clocks, anchors, cells.

Eight grid points, so that every law is a mean and a dense covariance, read off from unit fields.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from sciddm.basis import Cosine
from sciddm.covariance import Covariance, Matern, Spectral, White
from sciddm.denoise import Context, Denoiser, Gaussian
from sciddm.errors import InputError
from sciddm.process import (
    VE,
    VP,
    Bridge,
    Capped,
    Clock,
    Clocked,
    CosineAlpha,
    Drifting,
    Flow,
    Interpolant,
    LinearBeta,
    LinearSigma,
    LogLinear,
    MeanReverting,
    OneClock,
    Process,
    SubVP,
)
from sciddm.random import Streams
from sciddm.solve import Diffusion, Euler, Multistep, Solver, trajectory, transition

DOUBLE = torch.float64
N = 8
CLOCK = LogLinear(0.05, 20.0)
PRIOR = Spectral(Matern(0.4, 1.5, 1.3), (1.0,), Cosine())
MATERN = Spectral(Matern(0.2, 0.5), (1.0,), Cosine())
UNIT = torch.eye(N, dtype=DOUBLE).view(N, 1, N)
MEAN = torch.linspace(-1, 1, N, dtype=DOUBLE).view(1, N)
ANCHOR = torch.linspace(2, -3, N, dtype=DOUBLE).sin().view(1, 1, N)
LEVELS = torch.linspace(0.1, 15, N, dtype=DOUBLE)
DELAYS = torch.linspace(0, 1, N, dtype=DOUBLE)

Kind = Callable[[Covariance, Clock], OneClock]
ONE_CLOCK: dict[str, Kind] = {
    "VE": VE,
    "VP": VP,
    "SubVP": SubVP,
    "Flow": Flow,
    "MeanReverting": lambda c, k: MeanReverting(c, k, 0.7),
    "Drifting": Drifting,
    "Interpolant": lambda c, k: Interpolant(c, k, 0.8),
    "Interpolant_coupled": lambda c, k: Interpolant(c, k, 1.4, power=1.0),
    "Interpolant_late": lambda c, k: Interpolant(c, k, 1.4, power=0.8),
    "Bridge_VE": lambda c, k: Bridge(VE(c, k), 2.0),
    "Bridge_VP": lambda c, k: Bridge(VP(c, k), 5.0),
    "Bridge_Flow": lambda c, k: Bridge(Flow(c, k), 3.0),
}
ANCHORED = {name: kind for name, kind in ONE_CLOCK.items() if kind(White(), CLOCK).anchored}
BY_CELL: dict[str, Process] = {
    "Clocked_VP": Clocked(VP(clock=CLOCK), DELAYS, 1.5),
    "Clocked_bridge": Clocked(Bridge(VE(clock=CLOCK), 2.0), DELAYS, 0.4),
    "Capped_VE": Capped(VE(clock=CLOCK), LEVELS),
    "Capped_flow": Capped(Flow(clock=CLOCK), LEVELS),
}
EVERY = {name: kind(White(), CLOCK) for name, kind in ONE_CLOCK.items()} | BY_CELL
kinds = pytest.mark.parametrize("kind", ONE_CLOCK.values(), ids=ONE_CLOCK.keys())
anchored = pytest.mark.parametrize("kind", ANCHORED.values(), ids=ANCHORED.keys())
every = pytest.mark.parametrize("process", EVERY.values(), ids=EVERY.keys())
by_cell = pytest.mark.parametrize("process", BY_CELL.values(), ids=BY_CELL.keys())
noises = pytest.mark.parametrize("noise", [White(1.2), MATERN], ids=["white", "matern"])


def dense(law: Covariance) -> Tensor:
    return law(UNIT).flatten(1)


def given(process: Process) -> Tensor | None:
    return ANCHOR if process.anchored else None


class Fixed(Streams):
    """Stands for addressed noise: the unit fields times ``seed``, or for one row none."""

    def normal(self, like: Tensor) -> Tensor:
        return self.seed * UNIT if len(like) == N else torch.zeros_like(like)


# ------------------------------------------------------------------------- the forward law


@every
def test_the_noise_rises_between_finite_ends(process: Process) -> None:
    """At single times and at tensors of times; each end is reached."""
    t = torch.linspace(0, 1, 41, dtype=DOUBLE).view(41, 1, 1)
    alpha, beta, sigma = process.coefficients(t)
    kappa = process.kappa(t)
    for value in (alpha, beta, sigma, kappa):
        assert bool(torch.isfinite(value).all() and (value >= 0).all())
    steps = kappa.diff(dim=0)
    assert bool((steps >= 0).all() and (kappa > 0).all() and (alpha.diff(dim=0) <= 0).all())
    if isinstance(process, OneClock):
        assert bool((steps > 0).all())
        assert torch.allclose(kappa.flatten()[[0, -1]], torch.tensor([0.05, 20.0], dtype=DOUBLE))
        assert torch.allclose(kappa, CLOCK.kappa(t))
    assert process.anchored == bool((beta > 0).any())
    for i in (0, 17, 40):
        alone = process.coefficients(t[i].squeeze())
        for whole, one in zip((alpha, beta, sigma), alone, strict=True):
            assert torch.allclose(whole[i], one.expand_as(whole[i]), rtol=1e-12)
            assert one.dtype == DOUBLE


@every
def test_the_law_between_two_times_composes(process: Process) -> None:
    """Three times r < s < t: r -> s -> t is r -> t, and what the coefficients say."""
    r, s, t = (torch.tensor(v, dtype=DOUBLE) for v in ([0.1, 0.0], [0.4, 0.45], [0.7, 1.0]))
    r, s, t = (v.view(2, 1, 1) for v in (r, s, t))
    first, second, whole = process.between(r, s), process.between(s, t), process.between(r, t)
    assert torch.allclose(second[0] * first[0], whole[0], rtol=1e-12)
    assert torch.allclose(second[0] * first[1] + second[1], whole[1], atol=1e-12)
    assert torch.allclose((second[0] * first[2]) ** 2 + second[2] ** 2, whole[2] ** 2, rtol=1e-9)
    (a, b, c), (alpha, beta, sigma) = process.coefficients(s), process.coefficients(t)
    assert torch.allclose(second[0] * a, alpha, rtol=1e-12)
    assert torch.allclose(second[0] * b + second[1], beta, atol=1e-12)
    assert torch.allclose((second[0] * c) ** 2 + second[2] ** 2, sigma**2, rtol=1e-9)
    still = process.between(t, t)
    for value, expected in zip(still, (1.0, 0.0, 0.0), strict=True):
        assert torch.allclose(value, torch.full_like(value, expected), atol=1e-12)
    with pytest.raises(InputError, match="earlier"):
        process.between(t, r)


@kinds
def test_the_rates_integrate_to_the_coefficients(kind: Kind) -> None:
    """Runge-Kutta of the moments of dX = (drift X + pull M) dt + diffusion dW."""
    for clock in (CLOCK, LinearBeta(0.1, 6.0, 0.01)):
        process, count = kind(White(), clock), 1000
        nodes = torch.linspace(0.15, 0.85, 2 * count + 1, dtype=DOUBLE)
        rates = torch.stack(process.rates(nodes), dim=1)
        h = float(nodes[2] - nodes[0])

        def slope(rate: Tensor, state: Tensor) -> Tensor:
            drift, pull, diffusion = rate
            alpha, beta, variance = state
            return torch.stack(
                [drift * alpha, drift * beta + pull, 2 * drift * variance + diffusion**2]
            )

        alpha, beta, sigma = process.coefficients(nodes[0])
        state = torch.stack([alpha, beta, sigma**2])
        for k in range(0, 2 * count, 2):
            k1 = slope(rates[k], state)
            k2 = slope(rates[k + 1], state + h / 2 * k1)
            k3 = slope(rates[k + 1], state + h / 2 * k2)
            k4 = slope(rates[k + 2], state + h * k3)
            state = state + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        alpha, beta, sigma = process.coefficients(nodes[-1])
        assert torch.allclose(state, torch.stack([alpha, beta, sigma**2]), rtol=1e-8, atol=1e-10)


def test_the_rates_of_a_clock_per_cell_are_those_of_its_local_time() -> None:
    base, span, t = VP(clock=CLOCK), 0.5, torch.tensor(0.6, dtype=DOUBLE)
    delay = torch.tensor([0.4, 0.5, 0.6], dtype=DOUBLE)
    found = Clocked(base, delay, span).rates(t)
    local = base.rates(t * (1 + span) - span * (1 - delay))
    for a, b, power in zip(found, local, (1, 1, 0.5), strict=True):
        assert torch.allclose(a, b * (1 + span) ** power, rtol=1e-12)
    # a cell at its cap stands still
    capped = Capped(base, torch.tensor([0.1, 15.0], dtype=DOUBLE)).rates(t)
    assert [float(r[0]) for r in capped] == [0, 0, 0] and float(capped[2][1]) > 0


# ------------------------------------------------------------------------- the reverse law


def law_at(process: Process, t: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (N,) and covariance (N, N) of x_t when X ~ N(MEAN, PRIOR)."""
    alpha, beta, sigma = (c.expand(N) for c in process.coefficients(t))
    mean = alpha * MEAN.flatten() + beta * ANCHOR.flatten()
    spread = alpha[:, None] * dense(PRIOR) * alpha
    return mean, spread + sigma[:, None] * dense(process.noise) * sigma


def moved(
    step: Callable[[Tensor], Tensor], law: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """The law after an affine step on fields: mean, covariance, and its image of zero."""
    rows = step(torch.cat([torch.zeros(1, 1, N, dtype=DOUBLE), UNIT])).flatten(1)
    still, linear = rows[0], rows[1:] - rows[0]
    return still + law[0] @ linear, linear.T @ law[1] @ linear, still


class Dense(Denoiser):
    """The exact denoiser of X ~ N(mean, spread) for any noise level per cell, by dense algebra."""

    def __init__(self, mean: Tensor, spread: Tensor, process: Process) -> None:
        nn.Module.__init__(self)
        self.mean, self.spread, self.process = mean, spread, process

    def gain(self, t: Tensor) -> Tensor:
        kappa = self.process.kappa(t).flatten().expand(N)
        noise = kappa[:, None] * dense(self.process.noise) * kappa
        return torch.linalg.solve(self.spread + noise, self.spread)

    def posterior(self, t: Tensor) -> Tensor:
        return self.spread - self.spread @ self.gain(t)

    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        u = self.process.centred(x_t, t, context.anchor)
        return self.mean + (u - self.mean) @ self.gain(t)


def exactly(
    denoiser: Dense, law: tuple[Tensor, Tensor], t: Tensor, s: Tensor, eta: float = 1.0
) -> tuple[Tensor, Tensor]:
    """One reverse step of the law: X ~ N(x_hat, V), then x_s from q(x_s | x_t, X)."""
    process, anchor = denoiser.process, given(denoiser.process)
    context = Context(anchor=anchor)

    def step(x: Tensor, x_hat: Tensor, m: Tensor | None, rng: Streams) -> Tensor:
        return transition(process, x, x_hat, t, s, anchor=m, eta=eta, rng=rng)

    mean, spread, _ = moved(
        lambda x: step(x, denoiser(x, t, context), anchor, Fixed(0, (), ())), law
    )
    zero, none = torch.zeros_like(UNIT), None if anchor is None else 0 * anchor
    through_x = step(zero, UNIT, none, Fixed(0, (), ())).flatten(1)
    fresh = step(zero, zero, none, Fixed(1, (), ())).flatten(1)
    assert bool(fresh.any()) == (eta > 0)
    spread = spread + through_x.T @ denoiser.posterior(t) @ through_x + fresh.T @ fresh
    return mean, spread


def ancestral(
    denoiser: Dense, law: tuple[Tensor, Tensor], t: Tensor, s: Tensor
) -> tuple[Tensor, Tensor]:
    """One step of the ancestral solver, which takes X = x_hat."""
    context = Context(anchor=given(denoiser.process))

    def step(x: Tensor, seed: int) -> Tensor:
        x_hat = denoiser(x, t, context)
        return transition(
            denoiser.process,
            x,
            x_hat,
            t,
            s,
            anchor=context.anchor,
            eta=1.0,
            rng=Fixed(seed, (), ()),
        )

    mean, spread, _ = moved(lambda x: step(x, 0), law)
    fresh = (step(UNIT, 1) - step(UNIT, 0)).flatten(1)
    return mean, spread + fresh.T @ fresh


@noises
@kinds
def test_the_exact_reverse_step_keeps_the_law(kind: Kind, noise: Covariance) -> None:
    """In one long step or in five, at any stochasticity: the marginal law at the end."""
    process = kind(noise, CLOCK)
    denoiser = Dense(MEAN, dense(PRIOR), process)
    for eta, times in (
        (1.0, [0.9, 0.1]),
        (0.0, [0.9, 0.1]),
        (0.6, [0.9, 0.1]),
        (1.0, [0.9, 0.7, 0.65, 0.4, 0.2, 0.1]),
    ):
        t = torch.tensor(times, dtype=DOUBLE)
        law = law_at(process, t[0])
        for now, then in zip(t[:-1], t[1:], strict=True):
            law = exactly(denoiser, law, now, then, eta)
        mean, spread = law_at(process, t[-1])
        assert torch.allclose(law[0], mean, atol=1e-9)
        assert torch.allclose(law[1], spread, atol=1e-9)


@kinds
def test_the_kernel_moves_along_the_flow_of_the_rates(kind: Kind) -> None:
    """dx/dt = drift x + pull m - diffusion^2 / 2 C grad log p, with C grad log p = -z_hat / sigma:
    also the velocity alpha' x_hat + beta' m + sigma' z_hat that flow matching learns."""
    process, h = kind(MATERN, CLOCK), 1e-4
    t, m = torch.tensor(0.55, dtype=DOUBLE), given(process)
    x_t, x_hat = 2 * UNIT, MEAN + UNIT.cumsum(0)
    ahead, behind = (transition(process, x_t, x_hat, t, t + d, anchor=m) for d in (h, -h))
    drift, pull, diffusion = process.rates(t)
    _, _, sigma = process.coefficients(t)
    z_hat = process.residual(x_t, x_hat, t, m)
    flow = drift * x_t + pull * ANCHOR + 0.5 * diffusion**2 / sigma * z_hat
    assert torch.allclose((ahead - behind) / (2 * h), flow, rtol=1e-5, atol=1e-5)


@by_cell
def test_it_keeps_the_law_on_a_clock_per_cell(process: Process) -> None:
    denoiser, t = Dense(MEAN, dense(PRIOR), process), torch.linspace(1, 0, 6, dtype=DOUBLE)
    law = law_at(process, t[0])
    for now, then in zip(t[:-1], t[1:], strict=True):
        law = exactly(denoiser, law, now, then)
    mean, spread = law_at(process, t[-1])
    assert torch.allclose(law[0], mean, atol=1e-9) and torch.allclose(law[1], spread, atol=1e-9)


@noises
@kinds
def test_the_closed_form_denoiser_is_the_dense_one(kind: Kind, noise: Covariance) -> None:
    """`Gaussian` under every process: mean, covariance, and the flow that carries the law."""
    process = kind(noise, CLOCK)
    gaussian, plain = Gaussian(MEAN, PRIOR, process), Dense(MEAN, dense(PRIOR), process)
    context, x = Context(anchor=given(process)), 3 * UNIT.cumsum(0)
    for t in torch.tensor([0.1, 0.5, 0.9], dtype=DOUBLE):
        assert torch.allclose(gaussian(x, t, context), plain(x, t, context), atol=1e-9)
        assert torch.allclose(gaussian.covariance(t)(UNIT).flatten(1), plain.posterior(t))
    t, s = torch.tensor([0.9, 0.2], dtype=DOUBLE)
    mean, spread, _ = moved(lambda x: gaussian.flow(x, t, s, context.anchor), law_at(process, t))
    expected = law_at(process, s)
    assert torch.allclose(mean, expected[0], atol=1e-9)
    assert torch.allclose(spread, expected[1], atol=1e-9)
    if process.anchored:
        with pytest.raises(InputError, match="anchor"):
            gaussian(x, t, Context())


@noises
@kinds
def test_the_deterministic_kernel_tends_to_the_law(kind: Kind, noise: Covariance) -> None:
    """Half the error at twice the steps, and none in the limit."""
    process = kind(noise, CLOCK)
    denoiser, context = Gaussian(MEAN, PRIOR, process), Context(anchor=given(process))

    def law(steps: int) -> Tensor:
        times = process.times(steps + 1, 10.0, 0.1)

        def run(x: Tensor) -> Tensor:
            *_, last, _ = trajectory(denoiser, x, times, context, Euler())
            return last

        mean, spread, _ = moved(run, law_at(process, times[0]))
        return torch.cat([mean[None], spread])

    expected = torch.cat([v.view(-1, N) for v in law_at(process, process.times(2, 10.0, 0.1)[1])])
    coarse, fine = law(32) - expected, law(64) - expected
    assert float(coarse.norm() / fine.norm()) == pytest.approx(2, abs=0.15)
    assert float((2 * fine - coarse).norm()) < 0.06 * float(fine.norm())


@by_cell
def test_it_tends_to_the_law_on_a_clock_per_cell(process: Process) -> None:
    denoiser, context = Dense(MEAN, dense(PRIOR), process), Context(anchor=given(process))
    ends = torch.tensor([1.0, 0.0], dtype=DOUBLE)
    gaps = []
    for steps in (100, 200):
        times = torch.linspace(1, 0, steps + 1, dtype=DOUBLE)

        def run(x: Tensor, times: Tensor = times) -> Tensor:
            *_, last, _ = trajectory(denoiser, x, times, context, Multistep())
            return last

        mean, spread, _ = moved(run, law_at(process, ends[0]))
        expected = law_at(process, ends[1])
        gaps.append(float((spread - expected[1]).norm() / expected[1].norm()))
        assert torch.allclose(mean, expected[0], atol=5e-3)
    # kinks of the local clocks between the times leave no clean order
    assert gaps[1] < 0.7 * gaps[0] and gaps[1] < 3e-3


# ------------------------------------------------------------------------- clocks and anchors

CLOCKS: list[Clock] = [
    CLOCK,
    LogLinear(1e-3, 1e3),
    LinearSigma(1e-3),
    LinearSigma(1e-3, 1.5, 0.5),
    LinearBeta(0.1, 20.0),
    CosineAlpha(),
]


@pytest.mark.parametrize(
    "solver", [Euler(), Euler(1.0), Multistep()], ids=["ode", "sde", "multistep"]
)
@kinds
def test_a_process_and_a_clock_change_no_draw(kind: Kind, solver: Solver) -> None:
    """The same noise levels give the same u at every step and the same clean estimate as VE."""

    def path(kind: Kind, clock: Clock) -> Tensor:
        process = kind(MATERN, clock)
        denoiser, context = Gaussian(MEAN, PRIOR, process), Context(anchor=given(process))
        times = process.times(9, 10.0, 0.1)
        alpha, beta, sigma = process.coefficients(times[0])
        x = beta * ANCHOR + sigma * MATERN.sample(UNIT, Streams.of(0, N))
        *path, last = trajectory(denoiser, x, times, context, solver, Streams.of(1, N))
        steps = zip(path, times[1:], strict=True)
        return torch.stack([*(process.centred(x, t, context.anchor) for x, t in steps), last])

    reference = path(VE, CLOCK)
    for clock in CLOCKS:
        assert torch.allclose(path(kind, clock), reference, rtol=1e-8, atol=1e-7)


@anchored
def test_a_pair_is_recovered_as_by_regression(kind: Kind) -> None:
    """X ~ N(mean, P), M = H X + e: draws given M have the mean and covariance of X given M."""
    process = kind(White(1.2), LogLinear(0.01, 1000.0))
    p = dense(PRIOR)
    h = 0.5 * torch.eye(N, dtype=DOUBLE) + 0.5 * torch.eye(N, dtype=DOUBLE).roll(1, 1)
    k = p @ h.T @ torch.linalg.inv(h @ p @ h.T + 0.09 * torch.eye(N, dtype=DOUBLE))
    mean = MEAN + (ANCHOR[0] - MEAN @ h.T) @ k.T
    denoiser, context = Dense(mean, p - k @ h @ p, process), Context(anchor=ANCHOR)
    times = process.times(60)
    bare = process.start(UNIT[:1], times[0], ANCHOR, Fixed(0, (), ()))
    fresh = (process.start(UNIT, times[0], ANCHOR, Fixed(1, (), ())) - bare).flatten(1)
    start = bare.flatten(), fresh.T @ fresh

    def run(x: Tensor) -> Tensor:
        *_, last = trajectory(denoiser, x, times, context, Multistep())
        return last

    drawn, spread, _ = moved(run, start)
    assert torch.allclose(drawn, mean.flatten(), atol=2e-3)
    assert float((spread - denoiser.spread).norm() / denoiser.spread.norm()) < 0.02
    # the anchor alone is far away, in units of the spread
    std = denoiser.spread.diagonal().sqrt()
    assert float(((ANCHOR.flatten() - mean.flatten()) / std).abs().max()) > 1.5


@anchored
def test_an_anchored_process_asks_for_its_anchor(kind: Kind) -> None:
    process, t = kind(White(), CLOCK), torch.tensor(0.5, dtype=DOUBLE)
    delayed = Clocked(process, torch.tensor(0.3))
    for each in (process, delayed):
        for call in (
            lambda each=each: each.forward(UNIT, t),
            lambda each=each: each.start(UNIT, t),
            lambda each=each: each.residual(UNIT, UNIT, t),
            lambda each=each: each.centred(UNIT, t),
            lambda each=each: transition(each, UNIT, UNIT, t, 0.5 * t),
        ):
            with pytest.raises(InputError, match="anchor"):
                call()


# ------------------------------------------------------------------------- a clock per cell


def test_a_rolling_window_is_its_own_shift() -> None:
    """With evenly delayed frames, one frame on is a fixed time later: the schedule of a window
    that emits a clean frame and admits a lost one."""
    frames, span = 5, 1.0
    delay = torch.linspace(0, 1, frames, dtype=DOUBLE)
    window = Clocked(VP(clock=CLOCK), delay, span)
    shift = span / (frames - 1) / (1 + span)
    t = torch.linspace(0.05, 0.95 - shift, 7, dtype=DOUBLE).view(-1, 1)
    now, later = window.kappa(t), window.kappa(t + shift)
    assert torch.allclose(now[:, 1:], later[:, :-1], rtol=1e-10)
    # at the moment of a shift the first frame is clean and the last one is lost
    kappa = window.kappa(torch.tensor(span / (1 + span), dtype=DOUBLE))
    assert kappa[[0, -1]].tolist() == pytest.approx([0.05, 20.0])


def test_a_rolling_window_forecasts_like_the_kalman_filter() -> None:
    """x_k = a x_{k-1} + e from a known x_0: the emitted frames have the forecast covariance."""
    a, q, x0 = 0.9, 0.19, 1.5
    lead = torch.arange(1, N + 1, dtype=DOUBLE)
    variance = [q]
    for _ in range(N - 1):
        variance.append(a**2 * variance[-1] + q)  # the filter's own recursion
    forecast = torch.tensor(variance, dtype=DOUBLE)
    gap = (lead[:, None] - lead).abs()
    spread = a**gap * torch.minimum(forecast[:, None], forecast)
    window = Clocked(VE(clock=LogLinear(1e-4, 1e4)), DELAYS, 1.0)
    denoiser = Dense((a**lead * x0).view(1, N), spread, window)
    t = torch.linspace(1, 0, 2 * N, dtype=DOUBLE)
    law = torch.zeros(N, dtype=DOUBLE), 1e8 * torch.eye(N, dtype=DOUBLE)
    for now, then in zip(t[:-1], t[1:], strict=True):
        law = exactly(denoiser, law, now, then)
    assert torch.allclose(law[0], a**lead * x0, atol=1e-5)
    assert torch.allclose(law[1], spread, atol=1e-6)


SPREADS = {"white": 2.0 * torch.eye(N, dtype=DOUBLE), "matern": dense(PRIOR)}


@pytest.mark.parametrize("spread", SPREADS.values(), ids=SPREADS.keys())
@pytest.mark.parametrize("kind", [VE, VP], ids=lambda k: k.__name__)
def test_a_measurement_is_restored_as_by_the_wiener_filter(kind: Kind, spread: Tensor) -> None:
    """Error of its own in every cell; ancestral steps from the measurement itself.

    The mean is the Wiener filter's at any number of steps, the spread tends to the posterior's.
    """
    process = Capped(kind(White(), LogLinear(1e-3, 20.0)), LEVELS)
    denoiser, one = Dense(MEAN, spread, process), torch.ones((), dtype=DOUBLE)
    y = torch.linspace(-4, 4, N, dtype=DOUBLE).view(1, 1, N)
    gain = spread @ torch.linalg.inv(spread + torch.diag(LEVELS**2))
    wiener, posterior = MEAN + (y - MEAN) @ gain.T, spread - gain @ spread
    context, silent = Context(anchor=y), Fixed(0, (0,), (0,))
    x = process.start(y, one, y, silent)
    assert torch.allclose(denoiser(x, one, context), wiener)
    for steps in (5, 30):
        *_, last = trajectory(denoiser, x, process.times(steps), context, Euler(1.0), silent)
        assert torch.allclose(last, wiener, atol=1e-9)
    ratios = []
    for steps in (200, 400):
        times, law = process.times(steps, 15.0), (x.flatten(), torch.zeros(N, N, dtype=DOUBLE))
        for t, s in zip(times[:-1], times[1:], strict=True):
            law = ancestral(denoiser, law, t, s)
        found = moved(lambda x, t=times[-1]: denoiser(x, t, context), law)[1]
        ratios.append((found.diagonal() / posterior.diagonal()).sqrt())
    assert bool(((2 * ratios[1] - ratios[0] - 1).abs() < 3e-3).all())
    assert bool(((ratios[1] - 1).abs() < 0.03).all())


def test_the_default_sampler_starts_from_the_measurement() -> None:
    """Measured cells as by the Wiener filter, cells without a measurement as the prior: eight kinds
    of independent cells, each many times over."""
    clock, count, seen = LogLinear(1e-3, 100.0), 4000, torch.arange(N) < 5
    level = torch.where(seen, LEVELS, torch.tensor(100.0, dtype=DOUBLE))
    denoiser = Pointwise(Capped(VE(clock=clock), level.repeat(count)))
    y = torch.linspace(-2, 2, N)
    context, rng = Context(anchor=y.repeat(count).view(1, 1, -1)), Streams.of(0, 1)
    drawn = Diffusion(denoiser, Euler(1.0), 300)((1, 1, N * count), context, rng).view(count, N)
    precision = torch.where(seen, level**-2, torch.zeros(N))
    variance = 1 / (0.5 + precision)
    z = (drawn.mean(0) - variance * precision * y) / (variance / count).sqrt()
    assert float(z.abs().max()) < 4
    ratio = drawn.var(0) / variance
    assert float(ratio.min()) > 0.9 and float(ratio.max()) < 1.05
    with pytest.raises(InputError, match="measurement"):
        Diffusion(denoiser, Euler(1.0), 6)((1, 1, N * count), Context(), rng)
    with pytest.raises(InputError, match="kappa_max"):
        Diffusion(denoiser, Euler(1.0), 6, kappa_max=1.0)((1, 1, N * count), context, rng)


@pytest.mark.parametrize("kind", [VE, VP, SubVP, Flow], ids=lambda k: k.__name__)
@pytest.mark.parametrize("solver", [Euler(1.0), Multistep()], ids=["sde", "multistep"])
def test_a_constant_map_is_the_ordinary_process_bit_for_bit(kind: Kind, solver: Solver) -> None:
    base = kind(White(), CLOCK)
    ends = []
    for each in (base, Capped(base, torch.full((1, 1, N), CLOCK.ends()[1], dtype=DOUBLE))):
        denoiser = Pointwise(each)
        ends.append(Diffusion(denoiser, solver, 9)((4, 1, N), Context(), Streams.of(1, 4)))
    assert torch.equal(*ends)


class Pointwise(Denoiser):
    """X ~ N(0, 2) at every cell, on any clock."""

    def __init__(self, process: Process) -> None:
        nn.Module.__init__(self)
        self.process = process

    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        gain = 2 / (2 + self.process.kappa(t) ** 2)
        return gain.to(x_t) * self.process.centred(x_t, t, context.anchor)


@kinds
def test_the_forward_draw(kind: Kind) -> None:
    """alpha x + beta m + sigma z, z of covariance C, and z is found again."""
    process, t = kind(MATERN, CLOCK), torch.linspace(0, 1, N, dtype=DOUBLE).view(N, 1, 1)
    x, m = torch.linspace(-1, 3, N, dtype=DOUBLE).expand(N, 1, N), given(process)
    x_t, z = process.forward(x, t, m, Fixed(1, (), ()))
    alpha, beta, sigma = process.coefficients(t)
    assert torch.equal(z, MATERN.sqrt(UNIT))
    assert torch.allclose(x_t, alpha * x + beta * ANCHOR + sigma * z, atol=1e-12)
    assert torch.allclose(process.residual(x_t, x, t, m), z, atol=1e-6)
    assert torch.allclose(process.centred(x_t, t, m), x + process.kappa(t) * z, atol=1e-6)
