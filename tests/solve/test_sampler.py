"""The sampler: draws of the right law, the same member in any batch, evaluations as counted."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sciddm.basis import Cosine
from sciddm.covariance import Covariance, Matern, Spectral, White
from sciddm.denoise import Context, Denoiser, Gaussian, Preconditioned
from sciddm.nn import SpectralOperator
from sciddm.process import VE, VP, Flow, LogLinear, Process
from sciddm.random import Streams
from sciddm.solve import Diffusion, Euler, Heun, Multistep, Solver, trajectory

DOUBLE = torch.float64
N = 8
PRIOR = Spectral(Matern(0.4, 1.5, 1.2), (1.0,), Cosine())
SOLVERS = [Euler(), Euler(1.0), Heun(), Multistep()]
solvers = pytest.mark.parametrize("solver", SOLVERS, ids=["ode", "sde", "heun", "multistep"])


class Counting(Denoiser):
    """Counts the calls, and remembers their times."""

    def __init__(self, inner: Denoiser) -> None:
        nn.Module.__init__(self)
        self.inner, self.process = inner, inner.process
        self.times: list[float] = []

    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        self.times.append(float(t))
        return self.inner(x_t, t, context)


@solvers
@pytest.mark.parametrize("steps", [2, 7])
def test_evaluations_are_counted(solver: Solver, steps: int) -> None:
    gaussian = Gaussian(torch.zeros(()), PRIOR, VE(clock=LogLinear(0.05, 20.0)))
    counting = Counting(gaussian)
    sampler = Diffusion(counting, solver, steps)
    sampler((2, 1, N), Context(), Streams.of(0, 2))
    assert len(counting.times) == sampler.evaluations == solver.evaluations(steps)
    grid = gaussian.process.times(steps).tolist()
    assert sorted(set(counting.times), reverse=True) == grid  # no time outside, none left out
    assert counting.times[-1] == grid[-1]


def test_a_trajectory_ends_in_the_clean_estimate() -> None:
    gaussian = Gaussian(torch.zeros(()), PRIOR, VP(clock=LogLinear(0.05, 20.0)))
    times = gaussian.process.times(5)
    x = torch.randn(3, 1, N, generator=torch.manual_seed(0), dtype=DOUBLE)
    *path, last = trajectory(gaussian, x, times, Context(), Multistep())
    assert len(path) == 4
    assert torch.equal(last, gaussian(path[-1], times[-1], Context()))


@solvers
def test_a_member_is_the_same_wherever_it_stands(solver: Solver) -> None:
    """A float32 network, a batch of fixed size: any place, any company, to the bit."""
    torch.manual_seed(0)
    backbone = SpectralOperator(1, 1, (4, 4), width=8, blocks=2)
    nn.init.normal_(backbone.head.weight, std=0.3)
    process = VE(clock=LogLinear(0.05, 20.0))
    sampler = Diffusion(Preconditioned(backbone, process), solver, 6)

    def members(*numbers: int) -> Tensor:
        return sampler((8, 1, 8, 8), Context(), Streams.of(3, numbers))

    first = members(*range(8))
    assert first.dtype == torch.float32
    order = [5, 2, 7, 0, 1, 3, 6, 4]
    assert torch.equal(members(*order), first[order])
    mixed = members(100, 3, 101, 102, 6, 103, 104, 105)
    assert torch.equal(mixed[[1, 4]], first[[3, 6]])
    assert not torch.equal(mixed[0], first[0])
    other = sampler((8, 1, 8, 8), Context(), Streams.of(4, 8))
    assert not bool((other == first).flatten(1).all(1).any())


def test_stochastic_steps_draw_fresh_noise_each() -> None:
    """Noise of one address at every step would add up coherently: the variance tells. For a white
    prior of variance one it follows a scalar recursion."""
    gaussian = Gaussian(torch.zeros(()), White(), VE(clock=LogLinear(0.05, 20.0)))
    kappa = gaussian.process.kappa(gaussian.process.times(40)).tolist()
    variance = kappa[0] ** 2
    for k_t, k_s in zip(kappa[:-1], kappa[1:], strict=True):
        gain, ratio2 = 1 / (1 + k_t**2), (k_s / k_t) ** 2
        variance = (gain + ratio2 * (1 - gain)) ** 2 * variance + k_s**2 * (1 - ratio2)
    variance /= (1 + kappa[-1] ** 2) ** 2
    count = 500
    x = Diffusion(gaussian, Euler(1.0), 40)((count, 1, N), Context(), Streams.of(0, count))
    error = variance * (2 / (count * N)) ** 0.5
    assert float(x.square().mean()) == pytest.approx(variance, abs=4 * error)


@pytest.mark.parametrize("noise", [White(), Spectral(Matern(0.2, 0.5), (1.0,), Cosine())])
@pytest.mark.parametrize("kind", [VE, VP, Flow], ids=lambda k: k.__name__)
@pytest.mark.parametrize("solver", [Heun(), Multistep()], ids=["heun", "multistep"])
def test_draws_have_the_law_of_the_prior(
    solver: Solver, kind: type[VE] | type[VP] | type[Flow], noise: Covariance
) -> None:
    """Whitened by the prior: mean zero and covariance one in every direction, 1500 members."""
    count = 1500
    process: Process = kind(noise, LogLinear(1e-3, 100.0))
    gaussian = Gaussian(torch.tensor(0.7), PRIOR, process)
    x = Diffusion(gaussian, solver, 64)((count, 1, N), Context(), Streams.of(1, count))
    dense = PRIOR(torch.eye(N, dtype=DOUBLE).view(N, 1, N)).flatten(1)
    values, vectors = torch.linalg.eigh(dense)
    white = (x.flatten(1).double() - 0.7) @ vectors / values.sqrt()
    assert float((white.mean(0) * count**0.5).abs().max()) < 4
    eye = torch.eye(N, dtype=DOUBLE)
    z = (white.T @ white / count - eye) * (count / (1 + eye)).sqrt()
    assert float(z.abs().max()) < 4.5


def test_the_range_of_noise_levels_is_obeyed() -> None:
    counting = Counting(Gaussian(torch.zeros(()), PRIOR, VE(clock=LogLinear(0.01, 100.0))))
    Diffusion(counting, steps=5, kappa_max=10.0, kappa_min=0.1)(
        (1, 1, N), Context(), Streams.of(0, 1)
    )
    kappa = counting.process.kappa(torch.tensor(counting.times, dtype=DOUBLE))
    assert kappa.tolist() == pytest.approx([10, 10**0.5, 1, 10**-0.5, 0.1])


def test_drawing_leaves_no_graph() -> None:
    backbone = SpectralOperator(1, 1, (4,), width=4, blocks=1)
    sampler = Diffusion(Preconditioned(backbone, VE()), steps=3)
    assert not sampler((1, 1, N), Context(), Streams.of(0, 1)).requires_grad
