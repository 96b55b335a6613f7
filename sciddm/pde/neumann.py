"""Poisson's equation in an insulated square, by the fast cosine transform.

    Laplace u = a - mean(a),   no flux through the edge,   mean(u) = 0

The points are the cell centres ``(i + 1/2) / S``, ``h = 1 / S``; the flux through a face is
``(u_j - u_i) / h`` and through the edge 0, so what is put in comes out: a source whose mean is not
0 has no solution, and its mean is taken off. Cosines diagonalise the scheme, with the eigenvalues
``-(4 / h^2) sin^2(pi k / (2 S))`` an axis.

References:
    LeVeque. Finite difference methods for ordinary and partial differential equations. 2007,
    section 2.12 (the solvability of the Neumann problem).
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn.functional import pad

from sciddm.errors import InputError
from sciddm.pde.grid import dct2, idct2


@final
@dataclass(frozen=True)
class NeumannPoisson:
    """Solve ``Laplace u = a - mean(a)`` without flux: ``a (B, 1, H, W) -> u (B, 1, H, W)``.

    Linear in ``a``, self-adjoint, of mean 0. float32 input is solved in float32.

    Raises:
        InputError: the tensor is not floating point ``(B, 1, H, W)`` with at least 2 cells a side.
    """

    def __call__(self, a: Tensor) -> Tensor:
        if a.ndim != 4 or a.shape[1] != 1 or min(a.shape[-2:]) < 2 or not a.is_floating_point():
            raise InputError(
                f"Got a field of shape {tuple(a.shape)} and type {a.dtype}; expected floating "
                "point (B, 1, H, W) with at least 2 cells a side, e.g. a[:, None].float()."
            )
        return idct2(dct2(a) * _inverse(a.shape[-2], a.shape[-1], a.dtype, a.device))


def insulated_laplacian(u: Tensor) -> Tensor:
    """Five-point Laplacian of cell values without flux through the edge: ``(..., H, W)``."""
    h, w = u.shape[-2:]
    down, across = torch.diff(u, dim=-2) * h, torch.diff(u, dim=-1) * w
    vertical = torch.diff(pad(down, (0, 0, 1, 1)), dim=-2) * h
    return vertical + torch.diff(pad(across, (1, 1)), dim=-1) * w


@functools.lru_cache(maxsize=32)
def _inverse(h: int, w: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """One over the eigenvalues, 0 for the constant."""
    # A cache filled under inference mode would hold tensors that no later graph can save.
    with torch.inference_mode(False):
        y, x = (
            -((2.0 * n) ** 2)
            * torch.sin(math.pi * torch.arange(n, dtype=torch.float64) / (2 * n)) ** 2
            for n in (h, w)
        )
        total = y[:, None] + x
        total[0, 0] = math.inf
        return (1.0 / total).to(device=device, dtype=dtype)
