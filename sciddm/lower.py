"""Labelled values lowered to tensors: where they are on a model's grid, and the operator for it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr

from sciddm.data.codec import Codec, Grid
from sciddm.data.names import find, rank
from sciddm.errors import InputError, nearest
from sciddm.footprint import Footprint
from sciddm.observe import Coarsen, Function, Operator, Weighted, points

CASE_DIMS = ("time", "sample")


class Sensors(ABC):
    """Where the values of one variable are."""

    @abstractmethod
    def operator(self, channel: int, index: np.ndarray, grid: Grid) -> Operator:
        """From physical channels (B, K, *grid) to the values ``index`` of one channel."""

    @abstractmethod
    def missing(self, index: np.ndarray, gaps: np.ndarray, grid: Grid) -> np.ndarray:
        """Which of the values ``index`` need a point where ``gaps`` (*grid) is true."""

    @abstractmethod
    def name(self, i: int, grid: Grid) -> str:
        """The place of value i, in words."""


@dataclass(frozen=True, eq=False)
class Spots(Sensors):
    """Points, at fractional indices ``position`` (n, D)."""

    position: np.ndarray

    def operator(self, channel: int, index: np.ndarray, grid: Grid) -> Operator:
        periodic = [grid.period(d) is not None for d in grid.dims]
        where = torch.from_numpy(self.position[index])
        return points([channel] * len(index), where, grid.shape, periodic)

    def missing(self, index: np.ndarray, gaps: np.ndarray, grid: Grid) -> np.ndarray:
        land = torch.from_numpy(gaps.astype(np.float64))[None, None]
        return self.operator(0, index, grid)(land)[0].numpy() > 1e-6

    def name(self, i: int, grid: Grid) -> str:
        return "at " + ", ".join(
            f"{d} = {_coordinate(grid.coords[d], self.position[i, k]):g}"
            for k, d in enumerate(grid.dims)
        )


@dataclass(frozen=True, eq=False)
class Blocks(Sensors):
    """Means over blocks of ``factor`` grid points."""

    factor: tuple[int, ...]

    def operator(self, channel: int, index: np.ndarray, grid: Grid) -> Operator:
        block, at = Coarsen(self.factor), torch.from_numpy(index)
        return Function(lambda x: block.field(x[:, channel]).flatten(1)[:, at])

    def missing(self, index: np.ndarray, gaps: np.ndarray, grid: Grid) -> np.ndarray:
        land = torch.from_numpy(gaps.astype(np.float64))[None, None]
        return self.operator(0, index, grid)(land)[0].numpy() > 1e-6

    def name(self, i: int, grid: Grid) -> str:
        coarse = [n // f for n, f in zip(grid.shape, self.factor, strict=True)]
        return f"in block {tuple(int(k) for k in np.unravel_index(i, coarse))}"


@dataclass(frozen=True, eq=False)
class Shapes(Sensors):
    """Sums with the weights (n, *grid)."""

    weights: np.ndarray

    def operator(self, channel: int, index: np.ndarray, grid: Grid) -> Operator:
        return Weighted(channel, torch.from_numpy(self.weights[index]))

    def missing(self, index: np.ndarray, gaps: np.ndarray, grid: Grid) -> np.ndarray:
        size = np.abs(self.weights[index]).reshape(len(index), gaps.size)
        return size @ gaps.ravel() > 1e-6 * size.sum(1)

    def name(self, i: int, grid: Grid) -> str:
        return f"through footprint {i}"


def spots(array: xr.DataArray, rest: list[str], grid: Grid) -> Spots:
    """Values on grid dims, or along one dim of scattered points with coordinates.

    Raises `InputError` for other dims, positions that are no numbers, and places outside.
    """
    name = str(array.name)
    if set(rest) <= set(grid.dims) and len(rest) == len(grid.dims):
        axes = [_positions(array, d, grid) for d in rest]
        mesh = dict(zip(rest, np.meshgrid(*axes, indexing="ij"), strict=True))
    elif len(rest) == 1:
        mesh = {d: _positions(array, d, grid) for d in grid.dims}
    else:
        raise InputError(
            f"Observed {name!r} has dims {tuple(array.dims)}; expected the grid "
            f"{grid.dims}, or one dim of points with coordinates {grid.dims}."
        )
    position = np.stack([mesh[d].ravel() for d in grid.dims], 1)
    if not np.isfinite(position).all():
        first = int(np.argwhere(~np.isfinite(position).all(1))[0, 0])
        raise InputError(f"Observed point {first} of {name!r} has no position (NaN); drop it.")
    found = Spots(position)
    top = np.array([np.inf if grid.period(d) else len(grid.coords[d]) - 1 for d in grid.dims])
    outside = ~((position > -1e-6) & (position < top + 1e-6)).all(1)
    if outside.any():
        first = int(np.argmax(outside))
        ends = [f"{d} from {grid.coords[d][0]:g} to {grid.coords[d][-1]:g}" for d in grid.dims]
        raise InputError(
            f"Observation {first} of {name!r} lies outside the grid, {found.name(first, grid)}; "
            f"{int(outside.sum())} do. The domain is {', '.join(ends)}: leave them out or use a "
            "model of a larger domain."
        )
    return found


def blocks(array: xr.DataArray, rest: list[str], coarsen: Mapping[str, int], grid: Grid) -> Blocks:
    """Block means on the coarse grid of whole blocks, checked against the values."""
    unknown = [d for d in coarsen if d not in grid.dims]
    if unknown:
        raise InputError(f"The blocks name a dim {unknown[0]!r}.{nearest(unknown[0], grid.dims)}")
    factor = tuple(int(coarsen.get(d, 1)) for d in grid.dims)
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
    return Blocks(factor)


def shapes(
    array: xr.DataArray, rest: list[str], footprint: Footprint | xr.DataArray, grid: Grid
) -> Shapes:
    """One weight field a value: the values lie along one dim, in the order of the footprints."""
    if isinstance(footprint, Footprint):
        weights, dim = footprint.on(grid), None
    else:
        weights, dim = _weights(footprint, grid)
    count = array.sizes[rest[0]] if len(rest) == 1 else 1
    named = dim is None or rest in ([], [dim])
    if len(rest) > 1 or count != len(weights) or not named:
        raise InputError(
            f"Observed {array.name!r} has sizes {dict(array.sizes)} for {len(weights)} footprints"
            f"{'' if dim is None else f' along {dim!r}'}; expected one value a footprint."
        )
    return Shapes(weights)


def _weights(array: xr.DataArray, grid: Grid) -> tuple[np.ndarray, str]:
    """A user's own weights (sensor, *grid dims), on the whole grid or on part of it."""
    rest = [str(d) for d in array.dims if d not in grid.dims]
    if len(rest) != 1 or array.ndim != len(grid.dims) + 1 or array.dtype.kind not in "fiu":
        raise InputError(
            f"Footprint weights have dims {tuple(array.dims)} of {array.dtype}; expected numbers "
            f"along one dim of sensors and {grid.dims}."
        )
    array = array.transpose(rest[0], *grid.dims)
    values = array.values.astype(np.float64)
    if not np.isfinite(values).all():
        raise InputError("A footprint weight is not finite; expected 0 where nothing is seen.")
    index = []
    for dim, n in zip(grid.dims, grid.shape, strict=True):
        if dim in array.coords:
            at = grid.position(dim, array[dim].values.astype(np.float64))
        else:
            at = np.arange(array.sizes[dim], dtype=np.float64)
        whole = np.round(at)
        fits = (np.abs(at - whole) < 1e-3).all() and whole.min() >= 0 and whole.max() < n
        if not fits or (dim not in array.coords and len(at) != n):
            raise InputError(
                f"Footprint weights have {len(at)} points along {dim!r}; expected some of the "
                f"model's own {n}, {grid.coords[dim][0]:g} to {grid.coords[dim][-1]:g}. Make them "
                "on its grid, or give the shape itself (sciddm.footprint)."
            )
        index.append(whole.astype(int))
    full = np.zeros((len(values), *grid.shape))
    full[np.ix_(np.arange(len(values)), *index)] = values
    return full, rest[0]


def on_land(sensors: Sensors, seen: np.ndarray, channel: int, name: str, codec: Codec) -> None:
    """Refuse values ``seen`` on points that the model leaves out."""
    if codec.mask is None or channel >= len(codec.mask) or not len(seen):
        return
    lost = sensors.missing(seen, ~codec.mask[channel].numpy(), codec.grid)
    if lost.any():
        raise InputError(
            f"Observed value {seen[lost][0]} of {name!r} lies on masked points of the model, or "
            f"needs one; {int(lost.sum())} do. Leave them out."
        )


def case_dims(array: xr.DataArray, grid: Grid, sensor: str | None) -> list[Hashable]:
    """Dims that count cases; a track of points along time is one case of many points."""
    if len(array.dims) == 1 and all(
        d in array.coords and array[d].dims == array.dims for d in grid.dims if d not in array.dims
    ):
        return []
    return [
        d
        for d in array.dims
        if d not in (*grid.dims, sensor) and (d in CASE_DIMS or rank(array, d, "time") is not None)
    ]


def renamed(array: xr.DataArray, grid: Grid) -> xr.DataArray:
    """Latitude and longitude by the grid's names, whatever they are called."""
    template = grid.template()
    for word in ("latitude", "longitude"):
        ours = find(template, word)
        theirs = find(array, word) if ours in grid.dims and ours not in array.coords else None
        if ours is not None and theirs is not None and theirs in array.coords:
            array = array.rename({theirs: ours})
    return array


def _positions(array: xr.DataArray, dim: str, grid: Grid) -> np.ndarray:
    """Fractional grid indices of the values along the grid's ``dim``."""
    counted = np.array_equal(grid.coords[dim], np.arange(len(grid.coords[dim])))
    if dim not in array.coords and not (counted and dim in array.dims):
        raise InputError(
            f"Observed {array.name!r} along {tuple(array.dims)} needs a coordinate {dim!r}."
            + nearest(dim, [str(c) for c in array.coords])
        )
    if array[dim].dtype.kind not in "fiu" or array[dim].ndim != 1:
        raise InputError(
            f"The coordinate {dim!r} of observed {array.name!r} holds {array[dim].ndim}-D "
            f"{array[dim].dtype} values; expected numbers along one dim."
        )
    return grid.position(dim, array[dim].values.astype(np.float64))


def _coordinate(axis: np.ndarray, at: float) -> float:
    """The coordinate at a fractional index, outside too."""
    low = int(np.clip(np.floor(at), 0, max(0, len(axis) - 2)))
    step = axis[low + 1] - axis[low] if len(axis) > 1 else 1.0
    return float(axis[low] + (at - low) * step)
