"""What is wanted and what is seen: every task is to draw p(target | given).

`Task` names the variables of a model; `Observed` is the labelled twin of
`sciddm.observe.Observation`: values in physical units, where they are, and their error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
import xarray as xr

from sciddm.data.codec import Codec
from sciddm.errors import InputError, nearest
from sciddm.observe import Coarsen, Function, Observation, Operator, points

CASE_DIMS = ("time", "sample")


@dataclass(frozen=True, slots=True)
class View:
    """A choice of variables."""

    variables: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Task:
    """Draw ``target`` given observations; ``sample`` is the dim that counts training fields."""

    target: View
    sample: str = "sample"


@dataclass(frozen=True, eq=False)
class Observed:
    """Values seen, in physical units, each with its own error.

    Parameters
    ----------
    values : DataArray named like a variable of the model, or Dataset of several. Either on grid
        dims (NaN is unseen; any subset of coordinates, on the grid or between its points), or along
        one dim of scattered points with the position as coordinates named like the grid's dims. A
        further dim ``time`` or ``sample`` counts cases.
    std : error s.d. in the variable's units: a number, one a variable, or an array like the values.
    coarsen : grid points averaged in each value along each dim; the values then lie on the coarse
        grid of whole blocks.
    """

    values: xr.DataArray | xr.Dataset
    std: float | Mapping[str, float] | xr.Dataset | xr.DataArray
    coarsen: Mapping[str, int] = field(default_factory=dict)

    def cases(self, codec: Codec) -> Iterator[tuple[int, xr.DataArray | None, Observation]]:
        """(number, label, observation) of every case, lowered to the tensors of ``codec``.

        Values are whitened: each is divided by its error, so the errors have variance 1.
        Raises `InputError` before anything is drawn.
        """
        parts = [self._lower(name, codec) for name in self._names(codec)]
        counts = {len(p.values) for p in parts if p.case is not None}
        if len(counts) > 1:
            raise InputError(f"The observed variables have {sorted(counts)} cases; align them.")
        label = next((p.case for p in parts if p.case is not None), None)
        for i in range(counts.pop() if counts else 1):
            seen = [p.pick(i) for p in parts]
            if not sum(len(s.values) for s in seen):
                where = "" if label is None else f" in case {i} ({label.values[i]})"
                raise InputError(f"Nothing is observed{where}: every value is NaN. Use generate.")
            yield i, None if label is None else label[i], _join(seen, codec)

    def _names(self, codec: Codec) -> list[str]:
        ds = self.values
        names = [str(v) for v in ds.data_vars] if isinstance(ds, xr.Dataset) else [str(ds.name)]
        for name in names:
            if name not in codec.variables:
                raise InputError(
                    f"Observed variable {name!r} is not one of the model's."
                    + nearest(name, codec.variables)
                )
            got = str(self._array(name).attrs.get("units", ""))
            want = str(codec.variables[name].get("units", ""))
            if got and want and got != want:
                raise InputError(
                    f"Observed {name!r} is in {got!r}, the model in {want!r}; convert it first."
                )
        return names

    def _array(self, name: str) -> xr.DataArray:
        return self.values[name] if isinstance(self.values, xr.Dataset) else self.values

    def _error(self, name: str, like: xr.DataArray) -> xr.DataArray:
        std = self.std
        if isinstance(std, Mapping | xr.Dataset):
            if name not in std:
                raise InputError(f"No error is given for {name!r}.{nearest(name, list(std))}")
            std = std[name]
        array = std if isinstance(std, xr.DataArray) else xr.full_like(like, float(std), dtype=float)
        array = array.broadcast_like(like).transpose(*like.dims)
        bad = np.isfinite(like.values) & ~(np.isfinite(array.values) & (array.values > 0))
        if bad.any():
            first = tuple(int(i) for i in np.argwhere(bad)[0])
            raise InputError(
                f"The error of {name!r} at {first} is {array.values[first]:g}; expected a positive "
                "s.d. in the variable's units for every value."
            )
        return array

    def _lower(self, name: str, codec: Codec) -> _Part:
        array = self._array(name)
        case_dims = [d for d in array.dims if d in CASE_DIMS and d not in codec.grid.dims]
        if len(case_dims) > 1:
            raise InputError(f"Observed {name!r} has two case dims {case_dims}; select one.")
        rest = [str(d) for d in array.dims if d not in case_dims]
        array = array.transpose(*case_dims, *rest)
        error = self._error(name, array)
        case = array[case_dims[0]] if case_dims else None
        values = array.values.astype(np.float64).reshape(len(case) if case_dims else 1, -1)
        if np.isinf(values).any():
            raise InputError(f"Observed {name!r} holds an infinite value; remove it.")
        std = error.values.astype(np.float64).reshape(values.shape)
        channel = list(codec.variables).index(name)
        grid = codec.grid
        if self.coarsen:
            factor = tuple(int(self.coarsen.get(d, 1)) for d in grid.dims)
            want = [n // f for n, f in zip(grid.shape, factor, strict=True)]
            if rest != list(grid.dims) or [array.sizes[d] for d in rest] != want:
                raise InputError(
                    f"Block means of {name!r} have sizes {dict(array.sizes)}; expected "
                    f"{dict(zip(grid.dims, want, strict=True))} for blocks of {factor}."
                )
            return _Part(values, std, case, channel, None, factor)
        if set(rest) <= set(grid.dims) and len(rest) == len(grid.dims):
            axes = [grid.position(d, array[d].values) for d in rest]
            mesh = dict(zip(rest, np.meshgrid(*axes, indexing="ij"), strict=True))
        elif len(rest) == 1:
            lost = [d for d in grid.dims if d not in array.coords]
            if lost:
                raise InputError(
                    f"Observed points along {rest[0]!r} need a coordinate {lost[0]!r}."
                    + nearest(lost[0], [str(c) for c in array.coords])
                )
            mesh = {d: grid.position(d, np.asarray(array[d].values, float)) for d in grid.dims}
        else:
            raise InputError(
                f"Observed {name!r} has dims {tuple(array.dims)}; expected the grid "
                f"{grid.dims}, or one dim of points with coordinates {grid.dims}."
            )
        position = np.stack([np.broadcast_to(mesh[d], mesh[d].shape).ravel() for d in grid.dims], 1)
        if not np.isfinite(position).all():
            first = int(np.argwhere(~np.isfinite(position).all(1))[0, 0])
            raise InputError(f"Observed point {first} of {name!r} has no position (NaN); drop it.")
        return _Part(values, std, case, channel, position, ())


@dataclass(frozen=True, eq=False)
class _Part:
    """One observed variable: values and errors (cases, n), and where they are."""

    values: np.ndarray
    std: np.ndarray
    case: xr.DataArray | None
    channel: int
    position: np.ndarray | None
    factor: tuple[int, ...]

    def pick(self, i: int) -> _Seen:
        """What is seen in case i."""
        row = i if self.case is not None else 0
        index = np.flatnonzero(np.isfinite(self.values[row]))
        return _Seen(self, index, self.values[row, index], self.std[row, index])

    def operator(self, seen: np.ndarray, codec: Codec) -> Operator:
        """From physical channels to the values seen."""
        if self.position is not None:
            channel = [self.channel] * len(seen)
            return points(channel, torch.from_numpy(self.position[seen]), codec.grid.shape)
        block = Coarsen(self.factor)
        index = torch.from_numpy(seen)
        return Function(lambda x: block.field(x[:, self.channel]).flatten(1)[:, index])


@dataclass(frozen=True, eq=False)
class _Seen:
    """The finite values of one variable in one case: index (n,), values (n,), errors (n,)."""

    part: _Part
    index: np.ndarray
    values: np.ndarray
    std: np.ndarray

    def whitened(self, codec: Codec) -> Operator:
        """From physical channels to values in units of their error."""
        operator = self.part.operator(self.index, codec)
        scale = torch.from_numpy(1 / self.std)
        return Function(lambda x: operator(x) * scale.to(x))


def _join(seen: list[_Seen], codec: Codec) -> Observation:
    operators = [s.whitened(codec) for s in seen]
    observe = Function(lambda p: torch.cat([a(p) for a in operators], dim=1))
    y = torch.from_numpy(np.concatenate([s.values / s.std for s in seen]))
    return Observation(y, observe @ codec.physical, torch.ones((), dtype=torch.float64))
