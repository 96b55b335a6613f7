"""Observations: operators and their rows, interpolation, block means, error laws that join."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor
from torch.distributions import MultivariateNormal

from sciddm.errors import InputError
from sciddm.observe import (
    Coarsen,
    Function,
    Mask,
    Noise,
    Observation,
    Operator,
    Points,
    noise,
    points,
)
from sciddm.random import Streams

DOUBLE = torch.float64
SHAPE = (2, 5, 7)
KEEP = torch.rand(SHAPE, generator=torch.manual_seed(3)) < 0.3


def spots() -> Points:
    position = torch.tensor([[0.0, 0.0], [4.0, 6.0], [1.5, 2.25], [3.0, 5.9], [4.0, 0.5]])
    return points([0, 1, 1, 0, 1], position, SHAPE[1:])


def smooth(x: Tensor) -> Tensor:
    return 0.5 * x + 0.25 * (x.roll(1, -1) + x.roll(-1, -1))


OPERATORS: dict[str, Operator] = {
    "points": spots(),
    "mask": Mask(KEEP),
    "coarsen": Coarsen((2, 3)),
    "function": Function(lambda x: x.flatten(1).cumsum(1)[:, ::4]),
    "points after a map": spots() @ smooth,
    "mask after two maps": (Mask(KEEP) @ smooth) @ (lambda x: 3 * x.flip(2)),
    "points after a coarse field": points([0, 1], torch.tensor([[0.5, 1.0], [1.0, 0.2]]), (2, 2))
    @ Coarsen((2, 3)).field,
    "joined": (
        Observation(torch.zeros(5), spots(), torch.tensor(1.0))
        & Observation(torch.zeros(int(KEEP.sum())), Mask(KEEP), torch.tensor(2.0))
    ).operator,
}


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS.keys())
def test_rows_are_the_adjoint(operator: Operator) -> None:
    """A(x)_i = <row_i, x>, for fields that no row was made from."""
    x = torch.randn(6, *SHAPE, generator=torch.manual_seed(0), dtype=DOUBLE)
    with torch.no_grad():
        rows = operator.rows(torch.zeros(1, *SHAPE, dtype=DOUBLE))
        assert rows.dtype == DOUBLE and not rows.requires_grad
        assert torch.allclose(operator(x), x.flatten(1) @ rows.flatten(1).T, atol=1e-12)


def test_rows_of_an_affine_and_of_a_curved_operator() -> None:
    x = torch.randn(1, *SHAPE, generator=torch.manual_seed(0), dtype=DOUBLE)
    affine = Function(lambda v: spots()(v) * 2 + 7)
    assert torch.allclose(affine.rows(x), 2 * spots().rows(x))
    curved = Function(lambda v: spots()(v) ** 2)
    expected = 2 * spots()(x).view(-1, 1, 1, 1) * spots().rows(x)
    assert torch.allclose(curved.rows(x), expected)


@pytest.mark.parametrize("grid", [(6,), (4, 5), (3, 4, 5)], ids=str)
def test_points_on_the_grid_are_its_values(grid: tuple[int, ...]) -> None:
    x = torch.randn(2, 3, *grid, generator=torch.manual_seed(0), dtype=DOUBLE)
    where = torch.cartesian_prod(*[torch.arange(n) for n in (3, *grid)]).reshape(-1, 1 + len(grid))
    found = points(where[:, 0].tolist(), where[:, 1:].double(), grid)(x)
    assert torch.equal(found, x.flatten(1))


@pytest.mark.parametrize("grid", [(6,), (4, 5), (3, 4, 5)], ids=str)
def test_interpolation_is_exact_for_multilinear_fields(grid: tuple[int, ...]) -> None:
    """A product of linear functions, and not for a curved one."""
    position = torch.rand(50, len(grid), generator=torch.manual_seed(0), dtype=DOUBLE)
    position = position * torch.tensor([n - 1 for n in grid], dtype=DOUBLE)

    def field(at: Tensor) -> Tensor:
        slopes = torch.tensor([0.7, -1.3, 2.0], dtype=DOUBLE)[: at.shape[-1]]
        return (1 + slopes * at).prod(-1)

    axes = [torch.arange(n, dtype=DOUBLE) for n in grid]
    nodes = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    x = torch.stack([field(nodes), -field(nodes)])[None]
    channel = [i % 2 for i in range(50)]
    sign = 1 - 2 * torch.tensor(channel)
    operator = points(channel, position, grid)
    assert torch.allclose(operator(x)[0], sign * field(position))
    assert torch.allclose(operator.weight.sum(1), torch.ones(50, dtype=DOUBLE))
    assert not torch.allclose(operator(x**2)[0], field(position) ** 2, rtol=1e-3)


def test_an_axis_of_one_point_is_no_obstacle() -> None:
    operator = points([0, 0], torch.tensor([[0.0, 1.5], [0.0, 2.0]]), (1, 3))
    x = torch.tensor([1.0, 3.0, 9.0]).view(1, 1, 1, 3)
    assert operator(x).tolist() == [[6.0, 9.0]]


@pytest.mark.parametrize(
    "position", [[-0.1, 0.0], [0.0, 6.1], [math.nan, 0.0], [0.0, math.inf], [-math.inf, 0.0]]
)
def test_points_outside_the_grid_are_refused(position: list[float]) -> None:
    with pytest.raises(InputError, match="Observation 1 lies outside the grid"):
        points([0, 0], torch.tensor([[1.0, 1.0], position]), (5, 7))


def test_rounding_at_the_edge_is_forgiven() -> None:
    x = torch.arange(35.0).view(1, 1, 5, 7)
    position = torch.tensor([[-1e-9, 6 + 1e-9]], dtype=DOUBLE)
    assert float(points([0], position, (5, 7))(x)) == 6.0


def test_a_mask_reads_in_memory_order() -> None:
    x = torch.arange(70.0).view(1, *SHAPE)
    assert torch.equal(Mask(KEEP)(x)[0], x[0][KEEP])


@pytest.mark.parametrize("factor", [(2, 3), (5, 7), (1, 2), (3, 4)], ids=str)
def test_coarsen_is_the_block_mean_of_xarray(factor: tuple[int, int]) -> None:
    x = torch.randn(3, *SHAPE, generator=torch.manual_seed(0), dtype=DOUBLE)
    labelled = xr.DataArray(x.numpy(), dims=("b", "c", "y", "x"))
    expected = labelled.coarsen(y=factor[0], x=factor[1], boundary="trim").mean().values
    assert np.allclose(Coarsen(factor).field(x).numpy(), expected)
    assert np.allclose(Coarsen(factor)(x).numpy(), expected.reshape(3, -1))


def test_coarsen_of_a_film_leaves_other_axes_alone() -> None:
    x = torch.randn(2, 3, 4, 6, 6, generator=torch.manual_seed(0))
    assert torch.allclose(Coarsen((2, 3)).field(x)[:, :, 1], Coarsen((2, 3)).field(x[:, :, 1]))
    assert Coarsen((2, 2, 2)).field(x).shape == (2, 3, 2, 3, 3)


def full(n: int, seed: int = 0) -> Tensor:
    root = torch.randn(n, n, generator=torch.manual_seed(seed), dtype=DOUBLE)
    return root @ root.T + 0.5 * torch.eye(n, dtype=DOUBLE)


VARIANCES: dict[str, Tensor] = {
    "scalar": torch.tensor(0.3, dtype=DOUBLE),
    "diagonal": torch.linspace(0.1, 2, 5, dtype=DOUBLE),
    "full": full(5),
}
variances = pytest.mark.parametrize("variance", VARIANCES.values(), ids=VARIANCES.keys())


@variances
def test_log_prob_is_the_normal_density(variance: Tensor) -> None:
    x = torch.randn(4, *SHAPE, generator=torch.manual_seed(0), dtype=DOUBLE)
    y = torch.randn(5, dtype=DOUBLE)
    observation = Observation(y, spots(), variance)
    law = MultivariateNormal(spots()(x), observation.covariance)
    assert torch.allclose(observation.log_prob(x), law.log_prob(y))
    assert torch.allclose(observation.residual(x), y - spots()(x))
    if variance.ndim < 2:
        assert torch.allclose(observation.covariance, torch.eye(5, dtype=DOUBLE) * variance)


@variances
def test_the_misfit_of_the_truth_is_one(variance: Tensor) -> None:
    """Its square is chi-square over n: mean one and variance 2 / n."""
    count = 4000
    truth = torch.randn(1, *SHAPE, generator=torch.manual_seed(0), dtype=DOUBLE)
    root = torch.linalg.cholesky(Observation(torch.zeros(5), spots(), variance).covariance)
    noise = Streams.of(0, count).normal(torch.zeros(count, 5, dtype=DOUBLE))
    y = spots()(truth) + noise @ root.T
    misfit = Observation(y, spots(), variance).misfit(truth.expand(count, *SHAPE))
    error = (2 / 5 / count) ** 0.5
    assert float(misfit.square().mean()) == pytest.approx(1, abs=4 * error)
    assert float(misfit.square().var()) == pytest.approx(2 / 5, rel=0.15)
    wrong = Observation(y, spots(), 4 * variance).misfit(truth.expand(count, *SHAPE))
    assert torch.allclose(wrong, misfit / 2)


@pytest.mark.parametrize("first", VARIANCES.values(), ids=VARIANCES.keys())
@pytest.mark.parametrize("second", [torch.tensor(0.7), full(3, 1)], ids=["scalar", "full"])
def test_joined_observations_are_independent(first: Tensor, second: Tensor) -> None:
    x = torch.randn(4, *SHAPE, generator=torch.manual_seed(0), dtype=DOUBLE)
    other = points([0, 0, 1], torch.tensor([[1.0, 1.0], [2.5, 2.5], [0.0, 3.3]]), SHAPE[1:])
    one, each = torch.randn(5, dtype=DOUBLE), torch.randn(4, 3, dtype=DOUBLE)
    a, b = Observation(one, spots(), first), Observation(each, other, second)
    for both in (a & b, b & a):
        assert torch.allclose(both.log_prob(x), a.log_prob(x) + b.log_prob(x))
        square = 5 * a.misfit(x).square() + 3 * b.misfit(x).square()
        assert torch.allclose(8 * both.misfit(x).square(), square)
    three = (a & b) & Observation(one, spots() @ smooth, first)
    assert three.y.shape == (4, 13)
    assert torch.allclose(
        three.log_prob(x),
        a.log_prob(x) + b.log_prob(x) + Observation(one, spots() @ smooth, first).log_prob(x),
    )


LAWS: dict[str, Noise] = {
    "student": noise.StudentT(torch.linspace(0.1, 2, 5, dtype=DOUBLE), 3.0),
    "poisson": noise.Poisson(torch.tensor(2.0)),
    "censored": noise.Censored(torch.tensor(0.3), low=torch.tensor(0.0)),
}


@pytest.mark.parametrize("law", LAWS.values(), ids=LAWS.keys())
@pytest.mark.parametrize("second", [torch.tensor(0.7), full(3, 1)], ids=["scalar", "full"])
def test_laws_join_with_each_other_and_with_gaussian_errors(law: Noise, second: Tensor) -> None:
    x = torch.randn(4, *SHAPE, generator=torch.manual_seed(0), dtype=DOUBLE)
    other = points([0, 0, 1], torch.tensor([[1.0, 1.0], [2.5, 2.5], [0.0, 3.3]]), SHAPE[1:])
    a = Observation(torch.arange(5.0, dtype=DOUBLE), spots(), law)
    b = Observation(torch.randn(4, 3, dtype=DOUBLE), other, second)
    for both in (a & b, b & a, (a & b) & b):
        extra = both.y.shape[1] - 8
        parts = a.log_prob(x) + b.log_prob(x) * (1 + extra / 3)
        assert torch.allclose(both.log_prob(x), parts)
        square = 5 * a.misfit(x).square() + (3 + extra) * b.misfit(x).square()
        assert torch.allclose((8 + extra) * both.misfit(x).square(), square)
        white = both.whitened()  # the same but for a constant
        assert torch.allclose(white.misfit(x), both.misfit(x))
        gap = white.log_prob(x) - both.log_prob(x)
        assert torch.allclose(gap, gap[:1].expand(4))
        zero = torch.zeros_like(white.y)
        assert white.law.tilted(white.y, zero, zero + 1)[0].shape == white.y.shape


def test_counts_may_be_integers() -> None:
    counts = torch.tensor([0, 3, 1, 0, 2])
    x = torch.randn(2, *SHAPE, generator=torch.manual_seed(0), dtype=DOUBLE)
    a, b = (Observation(y, spots(), LAWS["poisson"]) for y in (counts, counts.double()))
    assert torch.equal(a.log_prob(x), b.log_prob(x))


@pytest.mark.parametrize(
    ("variance", "said"),
    [
        (torch.tensor(0.0), "above 0"),
        (torch.tensor(-1.0), "above 0"),
        (torch.tensor(math.nan), "above 0"),
        (torch.tensor([1.0, 1.0, math.inf, 1.0, 1.0]), "above 0"),
        (torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0]), "above 0"),
        (torch.ones(4), "for 5 values"),
        (torch.eye(4), "for 5 values"),
        (torch.ones(1), "for 5 values"),
        (torch.diag(torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0])), "above 0"),
        (torch.eye(5) + 2 * (1 - torch.eye(5)), "no covariance"),
        (torch.eye(5) + 0.1 * torch.ones(5, 5).triu(1), "no covariance"),
    ],
)
def test_errors_that_are_no_variance_are_refused(variance: Tensor, said: str) -> None:
    with pytest.raises(InputError, match=said):
        Observation(torch.zeros(5), spots(), variance)
