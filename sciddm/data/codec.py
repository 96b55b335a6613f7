"""Codecs: labelled fields to tensors and back, invertible and differentiable to decode.

A codec knows the grid, the variables with their units, and the statistics of the training data in
float64. Its three verbs are ``encode`` (Dataset -> normalised tensor), ``physical`` (normalised
tensor -> channels in physical units, differentiable, what sensors see) and ``decode`` (normalised
tensor -> Dataset).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sciddm.data.names import find
from sciddm.errors import InputError, nearest


@dataclass(frozen=True, eq=False)
class Grid:
    """The space axes of a field: dims in order, 1-D coordinates, and their attributes."""

    dims: tuple[str, ...]
    coords: Mapping[str, np.ndarray]
    attrs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of points along each dim."""
        return tuple(len(self.coords[d]) for d in self.dims)

    @staticmethod
    def of(ds: xr.Dataset, dims: tuple[str, ...]) -> Grid:
        """The grid of a dataset; a dim without a coordinate counts its points."""
        coords, attrs = {}, {}
        for dim in dims:
            axis = ds[dim]
            if axis.ndim != 1 or not np.issubdtype(axis.dtype, np.number):
                raise InputError(f"Dimension {dim!r} has no 1-D numeric coordinate; assign one.")
            coords[dim] = axis.values.astype(np.float64)
            plain = {k: v.item() if isinstance(v, np.number) else v for k, v in axis.attrs.items()}
            attrs[dim] = {k: v for k, v in plain.items() if isinstance(v, str | int | float)}
        return Grid(dims, coords, attrs)

    def position(self, dim: str, values: np.ndarray) -> np.ndarray:
        """Fractional index of coordinate ``values`` along ``dim``; outside is extrapolated.

        Longitudes outside are first moved by whole turns, where that brings them inside. On an axis
        with a `period` every value is inside; beyond the last point lies the first.
        """
        axis = self.coords[dim]
        period = self.period(dim)
        if period is not None:
            return np.round((values - axis[0]) * (len(axis) / period), 9) % len(axis)
        if dim == self._longitude:
            low, high = axis.min(), axis.max()
            turned = low + (values - low) % 360
            values = np.where(((values < low) | (values > high)) & (turned <= high), turned, values)
        index = np.arange(len(axis), dtype=np.float64)
        if len(axis) > 1 and axis[0] > axis[-1]:
            axis, index = axis[::-1], index[::-1]
        at = np.interp(values, axis, index)
        if len(axis) > 1:
            slope0 = (index[1] - index[0]) / (axis[1] - axis[0])
            slope1 = (index[-1] - index[-2]) / (axis[-1] - axis[-2])
            at = np.where(values < axis[0], index[0] + (values - axis[0]) * slope0, at)
            at = np.where(values > axis[-1], index[-1] + (values - axis[-1]) * slope1, at)
        return at

    def period(self, dim: str) -> float | None:
        """Length after which ``dim`` begins again: its attribute ``period``, which is its number of
        points times their spacing; 360 for longitudes around the globe; else None.

        Raises `InputError` where the attribute does not fit rising, even points.
        """
        return self._periods[dim]

    @cached_property
    def _longitude(self) -> str | None:
        return find(self.template(), "longitude")

    @cached_property
    def _periods(self) -> Mapping[str, float | None]:
        return {dim: self._period(dim) for dim in self.dims}

    def _period(self, dim: str) -> float | None:
        axis, said = self.coords[dim], self.attrs.get(dim, {}).get("period")
        span = len(axis) * (axis[-1] - axis[0]) / max(1, len(axis) - 1)
        even = len(axis) > 1 and np.allclose(np.diff(axis), span / len(axis), atol=0, rtol=1e-3)
        if said is None:
            turn = dim == self._longitude and abs(span - 360) < 1e-3
            return 360.0 if turn and even else None
        if not (even and isinstance(said, int | float) and abs(span - said) < 1e-5 * abs(span)):
            raise InputError(
                f"Dimension {dim!r} has the period {said!r} and {len(axis)} points from "
                f"{axis[0]:g} to {axis[-1]:g}; expected rising points of one spacing, the last one "
                "step before the period ends."
            )
        return float(said)

    def resized(self, sizes: Mapping[str, int]) -> Grid:
        """The same box, or the same periods, with other numbers of evenly spaced points."""
        unknown = [d for d in sizes if d not in self.dims]
        if unknown:
            raise InputError(
                f"The grid has no dimension {unknown[0]!r}.{nearest(unknown[0], self.dims)}"
            )
        small = [d for d, n in sizes.items() if n < 2]
        if small:
            raise InputError(
                f"Got {sizes[small[0]]} points along {small[0]!r}; expected 2 or more."
            )
        coords = dict(self.coords)
        for dim, n in sizes.items():
            axis, period = coords[dim], self.period(dim)
            if n != len(axis) and period is None:
                coords[dim] = np.linspace(axis[0], axis[-1], n)
            elif n != len(axis) and period is not None:
                coords[dim] = axis[0] + period * np.arange(n) / n
        return replace(self, coords=coords)

    def template(self) -> xr.Dataset:
        """A dataset with the coordinates alone."""
        return xr.Dataset(
            coords={d: (d, self.coords[d], dict(self.attrs.get(d, {}))) for d in self.dims}
        )


class Codec(ABC):
    """Labelled fields <-> normalised tensors (B, *shape)."""

    grid: Grid

    @property
    @abstractmethod
    def variables(self) -> Mapping[str, Mapping[str, Any]]:
        """Name -> attributes of every physical channel, in order."""

    @property
    @abstractmethod
    def channels(self) -> int:
        """Number of channels of the normalised tensor."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, *grid) of the normalised tensor; its grid may be another than that of the fields."""
        return (self.channels, *self.grid.shape)

    @property
    @abstractmethod
    def mask(self) -> Tensor | None:
        """(C, *grid) true where values exist, or None."""

    @abstractmethod
    def encode(self, arrays: Mapping[str, np.ndarray]) -> Tensor:
        """Arrays (B, *grid) by variable name -> float32 tensor."""

    @abstractmethod
    def physical(self, x: Tensor) -> Tensor:
        """Normalised (B, C, *grid) -> physical (B, K, *grid), differentiable."""

    @abstractmethod
    def at(self, grid: Grid) -> Codec:
        """The same codec on another grid. Raises `InputError` where its statistics forbid it."""

    @abstractmethod
    def finish(self, values: Tensor) -> Tensor:
        """Physical (B, K, *grid) -> what is given out, where a draw has to be made exact."""

    def decode(self, x: Tensor, leading: xr.DataArray) -> xr.Dataset:
        """Normalised (B, C, *grid) -> Dataset, with the 1-D coordinate ``leading`` for the rows."""
        values = self.finish(self.physical(x)).detach().cpu().numpy().astype(np.float32)
        ds = self.grid.template().assign_coords({str(leading.name): leading})
        dims = (str(leading.dims[0]), *self.grid.dims)
        for k, (name, attrs) in enumerate(self.variables.items()):
            ds[name] = (dims, values[:, k], dict(attrs))
        return ds


@dataclass(frozen=True, eq=False)
class Normaliser(Codec):
    """(x - mean) / std for each variable; masked points are 0 inside and NaN outside.

    Parameters
    ----------
    grid : the space axes. names : variables in channel order. attrs : CF attributes of each.
    mean : (K, 1, ...) or (K, *grid), float64. std : (K,) positive, float64.
    valid : (K, *grid) boolean, or None where every point has a value.
    edges : value of a variable on the outermost points of the grid, in every field and on every
        grid: a Dirichlet condition that the data fulfil.
    """

    grid: Grid
    names: tuple[str, ...]
    attrs: Mapping[str, Mapping[str, Any]]
    mean: np.ndarray
    std: np.ndarray
    valid: np.ndarray | None = None
    edges: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, value in self.edges.items():
            if name not in self.names or not math.isfinite(value):
                raise InputError(
                    f"Got a value {value!r} of {name!r} on the edges; expected a number."
                    + nearest(name, self.names)
                )
        one = (len(self.names), *[1] * len(self.grid.dims))
        full = (len(self.names), *self.grid.shape)
        shapes = self.mean.shape in (one, full) and self.std.shape == one[:1]
        if not shapes or (self.valid is not None and self.valid.shape != full):
            raise InputError(
                f"The statistics of {self.names} have shapes {self.mean.shape} and "
                f"{self.std.shape}; expected {one} or {full}, and {one[:1]}."
            )
        if not (np.isfinite(self.mean).all() and (self.std > 0).all()):
            raise InputError(f"The statistics of {self.names} are not finite and positive.")

    @staticmethod
    def fit(
        ds: xr.Dataset, names: tuple[str, ...], sample_dim: str, *, pointwise: bool = False
    ) -> Normaliser:
        """Statistics of the training part ``ds`` in float64.

        pointwise : subtract the mean field (a climatology) instead of one number.
        """
        dims = tuple(str(d) for d in ds[names[0]].dims if d != sample_dim)
        means, stds, masks = [], [], []
        for name in names:
            field = ds[name].transpose(sample_dim, *dims)
            mask = np.isfinite(field.isel({sample_dim: 0}).values)
            over = (sample_dim,) if pointwise else field.dims
            mean = field.mean(over, dtype=np.float64).compute().values
            spread = ((field - xr.DataArray(mean, dims=dims if pointwise else ())) ** 2).mean(
                dtype=np.float64
            )
            std = float(np.sqrt(spread))
            # the mean of equal numbers is a rounding away from them
            if not std > 1e-7 * np.nanmax(np.abs(mean)):
                raise InputError(
                    f"Variable {name!r} is constant ({float(np.nanmean(mean)):g}) in the training "
                    "data; leave it out or check the split."
                )
            means.append(np.nan_to_num(mean).reshape(mean.shape if pointwise else (1,) * len(dims)))
            stds.append(std)
            masks.append(mask)
        valid = np.stack(masks)
        keep = {
            n: {k: v for k, v in ds[n].attrs.items() if isinstance(v, str | int | float)}
            for n in names
        }
        return Normaliser(
            Grid.of(ds, dims),
            names,
            keep,
            np.stack(means),
            np.array(stds),
            None if valid.all() else valid,
        )

    @property
    def variables(self) -> Mapping[str, Mapping[str, Any]]:
        return {n: self.attrs.get(n, {}) for n in self.names}

    @property
    def channels(self) -> int:
        return len(self.names)

    @property
    def mask(self) -> Tensor | None:
        return None if self.valid is None else torch.from_numpy(self.valid)

    def encode(self, arrays: Mapping[str, np.ndarray]) -> Tensor:
        absent = [n for n in self.names if n not in arrays]
        if absent:
            raise InputError(f"Variable {absent[0]!r} is missing.{nearest(absent[0], arrays)}")
        stack = np.stack([np.asarray(arrays[n], dtype=np.float64) for n in self.names], axis=1)
        z = (stack - self.mean) / self._std()
        if self.valid is not None:
            z = np.where(self.valid, z, 0.0)
        return torch.from_numpy(z.astype(np.float32))

    def physical(self, x: Tensor) -> Tensor:
        values = x * torch.from_numpy(self._std()).to(x) + torch.from_numpy(self.mean).to(x)
        for name, value in self.edges.items():
            ring = np.ones(self.grid.shape, bool)
            ring[(slice(1, -1),) * ring.ndim] = False
            at = torch.zeros(len(self.names), *ring.shape, dtype=torch.bool)
            at[self.names.index(name)] = torch.from_numpy(ring)
            values = torch.where(at.to(x.device), torch.full_like(values, value), values)
        if self.valid is None:
            return values
        valid = torch.from_numpy(self.valid).to(x.device)
        return torch.where(valid, values, torch.full_like(values, torch.nan))

    def finish(self, values: Tensor) -> Tensor:
        return values

    def at(self, grid: Grid) -> Normaliser:
        same = grid.shape == self.grid.shape
        pointwise = self.mean[0].size > 1 or self.valid is not None
        if pointwise and not same:
            raise InputError(
                f"This model keeps a mean field or a mask on its grid {self.grid.shape}; got "
                f"{grid.shape}. Use the training grid."
            )
        return replace(self, grid=grid)

    def _std(self) -> np.ndarray:
        return self.std.reshape(-1, *[1] * len(self.grid.dims))


@dataclass(frozen=True, eq=False)
class Derived(Codec):
    """Another codec, and one more variable that a solver computes from its first one.

    The prior is on the first variable alone; sensors may see either, and draws hold both, exactly
    consistent. The solver maps (B, 1, *grid) -> (B, 1, *grid) in physical units.
    """

    inner: Codec
    name: str
    attrs: Mapping[str, Any]
    solver: Callable[[Tensor], Tensor]

    @property
    def grid(self) -> Grid:  # type: ignore[override]
        return self.inner.grid

    @property
    def variables(self) -> Mapping[str, Mapping[str, Any]]:
        return {**self.inner.variables, self.name: self.attrs}

    @property
    def channels(self) -> int:
        return self.inner.channels

    @property
    def shape(self) -> tuple[int, ...]:
        return self.inner.shape

    @property
    def mask(self) -> Tensor | None:
        return self.inner.mask

    def encode(self, arrays: Mapping[str, np.ndarray]) -> Tensor:
        return self.inner.encode(arrays)

    def physical(self, x: Tensor) -> Tensor:
        values = self.inner.physical(x)
        return torch.cat([values, self.solver(values[:, :1])], dim=1)

    def finish(self, values: Tensor) -> Tensor:
        return torch.cat([self.inner.finish(values[:, :-1]), values[:, -1:]], dim=1)

    def at(self, grid: Grid) -> Derived:
        return replace(self, inner=self.inner.at(grid))


@dataclass(frozen=True, eq=False)
class TwoValued(Codec):
    """Another codec, one of whose variables has two values: draws are set to the nearer one.

    What sensors see stays differentiable; only what is given out is exact.
    """

    inner: Codec
    name: str
    low: float
    high: float

    @property
    def grid(self) -> Grid:  # type: ignore[override]
        return self.inner.grid

    @property
    def variables(self) -> Mapping[str, Mapping[str, Any]]:
        return self.inner.variables

    @property
    def channels(self) -> int:
        return self.inner.channels

    @property
    def shape(self) -> tuple[int, ...]:
        return self.inner.shape

    @property
    def mask(self) -> Tensor | None:
        return self.inner.mask

    def encode(self, arrays: Mapping[str, np.ndarray]) -> Tensor:
        return self.inner.encode(arrays)

    def physical(self, x: Tensor) -> Tensor:
        return self.inner.physical(x)

    def finish(self, values: Tensor) -> Tensor:
        values = self.inner.finish(values).clone()
        channel = list(self.variables).index(self.name)
        above = values[:, channel] > 0.5 * (self.low + self.high)
        values[:, channel] = torch.where(above, self.high, self.low)
        return values

    def at(self, grid: Grid) -> TwoValued:
        return replace(self, inner=self.inner.at(grid))


def encoded(ds: xr.Dataset, codec: Codec, dim: str, limit: int = 2048) -> Tensor:
    """Up to ``limit`` fields of ``ds``, evenly spread, as a normalised tensor."""
    index = np.unique(np.linspace(0, ds.sizes[dim] - 1, min(limit, ds.sizes[dim])).astype(int))
    part = ds.isel({dim: index})
    names = [n for n in codec.variables if n in part]
    dims = (dim, *codec.grid.dims)
    return codec.encode({n: part[n].transpose(*dims).values for n in names})
