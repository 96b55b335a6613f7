r"""What a pair of fields lacks of solving an equation: its residual, as one more observation.

For an equation ``L(a) u = f`` with ``u = 0`` on the ring, on nodes of the unit square,

    R(a, u) = L(a) u - f   on the inner nodes,      R(a, u) = u   on the ring,

with the spacing of the grid in L and the boundary rows beside it. A joint prior over a and u that
has not learned the equation learns of it by ``R = 0``, observed with an error: small where the
discrete equation holds, larger where it is only a model. A prior that draws a and solves for u
needs no such thing.

The rows of L are steep (its largest eigenvalue is 8 / h^2), so the error is one of the right side
f. Where that makes n too large, the leading sine modes of the inner residual stand for all of it.

References
----------
Raissi, Perdikaris, Karniadakis. Physics-informed neural networks. Journal of Computational Physics
2019, eq. 2-3 (the residual as data). https://doi.org/10.1016/j.jcp.2018.10.045
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, final

import torch
from torch import Tensor

from sciddm.errors import InputError
from sciddm.observe.operators import Operator
from sciddm.pde.grid import dst1


class Equation(Protocol):
    """An equation between a coefficient and a solution, such as `sciddm.pde.Poisson`."""

    def sides(self, a: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Both sides of it, ``(B, 1, H, W)`` each, equal where u is the solution for a."""


@final
@dataclass(frozen=True)
class Solved:
    """The equation ``u = S(a)`` of any solver S: flows in time, surrogates. Its residual is as
    smooth as u, and costs a solve."""

    solver: Callable[[Tensor], Tensor]

    def sides(self, a: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        return u, self.solver(a)


@final
@dataclass(frozen=True)
class Residual(Operator):
    """R(a, u) of physical fields (B, K, H, W): (B, n), the inner nodes (or modes), then the ring;
    of `Solved` all nodes alike.

    Parameters
    ----------
    equation : a solver of `sciddm.pde` with ``sides``, or `Solved`.
    coefficient, solution : their channels.
    modes : of the inner residual, the leading sine modes along each axis, orthonormal; None for
        all nodes.

    Raises `InputError` for fields that are no plane, or more modes than inner nodes.
    """

    equation: Equation
    coefficient: int = 0
    solution: int = 1
    modes: tuple[int, int] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        if x.ndim != 4 or min(x.shape[-2:]) < 3:
            raise InputError(
                f"Got fields of shape {tuple(x.shape)}; expected (B, K, H, W) with at least 3 "
                "nodes a side."
            )
        a, u = x[:, self.coefficient, None], x[:, self.solution, None]
        left, right = self.equation.sides(a, u)
        if isinstance(self.equation, Solved) and self.modes is None:
            return (left - right).flatten(1)
        inner = (left - right)[:, 0, 1:-1, 1:-1]
        return torch.cat([self._kept(inner).flatten(1), ring(u[:, 0])], dim=1)

    def _kept(self, inner: Tensor) -> Tensor:
        if self.modes is None:
            return inner
        h, w = self.modes
        if not (0 < h <= inner.shape[-2] and 0 < w <= inner.shape[-1]):
            raise InputError(
                f"Got {self.modes} modes of a residual on {tuple(inner.shape[-2:])} inner nodes; "
                "expected at most as many."
            )
        return dst1(inner)[..., :h, :w]


def ring(u: Tensor) -> Tensor:
    """Values on the ring of (B, H, W): (B, 2 H + 2 W - 4), two sides, then the rest of two."""
    ends = torch.cat([u[:, 0], u[:, -1]], dim=1)
    return torch.cat([ends, u[:, 1:-1, 0], u[:, 1:-1, -1]], dim=1)
