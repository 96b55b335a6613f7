"""The order of every solver, on every process and noise, against the exact flow of a Gaussian."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from sciddm.basis import Cosine
from sciddm.covariance import Covariance, Matern, Spectral, White
from sciddm.denoise import Context, Gaussian
from sciddm.errors import InputError
from sciddm.process import VE, VP, Flow, LogLinear
from sciddm.random import Streams
from sciddm.solve import Euler, Heun, History, Multistep, Solver, trajectory

DOUBLE = torch.float64
N = 16
CLOCK = LogLinear(0.05, 20.0)
PRIOR = Spectral(Matern(0.4, 2.5, 1.5), (1.0,), Cosine())
NOISES: dict[str, Covariance] = {
    "white": White(1.0),
    "matern": Spectral(Matern(0.2, 0.5), (1.0,), Cosine()),
}
STEPS = (32, 64, 128, 256)


def gaussian(kind: type[VE] | type[VP] | type[Flow], noise: Covariance) -> Gaussian:
    mean = torch.linspace(-1, 1, N, dtype=DOUBLE).view(1, N)
    return Gaussian(mean, PRIOR, kind(noise, CLOCK))


def slope(solver: Solver, denoiser: Gaussian) -> tuple[float, list[float]]:
    """The slope of log error over log steps, and the errors, of x at the last time."""
    ends = torch.tensor([1.0, 0.0], dtype=DOUBLE)
    alpha = denoiser.process.coefficients(ends[0])[0]
    z = torch.randn(4, 1, N, generator=torch.manual_seed(0), dtype=DOUBLE)
    x = alpha * (denoiser.mean + 20 * denoiser.process.noise.sqrt(z))
    exact = denoiser.flow(x, *ends)
    errors = []
    for steps in STEPS:
        times = denoiser.process.times(steps + 1)
        *_, last, _ = trajectory(denoiser, x, times, Context(), solver)
        errors.append(float((last - exact).norm() / exact.norm()))
    return float(-np.polyfit(np.log(STEPS), np.log(errors), 1)[0]), errors


@pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES.keys())
@pytest.mark.parametrize("kind", [VE, VP, Flow], ids=lambda k: k.__name__)
@pytest.mark.parametrize(
    ("solver", "order"),
    [(Euler(), 1.0), (Heun(), 2.0), (Multistep(), 2.0)],
    ids=["Euler", "Heun", "Multistep"],
)
def test_order(
    solver: Solver, order: float, kind: type[VE] | type[VP] | type[Flow], noise: Covariance
) -> None:
    measured, errors = slope(solver, gaussian(kind, noise))
    assert measured == pytest.approx(order, abs=0.2), f"slope {measured:.3f}, errors {errors}"
    assert errors[-1] < 0.02


@pytest.mark.parametrize("noise", NOISES.values(), ids=NOISES.keys())
def test_the_second_order_is_worth_it(noise: Covariance) -> None:
    """At the same number of evaluations both beat Euler by far."""
    denoiser = gaussian(VP, noise)
    (_, euler), (_, heun), (_, multistep) = (
        slope(s, denoiser) for s in (Euler(), Heun(), Multistep())
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
