"""The laws of the stochastic solvers, without Monte Carlo.

Prior and noise share their eigenvectors, so a step turns every eigendirection by itself: the law of
a draw is read off from one row for the start and one for every draw of noise, each excited in all
directions at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sciddm.basis import Cosine
from sciddm.calibrate import Calibrated, Scaled
from sciddm.covariance import Covariance, Matern, PowerLaw, Spectral, White, ZeroMean
from sciddm.denoise import Context, Denoiser, Gaussian, Mixture
from sciddm.errors import InputError
from sciddm.guide import Conditioned
from sciddm.observe import Observation, points
from sciddm.process import (
    VE,
    VP,
    Bridge,
    Clocked,
    Flow,
    LogLinear,
    MeanReverting,
    Process,
    SubVP,
)
from sciddm.random import Streams
from sciddm.solve import (
    Band,
    Constant,
    Euler,
    ExtendedReverse,
    Heun,
    History,
    Langevin,
    Matched,
    Multistep,
    NoiseFunction,
    Power,
    Restart,
    Solver,
    StochasticAdams,
    Stretched,
    trajectory,
)
from sciddm.solve.integrals import integral, moments

DOUBLE = torch.float64
N = 16
CLOCK = LogLinear(0.05, 20.0)
PRIOR = Spectral(Matern(0.4, 2.5, 1.5), (1.0,), Cosine())
WHITE = White(1.0)
MATERN = Spectral(Matern(0.2, 0.5), (1.0,), Cosine())
ALL = Cosine().inverse(torch.ones(N, dtype=DOUBLE), (N,)).view(1, N)
NONE = torch.zeros((), dtype=DOUBLE)


class Impulses:
    """Stands for addressed noise: every address that is asked is ``pattern`` in rows of its own.

    ``known`` remembers the first row of each address, and under ``ROWS`` how many there are.
    """

    def __init__(
        self, known: dict[object, int], pattern: Callable[[Tensor], Tensor], at: object = None
    ) -> None:
        self.known, self.pattern, self._at = known, pattern, at
        self.purpose, self.step = str(at), 0

    def at(self, purpose: str, step: int = 0) -> Impulses:
        return Impulses(self.known, self.pattern, (purpose, step))

    def normal(self, like: Tensor) -> Tensor:
        units = self.pattern(like)
        first = self.known.setdefault(self._at, self.known[ROWS])
        self.known[ROWS] = max(self.known[ROWS], first + len(units))
        z = torch.zeros_like(like)
        if first + len(units) <= len(z):
            z[first : first + len(units)] = units
        return z


ROWS = "rows"


def everything(like: Tensor) -> Tensor:
    return ALL.to(like)[None]


def each(like: Tensor) -> Tensor:
    size = like[0].numel()
    return torch.eye(size, dtype=like.dtype).view(size, *like.shape[1:])


def images(
    denoiser: Denoiser, solver: Solver, times: Tensor, start: Tensor, pattern: object = everything
) -> Tensor:
    """Rows (R, D) of the linear map to the last field, and to the clean estimate there."""
    shape = start.shape[1:]
    anchor = torch.zeros(1, *shape, dtype=DOUBLE) if denoiser.process.anchored else None
    known = {ROWS: len(start)}
    rng = Impulses(known, pattern)
    for _ in trajectory(denoiser, start, times, Context(anchor=anchor), solver, rng):
        pass
    x = torch.zeros(known[ROWS], *shape, dtype=DOUBLE)
    x[: len(start)] = start
    *_, last, clean = trajectory(denoiser, x, times, Context(anchor=anchor), solver, rng)
    return torch.stack([last, clean])


def exact(process: Process, t: Tensor) -> Tensor:
    """Variance of every eigendirection at time t."""
    alpha, _, sigma = process.coefficients(t)
    law = process.noise
    noise = law.eigenvalues((N,)) if isinstance(law, Spectral) else law.std**2
    return alpha**2 * PRIOR.eigenvalues((N,)) + sigma**2 * noise


def law(solver: Solver, process: Process, steps: int) -> Tensor:
    """Variance of every eigendirection over the exact one, from kappa 10 to 0.1."""
    times = process.times(steps + 1, 10.0, 0.1)
    start = Cosine().inverse(exact(process, times[0]).sqrt(), (N,)).view(1, 1, N)
    found = images(Gaussian(NONE, PRIOR, process), solver, times, start)[0]
    power = Cosine().forward(found[:, 0], 1).square().sum(0)
    return power / exact(process, times[-1])


CASES: dict[str, tuple[Callable[[int], Solver], float]] = {
    "ancestral": (lambda n: Euler(1.0), 1),
    "SA": (lambda n: StochasticAdams(), 2),
    "SA half": (lambda n: StochasticAdams(1, 1, Constant(0.5)), 2),
    "SA band": (lambda n: StochasticAdams(3, 3, Band(0.3, 3.0)), 2),
    "SA predictor": (lambda n: StochasticAdams(2, 0), 2),
    "ER 1": (lambda n: ExtendedReverse(1), 1),
    "ER 2": (lambda n: ExtendedReverse(2, Power(2.0)), 2),
    "ER 3": (lambda n: ExtendedReverse(3), 2),
    "restart": (lambda n: Restart(Multistep(), 0.3, 3.0, 2, n // 4), 2),
}


@pytest.mark.parametrize("name", CASES)
def test_the_law_and_the_weak_order(name: str) -> None:
    """Every mode's variance within 2 % at 256 steps, and the slope of its error."""
    make, order = CASES[name]
    noise = WHITE if name in ("SA half", "ER 2") else MATERN
    coarse, fine = (law(make(n), VP(noise, CLOCK), n) - 1 for n in (64, 256))
    assert float(fine.abs().max()) < 0.02
    slope = math.log(float(coarse.abs().max() / fine.abs().max())) / math.log(4)
    assert slope == pytest.approx(order, abs=0.3)


@pytest.mark.parametrize("name", [*CASES, "langevin", "matched"])
def test_only_kappa_is_information(name: str) -> None:
    """The relative law is the same under every process, so the orders hold for all of them."""
    noise = MATERN if name in ("SA", "ER 3") else WHITE
    make = {**{k: v[0] for k, v in CASES.items()}, **OTHERS}[name]
    first = law(make(8), VE(noise, CLOCK), 8)
    others: list[Process] = [kind(noise, CLOCK) for kind in (VP, Flow, SubVP, MeanReverting)]
    for process in (*others, Bridge(VE(noise, CLOCK), 1.0)):
        assert torch.allclose(law(make(8), process, 8), first, rtol=1e-9)


OTHERS: dict[str, Callable[[int], Solver]] = {
    "langevin": lambda n: Langevin(),
    "matched": lambda n: Matched(),
}


@pytest.mark.parametrize("noise", [WHITE, MATERN], ids=["white", "matern"])
def test_langevin_repairs_its_predictor(noise: Covariance) -> None:
    """With a correction at every level the law is within 2 %, and nearer than without."""
    plain, repaired = (law(s, VP(noise, CLOCK), 256) - 1 for s in (Euler(), Langevin(Euler())))
    assert float(repaired.abs().max()) < 0.005
    assert float(repaired.abs().max()) < 0.5 * float(plain.abs().max())
    better = law(Langevin(Heun()), VP(noise, CLOCK), 64) - 1
    assert float(better.abs().max()) < 0.02


class Still(Solver):
    """Moves nothing."""

    def step(
        self,
        denoiser: Denoiser,
        x_t: Tensor,
        t: Tensor,
        s: Tensor,
        context: Context,
        state: History,
        rng: Streams | None,
    ) -> tuple[Tensor, History]:
        return x_t, state

    def evaluations(self, steps: int) -> int:
        return 1


@pytest.mark.parametrize(("snr", "error"), [(0.16, 3e-4), (0.5, 0.03)])
def test_langevin_keeps_a_gaussian_law(snr: float, error: float) -> None:
    """The stationary law of the corrector alone: to order delta^2, exactly where K is 0 or 1."""
    process = VP(WHITE, CLOCK)
    at = process.clock.time(torch.tensor([1.0, 1.0], dtype=DOUBLE))
    true = exact(process, at[0])
    start = 2 * Cosine().inverse(true.sqrt(), (N,)).view(1, 1, N)  # four times the variance
    solver = Langevin(Still(), snr, 400)
    found = images(Gaussian(NONE, PRIOR, process), solver, at, start)[0][:, 0]
    ratio = Cosine().forward(found, 1).square().sum(0) / true
    k = process.coefficients(at[0])[2] ** 2 / true
    fast = k > 0.2  # the others have not forgotten the start yet
    assert float((ratio - 1)[fast].abs().max()) < error
    assert float((ratio - 1)[k > 0.999].abs().max()) < 1e-4


def test_members_of_both_families_are_the_kernel() -> None:
    """One point: DDIM without noise, the ancestral step with it, the same noise, to round-off."""
    process = Flow(MATERN, CLOCK)
    denoiser = Gaussian(torch.tensor(0.5, dtype=DOUBLE), PRIOR, process)
    times = process.times(6)
    x = process.start(torch.zeros(3, 1, N, dtype=DOUBLE), times[0], None, Streams.of(0, 3))

    def draw(solver: Solver) -> Tensor:
        *_, last = trajectory(denoiser, x, times, Context(), solver, Streams.of(1, 3))
        return last

    ode, sde = draw(Euler(0.0)), draw(Euler(1.0))
    assert not torch.allclose(ode, sde)
    assert torch.allclose(draw(ExtendedReverse(1, Power(1.0))), ode, rtol=0, atol=1e-13)
    assert torch.allclose(draw(ExtendedReverse(1, Power(2.0))), sde, rtol=0, atol=1e-13)
    assert torch.allclose(draw(StochasticAdams(1, 0, Constant(0.0))), ode, rtol=0, atol=1e-13)
    assert torch.allclose(draw(StochasticAdams(1, 0)), sde, rtol=0, atol=1e-13)
    half = draw(StochasticAdams(1, 0, Constant(0.5)))
    assert torch.allclose(half, draw(ExtendedReverse(1, Power(1.25))), rtol=0, atol=1e-13)


# limits.md, section 6: relative W2 to the exact law of an 8 x 8 field, per cent
PUBLISHED = {
    "tau 0": (StochasticAdams(3, 3, Constant(0.0)), (30.2, 1.88), (3.21, 0.126)),
    "band": (StochasticAdams(3, 3, Band(0.05, 1.0)), (52.4, 3.5), (20.3, 1.8)),
    "tau 1": (StochasticAdams(3, 3), (150, 7.8), (40.7, 2.39)),
    "P2": (StochasticAdams(2, 0), (78.5, 22.2), (30.4, 9.45)),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_formulas(name: str) -> None:
    """The rows of the reference table at 10 and 20 evaluations, to the printed digits."""
    solver, *rows = PUBLISHED[name]
    scale = math.sqrt(16 / float(Spectral(ZeroMean(PowerLaw(2, 3)), (1.0, 1.0), Cosine())
                                 .eigenvalues((8, 8)).sum()))  # fmt: skip
    prior = Spectral(ZeroMean(PowerLaw(2, 3, scale)), (1.0, 1.0), Cosine())
    std = prior.eigenvalues((8, 8)).sqrt()
    ones = Cosine().inverse(torch.ones(8, 8, dtype=DOUBLE), (8, 8)).view(1, 1, 8, 8)
    for (kind, rms, grid), row in zip(((VE, 80, rho7), (VP, 1, log_snr)), rows, strict=True):
        process = kind(WHITE, LogLinear(1e-4, 1e4))
        for count, value in zip((10, 20), row, strict=True):
            times = process.clock.time(grid(count))
            denoiser = Gaussian(NONE, prior, process)
            found = images(denoiser, solver, times, rms * ones, lambda _: ones)[1]
            gap = Cosine().forward(found[:, 0], 2).square().sum(0).sqrt() - std
            assert 100 * float(gap.norm() / std.norm()) == pytest.approx(value, rel=0.006)


def rho7(count: int) -> Tensor:
    ends = 80 ** (1 / 7), 0.002 ** (1 / 7)
    return torch.linspace(*ends, count, dtype=DOUBLE) ** 7


def log_snr(count: int) -> Tensor:
    t = torch.tensor([1.0, 1e-3], dtype=DOUBLE)
    high, low = torch.expm1(0.1 * t + 9.95 * t**2).sqrt().log().tolist()
    return torch.linspace(high, low, count, dtype=DOUBLE).exp()


class Cellwise(Denoiser):
    """Exact for independent cells of variance one, whatever their clocks."""

    def __init__(self, process: Process) -> None:
        nn.Module.__init__(self)
        self.process = process

    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        alpha, _, sigma = self.process.coefficients(t)
        return (alpha / (alpha**2 + sigma**2)).to(x_t) * x_t


@pytest.mark.parametrize(
    "solver",
    [StochasticAdams(3, 3, Constant(0.0)), ExtendedReverse(3, Power(1.0))],
    ids=["SA", "ER"],
)
def test_a_cell_that_waits_starts_like_any_other(solver: Solver) -> None:
    """Two clocks: the late cell, once it moves, goes as if nothing had been before."""
    base = VP(WHITE, CLOCK)
    delay = torch.tensor([[0.0, 1.0]], dtype=DOUBLE)
    both = Clocked(base, delay, 1.0)
    times = torch.linspace(1, 0, 9, dtype=DOUBLE)
    x = torch.ones(1, 1, 2, dtype=DOUBLE)
    *_, last, _ = trajectory(Cellwise(both), x, times, Context(), solver)
    own = torch.linspace(1, 0, 5, dtype=DOUBLE)
    *_, single, _ = trajectory(Cellwise(base), x[..., :1], own, Context(), solver)
    assert torch.allclose(last[..., 1:], single, rtol=1e-12)


def test_integrals_of_polynomials_are_exact() -> None:
    """Against a fine Gauss rule, for wide steps and for tiny ones, and at nodes of any order."""
    for rate, width in ((1.0, 3.0), (2.0, 1e-5), (1.25, 0.7), (5.0, 8.0)):
        a, h = torch.tensor(rate, dtype=DOUBLE), torch.tensor(width, dtype=DOUBLE)
        p, w = (torch.as_tensor(v) for v in np.polynomial.legendre.leggauss(64))
        at = 0.5 * h * (1 + p)
        weight = 0.5 * h * w * a * torch.exp(-a * (h - at))
        found = moments(a, h, 4)
        for k in range(4):
            assert torch.allclose(found[k], (weight * at**k).sum(), rtol=1e-12, atol=0)
        nodes = [v * h for v in (1.0, 0.0, -0.7, -2.0)]
        values = [(1 + n - 2 * n**2 + 0.3 * n**3).view(1, 1, 1) for n in nodes]
        mean = integral(values, nodes, found)
        truth = (weight * (1 + at - 2 * at**2 + 0.3 * at**3)).sum()
        assert torch.allclose(mean.squeeze(), truth, rtol=1e-9)


GRID = (N,)
MEAN = torch.linspace(-1, 1, N, dtype=DOUBLE).view(1, N)


def seen() -> Observation:
    position = torch.tensor([[0.0], [4.5], [9.2], [13.0]], dtype=DOUBLE)
    operator = points([0] * 4, position, GRID)
    return Observation(
        torch.tensor([1.0, -0.5, 0.3, 2.0], dtype=DOUBLE), operator, torch.tensor(0.04)
    )


@pytest.mark.parametrize("observed", [False, True], ids=["prior", "posterior"])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_matched_steps_are_exact_in_any_number(steps: int, observed: bool) -> None:
    """Mean and covariance of x_s, from the exact law at kappa 20 to 0.05, by unit noise."""
    process = VP(MATERN, CLOCK)
    gaussian, observation = Gaussian(MEAN, PRIOR, process), seen()
    prior = PRIOR(each(torch.zeros(1, 1, N, dtype=DOUBLE))).flatten(1)
    mean, covariance = MEAN.flatten(), prior
    denoiser: Denoiser = gaussian
    if observed:
        denoiser = Conditioned(gaussian, observation, gaussian)
        a = observation.operator.rows(torch.zeros(1, 1, N, dtype=DOUBLE)).flatten(1)
        gain = prior @ a.T @ torch.linalg.inv(a @ prior @ a.T + observation.covariance)
        mean = mean + gain @ (observation.y - a @ mean)
        covariance = prior - gain @ a @ prior
    noise = MATERN(each(torch.zeros(1, 1, N, dtype=DOUBLE))).flatten(1)
    times = process.times(steps + 1)

    def at(t: Tensor) -> tuple[Tensor, Tensor]:
        alpha, _, sigma = process.coefficients(t)
        return alpha * mean, alpha**2 * covariance + sigma**2 * noise

    centre, spread = at(times[0])
    half = torch.linalg.cholesky(spread).T
    start = torch.cat([centre[None], centre + half]).view(-1, 1, N)
    found = images(denoiser, Matched(), times, start, each)[0].flatten(1)
    # the map is affine: rows that start from zero carry its constant too
    known = {ROWS: 1}
    zero = torch.zeros(1, 1, N, dtype=DOUBLE)
    rng = Impulses(known, each)
    *_, constant, _ = trajectory(denoiser, zero, times, Context(), Matched(), rng)
    moved = torch.cat([found[1 : N + 1] - found[:1], found[N + 1 :] - constant.flatten(1)])
    true_mean, true_covariance = at(times[-1])
    assert torch.allclose(found[0], true_mean, atol=1e-9)
    assert torch.allclose(moved.T @ moved, true_covariance, atol=1e-9)


def test_measured_covariances_can_be_drawn() -> None:
    """F F^T = V for the fluctuation F of every closed form."""
    process = VE(WHITE, CLOCK)
    like = torch.zeros(1, 2, 8, dtype=DOUBLE)
    modes = torch.linalg.qr(torch.randn(16, 3, dtype=DOUBLE, generator=torch.manual_seed(0)))[0]
    inside = torch.tensor([[2.0, 0.5, 0.1], [0.5, 1.0, 0.2], [0.1, 0.2, 0.3]], dtype=DOUBLE)
    levels = torch.tensor([0.1, 1.0], dtype=DOUBLE).log()
    calibrated = Calibrated(
        process,
        modes.T.reshape(3, 2, 8),
        levels,
        torch.stack([0.1 * inside, inside]),
        torch.tensor([[0.01, 0.04], [0.2, 0.3]], dtype=DOUBLE),
    )
    base = Gaussian(NONE, PRIOR, process)
    scaled = Scaled(base, levels, torch.tensor([2.0, 3.0], dtype=DOUBLE))
    t = process.clock.time(torch.tensor(0.4, dtype=DOUBLE))
    for moments_ in (calibrated, base, scaled):
        known = {ROWS: 0}
        blank = torch.zeros(19, *like.shape[1:], dtype=DOUBLE)
        drawn = moments_.fluctuation(t, blank, Impulses(known, each)).flatten(1)
        dense = moments_.covariance(t)(each(like)).flatten(1)
        assert torch.allclose(drawn.T @ drawn, dense, atol=1e-12)


def test_evaluations_are_counted() -> None:
    calls: list[Tensor] = []

    class Counting(Gaussian):
        def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
            calls.append(t)
            return super().forward(x_t, t, context)

    denoiser = Counting(NONE, PRIOR, VP(WHITE, CLOCK))
    solvers = (StochasticAdams(), ExtendedReverse(), Langevin(Heun(), 0.2, 2), Matched())
    for solver in (*solvers, Restart(Heun(), 0.3, 3.0, 3, 4)):
        calls.clear()
        x = torch.zeros(2, 1, N, dtype=DOUBLE)
        for _ in trajectory(
            denoiser, x, denoiser.process.times(9), Context(), solver, Streams.of(0, 2)
        ):
            pass
        assert len(calls) == solver.evaluations(9)


class Falling(NoiseFunction):
    """Less noise returns than the probability flow keeps."""

    def log(self, kappa: Tensor) -> Tensor:
        return 0.5 * kappa.log()


def test_bad_input_is_refused() -> None:
    for tau in (-0.1, math.nan, math.inf):
        with pytest.raises(InputError, match="tau"):
            Constant(tau)
    with pytest.raises(InputError, match="low < high"):
        Band(1.0, 0.5)
    for wrong in ({"predictor": 0}, {"predictor": 5}, {"corrector": -1}, {"corrector": 5}):
        with pytest.raises(InputError, match="points"):
            StochasticAdams(**wrong)
    with pytest.raises(InputError, match="1, 2 or 3"):
        ExtendedReverse(4)
    with pytest.raises(InputError, match="exponent"):
        Power(0.9)
    with pytest.raises(InputError, match="power > 0"):
        Stretched(0.0)
    for snr in (0.0, 0.8, math.nan):
        with pytest.raises(InputError, match="snr"):
            Langevin(Euler(), snr)
    with pytest.raises(InputError, match="at least 1"):
        Langevin(Euler(), corrections=0)
    process = VP(WHITE, CLOCK)
    x, times = torch.zeros(1, 1, N, dtype=DOUBLE), process.times(4)
    denoiser = Gaussian(NONE, PRIOR, process)
    with pytest.raises(InputError, match=r"Power\(1\)"):
        list(trajectory(denoiser, x, times, Context(), ExtendedReverse(2, Falling())))
    mixture = Mixture(torch.zeros(1, 1, N), torch.ones(1), 1.0, process)
    with pytest.raises(InputError, match="Mixture, which does not know"):
        list(trajectory(mixture, x, times, Context(), Matched()))
    clocked = Clocked(process, torch.rand(1, N, dtype=DOUBLE))
    with pytest.raises(InputError, match="a single clock"):
        list(trajectory(Cellwise(clocked), x, times, Context(), Matched()))
