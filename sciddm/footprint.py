"""Footprints: what a sensor sees that is no point, as weights on the grid of a field.

A footprint is geometry in the coordinates of the grid, one shape a sensor; the grid comes later, so
the same sensors serve a model on any grid. ``weights(field)`` are the weights on the grid of
``field``, and a footprint called with a field gives what its sensors would see of it::

    rays = sd.footprint.Line(start={"y": 0.0, "x": [0.2, 0.5]}, stop={"y": 1.0, "x": [0.4, 0.5]})
    seen = sd.Observed(rays(truth["solution"]) + errors, std=1e-4, footprint=rays)

Between grid points the field is multilinear, as for sensors at points, and its integrals are exact
on a plane grid (over discs to 1e-6): so are those of every linear field. On a grid of latitudes and
longitudes lengths are kilometres and areas square kilometres of the sphere.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from sciddm.data.codec import Grid
from sciddm.data.geometry import EARTH
from sciddm.data.integrate import along, bell, cuts, gauss, spread
from sciddm.data.names import find
from sciddm.errors import InputError, nearest

Place = Mapping[str, float | Sequence[float] | np.ndarray | xr.DataArray]
"""A coordinate for every dim of the grid: a number, or one a sensor."""

SLACK = 1e-9
"""Of the length of an axis: how far outside of it a footprint may end by rounding."""


class Footprint(ABC):
    """Weights of every sensor on a grid: an integral or a mean over a shape."""

    mean: bool
    """Whether values are means, in the variable's units, or integrals over lengths and areas in the
    units of the coordinates."""

    @abstractmethod
    def places(self) -> Mapping[str, Place]:
        """The positions that shape the footprint, by their names."""

    @abstractmethod
    def rows(self, grid: Grid, at: Mapping[str, np.ndarray]) -> np.ndarray:
        """Weights (n, *grid) of the integral, of places (n, D) in the order of the grid's dims."""

    def on(self, grid: Grid) -> np.ndarray:
        """Weights (n, *grid) on ``grid``, float64.

        Raises `InputError` for dims that are not the grid's, positions that are no finite numbers
        or not one a sensor, and a footprint that is empty or leaves the domain.
        """
        at = self.placed(grid)
        for name, columns in at.items():
            for d, dim in enumerate(grid.dims):
                _inside(grid, dim, columns[:, d], name)
        rows = self.rows(grid, at)
        total = _sums(rows if self.mean else np.abs(rows))
        return rows / total if self.mean else rows

    def placed(self, grid: Grid) -> dict[str, np.ndarray]:
        """The places (n, D) in the order of the grid's dims, a row a sensor. Raises as `on`."""
        at = {name: _placed(place, name, grid) for name, place in self.places().items()}
        count = {len(v) for v in at.values()} - {1} or {1}
        if len(count) > 1:
            raise InputError(f"Got footprints of {sorted(count)} sensors; expected one number.")
        n = count.pop()
        return {k: np.broadcast_to(v, (n, v.shape[1])) for k, v in at.items()}

    def weights(self, field: xr.DataArray | xr.Dataset) -> xr.DataArray:
        """Weights (sensor, *grid dims) on the grid of ``field``, with its coordinates."""
        for name, place in self.places().items():
            if not isinstance(place, Mapping) or not place:
                raise InputError(f"The {name} of a footprint is {place!r:.80}; expected a mapping.")
        places = [p for place in self.places().values() for p in place.items()]
        dims = tuple(str(d) for d in field.dims if d in dict(places))
        if len(dims) < len(dict(places)):
            absent = next(d for d, _ in places if d not in dims)
            known = [str(d) for d in field.dims]
            raise InputError(f"The field has no dim {absent!r}.{nearest(absent, known)}")
        grid = Grid.of(field if isinstance(field, xr.Dataset) else field.to_dataset(name="v"), dims)
        coords = {d: field[d] for d in dims if d in field.coords}
        named = (self.sensor or "sensor", *dims)
        return xr.DataArray(self.on(grid), coords, named, attrs={"units": self.units("", grid)})

    def __call__(self, field: xr.DataArray) -> xr.DataArray:
        """What the sensors see of ``field``: its grid dims become one of sensors."""
        weights = self.weights(field)
        seen = xr.dot(field.astype(float), weights, dim=list(weights.dims[1:]))
        known = {k: v for k, v in field.attrs.items() if k != "units"}
        if "units" in field.attrs:  # of a field without units nothing is said
            known["units"] = _product(str(field.attrs["units"]), str(weights.attrs["units"]))
        return seen.rename(field.name).assign_attrs(known)

    @property
    def sensor(self) -> str | None:
        """The dim along which the positions are given, where they are labelled."""
        known = [place for place in self.places().values() if isinstance(place, Mapping)]
        every = [v for place in known for v in place.values()]
        named = [str(v.dims[0]) for v in every if isinstance(v, xr.DataArray) and v.ndim == 1]
        return named[0] if named else None

    def units(self, variable: str, grid: Grid) -> str:
        """Units of the values of a variable in units ``variable``."""
        return variable or "1" if self.mean else _product(variable, self.measure(grid))

    @abstractmethod
    def measure(self, grid: Grid) -> str:
        """Units of the lengths or areas that are integrated over on ``grid``."""


@final
@dataclass(frozen=True, eq=False)
class Line(Footprint):
    """Integrals (or means) along straight lines from ``start`` to ``stop``, in coordinates.

    A ray, a track, a transect, a flight leg. On latitudes and longitudes the line is straight on
    the map, and its length is that on the sphere.
    """

    start: Place
    stop: Place
    mean: bool = False

    def places(self) -> Mapping[str, Place]:
        return {"start": self.start, "stop": self.stop}

    def rows(self, grid: Grid, at: Mapping[str, np.ndarray]) -> np.ndarray:
        if not self.mean:
            self.measure(grid)  # refuses a length that has no unit
        out = np.zeros((len(at["start"]), *grid.shape))
        for row, a, b in zip(out, at["start"], at["stop"], strict=True):
            nodes, share = along(grid, grid.dims, a, b)
            spread(grid, grid.dims, row, nodes, share * _speed(grid, nodes, b - a))
        return out

    def measure(self, grid: Grid) -> str:
        """Raises `InputError` also for a line along dims in several units."""
        at, sphere = self.placed(grid), _sphere(grid)
        moves = (at["start"] != at["stop"]).any(0)
        moved = [d for d, moves_along in zip(grid.dims, moves, strict=True) if moves_along]
        units = {"km" if d in sphere else _unit(grid, d) for d in moved}
        if len(units) > 1:
            raise InputError(
                f"A line goes along {moved} at once, in {' and '.join(sorted(units))}: its length "
                "has no unit; expected one, convert the coordinates or take mean=True."
            )
        return units.pop() if units else "1"


@final
@dataclass(frozen=True, eq=False)
class Box(Footprint):
    """Means (or integrals) over boxes between the corners ``low`` and ``high``: cells of any size,
    a coarse model's, a pixel's."""

    low: Place
    high: Place
    mean: bool = True

    def places(self) -> Mapping[str, Place]:
        return {"low": self.low, "high": self.high}

    def rows(self, grid: Grid, at: Mapping[str, np.ndarray]) -> np.ndarray:
        wrong = ~(at["low"] < at["high"])
        if wrong.any():
            i, d = (int(v) for v in np.argwhere(wrong)[0])
            raise InputError(
                f"Box {i} goes from {at['low'][i, d]:g} to {at['high'][i, d]:g} along "
                f"{grid.dims[d]!r}; expected low below high."
            )
        out = np.empty((len(at["low"]), *grid.shape))
        for i, (a, b) in enumerate(zip(at["low"], at["high"], strict=True)):
            sides = []
            for d, dim in enumerate(grid.dims):
                side = np.zeros(grid.shape[d])
                nodes, share = along(grid, (dim,), a[d : d + 1], b[d : d + 1])
                scale = _scale(grid, dim, nodes[:, 0]) * (b[d] - a[d])
                spread(grid, (dim,), side, nodes, share * scale)
                sides.append(side)
            out[i] = _outer(sides)
        return out

    def measure(self, grid: Grid) -> str:
        return _area(grid)


@final
@dataclass(frozen=True, eq=False)
class Disc(Footprint):
    """Means (or integrals) over discs of one ``radius``, or one a sensor, on a plane grid."""

    centre: Place
    radius: float | Sequence[float] | np.ndarray
    mean: bool = True

    def places(self) -> Mapping[str, Place]:
        if not isinstance(self.centre, Mapping):
            return {"centre": self.centre}  # refused where it is placed
        n = np.size(self.radius)
        one = {d: v for d, v in self.centre.items() if np.size(v) == 1 and n > 1}
        return {"centre": {**self.centre, **{d: np.full(n, v) for d, v in one.items()}}}

    def rows(self, grid: Grid, at: Mapping[str, np.ndarray]) -> np.ndarray:
        if len(grid.dims) != 2 or _sphere(grid):
            raise InputError(
                f"Got discs on a grid of {' and '.join(grid.dims)}; expected two lengths on a "
                "plane. Use boxes, or weights of your own."
            )
        radius = _positive(self.radius, "radius", (len(at["centre"]),))
        for d, dim in enumerate(grid.dims):
            for sign in (-1.0, 1.0):
                _inside(grid, dim, at["centre"][:, d] + sign * radius, "edge")
        out = np.zeros((len(radius), *grid.shape))
        for row, centre, r in zip(out, at["centre"], radius, strict=True):
            # slices at height r sin(angle), between which the field bends: split at every row
            first, last = (np.array([centre[0] + s * r]) for s in (-1.0, 1.0))
            crossed = cuts(grid, grid.dims[:1], first, last)
            angles = np.arcsin(np.clip(2 * crossed - 1, -1, 1))
            for low, high in itertools.pairwise(angles):
                for node, share in zip(*gauss(12), strict=True):
                    angle = low + node * (high - low)
                    half = r * math.cos(angle)
                    y = centre[0] + r * math.sin(angle)
                    a, b = (np.array([y, centre[1] + s * half]) for s in (-1.0, 1.0))
                    nodes, part = along(grid, grid.dims, a, b)
                    weight = part * 2 * half * half * share * (high - low)
                    spread(grid, grid.dims, row, nodes, weight)
        return out

    def measure(self, grid: Grid) -> str:
        return _area(grid)


@final
@dataclass(frozen=True, eq=False)
class Beam(Footprint):
    """Means with a Gaussian weight about ``centre``, of s.d. ``width`` in the units of the
    coordinates (a number, or one a dim): an antenna, a smoothing kernel. What lies outside the
    domain is left out. A full width at half maximum is 2.355 s.d."""

    centre: Place
    width: float | Mapping[str, float]

    @property
    def mean(self) -> bool:  # type: ignore[override]
        return True

    def places(self) -> Mapping[str, Place]:
        return {"centre": self.centre}

    def measure(self, grid: Grid) -> str:
        return "1"

    def rows(self, grid: Grid, at: Mapping[str, np.ndarray]) -> np.ndarray:
        given = self.width if isinstance(self.width, Mapping) else dict.fromkeys(grid.dims, 0.0)
        if set(given) != set(grid.dims):
            raise InputError(f"Got widths along {sorted(given)}; expected {list(grid.dims)}.")
        width = {
            d: self.width[d] if isinstance(self.width, Mapping) else self.width for d in grid.dims
        }
        sides = []
        for d, dim in enumerate(grid.dims):
            sigma = float(_positive(width[dim], "width", (1,))[0])
            sides.append(bell(grid, dim, at["centre"][:, d], sigma))
        return np.stack([_outer([s[i] for s in sides]) for i in range(len(at["centre"]))])


def _placed(place: Place, name: str, grid: Grid) -> np.ndarray:
    """Positions (n, D) in the order of the grid's dims."""
    if not isinstance(place, Mapping) or set(place) != set(grid.dims) or not place:
        got = list(place) if isinstance(place, Mapping) else place
        raise InputError(
            f"The {name} of a footprint is given along {got}; expected a number, or one a sensor, "
            f"for each of {list(grid.dims)}."
        )
    columns = []
    for dim in grid.dims:
        column = np.atleast_1d(_numbers(place[dim], f"{name} of a footprint along {dim!r}"))
        columns.append(column)
    n = max(map(len, columns))
    if any(c.ndim != 1 or len(c) not in (1, n) for c in columns) or not n:
        raise InputError(f"The {name} of footprints has {[c.shape for c in columns]} positions.")
    return np.stack([np.broadcast_to(c, n) for c in columns], axis=1)


def _numbers(values: Any, name: str) -> np.ndarray:
    """Finite float64 values."""
    try:
        array = np.asarray(values)
    except ValueError:  # rows of several lengths
        array = np.asarray(str(values))
    if array.dtype.kind not in "fiu" or not np.isfinite(array).all():
        raise InputError(f"The {name} is {values!r:.80}; expected finite numbers.")
    return array.astype(np.float64)


def _positive(values: ArrayLike, name: str, shape: tuple[int, ...]) -> np.ndarray:
    array = _numbers(values, f"{name} of a footprint")
    if array.shape not in ((), shape) or not (array > 0).all():
        raise InputError(
            f"The {name} of a footprint is {values!r:.80}; expected positive numbers, "
            "one or one a sensor."
        )
    return np.broadcast_to(array, shape)


def _sums(rows: np.ndarray) -> np.ndarray:
    """Sums of the weights (n, 1, ...), all above zero."""
    total = rows.sum(tuple(range(1, rows.ndim)), keepdims=True)
    if not (total > 0).all():
        first = int(np.argmin(total.ravel()))
        raise InputError(f"Footprint {first} is empty; expected a length or an area above 0.")
    return total


def _inside(grid: Grid, dim: str, values: np.ndarray, name: str) -> None:
    """Refuse coordinates outside the domain."""
    low, high = grid.coords[dim].min(), grid.coords[dim].max()
    slack = SLACK * max(1.0, abs(low), abs(high), high - low)
    lost = (values < low - slack) | (values > high + slack)
    if grid.period(dim) is None and lost.any():
        first = int(np.argmax(lost))
        raise InputError(
            f"The {name} of footprint {first} is at {dim} = {values[first]:g}, outside the domain "
            f"{low:g} to {high:g}; {int(lost.sum())} are. Leave them out or use a model of a "
            "larger domain."
        )


def _outer(sides: Sequence[np.ndarray]) -> np.ndarray:
    out = np.ones(())
    for side in sides:
        out = np.multiply.outer(out, side)
    return out


def _sphere(grid: Grid) -> tuple[str, ...]:
    """The latitude and the longitude of the grid where it has both."""
    found = [find(grid.template(), word) for word in ("latitude", "longitude")]
    both = tuple(d for d in found if d in grid.dims)
    return tuple(str(d) for d in both) if len(both) == 2 else ()


def _speed(grid: Grid, nodes: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Length of the way ``step`` (D,) at ``nodes`` (m, D)."""
    sphere = _sphere(grid)
    moved = {d for d, s in zip(grid.dims, step, strict=True) if s}
    if not moved & set(sphere):
        return np.full(len(nodes), float(np.sqrt((step**2).sum())))
    if moved - set(sphere):
        raise InputError(
            f"A line goes along {sorted(moved)} at once; expected one on the sphere or one along "
            "the other dims, whose lengths are in other units."
        )
    lat, lon = (grid.dims.index(d) for d in sphere)
    shrink = np.cos(np.deg2rad(nodes[:, lat]))
    return EARTH * np.hypot(np.deg2rad(step[lat]), np.deg2rad(step[lon]) * shrink)


def _scale(grid: Grid, dim: str, values: np.ndarray) -> np.ndarray:
    """Factor of a length along ``dim`` in the measure of a box."""
    sphere = _sphere(grid)
    if dim not in sphere:
        return np.ones(len(values))
    return math.radians(EARTH) * (np.cos(np.deg2rad(values)) if dim == sphere[0] else values**0)


def _unit(grid: Grid, dim: str) -> str:
    return str(grid.attrs.get(dim, {}).get("units", "1"))


def _area(grid: Grid) -> str:
    """Units of an area, or a volume, of the grid."""
    sphere = _sphere(grid)
    units = [_unit(grid, d) for d in grid.dims if d not in sphere]
    each = [u if units.count(u) == 1 else f"{u}{units.count(u)}" for u in dict.fromkeys(units)]
    return _product(*(["km2"] if sphere else []), *(u for u in each if not u.startswith("1")))


def _product(*units: str) -> str:
    return " ".join(u for u in units if u not in ("", "1")) or "1"
