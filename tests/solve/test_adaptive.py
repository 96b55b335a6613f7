"""Steps from a tolerance: the error follows it, on a path that no rejection bends."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from sciddm.basis import Cosine
from sciddm.covariance import Matern, Spectral, White
from sciddm.denoise import Context, Denoiser, Gaussian
from sciddm.errors import InputError
from sciddm.guide import Conditioned
from sciddm.observe import Observation, points
from sciddm.process import VE, VP, Bridge, Clocked, Flow, LogLinear, Process
from sciddm.random import Streams
from sciddm.solve import Adaptive, Diffusion, History, trajectory
from sciddm.solve.adaptive import WHOLE, _Path

DOUBLE = torch.float64
N = 8
CLOCK = LogLinear(0.05, 20.0)
PRIOR = Spectral(Matern(0.4, 1.5, 1.2), (1.0,), Cosine())
MATERN = Spectral(Matern(0.2, 0.5), (1.0,), Cosine())


class Counting(Denoiser):
    def __init__(self, inner: Denoiser) -> None:
        nn.Module.__init__(self)
        self.inner, self.process, self.calls = inner, inner.process, 0

    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        self.calls += 1
        return self.inner(x_t, t, context)


def descend(
    denoiser: Denoiser, solver: Adaptive, members: list[int], steps: int = 2
) -> tuple[Tensor, Tensor]:
    """The field at the last time, and the evaluations that the solver counted."""
    process, rng = denoiser.process, Streams.of(0, members)
    times = process.times(steps)
    m = torch.full((1, 1, N), 0.5, dtype=DOUBLE) if process.anchored else None
    blank = torch.zeros(len(members), 1, N, dtype=DOUBLE)
    x, state = process.start(blank, times[0], m, rng.at("start")), History()
    for k, (t, s) in enumerate(zip(times[:-1], times[1:], strict=True)):
        x, state = solver.step(denoiser, x, t, s, Context(anchor=m), state, rng.at("step", k))
    return x, state.kept[0]


PROCESSES = [VE(MATERN, CLOCK), Flow(White(), CLOCK), Bridge(VP(clock=CLOCK))]


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("tau", [0.0, 1.0])
def test_the_error_falls_with_the_tolerance(tau: float, process: Process) -> None:
    """Against the finest steps on the same path; the evaluations rise and are counted."""
    members = list(range(6))
    denoiser = Counting(Gaussian(torch.tensor(0.4, dtype=DOUBLE), PRIOR, process))
    reference, _ = descend(denoiser, Adaptive(2e-3, 2e-3, tau), members)
    errors, counts = [], []
    for tolerance in (0.1, 0.025, 0.006):
        denoiser.calls = 0
        x, count = descend(denoiser, Adaptive(tolerance, tolerance, tau), members)
        assert int(count) == denoiser.calls
        errors.append(float((x - reference).square().mean().sqrt()))
        counts.append(denoiser.calls)
    assert errors[1] < 0.75 * errors[0] and errors[2] < 0.5 * errors[1]
    assert counts[0] < counts[1] < counts[2]


def test_the_flow_without_noise_is_the_exact_one() -> None:
    """The first step tried is far too long: it takes rejections to get there."""
    denoiser = Gaussian(torch.tensor(0.4, dtype=DOUBLE), PRIOR, VP(MATERN, CLOCK))
    times = denoiser.process.times(2)
    rng = Streams.of(0, 4)
    x = denoiser.process.start(torch.zeros(4, 1, N, dtype=DOUBLE), times[0], None, rng.at("start"))
    exact = denoiser.flow(x, times[0], times[1])
    gaps = []
    for tolerance in (0.1, 0.01, 0.001):
        found, _ = descend(denoiser, Adaptive(tolerance, tolerance, 0.0, longest=2.0), [0, 1, 2, 3])
        gaps.append(float((found - exact).norm() / exact.norm()))
    assert gaps[0] > 2 * gaps[1] > 4 * gaps[2] and gaps[2] < 0.02


def test_a_member_goes_its_own_way() -> None:
    """In company or alone: its steps and its noise are its own."""
    denoiser = Gaussian(torch.tensor(0.4, dtype=DOUBLE), PRIOR, VE(MATERN, CLOCK))
    together, calls = descend(denoiser, Adaptive(0.05, 0.05), list(range(12)), steps=4)
    alone = [descend(denoiser, Adaptive(0.05, 0.05), [m], steps=4) for m in (3, 11)]
    for (x, own), m in zip(alone, (3, 11), strict=True):
        assert torch.allclose(x[0], together[m], rtol=0, atol=1e-11)
        assert own < calls  # the others have been elsewhere too


def test_the_path_is_brownian_and_the_same_however_it_is_asked() -> None:
    """Unit variance of every stretch, independent stretches, and sums that hold."""
    process = VE(White(), LogLinear(0.1, 10.0))
    t, s = process.times(2)
    like = torch.zeros(4000, 1, 1, dtype=DOUBLE)
    rng = Streams.of(0, 4000)
    path, other = (_Path(process, like, t, s, 1.0, rng) for _ in range(2))
    cuts = [0, WHOLE // 4, WHOLE // 4 + WHOLE // 8, WHOLE // 2, WHOLE]
    pieces = [path.noise(a, b).flatten() for a, b in zip(cuts[:-1], cuts[1:], strict=True)]
    z = torch.stack(pieces)
    gram = z @ z.T / z.shape[1]
    assert float((gram - torch.eye(4)).abs().max()) < 4 * math.sqrt(2 / 4000)
    for a, b, piece in reversed(list(zip(cuts[:-1], cuts[1:], pieces, strict=True))):
        assert torch.allclose(other.noise(a, b).flatten(), piece, atol=1e-12)
        other.forget(a)
    whole = sum(
        p * (path._clock(b) - path._clock(a)).sqrt()
        for a, b, p in zip(cuts[:-1], cuts[1:], pieces, strict=True)
    )
    span = (path._clock(WHOLE) - path._clock(0)).sqrt()
    assert torch.allclose(whole, path.noise(0, WHOLE).flatten() * span, atol=1e-12)


def test_it_draws_with_guidance_in_closed_form() -> None:
    gaussian = Gaussian(torch.tensor(0.0), PRIOR, VP(White(), CLOCK))
    operator = points([0, 0], torch.tensor([[1.0], [5.5]]), (N,))
    y = torch.tensor([2.0, -1.0])
    guided = Conditioned(gaussian, Observation(y, operator, torch.tensor(1e-4)), gaussian)
    x = Diffusion(guided, Adaptive(0.02, 0.02), steps=2)((5, 1, N), Context(), Streams.of(0, 5))
    assert float((operator(x) - y).abs().max()) < 0.1
    assert float(x.std(0).max()) > 0.3


def test_bad_tolerances_and_processes_are_refused() -> None:
    for atol, rtol in ((0.0, 0.0), (-0.1, 0.1), (0.1, -1.0), (math.nan, 0.1), (0.1, math.inf)):
        with pytest.raises(InputError, match="atol"):
            Adaptive(atol, rtol)
    for wrong in ({"tau": -1.0}, {"tau": math.inf}, {"longest": 0.0}, {"longest": 3.0}):
        with pytest.raises(InputError, match="tau"):
            Adaptive(**wrong)
    clocked = Clocked(VE(clock=CLOCK), torch.rand(1, N, dtype=DOUBLE))
    denoiser = Counting(Gaussian(torch.zeros(()), White(), VE(clock=CLOCK)))
    denoiser.process = clocked
    x = torch.zeros(1, 1, N)
    with pytest.raises(InputError, match="a single clock"):
        next(trajectory(denoiser, x, clocked.times(3), Context(), Adaptive()))
