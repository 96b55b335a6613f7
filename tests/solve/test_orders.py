"""The order of every solver, on every process and noise, against the exact flow of a Gaussian."""

from __future__ import annotations

import math
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
    Clock,
    Clocked,
    Drifting,
    Flow,
    Interpolant,
    LogLinear,
    MeanReverting,
    Process,
    SubVP,
    shift,
)
from sciddm.random import Streams
from sciddm.solve import (
    Adams,
    DataForm,
    Euler,
    GaussianForm,
    HeavyBall,
    Heun,
    History,
    InKappa,
    InTime,
    Multistep,
    Singlestep,
    Solver,
    StraightForm,
    trajectory,
)

DOUBLE = torch.float64
N = 16
CLOCK = LogLinear(0.05, 20.0)
PRIOR = Spectral(Matern(0.4, 2.5, 1.5), (1.0,), Cosine())
NOISES: dict[str, Covariance] = {
    "white": White(1.0),
    "matern": Spectral(Matern(0.2, 0.5), (1.0,), Cosine()),
}
STEPS = (96, 192)
NARROW = LogLinear(0.5, 5.0)
NEAR = Gaussian(torch.tensor(0.3), Spectral(Matern(0.3, 1.5), (1.0,), Cosine()), VE())

# what each solver's error falls with, from exact starting values
ORDERS: dict[str, tuple[Solver, int]] = {
    "Euler": (Euler(), 1),
    "Heun": (Heun(), 2),
    "Heun straight": (Heun(StraightForm(), InTime()), 2),
    "Multistep 1": (Multistep(1), 1),
    "Multistep": (Multistep(), 2),
    "Multistep 3": (Multistep(3), 3),
    "Adams 2 kappa": (Adams(2, InKappa()), 2),
    "Adams 3 kappa": (Adams(3, InKappa()), 3),
    "Adams 3": (Adams(3), 3),
    "Adams 4": (Adams(4), 4),
    "Adams 4 time": (Adams(4, InTime()), 4),
    "Adams 3 data": (Adams(3, form=DataForm()), 3),
    "Adams 3 straight": (Adams(3, form=StraightForm()), 3),
    "Adams 2 base": (Adams(2, form=GaussianForm(NEAR)), 2),
    "Adams 2 corrected": (Adams(2, corrector=3), 3),
    "Adams 3 corrected": (Adams(3, form=DataForm(), corrector=4), 4),
    "HeavyBall 0.7": (HeavyBall(0.7), 1),
    "HeavyBall 1.7": (HeavyBall(1.7), 2),
    "HeavyBall 2.7": (HeavyBall(2.7), 3),
    "Singlestep 2": (Singlestep(2), 2),
    "Singlestep 3": (Singlestep(3), 3),
    "Singlestep 3 data": (Singlestep(3, DataForm()), 3),
}
PROCESSES: dict[str, Callable[[Covariance, Clock], Process]] = {
    "VP": VP,
    "SubVP": SubVP,
    "Flow": Flow,
    "MeanReverting": lambda noise, clock: MeanReverting(noise, clock, 0.7),
    "Drifting": Drifting,
    "Interpolant": Interpolant,
    "Bridge": lambda noise, clock: Bridge(VP(noise, clock), 2.0),
}


def gaussian(kind: Callable[[Covariance, Clock], Process], noise: Covariance) -> Gaussian:
    mean = torch.linspace(-1, 1, N, dtype=DOUBLE).view(1, N)
    return Gaussian(mean, PRIOR, kind(noise, CLOCK))


def errors_of(solver: Solver, denoiser: Gaussian, steps: tuple[int, ...] = STEPS) -> list[float]:
    """Relative errors of x at the last time.

    The first three steps are put back on the exact flow. A multistep solver starts with lower
    orders, which adds an error of second order wherever the flow is curved from the start; a draw
    starts where it is not.
    """
    ends = torch.tensor([1.0, 0.0], dtype=DOUBLE)
    alpha, _, sigma = denoiser.process.coefficients(ends[0])
    z = torch.randn(4, 1, N, generator=torch.manual_seed(0), dtype=DOUBLE)
    start = alpha * denoiser.mean + sigma * denoiser.process.noise.sqrt(z)
    exact = denoiser.flow(start, *ends)
    errors = []
    for n in steps:
        times = denoiser.process.times(n + 1)
        x, state = start, History()
        for k, (t, s) in enumerate(zip(times[:-1], times[1:], strict=True)):
            x, state = solver.step(denoiser, x, t, s, Context(), state, None)
            if k < 3:
                x = denoiser.flow(start, ends[0], s)
                here = denoiser.flow(start, ends[0], t)
                state = state._replace(kept=tuple(here for _ in state.kept))
        errors.append(float((x - exact).norm() / exact.norm()))
    return errors


@pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES.keys())
@pytest.mark.parametrize(("solver", "order"), ORDERS.values(), ids=ORDERS.keys())
def test_order(solver: Solver, order: int, noise: Covariance) -> None:
    mean = torch.linspace(-1, 1, N, dtype=DOUBLE).view(1, N)
    errors = errors_of(solver, Gaussian(mean, PRIOR, VE(noise, NARROW)))
    slope = math.log(errors[0] / errors[1]) / math.log(STEPS[1] / STEPS[0])
    assert slope == pytest.approx(order, abs=0.15), f"slope {slope:.3f}, errors {errors}"
    assert errors[1] < 0.02


@pytest.mark.parametrize("kind", PROCESSES.values(), ids=PROCESSES.keys())
def test_every_process_is_the_same_problem(kind: Callable[..., Process]) -> None:
    """In u and kappa all processes are one: every solver takes the same steps there, on a grid
    that is even in nothing, with any anchor."""
    kappa = torch.tensor([15.0, 9.0, 4.0, 2.5, 1.0, 0.3, 0.2, 0.06], dtype=DOUBLE)
    plain, other = gaussian(VE, NOISES["matern"]), gaussian(kind, NOISES["matern"])
    draws = torch.manual_seed(0)
    u = 15 * torch.randn(2, 1, N, generator=draws, dtype=DOUBLE)
    m = torch.randn(2, 1, N, generator=draws, dtype=DOUBLE) if other.process.anchored else None
    times = CLOCK.time(kappa)
    alpha, beta, _ = other.process.coefficients(times[0])
    x = shift(alpha * u, beta, m)
    for name, (solver, _) in ORDERS.items():
        want = list(trajectory(plain, u, times, Context(), solver))
        found = list(trajectory(other, x, times, Context(anchor=m), solver))
        centred = other.process.centred(found[-2], times[-1], m)
        assert torch.allclose(centred, want[-2], rtol=1e-9, atol=1e-9), name
        assert torch.allclose(found[-1], want[-1], rtol=1e-9, atol=1e-9), name


class Cellwise(Denoiser):
    """The exact denoiser of independent values of variance 4, on any clocks."""

    def __init__(self, process: Process) -> None:
        nn.Module.__init__(self)
        self.process = process

    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        return 4 / (4 + self.process.kappa(t) ** 2) * self.process.centred(x_t, t, context.anchor)


# not of HeavyBall, whose mean knows how long a cell has waited
LEFT_OUT = ("base", "Singlestep", "HeavyBall")
CELLWISE = {k: v[0] for k, v in ORDERS.items() if not any(word in k for word in LEFT_OUT)}


@pytest.mark.parametrize("solver", CELLWISE.values(), ids=CELLWISE.keys())
def test_a_clock_for_every_cell_is_a_grid_for_every_cell(solver: Solver) -> None:
    """A cell that waits, moves and stops makes the very steps of its own local times."""
    delay = torch.tensor([0.0, 0.3, 1.0], dtype=DOUBLE)
    base, together = VP(clock=CLOCK), Clocked(VP(clock=CLOCK), delay.view(1, 1, 3))
    times = torch.linspace(1, 0, 14, dtype=DOUBLE)
    x = torch.randn(2, 1, 3, generator=torch.manual_seed(1), dtype=DOUBLE)
    *_, last, _ = trajectory(Cellwise(together), x, times, Context(), solver)
    for cell in range(3):
        local = (2 * times - (1 - delay[cell])).clamp(0, 1)
        moves = torch.cat([local[:1], local[1:][local[1:] < local[:-1]]])
        if isinstance(solver, Adams) and solver.corrector and local[-2] == 0:
            continue  # its last step is corrected too, after it has stopped
        alone = x[..., cell : cell + 1]
        *_, want, _ = trajectory(Cellwise(base), alone, moves, Context(), solver)
        assert torch.allclose(last[..., cell : cell + 1], want, rtol=1e-8, atol=1e-10)


NEEDS_ONE_CLOCK = [
    Singlestep(2),
    Adams(2, form=GaussianForm(NEAR)),
    HeavyBall(form=GaussianForm(NEAR)),
    Heun(GaussianForm(NEAR), InKappa()),
]


@pytest.mark.parametrize("solver", NEEDS_ONE_CLOCK, ids=lambda s: type(s).__name__)
def test_what_cannot_serve_clocks_by_cell_says_so(solver: Solver) -> None:
    process = Clocked(VP(clock=CLOCK), torch.tensor([[[0.0, 1.0]]]))
    x = torch.zeros(1, 1, 2)
    with pytest.raises(InputError, match="Use"):
        list(trajectory(Cellwise(process), x, torch.tensor([1.0, 0.0]), Context(), solver))


@pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES.keys())
def test_the_second_order_is_worth_it(noise: Covariance) -> None:
    """At the same number of evaluations both beat Euler by far."""
    euler, heun, multistep = (
        errors_of(s, gaussian(VP, noise), (32, 64, 128)) for s in (Euler(), Heun(), Multistep())
    )
    assert multistep[1] < 0.2 * euler[1]
    assert heun[1] < 0.2 * euler[2]


class Fixed(Streams):
    """Stands for addressed noise: the unit fields times ``seed``."""

    def normal(self, like: Tensor) -> Tensor:
        return self.seed * torch.eye(N, dtype=DOUBLE).view(N, 1, N)


def spread(steps: int, denoiser: Gaussian) -> Tensor:
    """Variance of every eigendirection at the last time of the ancestral solver over the exact
    one, without Monte Carlo: a step is x -> A x + B w, and both are read off from unit fields."""
    process, context, solver = denoiser.process, Context(), Euler(eta=1.0)
    times = process.times(steps + 1, 10.0, 0.1)
    unit = torch.eye(N, dtype=DOUBLE).view(N, 1, N)

    def exact(t: Tensor) -> Tensor:
        alpha, _, sigma = process.coefficients(t)
        return sigma**2 * process.noise(unit).flatten(1) + alpha**2 * PRIOR(unit).flatten(1)

    law = exact(times[0])
    for t, s in zip(times[:-1], times[1:], strict=True):
        still, moved = (
            solver.step(denoiser, x, t, s, context, History(), rng)[0].flatten(1)
            for x, rng in ((unit, Fixed(0, (), ())), (0 * unit, Fixed(1, (), ())))
        )
        law = still.T @ law @ still + moved.T @ moved
    values, vectors = torch.linalg.eigh(exact(times[-1]))
    return (vectors.T @ law @ vectors).diagonal() / values


@pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES.keys())
@pytest.mark.parametrize("kind", [VE, VP, Flow], ids=lambda k: k.__name__)
def test_the_ancestral_solver_tends_to_the_right_law(
    kind: type[VE] | type[VP] | type[Flow], noise: Covariance
) -> None:
    """Every mode's variance within 2 % at 256 steps from kappa 10 to 0.1, below it as the module
    says, and exact as far as two step sizes can tell."""
    denoiser = Gaussian(torch.zeros(()), PRIOR, kind(noise, CLOCK))
    coarse, fine = spread(128, denoiser), spread(256, denoiser)
    assert float((fine - 1).abs().max()) < 0.02 and bool((fine < 1).all())
    assert torch.allclose(2 * fine - coarse, torch.ones_like(fine), atol=1e-3)


@pytest.mark.parametrize("eta", [-0.1, 1.1, math.nan])
def test_eta_is_a_share(eta: float) -> None:
    with pytest.raises(InputError, match="from 0 to 1"):
        Euler(eta)
