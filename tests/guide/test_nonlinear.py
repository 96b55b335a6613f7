"""Operators that are not affine: rows of every member's own, against quadrature and the mode."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from sciddm.basis import Cosine
from sciddm.covariance import Matern, Spectral, White
from sciddm.denoise import Context, Gaussian
from sciddm.errors import InputError
from sciddm.guide import Conditioned
from sciddm.observe import Coarsen, Function, Mask, Observation, Operator, noise, points
from sciddm.process import VE, VP, LogLinear
from sciddm.random import Streams
from sciddm.solve import Multistep, trajectory

DOUBLE = torch.float64
GRID = (8, 8)
PRIOR = Spectral(Matern(0.4, 1.5), (1.0, 1.0), Cosine())
CLOCK = LogLinear(0.01, 300.0)


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=DOUBLE)


def spots(n: int = 6) -> Operator:
    return points([0] * n, 7 * torch.rand(n, 2, generator=torch.manual_seed(5)).double(), GRID)


@pytest.mark.parametrize(
    ("operator", "affine"),
    [
        (spots(), True),
        (Mask(torch.ones(1, *GRID, dtype=torch.bool)), True),
        (Coarsen((2, 2)), True),
        (Function(lambda x: 3 * x.flatten(1) + 280), True),
        (Function(lambda x: x.mean((-1, -2))), True),
        (spots() @ (lambda x: x.roll(1, -1) - 7), True),
        (spots() @ (lambda x: x.square()), False),
        (spots() @ (lambda x: x**3), False),
        (spots() @ (lambda x: x.abs()), False),
        (spots() @ (lambda x: torch.nn.functional.softplus(x)), False),
        (spots() @ (lambda x: x.clamp(-8, 8)), False),
        (spots() @ (lambda x: x.log()), False),
        (Function(lambda x: x.flatten(1) + x.flatten(1).square().mean(1, keepdim=True)), False),
    ],
)
@pytest.mark.parametrize("kind", [torch.float32, DOUBLE], ids=str)
def test_affine_operators_are_known(operator: Operator, affine: bool, kind: torch.dtype) -> None:
    assert operator.affine(torch.zeros(1, 1, *GRID, dtype=kind)) is affine


def test_an_affine_function_takes_the_fast_path_to_the_bit() -> None:
    gaussian = Gaussian(torch.zeros(()), PRIOR, VP(clock=CLOCK))
    y, t = torch.randn(6, generator=torch.manual_seed(0)), torch.tensor(0.4)
    x_t = torch.randn(3, 1, *GRID, generator=torch.manual_seed(1))
    plain, hidden = (
        Conditioned(gaussian, Observation(y, o, torch.tensor(0.1)), gaussian)(x_t, t, Context())
        for o in (spots(), Function(lambda x: spots()(x)))
    )
    assert torch.equal(plain, hidden)


class Bent(Operator):
    """Affine in truth, but it does not say so."""

    def __init__(self, inner: Operator) -> None:
        self.inner = inner

    def __call__(self, x: Tensor) -> Tensor:
        return 2 * self.inner(x) + 7

    def affine(self, like: Tensor) -> bool:
        return False


@pytest.mark.parametrize("law", ["gaussian", "student"])
def test_rows_of_every_member_agree_with_shared_ones(law: str) -> None:
    gaussian = Gaussian(torch.tensor(0.3), PRIOR, VE(clock=CLOCK))
    errors = number(0.1) if law == "gaussian" else noise.StudentT(number(0.2), 3.0)
    y = 7 + torch.randn(3, 6, generator=torch.manual_seed(0), dtype=DOUBLE)
    x_t = torch.randn(3, 1, *GRID, generator=torch.manual_seed(1), dtype=DOUBLE)
    shared = Observation(y, Function(lambda x: 2 * spots()(x) + 7), errors)
    own = Observation(y, Bent(spots()), errors)
    for time in (0.2, 0.8):
        a, b = (
            Conditioned(gaussian, o, gaussian)(x_t, number(time), Context()) for o in (shared, own)
        )
        assert torch.allclose(a, b, atol=1e-8)


BENDS: dict[str, Callable[[Tensor], Tensor]] = {
    "cubic": lambda x: x + 0.3 * x**3,
    "exponential": lambda x: (0.7 * x).exp(),
    "saturating": lambda x: torch.tanh(0.7 * x),
}


@pytest.mark.parametrize("bend", BENDS.values(), ids=BENDS.keys())
@pytest.mark.parametrize("truth", [-1.0, 1.2])
def test_a_bent_scalar_against_quadrature(bend: Callable[[Tensor], Tensor], truth: float) -> None:
    """Prior N(0, 1), error 0.15. Draws are an increasing function of their noise, so their
    quantiles need no Monte Carlo. Rows taken at zero, as for an affine operator, are far off."""
    process = VE(clock=LogLinear(1e-3, 300.0))
    gaussian = Gaussian(torch.zeros(()), White(), process)
    y, error = bend(number(truth)), 0.15
    z = torch.linspace(-9, 9, 60001, dtype=DOUBLE)
    weight = torch.softmax(-0.5 * z**2 - (bend(z) - y) ** 2 / (2 * error**2), dim=0)
    mean = (weight * z).sum()
    std = (weight * (z - mean) ** 2).sum().sqrt()
    chance = (torch.arange(15, dtype=DOUBLE) + 0.5) / 15
    start = 300 * torch.special.ndtri(chance).view(-1, 1, 1)
    expected = z[torch.searchsorted(torch.cumsum(weight, 0), chance)]

    def distance(operator: Operator, value: Tensor) -> float:
        seen = Observation(value.view(1), operator, number(error**2))
        guided = Conditioned(gaussian, seen, gaussian)
        *_, x = trajectory(guided, start, process.times(20), Context(), Multistep())
        return float(((x.flatten() - expected) / std).square().mean().sqrt())

    far = distance(Function(lambda x: bend(x).flatten(1)), y)
    at_zero = torch.func.grad(lambda v: bend(v))(number(0.0))
    naive = distance(Function(lambda x: (at_zero * x).flatten(1)), y - bend(number(0.0)))
    assert far < 0.3
    assert naive > 2 * far


def test_enough_passes_reach_the_mode() -> None:
    """The gradient of -log p(y | x) + 1/2 (x - x_hat) V^-1 (x - x_hat) vanishes: V times it."""
    gaussian = Gaussian(torch.zeros(()), PRIOR, VE(clock=CLOCK))
    operator = spots() @ (lambda x: x + 0.4 * x.square() + 0.2 * x**3)
    x_t, t = torch.randn(2, 1, *GRID, generator=torch.manual_seed(2), dtype=DOUBLE), number(0.45)
    y = operator(gaussian.sample(torch.zeros(1, 1, *GRID, dtype=DOUBLE), Streams.of(4, 1)))[0]
    seen = Observation(y, operator, number(0.02))
    x_hat = gaussian(x_t, t, Context())
    slopes = []
    for passes in (1, 3, 12):
        found = Conditioned(gaussian, seen, gaussian, passes=passes)(x_t, t, Context())
        x = found.clone().requires_grad_()
        (slope,) = torch.autograd.grad(seen.log_prob(x).sum(), x)
        slopes.append(float((gaussian.covariance(t)(slope) - (found - x_hat)).norm()))
    assert slopes[0] > slopes[1] > 10 * slopes[2]
    assert slopes[2] < 1e-5 * float((found - x_hat).norm())


def test_members_keep_their_own_rows() -> None:
    gaussian = Gaussian(torch.zeros(()), PRIOR, VE(clock=CLOCK))
    seen = Observation(torch.ones(6, dtype=DOUBLE), spots() @ (lambda x: x.exp()), number(0.1))
    guided = Conditioned(gaussian, seen, gaussian)
    x_t, t = torch.randn(4, 1, *GRID, generator=torch.manual_seed(3), dtype=DOUBLE), number(0.5)
    together = guided(x_t, t, Context())
    for i in range(4):
        assert torch.equal(together[i : i + 1], guided(x_t[i : i + 1], t, Context()))


def test_a_step_that_overshoots_is_cut_back() -> None:
    """exp from far below: the first linearisation aims hundreds too high."""
    gaussian = Gaussian(torch.zeros(()), White(5.0), VE(clock=LogLinear(1e-3, 300.0)))
    operator = Function(lambda x: x.exp().flatten(1))
    seen = Observation(number(3.0).view(1), operator, number(0.01))
    x_t, t = number(-6.0).view(1, 1, 1), number(0.9)
    x_hat = gaussian(x_t, t, Context())
    found = Conditioned(gaussian, seen, gaussian)(x_t, t, Context())
    assert bool(torch.isfinite(found).all())
    assert float(seen.log_prob(found)) >= float(seen.log_prob(x_hat))


def test_a_step_that_only_makes_it_worse_is_not_taken() -> None:
    """A slope that turns round just beyond the estimate."""
    gaussian = Gaussian(torch.zeros(()), White(5.0), VE(clock=LogLinear(1e-3, 300.0)))
    operator = Function(lambda x: (x - 10 * (x - 0.01).relu()).flatten(1))
    seen = Observation(number(1.0).view(1), operator, number(0.01))
    x_t, t = number(0.0).view(1, 1, 1), number(0.9)
    assert torch.equal(Conditioned(gaussian, seen, gaussian)(x_t, t, Context()), x_t)


def test_wrong_operators_and_passes_are_refused() -> None:
    gaussian = Gaussian(torch.zeros(()), PRIOR, VE(clock=CLOCK))
    seen = Observation(torch.ones(6, dtype=DOUBLE), spots(), number(0.1))
    for wrong in ({"passes": 0}, {"sweeps": 0}):
        with pytest.raises(InputError, match="at least 1"):
            Conditioned(gaussian, seen, gaussian, **wrong)
    short = Observation(torch.ones(5, dtype=DOUBLE), spots(), number(0.1))
    flat = Observation(torch.ones(5, dtype=DOUBLE), Function(lambda x: x.mean()), number(0.1))
    for wrong_seen in (short, flat):
        with pytest.raises(InputError, match="one for every observed value"):
            wrong_seen.residual(torch.zeros(2, 1, *GRID, dtype=DOUBLE))
