"""Covariances at points of each row's own, and matrices as they are: against dense algebra."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from sciddm.covariance import (
    Covariance,
    Dense,
    MaternKernel,
    PeriodicKernel,
    Points,
    PowerLaw,
    Spectral,
    White,
)
from sciddm.denoise import Context, Gaussian
from sciddm.errors import InputError
from sciddm.process import VE, LogLinear
from sciddm.random import Streams

DOUBLE = torch.float64
ROWS, N = 3, 8
KERNELS = {
    "ornstein-uhlenbeck": MaternKernel(0.6, 0.5, 1.2),
    "matern": MaternKernel(0.6, 2.5),
    "periodic": PeriodicKernel(0.7, 0.9, 1.1),
}
kernels = pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS.keys())


def times() -> Tensor:
    return 2 * torch.rand(ROWS, N, 1, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)


def fields(rows: int = ROWS) -> Tensor:
    return torch.randn(rows, 1, N, generator=torch.Generator().manual_seed(1), dtype=DOUBLE)


def matrices() -> Tensor:
    root = torch.randn(ROWS, N, N, generator=torch.Generator().manual_seed(2), dtype=DOUBLE)
    return root @ root.mT / N


@kernels
def test_every_row_has_the_law_of_its_own_times(kernel: MaternKernel | PeriodicKernel) -> None:
    """As one covariance for each row alone, and the kernel itself."""
    law, x = Points(times(), kernel), fields()
    for row in range(ROWS):
        one = Points(times()[row], kernel)
        own = slice(row, row + 1)
        gap = (times()[row] - times()[row].T).abs()
        assert torch.allclose(law(x)[own, 0], x[own, 0] @ kernel(gap), atol=1e-10)
        assert torch.allclose(law.sqrt(x)[own], one.sqrt(x[own]), atol=1e-6)
        assert torch.allclose(law.diagonal(x)[row], one.diagonal(x[own]))
    variance = law.average(x, White(), lambda own, _: own)
    assert float(variance) == pytest.approx(float(law.diagonal(x).mean()))


@kernels
def test_the_square_root_squares_to_the_covariance(kernel: MaternKernel | PeriodicKernel) -> None:
    law = Points(times(), kernel)
    assert torch.allclose(law.sqrt(law.sqrt(fields())), law(fields()), atol=1e-10)


def test_periodic_kernel_repeats() -> None:
    kernel = PeriodicKernel(0.5, 1.5, 2.0)
    at = torch.tensor([0.0, 0.25, 0.5, 3.0], dtype=DOUBLE)
    wanted = torch.tensor([4.0, 4 * math.exp(-2 / 1.5**2), 4.0, 4.0], dtype=DOUBLE)
    assert torch.allclose(kernel(at), wanted)


DENSE: dict[str, tuple[Tensor, int]] = {
    "one a row": (matrices(), ROWS),
    "one for all": (matrices()[0], 5),
    "a batch of one": (matrices()[:1], 5),
}


@pytest.mark.parametrize(("matrix", "rows"), DENSE.values(), ids=DENSE.keys())
def test_a_matrix_acts_as_it_is(matrix: Tensor, rows: int) -> None:
    law, x = Dense(matrix, 0.5), fields(rows)
    wanted = 0.5 * (x @ matrix if matrix.ndim == 2 else torch.matmul(x, matrix))
    assert torch.allclose(law(x), wanted, atol=1e-12)
    assert torch.allclose(law.sqrt(law.sqrt(x)), wanted, atol=1e-10)
    diagonal = law.diagonal(x)
    assert diagonal.shape == ((rows, 1, N) if len(matrix) == ROWS else (1, N))
    assert torch.allclose(diagonal.reshape(-1, N), 0.5 * matrix.reshape(-1, N, N).diagonal(0, 1, 2))


def test_beside_white_noise_and_beside_itself() -> None:
    law, x = Dense(matrices()), fields()
    eye = torch.eye(N, dtype=DOUBLE)
    gain = torch.linalg.solve(matrices() + 0.49 * eye, matrices())
    wanted = (x @ gain.mT, x @ gain.mT)
    swapped = White(0.7).joint(x, law, lambda c, p: p / (p + c))
    found = law.joint(x, White(0.7), lambda p, c: p / (p + c))
    assert torch.allclose(found, wanted[0], atol=1e-10)
    assert torch.allclose(swapped, wanted[1], atol=1e-10)
    for other, share in ((law, 0.5), (law.scaled(3.0), 0.25), (Dense(law.matrix, 3.0), 0.25)):
        found = law.joint(x, other, lambda p, c: p / (p + c))
        assert torch.allclose(found, share * x, atol=1e-10)
    assert torch.allclose(law.scaled(3.0)(x), 3 * law(x))


def test_the_exact_denoiser_of_rows_with_laws_of_their_own() -> None:
    """One noise level a row, against the formula of the posterior mean."""
    prior = Dense(matrices())
    process = VE(White(), LogLinear(0.05, 20.0))
    t = torch.tensor([0.2, 0.5, 0.9], dtype=DOUBLE)
    kappa = process.kappa(t.view(-1, 1, 1)).reshape(-1)
    x = fields()
    found = Gaussian(torch.tensor(0.3), prior, process)(x, t.view(-1, 1, 1), Context())
    for row in range(ROWS):
        cov = matrices()[row]
        gain = cov @ torch.linalg.inv(cov + kappa[row] ** 2 * torch.eye(N, dtype=DOUBLE))
        assert torch.allclose(found[row, 0], 0.3 + gain @ (x[row, 0] - 0.3), atol=1e-6)


def test_draws_have_the_covariance_of_each_row() -> None:
    count, law = 6000, Dense(matrices())
    draws = torch.stack(
        [law.sample(fields(), Streams.of(i, ROWS))[:, 0] for i in range(count)], dim=1
    )
    found = torch.einsum("bki,bkj->bij", draws, draws) / count
    size = matrices().diagonal(0, 1, 2).sqrt()
    assert ((found - matrices()).abs() <= 0.08 * size[:, :, None] * size[:, None]).all()


def test_others_are_refused_in_one_line() -> None:
    law, x = Dense(matrices()), fields()
    wrong: tuple[Covariance, ...] = (Dense(matrices()), Spectral(PowerLaw(2.0, 3.0), (1.0,)))
    for other in wrong:
        with pytest.raises(InputError, match="beside a Dense"):
            law.joint(x, other, lambda p, c: p)
    with pytest.raises(InputError, match="8"):
        law(fields()[..., :5])
    with pytest.raises(InputError, match="expected \\(n, n\\)"):
        Dense(torch.ones(3, 4))
