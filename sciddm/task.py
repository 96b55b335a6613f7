"""What is wanted and what is seen: every task is to draw p(target | given).

`Task` names the variables of a model; `Observed` is the labelled twin of
`sciddm.observe.Observation`: values in physical units, where they are, and their error.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields

import numpy as np
import torch
import xarray as xr

from sciddm.data.codec import Codec
from sciddm.data.manifest import plain_bytes
from sciddm.data.names import same_units
from sciddm.errors import InputError, nearest
from sciddm.evidence import Evidence, Sight
from sciddm.footprint import Footprint
from sciddm.lower import Sensors, blocks, case_dims, on_land, renamed, shapes, spots
from sciddm.observe import Function, Observation, Operator
from sciddm.observe.noise import Censored, Gaussian, Noise, StudentT

UNITS = ("seconds", "minutes", "hours", "days", "months", "years", "1")
"""What a lead is counted in."""


@dataclass(frozen=True, slots=True)
class View:
    """A choice of variables."""

    variables: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Lead:
    """The time from one frame of a forecast to the next: ``step`` of ``unit``.

    unit : "seconds", "minutes", "hours", "days", "months", "years", or "1" where time has no unit.
    """

    step: float = 1.0
    unit: str = "1"

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise InputError(f"Got a lead in {self.unit!r}.{nearest(self.unit, UNITS)}")
        if not (isinstance(self.step, int | float) and 0 < self.step < np.inf):
            raise InputError(f"Got a lead step of {self.step!r}; expected a positive number.")


@dataclass(frozen=True, slots=True)
class Task:
    """Draw ``target`` given observations; ``sample`` is the dim that counts training fields.

    A forecast has a ``lead``: the time from frame to frame. Its frames lie along the dim ``time``,
    which is ``sample`` itself for one long record, or an axis of every sample for many films.
    """

    target: View
    sample: str = "sample"
    lead: Lead | None = None
    time: str = "time"


@dataclass(frozen=True, eq=False)
class Observed(Evidence):
    """Values seen, in physical units, each with its own error. Several join with ``&``.

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
    footprint : what each value is a mean or an integral over: a shape of `sciddm.footprint`, or
        weights on the model's grid, a DataArray along one dim of sensors and the grid's dims. The
        values then lie along that one dim and need no position.

    A case in which nothing is seen is drawn from the prior.
    """

    values: xr.DataArray | xr.Dataset
    std: float | Mapping[str, float] | xr.Dataset | xr.DataArray
    coarsen: Mapping[str, int] = field(default_factory=dict)
    freedom: float | None = None
    limits: tuple[float | None, float | None] = (None, None)
    footprint: Footprint | xr.DataArray | None = None

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
        if not isinstance(self.footprint, Footprint | xr.DataArray | None):
            raise InputError(
                f"Got a footprint in a {type(self.footprint).__name__}; expected a shape such as "
                "footprint.Line, or a DataArray of weights on the model's grid."
            )
        if self.coarsen and self.footprint is not None:
            raise InputError("Got blocks and a footprint; expected one of them.")

    @property
    def _limited(self) -> bool:
        return any(limit is not None for limit in self.limits)

    @property
    def scalars(self) -> dict[str, xr.Variable]:
        return {str(n): c.variable for n, c in self.values.coords.items() if c.ndim == 0}

    def identity(self) -> Iterator[bytes]:
        yield repr((sorted(self.coarsen.items()), self.freedom, self.limits)).encode()
        for part in (self.values, self.std):
            yield from _bytes(part)
        if isinstance(self.footprint, Footprint):
            yield type(self.footprint).__name__.encode()
            for name in fields(self.footprint):  # type: ignore[arg-type]
                yield name.name.encode()
                yield from _bytes(getattr(self.footprint, name.name))
        elif self.footprint is not None:
            yield from _bytes(self.footprint)

    def sights(self, codec: Codec) -> Iterator[Sight]:
        parts = [self._lower(name, codec) for name in self._names(codec)]
        counts = {len(p.values) for p in parts if p.case is not None}
        if len(counts) > 1:
            raise InputError(f"The observed variables have {sorted(counts)} cases; align them.")
        label = next((p.case for p in parts if p.case is not None), None)
        for i in range(counts.pop() if counts else 1):
            seen = [s for s in (p.pick(i) for p in parts) if len(s.values)]
            number = None if label is None else label[i]
            yield self._sight(i, number, seen, codec) if seen else Sight(i, number, None)

    def _sight(self, i: int, label: xr.DataArray | None, seen: list[_Seen], codec: Codec) -> Sight:
        operators = [s.whitened(codec) for s in seen]
        observe = Function(lambda p: torch.cat([a(p) for a in operators], dim=1))
        std = np.concatenate([s.std for s in seen])
        y = torch.from_numpy(np.concatenate([s.values for s in seen]) / std)
        names = [(s, k) for s in seen for k in range(len(s.values))]
        return Sight(
            i,
            label,
            Observation(y, observe, self._law(torch.from_numpy(std))),
            std,
            lambda n: names[n][0].name(names[n][1], codec),
        )

    def _law(self, std: torch.Tensor) -> Noise:
        """The law of the whitened errors."""
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
            if isinstance(self.footprint, Footprint):
                want = self.footprint.units(want, codec.grid)
            elif self.footprint is not None:
                continue  # of the user's own weights only the user knows the units
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
        array = renamed(self._array(name), grid)
        if array.dtype.kind not in "fiu":
            raise InputError(f"Observed {name!r} holds {array.dtype} values; expected numbers.")
        counted = case_dims(array, grid, self._sensor)
        if len(counted) > 1:
            raise InputError(f"Observed {name!r} has two case dims {counted}; select one.")
        rest = [str(d) for d in array.dims if d not in counted]
        array = array.transpose(*counted, *rest)
        error = self._error(name, array)
        case = array[counted[0]] if counted else None
        rows = (1 if case is None else len(case), int(np.prod([array.sizes[d] for d in rest])))
        values = array.values.astype(np.float64).reshape(rows)
        if np.isinf(values).any():
            raise InputError(f"Observed {name!r} holds an infinite value; remove it.")
        values = self._within(values, array.dtype, name)
        channel = list(codec.variables).index(name)
        if self.footprint is not None:
            sensors: Sensors = shapes(array, rest, self.footprint, grid)
        elif self.coarsen:
            sensors = blocks(array, rest, self.coarsen, grid)
        else:
            sensors = spots(array, rest, grid)
        on_land(sensors, np.flatnonzero(np.isfinite(values).any(0)), channel, name, codec)
        std = error.values.astype(np.float64).reshape(rows)
        return _Part(name, values, std, case, channel, sensors)

    @property
    def _sensor(self) -> str | None:
        """The dim of sensors that the footprint names."""
        if isinstance(self.footprint, Footprint):
            return self.footprint.sensor
        if self.footprint is None:
            return None
        own = [str(d) for d in self.footprint.dims if d in self.values.dims]
        return own[0] if len(own) == 1 else None

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


@dataclass(frozen=True, eq=False)
class _Part:
    """One observed variable: values and errors (cases, n), and where they are."""

    variable: str
    values: np.ndarray
    std: np.ndarray
    case: xr.DataArray | None
    channel: int
    sensors: Sensors

    def pick(self, i: int) -> _Seen:
        """What is seen in case i."""
        row = i if self.case is not None else 0
        index = np.flatnonzero(np.isfinite(self.values[row]))
        return _Seen(self, index, self.values[row, index], self.std[row, index])


@dataclass(frozen=True, eq=False)
class _Seen:
    """The finite values of one variable in one case: index (n,), values (n,), errors (n,)."""

    part: _Part
    index: np.ndarray
    values: np.ndarray
    std: np.ndarray

    def whitened(self, codec: Codec) -> Operator:
        """From physical channels to values in units of their error."""
        operator = self.part.sensors.operator(self.part.channel, self.index, codec.grid)
        scale = torch.from_numpy(1 / self.std)
        return Function(lambda x: operator(x) * scale.to(x))

    def name(self, k: int, codec: Codec) -> str:
        """The k-th value in words."""
        return f"{self.part.variable!r} {self.part.sensors.name(int(self.index[k]), codec.grid)}"


def _bytes(part: object) -> Iterator[bytes]:
    """Names, dims, types and numbers of labelled values, or of anything made of numbers."""
    if isinstance(part, xr.DataArray):
        part = part.to_dataset(name="values")
    if not isinstance(part, xr.Dataset):
        named = part.items() if isinstance(part, Mapping) else [("values", part)]
        part = xr.Dataset({k: v if isinstance(v, xr.DataArray) else _array(v) for k, v in named})
    for key, values in part.variables.items():
        yield f"{key}{values.dims}{values.dtype}".encode()
        yield plain_bytes(np.asarray(values.values))


def _array(value: object) -> xr.DataArray:
    array = np.asarray(value)
    return xr.DataArray(array, dims=[f"dim_{n}_{i}" for i, n in enumerate(array.shape)])


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
