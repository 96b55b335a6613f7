"""Exponential solvers: exact on polynomials, exact on their base, bounded where others are not."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from scipy import integrate
from torch import Tensor, nn

from sciddm.basis import Cosine
from sciddm.covariance import Matern, Spectral, White
from sciddm.denoise import Context, Denoiser, Gaussian
from sciddm.errors import InputError
from sciddm.guide import ClassifierFree, Conditioned
from sciddm.observe import Observation, points
from sciddm.process import (
    VE,
    VP,
    Bridge,
    Drifting,
    Interpolant,
    LinearSigma,
    LogLinear,
    MeanReverting,
    Process,
)
from sciddm.random import Streams
from sciddm.solve import (
    Adams,
    DataForm,
    GaussianForm,
    HeavyBall,
    Heun,
    History,
    InKappa,
    InLogKappa,
    InTime,
    Multistep,
    NoiseForm,
    Singlestep,
    Solver,
    StraightForm,
    Variable,
    trajectory,
)
from sciddm.solve.forms import Form, ScalarForm

DOUBLE = torch.float64
CLOCK = LogLinear(0.05, 50.0)
KAPPA = (50.0, 20.0, 11.0, 2.0, 1.5, 0.3, 0.05)
VARIABLES = {"kappa": InKappa(), "log kappa": InLogKappa(), "time": InTime()}
FORMS: dict[str, ScalarForm] = {
    "data": DataForm(),
    "noise": NoiseForm(),
    "straight": StraightForm(),
}
SMOOTH = Spectral(Matern(0.4, 1.5, 1.2), (1.0,), Cosine())
N = 12


class Planned(Denoiser):
    """The clean estimate whose value q in a form is a given function of kappa, whatever x_t is."""

    def __init__(self, process: Process, form: Form, plan: Callable[[Tensor], Tensor]) -> None:
        nn.Module.__init__(self)
        self.process, self.form, self.plan = process, form, plan

    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        # every form is affine in x_hat
        zero, one = (self.form.value(self.process, x_t, v + 0 * x_t, t, None) for v in (0.0, 1.0))
        return (self.plan(self.process.kappa(t)) - zero) / (one - zero)


@pytest.mark.parametrize("variable", VARIABLES.values(), ids=VARIABLES.keys())
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
@pytest.mark.parametrize("points", [1, 2, 3, 4])
def test_polynomials_are_integrated_exactly(
    points: int, form: ScalarForm, variable: Variable
) -> None:
    """The last steps, on uneven times, against adaptive quadrature; and not one degree higher."""
    process = VP(clock=LinearSigma(1e-3) if isinstance(variable, InTime) else CLOCK)
    times = process.clock.time(torch.tensor(KAPPA, dtype=DOUBLE))
    x = torch.tensor([[[0.7]]], dtype=DOUBLE)
    scale = float(variable(process, process.kappa(times[:1])))
    for degree, exact in ((points - 1, True), (points, False)):

        def plan(kappa: Tensor, degree: int = degree) -> Tensor:
            return 1 - 2 * (variable(process, kappa) / scale - 0.3) ** degree

        denoiser, state, field, far = Planned(process, form, plan), History(), x, 0.0
        for k, (t, s) in enumerate(zip(times[:-1], times[1:], strict=True)):
            u = float(process.centred(field, t))
            field, state = Adams(points, variable, form).step(
                denoiser, field, t, s, Context(), state, None
            )
            if k < points - 1:
                continue
            high, low = float(process.kappa(t)), float(process.kappa(s))

            def rate(level: float) -> float:
                kappa = torch.tensor(level, dtype=DOUBLE)
                return float(plan(kappa) * form.weight(kappa))

            m_t, m_s = (float(form.scale(torch.tensor(v, dtype=DOUBLE))) for v in (high, low))
            want = m_s / m_t * u + m_s * integrate.quad(rate, low, high, epsrel=1e-12)[0]
            far = max(far, abs(float(process.centred(field, s)) / want - 1))
        assert far < 1e-9 if exact else far > 1e-6


def test_the_default_is_dpm_solver_pp_2m() -> None:
    """Against the algorithm as printed, in half log-SNR."""
    process = VP(clock=CLOCK)
    denoiser = Gaussian(torch.tensor(0.4), White(1.3), process)
    times = process.clock.time(torch.tensor(KAPPA, dtype=DOUBLE))
    x = torch.tensor([[[0.7]]], dtype=DOUBLE)
    *path, _ = trajectory(denoiser, x, times, Context(), Multistep())
    alpha, _, sigma = process.coefficients(times)
    lam = torch.log(alpha / sigma)
    old, field = torch.zeros_like(x), x
    for i in range(1, len(times)):
        h = lam[i] - lam[i - 1]
        now = denoiser(field, times[i - 1], Context())
        r = (lam[i - 1] - lam[i - 2]) / h if i > 1 else torch.tensor(math.inf)
        mixed = (1 + 1 / (2 * r)) * now - old / (2 * r)
        field = sigma[i] / sigma[i - 1] * field - alpha[i] * torch.expm1(-h) * mixed
        old = now
        assert torch.allclose(path[i - 1], field, rtol=1e-12)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_first_orders_are_one_step(order: int) -> None:
    """Order 1 is the kernel step in every form; Multistep(3) is Adams on the data."""
    process = VP(clock=CLOCK)
    denoiser = Gaussian(torch.tensor(0.4), White(1.3), process)
    times = process.clock.time(torch.tensor(KAPPA, dtype=DOUBLE))
    x = torch.tensor([[[0.7]]], dtype=DOUBLE)

    def end(solver: Solver) -> Tensor:
        return list(trajectory(denoiser, x, times, Context(), solver))[-1]

    if order == 1:
        for solver in (Singlestep(1), HeavyBall(1.0), *(Adams(1, form=f) for f in FORMS.values())):
            assert torch.allclose(end(solver), end(Multistep(1)), rtol=1e-12)
    if order == 3:
        assert torch.allclose(end(Multistep(3)), end(Adams(3, form=DataForm())), rtol=1e-12)
    assert torch.allclose(end(HeavyBall(float(order))), end(Adams(order)), rtol=1e-10)


def test_the_exact_base_makes_every_step_exact() -> None:
    """DPM-Solver-v3: one step from one end to the other, where no fixed form comes near."""
    process = VP(Spectral(Matern(0.2, 0.5), (1.0,), Cosine()), CLOCK)
    law = Gaussian(torch.linspace(-1, 1, N, dtype=DOUBLE).view(1, N), SMOOTH, process)
    ends = torch.tensor([1.0, 0.0], dtype=DOUBLE)
    x = torch.randn(3, 1, N, generator=torch.manual_seed(0), dtype=DOUBLE)
    exact = law.flow(x, *ends)
    base = Gaussian(law.mean, SMOOTH, VE())  # under whatever process

    def error(form: Form) -> float:
        first, _ = trajectory(law, x, ends, Context(), Adams(1, form=form))
        return float((first - exact).norm() / exact.norm())

    assert error(GaussianForm(base)) < 1e-12
    assert min(error(DataForm()), error(NoiseForm()), error(StraightForm())) > 0.1


@pytest.mark.parametrize(("std", "form"), [(1e-7, DataForm()), (1e7, NoiseForm())])
def test_trivial_bases_are_the_fixed_forms(std: float, form: Form) -> None:
    process = VP(clock=CLOCK)
    law = Gaussian(torch.zeros(()), SMOOTH, process)
    base = Gaussian(torch.zeros(()), White(std), process)
    x = torch.randn(3, 1, N, generator=torch.manual_seed(0), dtype=DOUBLE)
    times = process.times(9)
    for count in (1, 3):
        *_, found = trajectory(law, x, times, Context(), Adams(count, form=GaussianForm(base)))
        *_, want = trajectory(law, x, times, Context(), Adams(count, form=form))
        assert torch.allclose(found, want, rtol=1e-6, atol=1e-8)


def test_a_base_near_the_truth_helps() -> None:
    """At eight evaluations, on a law that the base has half right."""
    process = VP(clock=LogLinear(0.05, 300.0))
    law = Gaussian(torch.zeros(()), SMOOTH, process)
    base = Gaussian(torch.tensor(0.1), Spectral(Matern(0.3, 1.5, 0.9), (1.0,), Cosine()), process)
    ends = torch.tensor([1.0, 0.0], dtype=DOUBLE)
    x = torch.randn(8, 1, N, generator=torch.manual_seed(0), dtype=DOUBLE)
    exact = law.flow(x, *ends)

    def error(solver: Solver) -> float:
        *_, last, _ = trajectory(law, x, process.times(8), Context(), solver)
        return float((last - exact).norm() / exact.norm())

    for order, share in ((1, 0.15), (2, 0.4)):
        helped = error(Adams(order, form=GaussianForm(base)))
        assert helped < share * min(error(Adams(order, form=f)) for f in (DataForm(), NoiseForm()))


def linear(rate: float, solver: Solver, steps: int, width: float) -> float:
    """|u| at the end of ``steps`` even steps of du/d kappa = rate u, from 1."""
    process = VE(clock=LogLinear(0.5, 1e6))
    kappa = torch.linspace(1 + width * steps, 1, steps + 1, dtype=DOUBLE)

    class Linear(Denoiser):
        def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
            return x_t * (1 - rate * process.kappa(t))

    stiff = Linear()
    stiff.process = process
    x = torch.ones(1, 1, 1, dtype=DOUBLE)
    *_, last, _ = trajectory(stiff, x, process.clock.time(kappa), Context(), solver)
    return float(last.abs())


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75, 1.0])
def test_momentum_moves_the_boundary_of_stability(share: float) -> None:
    """On u' = rate u with even steps h the second order is stable to h rate = 2 - share: from 1 of
    Adams-Bashforth to 2 of Euler. The root is -1 at x_1 = x_0 - h ((2 + b) v_1 - (2 - b) v_0) / 2b.
    """
    solver = HeavyBall(1 + share, InKappa())
    edge = 2 - share
    assert linear(0.95 * edge, solver, 200, 1.0) < 1
    assert linear(1.05 * edge, solver, 200, 1.0) > 10


def test_momentum_has_the_published_weights_on_even_steps() -> None:
    """(2 + b) / 2b and -(2 - b) / 2b once the mean is in its stride."""
    share, steps = 0.6, 40
    process = VE(clock=LogLinear(0.5, 1e6))
    kappa = torch.linspace(steps + 1.0, 1, steps + 1, dtype=DOUBLE)
    q = torch.randn(steps, generator=torch.manual_seed(0), dtype=DOUBLE)
    plan = dict(zip(kappa.tolist(), q.tolist(), strict=False)) | {1.0: 0.0}
    denoiser = Planned(
        process,
        NoiseForm(),
        lambda k: torch.tensor(plan[min(plan, key=lambda v: abs(v - float(k)))], dtype=DOUBLE),
    )
    x = torch.zeros(1, 1, 1, dtype=DOUBLE)
    solver = HeavyBall(1 + share, InKappa())
    path = list(trajectory(denoiser, x, process.clock.time(kappa), Context(), solver))
    v = [float(q[0])]
    for value in q[1:].tolist():
        v.append((1 - share) * v[-1] + share * value)
    step = float(path[steps - 1] - path[steps - 2])
    want = (2 + share) / (2 * share) * v[-1] - (2 - share) / (2 * share) * v[-2]
    assert step == pytest.approx(want, rel=1e-9)


def test_momentum_stays_bounded_under_stiff_guidance() -> None:
    """Ten steps, a guidance weight of 8, exact answers within 3: the base solvers leave them by
    far, the lower dial stays; at a weight of 12 where even Euler goes."""
    gaussian = Gaussian(torch.zeros(()), SMOOTH, VE(clock=LogLinear(0.01, 100.0)))
    operator = points([0, 0], torch.tensor([[3.0], [8.0]]), (N,))
    observation = Observation(torch.tensor([1.0, -1.0]), operator, torch.tensor(1e-2))
    conditional = Conditioned(gaussian, observation, gaussian)
    x = 100 * torch.randn(4, 1, N, generator=torch.manual_seed(0), dtype=DOUBLE)

    def size(weight: float, solver: Solver, steps: int = 10) -> float:
        guided = ClassifierFree(conditional, gaussian, weight)
        *_, last, _ = trajectory(guided, x, gaussian.process.times(steps), Context(), solver)
        return float(last.abs().max())

    assert size(8, Multistep(), 500) < 3 and size(12, Multistep(), 500) < 3
    assert min(size(8, Adams(2)), size(8, Multistep())) > 50
    assert size(8, HeavyBall(0.5)) < 2.5
    assert size(8, HeavyBall(1.2, InKappa())) < 6 < 15 < size(8, Adams(2, InKappa()))
    assert size(12, HeavyBall(0.5)) < 2.5 < 100 < size(12, Adams(1))


@pytest.mark.parametrize(
    "build",
    [
        lambda: Multistep(0),
        lambda: Multistep(4),
        lambda: Adams(0),
        lambda: Adams(5),
        lambda: Adams(2, corrector=1),
        lambda: Singlestep(4),
        lambda: HeavyBall(0.0),
        lambda: HeavyBall(3.1),
        lambda: HeavyBall(math.nan),
    ],
)
def test_orders_are_possible_ones(build: Callable[[], Solver]) -> None:
    with pytest.raises(InputError, match="expected"):
        build()


@pytest.mark.parametrize(
    ("solver", "evaluations"),
    [
        (Adams(3, corrector=3), 7),
        (HeavyBall(1.5), 7),
        (Multistep(3), 7),
        (Heun(StraightForm(), InTime()), 13),
        (Singlestep(2), 13),
        (Singlestep(3), 19),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, Solver) else str(v),
)
def test_evaluations_are_counted(solver: Solver, evaluations: int) -> None:
    """A corrector costs none."""
    process, calls = VP(clock=CLOCK), []

    def plan(kappa: Tensor) -> Tensor:
        calls.append(kappa)
        return kappa

    denoiser = Planned(process, DataForm(), plan)
    list(trajectory(denoiser, torch.zeros(1, 1, 1), process.times(7), Context(), solver))
    assert len(calls) == evaluations == solver.evaluations(7)


class Constant(Denoiser):
    """A network whose answer never changes."""

    def __init__(self, process: Process, answer: Tensor) -> None:
        nn.Module.__init__(self)
        self.process, self.answer = process, answer

    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        return self.answer.expand_as(x_t)


ANCHORED: dict[str, Process] = {
    "MeanReverting": MeanReverting(clock=CLOCK, spread=0.7),
    "Drifting": Drifting(clock=CLOCK),
    "Interpolant": Interpolant(clock=CLOCK),
    "Bridge": Bridge(VP(clock=CLOCK), 2.0),
}
anchored = pytest.mark.parametrize("process", ANCHORED.values(), ids=ANCHORED.keys())


def velocity(denoiser: Denoiser, x: Tensor, t: Tensor, m: Tensor) -> Tensor:
    """dx/dt of the probability flow as it is written for SDEs: f - g^2 score / 2."""
    process = denoiser.process
    alpha, beta, sigma = process.coefficients(t)
    drift, pull, diffusion = process.rates(t)
    score = (alpha * denoiser(x, t, Context(anchor=m)) + beta * m - x) / sigma**2
    return drift * x + pull * m - 0.5 * diffusion**2 * score


@anchored
def test_one_step_is_exact_for_a_constant_answer(process: Process) -> None:
    """The semi-analytic step: of any length, against the flow's own equation in small ones."""
    m = torch.tensor([[[-0.4, 1.1]]], dtype=DOUBLE)
    denoiser = Constant(process, torch.tensor([[[0.8, -0.3]]], dtype=DOUBLE))
    x = torch.tensor([[[2.0, -1.0]]], dtype=DOUBLE)
    t, s = torch.tensor([0.55, 0.35], dtype=DOUBLE)
    fine = torch.linspace(float(t), float(s), 201, dtype=DOUBLE)
    want = x
    for a, b in zip(fine[:-1], fine[1:], strict=True):
        first = velocity(denoiser, want, a, m)
        middle = velocity(denoiser, want + 0.5 * (b - a) * first, 0.5 * (a + b), m)
        want = want + (b - a) * middle
    for solver in (Multistep(), Adams(1), Singlestep(2, DataForm()), Heun(DataForm())):
        found, _ = solver.step(denoiser, x, t, s, Context(anchor=m), History(), None)
        assert torch.allclose(found, want, atol=2e-5)


@anchored
def test_a_tenth_of_the_steps(process: Process) -> None:
    """Sixteen semi-analytic steps are closer than a hundred and sixty of Euler's on the equation
    as it is written."""
    m = torch.cos(torch.arange(N, dtype=DOUBLE)).expand(2, 1, N)
    law = Gaussian(torch.zeros(()), SMOOTH, process)
    ends = torch.tensor([1.0, 0.0], dtype=DOUBLE)
    z = torch.randn(2, 1, N, generator=torch.manual_seed(0), dtype=DOUBLE)
    _, beta, sigma = process.coefficients(ends[0])
    start = beta * m + sigma * z
    exact = law.flow(start, *ends, m)
    *_, found, _ = trajectory(law, start, process.times(17), Context(anchor=m), Multistep())
    plain, times = start, process.times(161)
    for t, s in zip(times[:-1], times[1:], strict=True):
        plain = plain + (s - t) * velocity(law, plain, t, m)
    assert float((found - exact).norm()) < float((plain - exact).norm())


def test_a_bridge_is_encoded_and_decoded() -> None:
    """The implicit bridge both ways: from a field to its noise and back, to second order."""
    process = Bridge(VP(clock=LogLinear(0.1, 10.0)), 2.0)
    law = Gaussian(torch.zeros(()), SMOOTH, process)
    context = Context(anchor=torch.cos(torch.arange(N, dtype=DOUBLE)).expand(2, 1, N))
    x = law.sample(torch.zeros(2, 1, N, dtype=DOUBLE), Streams.of(0, 2))
    errors = []
    for steps in (33, 65, 129):
        down = process.times(steps)
        *_, noise, _ = trajectory(law, x, down.flip(0), context, Multistep())
        *_, back, _ = trajectory(law, noise, down, context, Multistep())
        errors.append(float((back - x).norm() / x.norm()))
    assert errors[0] / errors[1] == pytest.approx(4, abs=1) == errors[1] / errors[2]
    assert errors[2] < 1e-2
