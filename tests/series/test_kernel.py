"""Covariances in physical time: positive at any times, of known values."""

from __future__ import annotations

import math

import pytest
import torch

from sciddm.series import Panel
from sciddm.series.kernel import (
    Intercept,
    Matern32,
    Matern52,
    Mixed,
    OrnsteinUhlenbeck,
    Product,
    Season,
    Shape,
    Slope,
    SquaredExponential,
    Term,
    Wiener,
)

DOUBLE = torch.float64
STATIONARY: dict[str, Shape] = {
    "ornstein-uhlenbeck": OrnsteinUhlenbeck(0.7),
    "matern 3/2": Matern32(0.7),
    "matern 5/2": Matern52(0.7),
    "squared exponential": SquaredExponential(0.7),
    "season": Season(1.3, 0.8),
    "changing season": Product((Season(1.3), Matern32(4.0))),
    "intercept": Intercept(),
}
SHAPES = STATIONARY | {"wiener": Wiener(-1.0), "slope": Slope(2.0, 0.4)}
shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())


def times(rows: int = 3, n: int = 20) -> torch.Tensor:
    return 5 * torch.rand(rows, n, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)


@shapes
def test_positive_at_irregular_times(shape: Shape) -> None:
    t = times()
    matrix = shape(t, t)
    assert matrix.shape == (3, 20, 20) and matrix.dtype == DOUBLE
    assert torch.equal(matrix, matrix.mT)
    assert torch.linalg.eigvalsh(matrix).min() > -1e-9


@shapes
def test_the_same_in_any_row_and_between_other_times(shape: Shape) -> None:
    t = times()
    assert torch.equal(shape(t, t)[1], shape(t[1], t[1]))
    assert torch.allclose(shape(t[:, :4], t)[0], shape(t, t)[0, :4])


@pytest.mark.parametrize("shape", STATIONARY.values(), ids=STATIONARY.keys())
def test_a_stationary_one_is_a_correlation(shape: Shape) -> None:
    t = times()
    assert torch.allclose(shape(t, t).diagonal(dim1=1, dim2=2), torch.ones(3, 20, dtype=DOUBLE))
    assert torch.allclose(shape(t + 3.3, t + 3.3), shape(t, t))


def test_known_values() -> None:
    at = torch.tensor([0.0, 2.0], dtype=DOUBLE)

    def rho(shape: Shape) -> float:
        return float(shape(at, at)[0, 1])

    assert rho(OrnsteinUhlenbeck(4.0)) == pytest.approx(math.exp(-0.5))
    assert rho(Matern32(2 * math.sqrt(3))) == pytest.approx(2 * math.exp(-1))
    assert rho(Matern52(2 * math.sqrt(5))) == pytest.approx((2 + 1 / 3) * math.exp(-1))
    assert rho(SquaredExponential(2.0)) == pytest.approx(math.exp(-0.5))
    assert rho(Season(2.0)) == pytest.approx(1.0)
    assert rho(Season(4.0, 0.5)) == pytest.approx(math.exp(-8.0))
    assert rho(Wiener(-3.0)) == pytest.approx(3.0)
    assert rho(Slope(2.0, -1.0)) == pytest.approx(0.75)


def test_increments_of_a_walk_are_independent_of_its_past() -> None:
    at = torch.tensor([1.0, 2.5, 2.5, 4.0], dtype=DOUBLE)
    k = Wiener()(at, at)
    assert float(k[3, 1] - k[3, 0]) == pytest.approx(float(k[1, 1] - k[1, 0]))
    assert float(k[3, 3] - 2 * k[3, 1] + k[1, 1]) == pytest.approx(1.5)


def test_terms_add_up_channel_by_channel() -> None:
    """K((s, c), (t, d)) against its definition, cell by cell."""
    loads = torch.tensor([[1.0, 0.2], [-0.4, 0.3], [0.0, 0.9]], dtype=DOUBLE)
    law = Mixed(
        (
            Term(Matern32(0.9), loads, torch.tensor([0.1, 0.2, 0.3], dtype=DOUBLE)),
            Term(Season(1.0), loads[:, :0], torch.tensor([0.0, 1.0, 0.5], dtype=DOUBLE)),
        ),
        torch.tensor([0.5, 0.0, 0.2], dtype=DOUBLE),
        torch.tensor([1.0, 2.0, 3.0], dtype=DOUBLE),
    )
    t, c = times(1, 6), torch.tensor([[0, 2, 1, 1, 0, 2]])
    none = torch.zeros(1, 6, dtype=torch.bool)
    panel = Panel(t, c, t, none, ~none)
    found = law.covariance(panel)[0]
    assert torch.equal(law.mean(panel)[0], c[0].double() + 1)
    for i in range(6):
        for j in range(6):
            a, b, gap = int(c[0, i]), int(c[0, j]), (t[0, i] - t[0, j]).abs()
            slow = (1 + math.sqrt(3) * gap / 0.9) * torch.exp(-math.sqrt(3) * gap / 0.9)
            wave = torch.exp(-2 * torch.sin(math.pi * gap).square())
            one = float(a == b)
            wanted = (loads[a] @ loads[b] + one * (0.1, 0.2, 0.3)[a]) * slow
            wanted = wanted + one * (0.0, 1.0, 0.5)[a] * wave + (i == j) * (0.5, 0.0, 0.2)[a]
            assert float(found[i, j]) == pytest.approx(float(wanted), abs=1e-12)
