"""Darcy's equation as the published benchmark solved it, its defects included.

    -div(a grad u) = 1,   u = 0 on the edge,   a given at the cell centres (i + 1/2) / S

1. ``a`` goes from the centres to the nodes ``i / (S - 1)`` by the tensor-product cubic spline with
   not-a-knot ends. The outermost nodes lie half a cell outside the centres: extrapolated.
2. The conservative five-point scheme on the inner nodes, the coefficient of a face the arithmetic
   mean of its two nodes.
3. ``u`` goes back to the centres by the same kind of spline.

Splines overshoot jumps. Across 3 and 12 the nodal coefficient goes below 0 in nine samples of ten,
most of all at the extrapolated edge, so the equation is not elliptic there: the matrix is symmetric
but indefinite, ``u`` has values that no positive coefficient allows, and now and then a large
one. :class:`sciddm.pde.Darcy` is the same problem solved properly. The two must not be mixed.

With ``A(a) u = f`` on the nodes and the splines as matrices, gradients are those of
:mod:`sciddm.pde.elliptic`, with ``dA/da`` that of arithmetic means: one more solve.

References:
    DiffusionPDE: Generative PDE-Solving Under Partial Observation, Huang, Yang, Wang and Park,
    2024, https://arxiv.org/abs/2406.17763 (the data); Fourier Neural Operator, Li et al., 2020,
    https://arxiv.org/abs/2010.08895 (its generator).
    de Boor. A practical guide to splines. 1978, ch. IV (not-a-knot).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import scipy.sparse
import scipy.sparse.linalg
import torch
from scipy.interpolate import CubicSpline
from torch import Tensor
from torch.nn.functional import pad

from sciddm.errors import InputError


@final
@dataclass(frozen=True)
class DarcySpline:
    """The benchmark's map from ``a (B, 1, H, W)`` to ``u (B, 1, H, W)``, both at cell centres.

    Solved in float64 on the CPU whatever the input, sample by sample, and returned in the type and
    on the device of ``a``. Not elliptic for most two-phase coefficients (see the module), and
    differentiable all the same.

    Raises:
        InputError: a wrong shape, fewer than 4 points a side, values that are not finite, or a
            coefficient whose scheme has no solution.
    """

    source: float = 1.0

    def __call__(self, a: Tensor) -> Tensor:
        if a.ndim != 4 or a.shape[1] != 1 or min(a.shape[-2:]) < 4 or not a.is_floating_point():
            raise InputError(
                f"Got a field of shape {tuple(a.shape)} and type {a.dtype}; expected floating "
                "point (B, 1, H, W) with at least 4 cells a side, e.g. a[:, None].float()."
            )
        if not bool(torch.isfinite(a.detach()).all()):
            raise InputError("Got a coefficient that is not finite; mask or fill it first.")
        nodal = to_nodes(a.to(device="cpu", dtype=torch.float64))[:, 0]
        u = _Solve.apply(nodal, torch.full_like(nodal[:, 1:-1, 1:-1], self.source))
        return to_centres(pad(u, (1, 1, 1, 1)).unsqueeze(1)).to(device=a.device, dtype=a.dtype)


def to_nodes(x: Tensor) -> Tensor:
    """Values at cell centres to nodes by the spline, extrapolated: ``(..., H, W)`` to the same."""
    rows, columns = (torch.from_numpy(_splines(n)[0]).to(x) for n in x.shape[-2:])
    return rows @ x @ columns.mT


def to_centres(x: Tensor) -> Tensor:
    """Values at nodes to cell centres by the spline: ``(..., H, W)`` to the same."""
    rows, columns = (torch.from_numpy(_splines(n)[1]).to(x) for n in x.shape[-2:])
    return rows @ x @ columns.mT


@functools.lru_cache(maxsize=16)
def _splines(n: int) -> tuple[np.ndarray, np.ndarray]:
    """The matrices (n, n) from ``n`` centres to nodes, and back."""
    centres, nodes = (np.arange(n) + 0.5) / n, np.arange(n) / (n - 1)
    one = np.eye(n)
    return CubicSpline(centres, one)(nodes), CubicSpline(nodes, one)(centres)


class _Solve(torch.autograd.Function):
    """``A(a)^-1 f``: float64 ``a (B, H, W)`` and ``f (B, H-2, W-2)`` to ``u (B, H-2, W-2)``."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, f: Tensor) -> Tensor:  # noqa: ANN401 (torch's own context)
        pairs = zip(a.numpy(), f.numpy(), strict=True)
        rows = [_solve_one(coefficient, right) for coefficient, right in pairs]
        u = torch.from_numpy(np.stack(rows)) if rows else torch.zeros_like(f)
        ctx.save_for_backward(a, u)
        return u

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:  # noqa: ANN401
        a, u = ctx.saved_tensors
        adjoint = _Solve.apply(a, gradients[0])
        if not ctx.needs_input_grad[0]:
            return None, adjoint
        return -_energy_gradient(pad(adjoint, (1, 1, 1, 1)), pad(u, (1, 1, 1, 1))), adjoint


def _energy_gradient(v: Tensor, u: Tensor) -> Tensor:
    """Gradient in ``a`` of ``<v, A(a) u>``, the sum over faces of ``(p + q) / 2 dv du / h^2``."""
    h, w = u.shape[-2:]
    down = 0.5 * (h - 1) ** 2 * torch.diff(v, dim=-2) * torch.diff(u, dim=-2)
    across = 0.5 * (w - 1) ** 2 * torch.diff(v, dim=-1) * torch.diff(u, dim=-1)
    vertical = pad(down, (0, 0, 0, 1)) + pad(down, (0, 0, 1, 0))
    return vertical + pad(across, (0, 1)) + pad(across, (1, 0))


def _solve_one(a: np.ndarray, f: np.ndarray) -> np.ndarray:
    """One sample by sparse LU with pivoting: the matrix is symmetric, but not positive."""
    rows, columns = f.shape
    down = 0.5 * (a[:-1, 1:-1] + a[1:, 1:-1]) * (rows + 1) ** 2
    across = 0.5 * (a[1:-1, :-1] + a[1:-1, 1:]) * (columns + 1) ** 2
    middle = down[:-1] + down[1:] + across[:, :-1] + across[:, 1:]
    number = np.arange(rows * columns).reshape(rows, columns)
    pairs = [
        (number, number, middle),
        (number[:-1], number[1:], -down[1:-1]),
        (number[1:], number[:-1], -down[1:-1]),
        (number[:, :-1], number[:, 1:], -across[:, 1:-1]),
        (number[:, 1:], number[:, :-1], -across[:, 1:-1]),
    ]
    i, j, value = (np.concatenate([p[k].ravel() for p in pairs]) for k in range(3))
    matrix = scipy.sparse.csc_matrix((value, (i, j)), shape=(number.size, number.size))
    try:
        factors = scipy.sparse.linalg.splu(matrix, permc_spec="MMD_AT_PLUS_A")
    except RuntimeError as error:
        raise InputError(
            "Got a coefficient whose spline makes the scheme singular; take another sample, or the "
            "clean problem, sciddm.pde.Darcy."
        ) from error
    return factors.solve(f.ravel()).reshape(f.shape)
