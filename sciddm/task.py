"""What is wanted and what is seen: every task is to draw p(target | given).

`Task` names the variables of a model; `Observed` is the labelled twin of
`sciddm.observe.Observation`: values in physical units, where they are, and their error.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
import xarray as xr

from sciddm.data.codec import Codec, Grid
from sciddm.data.names import find, rank, same_units
from sciddm.errors import InputError, nearest
from sciddm.observe import Coarsen, Function, Observation, Operator, points
from sciddm.observe.noise import Censored, Gaussian, Noise, StudentT

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
        further dim ``sample``, or of time by name or by its dates, counts cases. Latitudes and
        longitudes are also found by their CF attributes, and longitudes by whole turns.
    std : error s.d. in the variable's units: a number, one a variable, or an array like the values.
    coarsen : grid points averaged in each value along each dim; the values then lie on the coarse
        grid of whole blocks.
    freedom : degrees of freedom of Student's law for the errors, where gross ones are expected; 4
        is usual. None is Gaussian.
    limits : the lowest and highest value that the instrument gives, in the units of the one
        variable seen, None for no limit: a value at a limit is known only to lie there or beyond.
    """

    values: xr.DataArray | xr.Dataset
    std: float | Mapping[str, float] | xr.Dataset | xr.DataArray
    coarsen: Mapping[str, int] = field(default_factory=dict)
    freedom: float | None = None
    limits: tuple[float | None, float | None] = (None, None)

    def __post_init__(self) -> None:
        _check_limits(self.limits)
        if self.freedom is not None and self._limited:
            raise InputError(
                "Got degrees of freedom and limits; expected one of them: gross errors of an "
                "instrument that saturates are not known."
            )
        if self.freedom is not None and not 0 < self.freedom < np.inf:
            raise InputError(
                f"Got {self.freedom} degrees of freedom; expected a positive number (4 is usual)."
            )
        if not isinstance(self.values, xr.DataArray | xr.Dataset):
            raise InputError(
                f"Observed values are a {type(self.values).__name__}; expected a DataArray or a "
                "Dataset with coordinates."
            )
        for dim, factor in self.coarsen.items():
            if factor < 1:
                raise InputError(f"Got blocks of {factor} along {dim!r}; expected 1 or more.")

    @property
    def _limited(self) -> bool:
        return any(limit is not None for limit in self.limits)

    @property
    def scalars(self) -> dict[str, xr.Variable]:
        """Coordinates without a dim, such as the one time of all values; draws keep them."""
        return {str(n): c.variable for n, c in self.values.coords.items() if c.ndim == 0}

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
            yield i, None if label is None else label[i], _join(seen, codec, self._law(seen))

    def _law(self, seen: list[_Seen]) -> Noise:
        """The law of the whitened errors."""
        std = torch.from_numpy(np.concatenate([s.std for s in seen]))
        one = torch.ones((), dtype=torch.float64)
        if self.freedom is not None:
            return StudentT(one, self.freedom)
        if self._limited:
            low, high = (None if v is None else v / std for v in self.limits)
            return Censored(one, low, high)
        return Gaussian(one)

    def _names(self, codec: Codec) -> list[str]:
        ds = self.values
        names = [str(v) for v in ds.data_vars] if isinstance(ds, xr.Dataset) else [str(ds.name)]
        if self._limited and len(names) > 1:
            raise InputError(
                f"Got limits {tuple(self.limits)} for {' and '.join(map(repr, names))}; expected "
                "values of one variable, whose instrument has them."
            )
        for name in names:
            if name not in codec.variables:
                raise InputError(
                    f"Observed variable {name!r} is not one of the model's."
                    + nearest(name, codec.variables)
                )
            got = str(self._array(name).attrs.get("units", ""))
            want = str(codec.variables[name].get("units", ""))
            if got and want and not same_units(got, want):
                raise InputError(
                    f"Observed {name!r} is in {got!r}, the model in {want!r}; convert it first."
                )
        return names

    def _array(self, name: str) -> xr.DataArray:
        return self.values[name] if isinstance(self.values, xr.Dataset) else self.values

    def _error(self, name: str, like: xr.DataArray) -> xr.DataArray:
        std: object = self.std
        if isinstance(std, Mapping):
            if name not in std:
                known = [str(n) for n in std]
                raise InputError(f"No error is given for {name!r}.{nearest(name, known)}")
            std = std[name]
        if isinstance(std, xr.DataArray):
            array = _beside(std, like, name)
        elif isinstance(std, int | float | np.number):
            array = xr.full_like(like, float(std), dtype=float)
        else:
            raise InputError(
                f"The error of {name!r} is {std!r}; expected a number, one a variable, or an array "
                "like the values."
            )
        bad = np.isfinite(like.values) & ~(np.isfinite(array.values) & (array.values > 0))
        if bad.any():
            first = tuple(int(i) for i in np.argwhere(bad)[0])
            raise InputError(
                f"The error of {name!r} at {first} is {array.values[first]:g}; expected a positive "
                "s.d. in the variable's units for every value."
            )
        return array

    def _lower(self, name: str, codec: Codec) -> _Part:
        grid = codec.grid
        array = _renamed(self._array(name), grid)
        if array.dtype.kind not in "fiu":
            raise InputError(f"Observed {name!r} holds {array.dtype} values; expected numbers.")
        case_dims = _case_dims(array, grid)
        if len(case_dims) > 1:
            raise InputError(f"Observed {name!r} has two case dims {case_dims}; select one.")
        rest = [str(d) for d in array.dims if d not in case_dims]
        array = array.transpose(*case_dims, *rest)
        error = self._error(name, array)
        case = array[case_dims[0]] if case_dims else None
        values = array.values.astype(np.float64).reshape(1 if case is None else len(case), -1)
        if np.isinf(values).any():
            raise InputError(f"Observed {name!r} holds an infinite value; remove it.")
        values = self._within(values, array.dtype, name)
        std = error.values.astype(np.float64).reshape(values.shape)
        channel = list(codec.variables).index(name)
        if self.coarsen:
            factor = self._blocks(array, rest, grid)
            return _on_land(_Part(values, std, case, channel, None, factor), name, codec)
        if set(rest) <= set(grid.dims) and len(rest) == len(grid.dims):
            axes = [_positions(array, d, grid, name) for d in rest]
            mesh = dict(zip(rest, np.meshgrid(*axes, indexing="ij"), strict=True))
        elif len(rest) == 1:
            mesh = {d: _positions(array, d, grid, name) for d in grid.dims}
        else:
            raise InputError(
                f"Observed {name!r} has dims {tuple(array.dims)}; expected the grid "
                f"{grid.dims}, or one dim of points with coordinates {grid.dims}."
            )
        position = np.stack([mesh[d].ravel() for d in grid.dims], 1)
        if not np.isfinite(position).all():
            first = int(np.argwhere(~np.isfinite(position).all(1))[0, 0])
            raise InputError(f"Observed point {first} of {name!r} has no position (NaN); drop it.")
        return _on_land(_Part(values, std, case, channel, position, ()), name, codec)

    def _within(self, values: np.ndarray, kind: np.dtype, name: str) -> np.ndarray:
        """``values``, those at a limit equal to it to the last digit, whatever type they had."""
        for limit, side in zip(self.limits, (-1, 1), strict=True):
            if limit is None:
                continue
            stored = float(kind.type(limit)) if kind.kind == "f" else limit
            values = np.where(values == stored, limit, values)
            beyond = values[side * values > side * limit]
            if beyond.size:
                raise InputError(
                    f"Observed {name!r} holds {beyond[0]:g} beyond the limit {limit:g}, and "
                    f"{beyond.size} such values; expected none that the instrument cannot give. "
                    "Clip them where they mean the limit, or check the units of both."
                )
        return values

    def _blocks(self, array: xr.DataArray, rest: list[str], grid: Grid) -> tuple[int, ...]:
        """Grid points a block along each dim of the grid, checked against the values."""
        unknown = [d for d in self.coarsen if d not in grid.dims]
        if unknown:
            raise InputError(
                f"The blocks name a dim {unknown[0]!r}.{nearest(unknown[0], grid.dims)}"
            )
        factor = tuple(int(self.coarsen.get(d, 1)) for d in grid.dims)
        want = [n // f for n, f in zip(grid.shape, factor, strict=True)]
        if rest != list(grid.dims) or [array.sizes[d] for d in rest] != want:
            raise InputError(
                f"Block means of {array.name!r} have sizes {dict(array.sizes)}; expected "
                f"{dict(zip(grid.dims, want, strict=True))} for blocks of {factor}."
            )
        for dim, f, n in zip(grid.dims, factor, want, strict=True):
            centre = grid.coords[dim][: n * f].reshape(n, f).mean(1)
            half = 0.5 * f * float(np.abs(np.diff(grid.coords[dim])).max(initial=0.0))
            if dim in array.coords and (np.abs(array[dim].values - centre) > half).any():
                raise InputError(
                    f"Block means of {array.name!r} lie elsewhere along {dim!r} than blocks of {f} "
                    f"grid points, the first at {centre[0]:g}; sort or interpolate them."
                )
        return factor


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


def _check_limits(limits: object) -> None:
    pair = isinstance(limits, tuple | list) and len(limits) == 2
    numbers = [v for v in limits if v is not None] if isinstance(limits, tuple | list) else []
    if not pair or not all(isinstance(v, int | float | np.number) and v == v for v in numbers):
        raise InputError(
            f"Got limits {limits!r}; expected the lowest and the highest value, a number or None."
        )
    if len(numbers) == 2 and not numbers[0] < numbers[1]:
        raise InputError(
            f"Got limits from {numbers[0]} to {numbers[1]}; expected the lower one first."
        )


def _join(seen: list[_Seen], codec: Codec, law: Noise) -> Observation:
    operators = [s.whitened(codec) for s in seen]
    observe = Function(lambda p: torch.cat([a(p) for a in operators], dim=1))
    y = torch.from_numpy(np.concatenate([s.values / s.std for s in seen]))
    fields = codec.physical if codec.mask is None else _filled(codec)
    return Observation(y, observe @ fields, law)


def _filled(codec: Codec) -> Callable[[torch.Tensor], torch.Tensor]:
    """The physical field with zeros on land, which an interpolation weight of 0 may meet."""
    return lambda x: torch.nan_to_num(codec.physical(x), 0.0, torch.inf, -torch.inf)


def _on_land(part: _Part, name: str, codec: Codec) -> _Part:
    """``part``, refused where a value that is seen lies on points that the model leaves out."""
    if codec.mask is None:
        return part
    valid = torch.ones(1, len(codec.variables), *codec.grid.shape, dtype=torch.float64)
    valid[:, : len(codec.mask)] = codec.mask.double()
    seen = np.flatnonzero(np.isfinite(part.values).any(0))
    lost = part.operator(seen, codec)(valid)[0].numpy() < 1 - 1e-6
    if lost.any():
        raise InputError(
            f"Observed value {seen[lost][0]} of {name!r} lies on masked points of the model, or "
            f"needs one; {int(lost.sum())} do. Leave them out."
        )
    return part


def _case_dims(array: xr.DataArray, grid: Grid) -> list[Hashable]:
    """Dims that count cases; a track of points along time is one case of many points."""
    if len(array.dims) == 1 and all(
        d in array.coords and array[d].dims == array.dims for d in grid.dims if d not in array.dims
    ):
        return []
    return [
        d
        for d in array.dims
        if d not in grid.dims and (d in CASE_DIMS or rank(array, d, "time") is not None)
    ]


def _beside(std: xr.DataArray, like: xr.DataArray, name: str) -> xr.DataArray:
    """Errors in the shape of the values ``like``; their coordinates must be the same."""
    if any(std.sizes[d] != like.sizes.get(d) for d in std.dims):
        raise InputError(
            f"The error of {name!r} has sizes {dict(std.sizes)}; expected those of its values, "
            f"{dict(like.sizes)}, or some of these dims."
        )
    if std.dtype.kind not in "fiu":
        raise InputError(f"The error of {name!r} holds {std.dtype} values; expected numbers.")
    for dim in std.dims:
        if dim in std.coords and dim in like.coords and not std[dim].equals(like[dim]):
            raise InputError(
                f"The error of {name!r} has other coordinates along {dim!r} than its values; "
                "bring them into one order with xr.align."
            )
    return std.broadcast_like(like).transpose(*like.dims)


def _renamed(array: xr.DataArray, grid: Grid) -> xr.DataArray:
    """Latitude and longitude by the grid's names, whatever they are called."""
    template = grid.template()
    for word in ("latitude", "longitude"):
        ours = find(template, word)
        theirs = find(array, word) if ours in grid.dims and ours not in array.coords else None
        if ours is not None and theirs is not None and theirs in array.coords:
            array = array.rename({theirs: ours})
    return array


def _positions(array: xr.DataArray, dim: str, grid: Grid, name: str) -> np.ndarray:
    """Fractional grid indices of the values along the grid's ``dim``."""
    counted = np.array_equal(grid.coords[dim], np.arange(len(grid.coords[dim])))
    if dim not in array.coords and not (counted and dim in array.dims):
        raise InputError(
            f"Observed {name!r} along {tuple(array.dims)} needs a coordinate {dim!r}."
            + nearest(dim, [str(c) for c in array.coords])
        )
    if array[dim].dtype.kind not in "fiu" or array[dim].ndim != 1:
        raise InputError(
            f"The coordinate {dim!r} of observed {name!r} holds {array[dim].ndim}-D "
            f"{array[dim].dtype} values; expected numbers along one dim."
        )
    return grid.position(dim, array[dim].values.astype(np.float64))
