"""Restart: the base sampler to the bit without rounds, and errors that contract with them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from sciddm.covariance import White
from sciddm.denoise import Context, Denoiser, Gaussian, Mixture
from sciddm.errors import InputError
from sciddm.process import VE, VP, Clocked, Flow, LogLinear, MeanReverting, Process
from sciddm.random import Streams
from sciddm.solve import Diffusion, Euler, Heun, Multistep, Restart, Solver, trajectory

DOUBLE = torch.float64
CLOCK = LogLinear(0.02, 50.0)


def last(denoiser: Denoiser, x: Tensor, solver: Solver, steps: int, rng: Streams) -> Tensor:
    *_, field, _ = trajectory(denoiser, x, denoiser.process.times(steps), Context(), solver, rng)
    return field


@pytest.mark.parametrize("solver", [Euler(), Heun(), Multistep()], ids=lambda s: type(s).__name__)
def test_no_round_is_the_base_sampler_to_the_bit(solver: Solver) -> None:
    denoiser = Gaussian(torch.tensor(0.3), White(1.5), Flow(clock=CLOCK))
    restart = Restart(solver, 0.1, 1.0, rounds=0)
    for steps in (5, 12):
        a, b = (
            Diffusion(denoiser, s, steps)((3, 1, 6), Context(), Streams.of(2, 3))
            for s in (solver, restart)
        )
        assert torch.equal(a, b)
        assert restart.evaluations(steps) == solver.evaluations(steps)
    again = Diffusion(denoiser, Restart(solver, 0.1, 1.0, rounds=1), 12)
    assert not torch.equal(again((3, 1, 6), Context(), Streams.of(2, 3)), a)


@pytest.mark.parametrize("rounds", [1, 3])
def test_a_round_brings_fields_together_as_the_theory_says(rounds: int) -> None:
    """Two fields that meet the same noise: their distance shrinks by
    sqrt((p + low^2) / (p + high^2)) a round, on top of the base sampler."""
    variance, low, high = 0.5, 0.1, 2.0
    process = VP(clock=LogLinear(low, 50.0))  # the grid ends where the interval does
    denoiser = Gaussian(torch.zeros((), dtype=DOUBLE), White(variance**0.5), process)
    x = torch.tensor([[[0.0]], [[1.0]]], dtype=DOUBLE)
    same = Streams(0, (0, 0), (7, 7))
    solver = Heun()
    plain = last(denoiser, x, solver, 100, same)
    moved = last(denoiser, x, Restart(solver, low, high, rounds, 60), 100, same)
    ratio = float((moved[1] - moved[0]) / (plain[1] - plain[0]))
    theory = math.sqrt((variance + low**2) / (variance + high**2)) ** rounds
    assert ratio == pytest.approx(theory, rel=2e-3)


class Faulty(Denoiser):
    """A denoiser whose estimate is 1.5 too high above a noise level: the planted error."""

    def __init__(self, inner: Denoiser, above: float) -> None:
        nn.Module.__init__(self)
        self.inner, self.process, self.above = inner, inner.process, above

    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        wrong = self.process.kappa(t) > self.above * (1 + 1e-9)
        return self.inner(x_t, t, context) + torch.where(wrong, 1.5, 0.0).to(x_t)


def wasserstein(x: Tensor, mixture: Mixture, count: int) -> float:
    """W1 of draws to a mixture on the line, by quantiles."""
    w = (torch.arange(count, dtype=DOUBLE) + 0.5) / count
    grid = torch.linspace(-6, 6, 20001, dtype=DOUBLE)
    gap = (grid[:, None] - mixture.means.flatten()) / mixture.std
    cdf = torch.special.ndtr(gap) @ mixture.weights
    true = grid[torch.searchsorted(cdf, w).clamp_max(len(grid) - 1)]
    return float((x.flatten().sort()[0] - true).abs().mean())


def test_a_planted_error_contracts_while_the_plain_flow_keeps_it() -> None:
    """Two modes of unequal weight, the estimate wrong above kappa = 2: more steps do not help, more
    rounds do, and the noise of each is fresh."""
    weights = torch.tensor([0.75, 0.25], dtype=DOUBLE)
    mixture = Mixture(
        torch.tensor([-1.0, 2.0], dtype=DOUBLE).view(2, 1, 1), weights, 0.3, VE(clock=CLOCK)
    )
    faulty = Faulty(mixture, 2.0)
    count = 2000
    z = torch.special.ndtri((torch.arange(count, dtype=DOUBLE) + 0.5) / count).view(-1, 1, 1)
    rng = Streams.of(4, count)

    def error(solver: Solver, steps: int) -> float:
        return wasserstein(last(faulty, 50 * z, solver, steps, rng), mixture, count)

    plain, finer = error(Multistep(), 40), error(Multistep(), 80)
    two, four = (error(Restart(Multistep(), 0.2, 1.98, r, 12), 40) for r in (2, 4))
    assert finer > 0.85 * plain > 0.5  # a plateau
    assert two < 0.5 * plain
    assert four < 0.5 * two


@pytest.mark.parametrize("kind", [VE, VP, Flow, MeanReverting], ids=lambda k: k.__name__)
def test_the_jump_is_the_forward_law(kind: type[VE]) -> None:
    """Up from a known field: mean and variance as the process has them."""
    from sciddm.solve.restart import rise

    process: Process = kind(clock=CLOCK)
    s, t = process.clock.time(torch.tensor([0.1, 2.0], dtype=DOUBLE))
    m = torch.full((1, 1, 1), 0.7, dtype=DOUBLE) if process.anchored else None
    x = torch.tensor([[[1.3]]], dtype=DOUBLE)

    class Unit(Streams):
        def normal(self, like: Tensor) -> Tensor:
            return torch.full_like(like, float(self.seed))

    mean, one = (rise(process, x, s, t, m, Unit(k, (0,), (0,))) for k in (0, 1))
    gap = process.centred(mean, t, m) - process.centred(x, s, m)
    assert float(gap.abs().max()) < 1e-12
    std = float(one - mean) / float(process.coefficients(t)[0])
    assert std == pytest.approx(math.sqrt(4 - 0.01), rel=1e-9)


def test_bad_intervals_are_refused() -> None:
    for low, high in ((0.0, 1.0), (2.0, 1.0), (0.1, math.inf), (math.nan, 1.0)):
        with pytest.raises(InputError, match="0 < low < high"):
            Restart(Euler(), low, high)
    with pytest.raises(InputError, match="at least 0 and 1"):
        Restart(Euler(), rounds=-1)
    with pytest.raises(InputError, match="at least 0 and 1"):
        Restart(Euler(), steps=0)
    denoiser = Gaussian(torch.zeros(()), White(), VE(clock=CLOCK))
    for low, high in ((0.1, 51.0), (0.019, 1.0)):
        with pytest.raises(InputError, match="inside the grid"):
            Diffusion(denoiser, Restart(Euler(), low, high))((1, 1, 4), Context(), Streams.of(0, 1))
    clocked = Clocked(VE(clock=CLOCK), torch.rand(1, 4, dtype=DOUBLE))
    with pytest.raises(InputError, match="StochasticAdams"):
        Restart(Euler()).check(clocked, clocked.times(4))
