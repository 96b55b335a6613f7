r"""Observations: y = A(x) + e, an operator, its values and the law of its error.

Operators map fields (B, C, *grid) to values (B, n) and compose with ``@``; observations of the
same field with independent errors join with ``&``. A linear operator knows its rows, the fields
``A^T e_i``, by one backward pass each; nothing else about it is needed for exact guidance.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sciddm.errors import InputError


class Operator(ABC):
    """A differentiable map from fields (B, C, *grid) to values (B, n)."""

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """A(x), (B, n)."""

    def __matmul__(self, other: Callable[[Tensor], Tensor]) -> Operator:
        """self after ``other``; ``other`` is any map from fields to fields."""
        return Function(lambda x: self(other(x)))

    def rows(self, like: Tensor) -> Tensor:
        """The rows of a linear operator as fields (n, C, *grid), by back-propagation.

        Exact for an affine operator; for another it is the Jacobian at ``like`` (1, C, *grid).
        """
        with torch.enable_grad():
            n = self(like[:1]).shape[1]
            x = like[:1].detach().expand(n, *like.shape[1:]).clone().requires_grad_()
            (rows,) = torch.autograd.grad(self(x).diagonal().sum(), x)
        return rows


@dataclass(frozen=True)
class Function(Operator):
    """Any differentiable function (B, C, *grid) -> (B, n)."""

    function: Callable[[Tensor], Tensor]

    def __call__(self, x: Tensor) -> Tensor:
        return self.function(x)


@dataclass(frozen=True, eq=False)
class Points(Operator):
    """Values at points, on the grid or between its points, by multilinear interpolation.

    Parameters
    ----------
    index : (n, m) positions in the flattened (C, *grid); weight : (n, m). Each value is
        ``sum_j weight_j x[index_j]``. Built by `points` from fractional grid coordinates.
    """

    index: Tensor
    weight: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        corners = x.flatten(1)[:, self.index.to(x.device)]
        return (corners * self.weight.to(x)).sum(-1)


def points(channel: Sequence[int], position: Tensor, grid: Sequence[int]) -> Points:
    """Points at fractional grid indices ``position`` (n, D) of channels ``channel`` (n,).

    A position of 2.5 lies half-way between grid points 2 and 3. Raises `InputError` for a position
    outside ``[0, size - 1]`` of its axis.
    """
    position = position.double()
    top = torch.tensor([size - 1 for size in grid], dtype=torch.float64)
    outside = ~((position >= -1e-6) & (position <= top + 1e-6)).all(1)  # NaN is nowhere
    if bool(outside.any()):
        first = int(outside.nonzero()[0])
        raise InputError(
            f"Observation {first} lies outside the grid, at index "
            f"{[round(v, 3) for v in position[first].tolist()]} of {list(grid)}; "
            f"{int(outside.sum())} do. Leave them out or use a model of a larger domain."
        )
    position = torch.minimum(position.clamp_min(0), top)
    low = torch.minimum(position.floor(), (top - 1).clamp_min(0))
    share = position - low
    index = torch.as_tensor(channel, dtype=torch.long)[:, None]
    weight = torch.ones(len(position), 1, dtype=torch.float64)
    for axis, size in enumerate(grid):
        step = torch.tensor([0, min(1, size - 1)])
        at = (low[:, axis, None].long() + step)[:, None, :]
        w = torch.stack([1 - share[:, axis], share[:, axis]], dim=1)[:, None, :]
        index = (index[:, :, None] * size + at).flatten(1)
        weight = (weight[:, :, None] * w).flatten(1)
    return Points(index, weight)


@dataclass(frozen=True, eq=False)
class Mask(Operator):
    """The values where ``keep`` (C, *grid) is true, in memory order."""

    keep: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return x[:, self.keep.to(x.device)]


@dataclass(frozen=True)
class Coarsen(Operator):
    """Means over whole blocks of ``factor`` grid points along each axis; a ragged end is left out.

    The values are flattened (C, *coarse grid).
    """

    factor: tuple[int, ...]

    def __call__(self, x: Tensor) -> Tensor:
        return self.field(x).flatten(1)

    def field(self, x: Tensor) -> Tensor:
        """The coarse field (B, C, *coarse grid)."""
        for axis, f in zip(range(-len(self.factor), 0), self.factor, strict=True):
            whole = x.shape[axis] // f
            x = x.narrow(axis, 0, whole * f).unflatten(axis, (whole, f)).mean(axis)
        return x


@dataclass(frozen=True, eq=False)
class Observation:
    """Values ``y`` of ``operator`` with Gaussian errors.

    Parameters
    ----------
    y : (n,) the same for every member, or (B, n).
    operator : fields (B, C, *grid) -> (B, n).
    variance : error variance: a scalar, (n,), or a full (n, n) covariance. Positive.
    """

    y: Tensor
    operator: Operator
    variance: Tensor

    def __post_init__(self) -> None:
        n = self.y.shape[-1]
        if self.variance.shape not in ((), (n,), (n, n)):
            raise InputError(
                f"Got an error variance of shape {tuple(self.variance.shape)} for {n} values; "
                f"expected a scalar, ({n},) or ({n}, {n})."
            )
        diagonal = self.variance.diagonal() if self.variance.ndim == 2 else self.variance
        if not bool((diagonal > 0).all()) or not bool(torch.isfinite(diagonal).all()):
            raise InputError("An observation error is not positive and finite; give one above 0.")
        if self.variance.ndim == 2:
            fault = torch.linalg.cholesky_ex(self.variance.double())[1]
            if int(fault) or not torch.allclose(self.variance, self.variance.T):
                raise InputError(
                    "A full error variance is no covariance; expected a symmetric positive "
                    "definite matrix."
                )

    @property
    def covariance(self) -> Tensor:
        """The full error covariance (n, n), float64."""
        n = self.y.shape[-1]
        v = self.variance.double()
        return v if v.ndim == 2 else torch.diag(v.expand(n))

    def residual(self, x: Tensor) -> Tensor:
        """y - A(x), (B, n)."""
        return self.y.to(x) - self.operator(x)

    def log_prob(self, x: Tensor) -> Tensor:
        """log p(y | x), (B,)."""
        chol = torch.linalg.cholesky(self.covariance)
        white = torch.linalg.solve_triangular(chol, self.residual(x).double().T, upper=False)
        log_det = 2 * chol.diagonal().log().sum()
        n = self.y.shape[-1]
        return (-0.5 * (white.square().sum(0) + log_det + n * math.log(2 * math.pi))).to(x)

    def misfit(self, x: Tensor) -> Tensor:
        """Root mean square of the whitened residual of each member, (B,); 0.8-1.5 is right."""
        chol = torch.linalg.cholesky(self.covariance)
        white = torch.linalg.solve_triangular(chol, self.residual(x).double().T, upper=False)
        return white.square().mean(0).sqrt()

    def __and__(self, other: Observation) -> Observation:
        """Both at once, with independent errors."""
        y = torch.cat(_same_rows(self.y, other.y), dim=-1)
        operator = Function(lambda x: torch.cat([self.operator(x), other.operator(x)], dim=1))
        if self.variance.ndim == 2 or other.variance.ndim == 2:
            variance = torch.block_diag(self.covariance, other.covariance)
        else:
            parts = [o.variance.double().expand(o.y.shape[-1]) for o in (self, other)]
            variance = torch.cat(parts)
        return Observation(y, operator, variance)


def _same_rows(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Both with a batch axis where either has one."""
    if a.ndim == b.ndim:
        return a, b
    rows = a.shape[0] if a.ndim == 2 else b.shape[0]
    return a.expand(rows, a.shape[-1]), b.expand(rows, b.shape[-1])
