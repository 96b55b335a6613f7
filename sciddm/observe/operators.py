"""Operators: maps from fields (B, C, *grid) to values (B, n) that compose with ``@``.

A linear operator knows its rows, the fields ``A^T e_i``, by one backward pass each; nothing else
about it is needed for exact guidance.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sciddm.errors import InputError
from sciddm.random import Streams

COPIES = 2**17
"""Grid values of the copies of a field through which rows are made at a time."""


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

        Exact for an affine operator; for another it is the Jacobian at ``like`` (1, C, *grid). A
        few are made at a time, so that the memory of a solver does not grow with n.
        """
        with torch.no_grad():
            n = self(like[:1]).shape[1]
        few = max(1, COPIES // like[0].numel())
        parts = [like.new_zeros(0, *like.shape[1:])]
        for start in range(0, n, few):
            count = min(few, n - start)
            with torch.enable_grad():
                x = like[:1].detach().expand(count, *like.shape[1:]).clone().requires_grad_()
                (part,) = torch.autograd.grad(self(x).diagonal(start).sum(), x)
            parts.append(part)
        return torch.cat(parts)

    def affine(self, like: Tensor) -> bool:
        """Whether A(x + y) + A(-x) + A(-y) = 3 A(0) on random fields like ``like`` (1, C, *grid),
        of s.d. 1 and 10, to half the digits of their type.

        Operators that are linear by their kind need no test.
        """
        blank = torch.zeros_like(like[:1]).expand(4, *like.shape[1:])
        size = torch.tensor([1.0, 10.0, 1.0, 10.0]).to(blank).view(4, *[1] * (like.ndim - 1))
        x, y = (size * Streams.of(0, 4).at(name).normal(blank) for name in ("affine x", "affine y"))
        with torch.no_grad():
            values = torch.stack([self(v) for v in (x + y, -x, -y, blank)])
        gap = (values[:3].sum(0) - 3 * values[3]).abs().amax(0)
        slack = torch.finfo(values.dtype).eps ** 0.5
        return bool((gap <= slack * values.abs().amax((0, 1))).all())  # NaN is not affine


class Linear(Operator):
    """Linear by its kind."""

    def affine(self, like: Tensor) -> bool:
        return True


@dataclass(frozen=True)
class Function(Operator):
    """Any differentiable function (B, C, *grid) -> (B, n)."""

    function: Callable[[Tensor], Tensor]

    def __call__(self, x: Tensor) -> Tensor:
        return self.function(x)


@dataclass(frozen=True, eq=False)
class Points(Linear):
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


def points(
    channel: Sequence[int],
    position: Tensor,
    grid: Sequence[int],
    periodic: Sequence[bool] | None = None,
) -> Points:
    """Points at fractional grid indices ``position`` (n, D) of channels ``channel`` (n,).

    A position of 2.5 lies half-way between grid points 2 and 3, and on a ``periodic`` axis one of
    ``size - 0.5`` between the last point and the first. Raises `InputError` for a position outside
    ``[0, size - 1]`` of its axis, or ``[0, size]`` where it is periodic.
    """
    position = position.double()
    around = [False] * len(grid) if periodic is None else list(periodic)
    last = [size if p else size - 1 for size, p in zip(grid, around, strict=True)]
    top = torch.tensor(last, dtype=torch.float64)
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
        at = ((low[:, axis, None].long() + step) % size)[:, None, :]
        w = torch.stack([1 - share[:, axis], share[:, axis]], dim=1)[:, None, :]
        index = (index[:, :, None] * size + at).flatten(1)
        weight = (weight[:, :, None] * w).flatten(1)
    return Points(index, weight)


@dataclass(frozen=True, eq=False)
class Mask(Linear):
    """The values where ``keep`` (C, *grid) is true, in memory order."""

    keep: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return x[:, self.keep.to(x.device)]


@dataclass(frozen=True)
class Coarsen(Linear):
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
