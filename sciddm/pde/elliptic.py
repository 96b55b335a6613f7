"""Three elliptic problems on node grids of the unit square, differentiable in their coefficient.

    Poisson      Laplace u = a                  u = 0 on the ring
    Helmholtz    Laplace u + k^2 u = a          u = 0 on the ring,  k^2 no eigenvalue of -Laplace
    Darcy        -div(a grad u) = 1             u = 0 on the ring,  a > 0

All use the five-point scheme on the nodes ``i / (S - 1)``. Poisson and Helmholtz are linear and
diagonal in the sine basis. Darcy takes the flux through a face as ``-a_f (u_j - u_i) / h`` where
``a_f`` is the harmonic mean of the two nodes' values, exact for a jump halfway between them; what
leaves one cell enters the next, so mass is conserved at every cell.

The matrix ``A(a)`` of Darcy is symmetric, positive definite and of half bandwidth ``S - 2``. A
banded Cholesky factorisation beats sparse LU up to 128 points a side (2.2 ms against 4.2 ms at 64,
15 against 23 at 128, one core). With ``u = A(a)^-1 f`` the gradient of a loss is one more solve,

    lambda = A(a)^-1 dL/du,     dL/df = lambda,     dL/da = -d/da <lambda, A(a) u>,

and is itself made of differentiable pieces, so second derivatives exist.

References:
    DiffusionPDE: Generative PDE-Solving Under Partial Observation, Huang, Yang, Wang and Park,
    2024, https://arxiv.org/abs/2406.17763 (the problems; their Darcy scheme differs).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
from scipy.linalg import solveh_banded
from torch import Tensor
from torch.nn.functional import pad

from sciddm.errors import InputError
from sciddm.pde.grid import dst1, laplacian


@final
@dataclass(frozen=True)
class Poisson:
    """Solve ``Laplace u = a`` with ``u = 0`` on the ring: ``a (B, 1, H, W) -> u (B, 1, H, W)``.

    Values of ``a`` on the ring are not used. Linear in ``a``; float32 input is solved in float32,
    with a relative error near 1e-6.

    Raises:
        InputError: the tensor is not floating point ``(B, 1, H, W)`` with at least 3 nodes a side.
    """

    def __call__(self, a: Tensor) -> Tensor:
        _check(a)
        inner = a[..., 1:-1, 1:-1]
        eigenvalues = _eigenvalues(a.shape[-2], a.shape[-1], a.dtype, a.device)
        return pad(dst1(dst1(inner) / eigenvalues), (1, 1, 1, 1))

    def sides(self, a: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """``Laplace u`` and ``a`` on the inner nodes, 0 on the ring: equal for a solution."""
        return laplacian(u), _inner(a)


@final
@dataclass(frozen=True)
class Helmholtz:
    """Solve ``Laplace u + k^2 u = a`` with ``u = 0`` on the ring: ``a (B, 1, H, W) -> u`` alike.

    Values of ``a`` on the ring are not used. Linear in ``a`` and self-adjoint. Above the lowest
    eigenvalue of ``-Laplace``, ``k = pi sqrt(2)``, the solution oscillates, and near any of them
    one mode outgrows all others.

    Args:
        wavenumber: ``k``, in radians per side of the square; 1 is the benchmark's, 0 is Poisson.

    Raises:
        InputError: a wrong shape, a wavenumber that is negative or not finite, or ``k^2`` within
            1e-8 of an eigenvalue of the grid, relative: no solution, or no unique one.
    """

    wavenumber: float = 1.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.wavenumber < math.inf:
            raise InputError(
                f"Got wavenumber {self.wavenumber:g}; expected a finite number of at least 0, "
                "the benchmark uses 1."
            )

    def __call__(self, a: Tensor) -> Tensor:
        _check(a)
        symbol = _helmholtz_symbol(a.shape[-2], a.shape[-1], self.wavenumber, a.dtype, a.device)
        return pad(dst1(dst1(a[..., 1:-1, 1:-1]) / symbol), (1, 1, 1, 1))

    def sides(self, a: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """``Laplace u + k^2 u`` and ``a`` on the inner nodes, 0 on the ring."""
        return laplacian(u) + self.wavenumber**2 * _inner(u), _inner(a)


@final
@dataclass(frozen=True)
class Darcy:
    """Solve ``-div(a grad u) = source`` with ``u = 0`` on the ring: ``a (B, 1, H, W) -> u`` alike.

    Solved in float64 on the CPU whatever the input, sample by sample, and returned in the type and
    on the device of ``a``. The corners of ``a`` touch no face and have no influence.

    Raises:
        InputError: a wrong shape, or a coefficient that is not positive and finite.
    """

    source: float = 1.0

    def __call__(self, a: Tensor) -> Tensor:
        return solve_darcy(a, torch.full_like(a, self.source, requires_grad=False))

    def sides(self, a: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """``-div(a grad u)`` and the source on the inner nodes, 0 on the ring."""
        return darcy_operator(a, u), _inner(torch.full_like(u, self.source, requires_grad=False))


def solve_darcy(a: Tensor, f: Tensor) -> Tensor:
    """Solve ``-div(a grad u) = f``, ``u = 0`` on the ring: two ``(B, 1, H, W) -> u (B, 1, H, W)``.

    Differentiable in both, to any order. See :class:`Darcy` for precision and errors.
    """
    _check(a)
    _check(f)
    worst = float(a.detach().min()) if a.numel() else 1.0
    if not (worst > 0.0 and bool(torch.isfinite(a.detach()).all())):
        raise InputError(
            f"Got a coefficient with minimum {worst:g}; expected positive finite values, else "
            "the equation loses ellipticity; use exp(a) or clip it from below."
        )
    if a.shape != f.shape:
        raise InputError(
            f"Got a coefficient of shape {tuple(a.shape)} and a right side of {tuple(f.shape)}; "
            "expected equal shapes, expand the smaller one."
        )
    inside = a.to(device="cpu", dtype=torch.float64)[:, 0]
    right = f.to(device="cpu", dtype=torch.float64)[:, 0, 1:-1, 1:-1]
    u = _Solve.apply(inside, right)
    return pad(u, (1, 1, 1, 1)).unsqueeze(1).to(device=a.device, dtype=a.dtype)


def faces(a: Tensor) -> tuple[Tensor, Tensor]:
    """Harmonic means of neighbouring nodes, ``(..., H, W) -> (..., H-1, W), (..., H, W-1)``.

    The first lies between rows, the second between columns.
    """
    down = 2.0 * a[..., :-1, :] * a[..., 1:, :] / (a[..., :-1, :] + a[..., 1:, :])
    across = 2.0 * a[..., :, :-1] * a[..., :, 1:] / (a[..., :, :-1] + a[..., :, 1:])
    return down, across


def darcy_operator(a: Tensor, u: Tensor) -> Tensor:
    """``-div(a grad u)`` on the inner nodes and 0 on the ring: two ``(..., H, W) -> (..., H, W)``.

    The five-point scheme that :class:`Darcy` inverts, for residuals and tests.
    """
    h, w = u.shape[-2:]
    down, across = faces(a)
    flux_y = down * torch.diff(u, dim=-2) * float((h - 1) ** 2)
    flux_x = across * torch.diff(u, dim=-1) * float((w - 1) ** 2)
    divergence = torch.diff(flux_y, dim=-2)[..., 1:-1] + torch.diff(flux_x, dim=-1)[..., 1:-1, :]
    return pad(-divergence, (1, 1, 1, 1))


class _Solve(torch.autograd.Function):
    """``A(a)^-1 f``: float64 ``a (B, H, W)`` and ``f (B, H-2, W-2)`` to ``u (B, H-2, W-2)``."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, f: Tensor) -> Tensor:  # noqa: ANN401 (torch's own context)
        coefficient, right = a.numpy(), f.numpy()
        rows = [_solve_one(c, r) for c, r in zip(coefficient, right, strict=True)]
        u = torch.from_numpy(np.stack(rows)) if rows else torch.zeros_like(f)
        ctx.save_for_backward(a, u)
        return u

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:  # noqa: ANN401
        a, u = ctx.saved_tensors
        adjoint = _Solve.apply(a, gradients[0])
        if not ctx.needs_input_grad[0]:
            return None, adjoint
        return -energy_gradient(a, pad(adjoint, (1, 1, 1, 1)), pad(u, (1, 1, 1, 1))), adjoint


def energy_gradient(a: Tensor, v: Tensor, u: Tensor) -> Tensor:
    """Gradient in ``a`` of ``<v, A(a) u> = sum over faces of a_f dv du / h^2``.

    The derivative of the harmonic mean ``2 p q / (p + q)`` in ``p`` is ``2 q^2 / (p + q)^2``.
    """
    h, w = a.shape[-2:]
    work_y = torch.diff(v, dim=-2) * torch.diff(u, dim=-2) * (2.0 * (h - 1) ** 2)
    work_x = torch.diff(v, dim=-1) * torch.diff(u, dim=-1) * (2.0 * (w - 1) ** 2)
    work_y = work_y / (a[..., :-1, :] + a[..., 1:, :]) ** 2
    work_x = work_x / (a[..., :, :-1] + a[..., :, 1:]) ** 2
    above, below = pad(work_y * a[..., 1:, :] ** 2, (0, 0, 0, 1)), work_y * a[..., :-1, :] ** 2
    left, right = pad(work_x * a[..., :, 1:] ** 2, (0, 1)), work_x * a[..., :, :-1] ** 2
    return above + pad(below, (0, 0, 1, 0)) + left + pad(right, (1, 0))


def _solve_one(a: np.ndarray, f: np.ndarray) -> np.ndarray:
    """One sample by banded Cholesky, numbered along the shorter side to keep the band narrow."""
    if a.shape[1] > a.shape[0]:
        return np.ascontiguousarray(_solve_one(a.T, f.T).T)
    band = _band(a)
    return solveh_banded(band, f.reshape(-1), lower=True, check_finite=False).reshape(f.shape)


def _band(a: np.ndarray) -> np.ndarray:
    """Lower band of ``A(a)`` for LAPACK: row ``m`` holds the couplings of unknown j with j + m."""
    rows, columns = a.shape[0] - 2, a.shape[1] - 2
    down = 2.0 * a[:-1, 1:-1] * a[1:, 1:-1] / (a[:-1, 1:-1] + a[1:, 1:-1]) * (rows + 1) ** 2
    across = 2.0 * a[1:-1, :-1] * a[1:-1, 1:] / (a[1:-1, :-1] + a[1:-1, 1:]) * (columns + 1) ** 2
    band = np.zeros((columns + 1, rows, columns))
    band[0] = down[:-1] + down[1:] + across[:, :-1] + across[:, 1:]
    band[1, :, :-1] -= across[:, 1:-1]
    # With a single column both neighbours share one diagonal, hence the sums.
    band[columns, :-1] -= down[1:-1]
    return band.reshape(columns + 1, rows * columns)


def _inner(a: Tensor) -> Tensor:
    """The values of the inner nodes, 0 on the ring."""
    return pad(a[..., 1:-1, 1:-1], (1, 1, 1, 1))


def _check(a: Tensor) -> None:
    if a.ndim != 4 or a.shape[1] != 1 or min(a.shape[-2:]) < 3 or not a.is_floating_point():
        raise InputError(
            f"Got a field of shape {tuple(a.shape)} and type {a.dtype}; expected floating "
            "point (B, 1, H, W) with at least 3 nodes a side, e.g. a[:, None].float()."
        )


@functools.lru_cache(maxsize=32)
def _helmholtz_symbol(
    h: int, w: int, wavenumber: float, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Eigenvalues of ``Laplace + k^2``; refuses a ``k^2`` that is one of ``-Laplace``."""
    with torch.inference_mode(False):
        laplace = _eigenvalues(h, w, torch.float64, torch.device("cpu"))
        shifted = laplace + wavenumber**2
        worst = int(shifted.abs().argmin())
        if float(shifted.reshape(-1)[worst].abs()) <= 1e-8 * wavenumber**2:
            row, column = divmod(worst, w - 2)
            raise InputError(
                f"Got wavenumber {wavenumber:.12g}, a resonance of the {h} x {w} grid (mode "
                f"{row + 1}, {column + 1}): there is no unique solution; expected k^2 off the "
                "eigenvalues, shift the wavenumber a little."
            )
        return shifted.to(device=device, dtype=dtype)


@functools.lru_cache(maxsize=32)
def _eigenvalues(h: int, w: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Eigenvalues ``-(4 / h^2) sin^2(pi k h / 2)`` of the Laplacian, summed over the two axes."""
    # A cache filled under inference mode would hold tensors that no later graph can save.
    with torch.inference_mode(False):
        y, x = (
            -((2.0 * (n - 1)) ** 2)
            * torch.sin(math.pi * torch.arange(1, n - 1, dtype=torch.float64) / (2 * (n - 1))) ** 2
            for n in (h, w)
        )
        return (y[:, None] + x).to(device=device, dtype=dtype)
