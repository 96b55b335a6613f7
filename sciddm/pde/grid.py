"""Node grids on the unit box, and the orthonormal cosine and sine transforms on them.

A node grid of ``S`` points along an axis has the points ``i / (S - 1)``, ``i = 0 .. S-1``, so the
spacing is ``h = 1 / (S - 1)`` and both ends are nodes.

Two real orthonormal transforms diagonalise what is needed here:

    DCT-II   X_k = c_k sum_j x_j cos(pi k (2 j + 1) / (2 n)),   c_0 = sqrt(1 / n), c_k = sqrt(2 / n)
    DST-I    X_k = sqrt(2 / (n+1)) sum_j x_j sin(pi (j + 1) (k + 1) / (n + 1))

The first has zero slope half a cell outside the grid, the second is zero one cell outside it: it
diagonalises the five-point Laplacian on the inner nodes with value 0 on the ring. Both keep the
sum of squares (Parseval); the inverse of the first is its transpose, the second is its own inverse.

They are products with a cached matrix. At 32 to 256 points a side that is quicker than an FFT of
the doubled signal, and differentiation is free.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor

from sciddm.errors import InputError


def nodes(size: int, *, dtype: torch.dtype = torch.float64) -> Tensor:
    """The ``size`` nodes ``i / (size - 1)`` of the unit interval.

    Raises:
        InputError: fewer than 3 nodes (there would be no inner node).
    """
    if size < 3:
        raise InputError(f"Got a grid of {size} nodes; a node grid needs at least 3, use more.")
    return torch.arange(size, dtype=dtype) / (size - 1)


def dct2(x: Tensor) -> Tensor:
    """Orthonormal DCT-II along the last two axes: ``(..., H, W) -> (..., H, W)``."""
    rows, columns = _matrices(_cosines, x)
    return rows @ x @ columns.mT


def idct2(x: Tensor) -> Tensor:
    """Inverse of :func:`dct2` (the orthonormal DCT-III): ``(..., H, W) -> (..., H, W)``."""
    rows, columns = _matrices(_cosines, x)
    return rows.mT @ x @ columns


def dst1(x: Tensor) -> Tensor:
    """Orthonormal DST-I along the last two axes, ``(..., H, W)`` to the same; its own inverse."""
    rows, columns = _matrices(_sines, x)
    return rows @ x @ columns


def laplacian(u: Tensor) -> Tensor:
    """Five-point Laplacian of node values on the inner nodes, 0 on the ring: ``(..., H, W)``."""
    h, w = u.shape[-2:]
    middle = u[..., 1:-1, 1:-1]
    down = (u[..., 2:, 1:-1] + u[..., :-2, 1:-1] - 2.0 * middle) * float((h - 1) ** 2)
    across = (u[..., 1:-1, 2:] + u[..., 1:-1, :-2] - 2.0 * middle) * float((w - 1) ** 2)
    return torch.nn.functional.pad(down + across, (1, 1, 1, 1))


def _matrices(
    build: Callable[[int, torch.dtype, torch.device], Tensor], x: Tensor
) -> tuple[Tensor, Tensor]:
    if x.ndim < 2 or not x.is_floating_point():
        raise InputError(
            f"Got a tensor of shape {tuple(x.shape)} and type {x.dtype}; expected floating point "
            "values (..., H, W), cast with .float() or add an axis."
        )
    return build(x.shape[-2], x.dtype, x.device), build(x.shape[-1], x.dtype, x.device)


@functools.lru_cache(maxsize=32)
def _cosines(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    # A cache filled under inference mode would hold tensors that no later graph can save.
    with torch.inference_mode(False):
        k = torch.arange(n, dtype=torch.float64)
        # The phase is reduced as an integer: cos(1e5) from a rounded argument loses five digits.
        phase = torch.outer(k, 2 * k + 1) % (4 * n)
        matrix = torch.cos(math.pi / (2 * n) * phase) * math.sqrt(2 / n)
        matrix[0] = math.sqrt(1 / n)
        return matrix.to(device=device, dtype=dtype)


@functools.lru_cache(maxsize=32)
def _sines(n: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        k = torch.arange(1, n + 1, dtype=torch.float64)
        phase = torch.outer(k, k) % (2 * (n + 1))
        matrix = torch.sin(math.pi / (n + 1) * phase) * math.sqrt(2 / (n + 1))
        return matrix.to(device=device, dtype=dtype)
