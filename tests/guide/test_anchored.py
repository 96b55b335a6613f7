"""One linearisation for all members: the closed form where the operator is affine, quadrature and
the mode where it bends."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sciddm.basis import Cosine
from sciddm.covariance import Matern, Spectral, White
from sciddm.denoise import Context, Gaussian
from sciddm.errors import InputError
from sciddm.guide import (
    Anchor,
    Conditioned,
    Matheron,
    RandomisedMode,
    linearised,
    prior_fit,
)
from sciddm.observe import Function, Observation, Operator, operators, points
from sciddm.process import VE, LogLinear
from sciddm.random import Streams
from sciddm.solve import Diffusion

DOUBLE = torch.float64
GRID = (8, 8)
PRIOR = Spectral(Matern(0.4, 1.5), (1.0, 1.0), Cosine())
PROCESS = VE(clock=LogLinear(0.01, 300.0))
LAW = Gaussian(torch.tensor(0.3), PRIOR, PROCESS)
BLANK = torch.zeros(1, 1, *GRID, dtype=DOUBLE)


def number(value: float) -> Tensor:
    return torch.tensor(value, dtype=DOUBLE)


def spots(n: int = 6) -> Operator:
    return points([0] * n, 7 * torch.rand(n, 2, generator=torch.manual_seed(5)).double(), GRID)


class Dressed(Operator):
    """Affine in truth, but it does not say so."""

    def __init__(self, inner: Operator) -> None:
        self.inner = inner

    def __call__(self, x: Tensor) -> Tensor:
        return 2 * self.inner(x) + 7

    def affine(self, like: Tensor) -> bool:
        return False


def truth(operator: Operator, noise: float = 0.1) -> Observation:
    x = LAW.sample(BLANK, Streams.of(4, 1))
    y = operator(x)[0]
    return Observation(y + noise * Streams.of(9, 1).normal(y[None])[0], operator, number(noise**2))


def test_an_affine_operator_has_its_closed_form() -> None:
    seen = truth(Dressed(spots()))
    plain = Observation(seen.y, Function(lambda x: 2 * spots()(x) + 7), seen.law)
    anchor = linearised(LAW, seen, BLANK)
    expected = prior_fit(LAW, plain, BLANK).chi_square[0]
    assert anchor.chi_square == pytest.approx(expected, rel=1e-9)
    x_t = torch.randn(3, 1, *GRID, generator=torch.manual_seed(1), dtype=DOUBLE)
    for time in (0.05, 0.4, 0.9):
        a, b = (
            rule(x_t, number(time), Context())
            for rule in (
                Conditioned(LAW, plain, LAW),
                Conditioned(LAW, seen, LAW, anchor=anchor),
            )
        )
        assert torch.allclose(a, b, rtol=0, atol=1e-9)


def test_draws_of_an_affine_operator_are_matherons() -> None:
    seen = truth(Dressed(spots()))
    anchor = linearised(LAW, seen, BLANK)
    blank, rng = BLANK.expand(5, 1, *GRID), Streams.of(3, 5)
    exact = Matheron(LAW, seen, seen.operator.rows(BLANK))
    drawn = RandomisedMode(LAW, seen, anchor)(blank, rng)
    assert torch.allclose(exact(blank, rng), drawn, rtol=0, atol=1e-9)
    other = Observation(seen.y + 1, seen.operator, seen.law)
    fresh = Matheron(LAW, other, seen.operator.rows(BLANK))(blank, rng)
    assert torch.equal(exact.given(other)(blank, rng), fresh)


def bent(n: int = 6) -> Operator:
    return spots(n) @ (lambda x: x + 0.2 * x.square() + 0.1 * x**3)


def test_the_mode_is_one() -> None:
    """The gradient of -log p(y | x) + 1/2 (x - mean) V^-1 (x - mean) vanishes: V times it."""
    seen = truth(bent(), 0.05)
    slopes = []
    for near in (1.0, 1e-6):
        anchor = linearised(LAW, seen, BLANK, near=near, passes=20)
        x = anchor.mode.clone().requires_grad_()
        (slope,) = torch.autograd.grad(seen.log_prob(x).sum(), x)
        x = x.detach()
        slopes.append(float((PRIOR(slope) - (x - 0.3)).norm() / (x - 0.3).norm()))
        loss = -2 * (seen.log_prob(x) + 3 * math.log(2 * math.pi * 0.05**2))
        white = (x - 0.3).flatten() @ torch.linalg.solve(matrix(), (x - 0.3).flatten())
        assert anchor.chi_square == pytest.approx(float(loss + white), rel=1e-6)
    assert slopes[1] < 1e-5 and slopes[1] < slopes[0]


def matrix() -> Tensor:
    unit = torch.eye(math.prod(GRID), dtype=DOUBLE).view(-1, 1, *GRID)
    return PRIOR(unit).flatten(1)


def test_a_bent_operator_against_quadrature() -> None:
    """Two values, two sensors that bend both: means and s.d. on a dense grid."""
    prior = Spectral(Matern(0.5, 1.5), (1.0,), Cosine())
    law = Gaussian(torch.zeros(()), prior, VE(clock=LogLinear(1e-3, 300.0)))

    def see(x: Tensor) -> Tensor:
        a, b = x[:, 0, 0], x[:, 0, 1]
        return torch.stack([a + 0.1 * a**2 + 0.3 * b, 0.8 * b + 0.1 * b**2 + 0.1 * a * b], 1)

    y = see(torch.tensor([[[1.2, -0.8]]], dtype=DOUBLE))[0]
    seen = Observation(y, Function(see), number(0.15**2))
    axis = torch.linspace(-4, 4, 801, dtype=DOUBLE)
    x = torch.cartesian_prod(axis, axis)[:, None]
    cov = prior(torch.eye(2, dtype=DOUBLE)[:, None]).flatten(1)
    log = -0.5 * (x.flatten(1) @ torch.linalg.inv(cov) * x.flatten(1)).sum(1)
    weight = torch.softmax(log + seen.log_prob(x), 0)
    mean = weight @ x.flatten(1)
    std = (weight @ (x.flatten(1) - mean).square()).sqrt()
    anchor = linearised(law, seen, torch.zeros(1, 1, 2, dtype=DOUBLE))
    rng = Streams.of(0, 1500)
    flow = Diffusion(Conditioned(law, seen, law, anchor=anchor), steps=20)
    modes = RandomisedMode(law, seen, anchor)
    blank = torch.zeros(1500, 1, 2, dtype=DOUBLE)
    for draws in (flow(blank.shape, Context(), rng).double(), modes(blank, rng)):
        flat = draws.flatten(1)
        assert float(((flat.mean(0) - mean) / std).abs().max()) < 0.12
        assert float((flat.std(0) / std - 1).abs().max()) < 0.06
    # rows taken at the prior mean, as if the operator were affine, are far off
    naive = Anchor(blank[:1], see(blank[:1]), seen.operator.rows(blank[:1]).double(), x[:1], 0.0)
    affine = Function(lambda v: naive.values(v))
    flat = Matheron(law, Observation(y, affine, seen.law), naive.rows)(blank, rng).flatten(1)
    assert float(((flat.mean(0) - mean) / std).abs().max()) > 0.8


def test_members_fit_and_do_not_see_each_other() -> None:
    seen = truth(spots(12) @ (lambda x: (0.5 * x).exp()), 0.01)
    anchor = linearised(LAW, seen, BLANK)
    rule = Conditioned(LAW, seen, LAW, anchor=anchor)
    t = number(0.8)
    x_t, _ = PROCESS.forward(LAW.sample(BLANK.expand(4, 1, *GRID), Streams.of(1, 4)), t)
    together = rule(x_t, t, Context())
    assert float(seen.misfit(together).max()) < 0.5
    for i in range(4):
        assert torch.allclose(together[i : i + 1], rule(x_t[i : i + 1], t, Context()), atol=1e-10)


def test_a_field_that_the_solver_refuses_is_stepped_back_from() -> None:
    """exp from far below: the first linearisation aims hundreds too high, where nothing runs."""
    wide = Gaussian(torch.tensor(-6.0), White(5.0), VE(clock=LogLinear(1e-3, 300.0)))

    def solver(x: Tensor) -> Tensor:
        if float(x.detach().max()) > 40:
            raise InputError("Got a step above the stable one.")
        return x.exp().flatten(1)

    seen = Observation(number(3.0).view(1), Function(solver), number(0.01))
    start = number(-6.0).view(1, 1, 1)
    anchor = linearised(wide, seen, start, passes=30)
    assert bool(torch.isfinite(anchor.mode).all())
    assert float(seen.log_prob(anchor.mode)) > float(seen.log_prob(start))
    at = number(1.0).view(1, 1, 1)
    near = Anchor(at, solver(at), seen.operator.rows(at), at, 0.0)
    x_t = torch.tensor([-30.0, 1.0, 60.0], dtype=DOUBLE).view(3, 1, 1)
    found = Conditioned(wide, seen, wide, anchor=near)(x_t, number(0.6), Context())
    assert bool(torch.isfinite(found).all()) and float(found.max()) < 40


def test_rows_are_the_same_however_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    operator, x = bent(7), LAW.sample(BLANK, Streams.of(2, 1))
    whole = operator.rows(x)
    monkeypatch.setattr(operators, "COPIES", 3 * math.prod(GRID))
    assert torch.allclose(operator.rows(x), whole, rtol=0, atol=1e-14)
    jacobian = torch.autograd.functional.jacobian(operator, x)
    assert torch.allclose(whole, jacobian.view_as(whole), atol=1e-12)


def test_several_rows_of_values_are_refused() -> None:
    seen = truth(bent())
    rows = Observation(seen.y.expand(2, -1), seen.operator, seen.law)
    with pytest.raises(InputError, match="one row"):
        linearised(LAW, rows, BLANK)
