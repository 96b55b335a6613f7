"""Equations beside labelled fields: as evidence of a pair of fields, and how well members hold it.

A model that computes its solution with a solver fulfils the equation as it is. A model that draws
both fields does as far as its network has learned; `Residual` tells it more, and `residual` shows
what is left::

    seen = sd.Observed(sensors, std=0.01) & sd.Residual(pde.Darcy(), std=0.1)
    post = sd.recover(model, seen, rule=guide.MMPS)
    left = sd.residual(post, pde.Darcy())
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr

from sciddm import pde
from sciddm.data.codec import Codec, Derived, Grid, TwoValued
from sciddm.errors import InputError, nearest
from sciddm.evidence import Evidence, Sight
from sciddm.observe import Function, Observation
from sciddm.observe.noise import Gaussian
from sciddm.pde.residual import Equation

BLOCK = 64
"""Members whose residual is taken at a time."""


@dataclass(frozen=True, eq=False)
class Residual(Evidence):
    """An equation that holds between two variables, up to an error; joins with ``&``.

    Parameters
    ----------
    equation : such as ``pde.Poisson()``, ``pde.Helmholtz(1.0)`` or ``pde.Darcy()``; any other
        solver S as ``pde.Solved(S)``, for solution = S(coefficient).
    std : error of the equation at a node, in units of its right side. Good values: 0.01 to 0.1 of
        the rms of that side; where the two-valued coefficient of a model jumps, more.
    edge : error of the boundary condition in units of the solution; None for 1e-3 of what the
        solution is as the model scales it.
    modes : the leading sine modes of the residual along each axis, in the place of all nodes. The
        cost of closed-form guidance grows with the square of their number; 8 to 24 are usual.
    coefficient, solution : names of the variables.
    """

    equation: Equation
    std: float
    edge: float | None = None
    modes: int | None = None
    coefficient: str = "coefficient"
    solution: str = "solution"

    def __post_init__(self) -> None:
        _check_equation(self.equation)
        for name, value in (("std", self.std), ("edge", 1.0 if self.edge is None else self.edge)):
            if not (isinstance(value, int | float | np.number) and 0 < value < np.inf):
                raise InputError(
                    f"Got {name} = {value!r} of a residual; expected a positive number in the "
                    "units of the equation's right side."
                )
        if not isinstance(self.modes, int | None) or (self.modes is not None and self.modes < 1):
            raise InputError(f"Got {self.modes!r} modes of a residual; expected 1 or more.")

    @property
    def scalars(self) -> dict[str, xr.Variable]:
        return {}

    def identity(self) -> Iterator[bytes]:
        yield repr(
            (self.equation, self.std, self.edge, self.modes, self.coefficient, self.solution)
        ).encode()

    def sights(self, codec: Codec) -> Iterator[Sight]:
        names = list(codec.variables)
        for name in (self.coefficient, self.solution):
            if name not in names:
                raise InputError(f"The residual needs a variable {name!r}.{nearest(name, names)}")
        if self.solution in _derived(codec):
            raise InputError(
                f"This model computes {self.solution!r} with its solver, so the residual is zero "
                "by construction; leave it out."
            )
        whole = isinstance(self.equation, pde.Solved) and self.modes is None
        if not whole:
            _check_square(codec.grid)
        channels = names.index(self.coefficient), names.index(self.solution)
        modes = None if self.modes is None else (self.modes, self.modes)
        operator = pde.Residual(self.equation, *channels, modes)
        blank = torch.zeros(1, *codec.shape)
        physical = codec.physical(blank + torch.tensor([1.0]))
        edge = self.edge
        if edge is None:
            size = (physical - codec.physical(blank))[:, channels[1]].abs().mean()
            edge = 1e-3 * float(size)
        rows = operator(physical).shape[1]
        ring = 0 if whole else 2 * sum(codec.grid.shape) - 4
        std = np.concatenate([np.full(rows - ring, float(self.std)), np.full(ring, edge)])
        scale = torch.from_numpy(1 / std)
        seen = Observation(
            torch.zeros(rows, dtype=torch.float64),
            Function(lambda x: operator(x) * scale.to(x)),
            Gaussian(torch.ones((), dtype=torch.float64)),
        )
        yield Sight(0, None, seen, std, lambda i: f"residual {i} of {self.equation}")


def residual(
    fields: xr.Dataset,
    equation: Equation,
    *,
    coefficient: str = "coefficient",
    solution: str = "solution",
) -> xr.DataArray:
    """What ``fields`` lack of solving ``equation``: left minus right side on the inner nodes, the
    solution itself on the ring, in the dims of the fields. Of `pde.Solved` every node is inner.

    Its attributes: ``rms`` over inner nodes, ``relative`` (that over the rms of the right side) and
    ``boundary_rms``; roots of mean squares over all members and cases.
    Raises `InputError` for variables that are not there, or other grids than nodes of the unit
    square.
    """
    _check_equation(equation)
    for name in (coefficient, solution):
        if name not in fields:
            known = [str(v) for v in fields.data_vars]
            raise InputError(f"The residual needs a variable {name!r}.{nearest(name, known)}")
    a, u = xr.broadcast(fields[coefficient], fields[solution])
    space = [str(d) for d in fields[solution].dims[-2:]]
    if len(space) < 2:
        raise InputError(f"Got {solution!r} with dims {space}; expected two of space, a plane.")
    whole = isinstance(equation, pde.Solved)
    if not whole:
        _check_square(Grid.of(fields, (space[0], space[1])))
    lead = [d for d in u.dims if d not in space]
    a, u = a.transpose(*lead, *space), u.transpose(*lead, *space)
    shape = (-1, 1, *(u.sizes[d] for d in space))
    tensors = [torch.from_numpy(v.values.astype(np.float64)).reshape(shape) for v in (a, u)]
    at = slice(None) if whole else slice(1, -1)
    parts, right, left = [], [], []
    for one, two in zip(*(t.split(BLOCK) for t in tensors), strict=True):
        sides = [side[..., at, at] for side in equation.sides(one, two)]
        gap = two.clone()
        gap[..., at, at] = sides[0] - sides[1]
        parts.append(gap)
        left.append((sides[0] - sides[1]).square().mean())
        right.append(sides[1].square().mean())
    weight = torch.tensor([len(p) for p in parts], dtype=torch.float64)
    rms, size = (float((torch.stack(v) @ weight / weight.sum()).sqrt()) for v in (left, right))
    gap = torch.cat(parts)
    edge = 0.0 if whole else float(pde.ring(gap[:, 0]).square().mean().sqrt())
    found = u.copy(data=gap.numpy().reshape(u.shape)).rename("residual")
    found.attrs = {
        "long_name": f"residual of {equation}",
        "rms": rms,
        "relative": rms / max(size, 1e-300),
        "boundary_rms": edge,
    }
    return found


def solved(codec: Codec) -> tuple[str, str, Equation] | None:
    """The coefficient, the solution and the equation of a model that computes one by a solver."""
    if isinstance(codec, TwoValued):
        return solved(codec.inner)
    if not isinstance(codec, Derived):
        return None
    solver = codec.solver
    names = next(iter(codec.inner.variables)), codec.name
    if isinstance(solver, pde.Poisson | pde.Helmholtz | pde.Darcy):
        return *names, solver
    return *names, pde.Solved(solver)


def _derived(codec: Codec) -> list[str]:
    """Names of the variables that the codec computes."""
    if isinstance(codec, Derived):
        return [codec.name, *_derived(codec.inner)]
    return _derived(codec.inner) if isinstance(codec, TwoValued) else []


def _check_equation(equation: object) -> None:
    if not callable(getattr(equation, "sides", None)):
        raise InputError(
            f"Got {equation!r:.80} as an equation; expected one such as pde.Poisson(), or "
            "pde.Solved(S) of another solver S."
        )


def _check_square(grid: Grid) -> None:
    """Refuse what are no evenly spaced nodes of the unit square, ends included."""
    for dim in grid.dims:
        axis = grid.coords[dim]
        even = np.allclose(axis, np.linspace(axis[0], axis[-1], len(axis)), atol=1e-4)
        if len(grid.dims) != 2 or not even or abs(abs(axis[-1] - axis[0]) - 1) > 1e-4:
            raise InputError(
                f"The residual is taken on nodes of the unit square; got {dim!r} with {len(axis)} "
                f"points from {axis[0]:g} to {axis[-1]:g}."
            )
