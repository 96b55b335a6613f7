r"""The algebra of one linear observation: gains and their systems, in float64.

References
----------
Rasmussen, Williams. Gaussian processes for machine learning. 2006, eq. 2.23-2.24.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sciddm.denoise import LinearMap
from sciddm.errors import InputError


def kalman_gain(covariance: LinearMap, rows: Tensor, noise: Tensor) -> Tensor:
    """(A V A^T + R)^{-1} A V, the transposed gain (n, C, *grid).

    rows : (n, C, *grid), the operator. noise : R (n, n).
    """
    images = covariance(rows)
    total = gram(rows, images) + noise.double()
    gain = torch.cholesky_solve(images.flatten(1).double(), factor(total))
    return gain.to(images).view_as(rows)


def gram(rows: Tensor, images: Tensor) -> Tensor:
    """A V A^T (n, n), symmetric, float64, of the rows of A and their images under V."""
    product = rows.flatten(1).double() @ images.flatten(1).double().T
    return 0.5 * (product + product.T)


def factor(total: Tensor) -> Tensor:
    """Cholesky factor of a covariance; rounding is met by the least ridge that works."""
    ridge = 0.0
    scale = float(total.diagonal().mean())
    unit = torch.eye(len(total)).to(total)
    while True:
        chol, fault = torch.linalg.cholesky_ex(total + ridge * scale * unit)
        if int(fault) == 0:
            return chol
        ridge = max(10 * ridge, 1e-12)
        if ridge > 1e-3:
            raise InputError(
                "The covariance of the observations is not positive definite; "
                "check for values that are not finite."
            )
