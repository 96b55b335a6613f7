"""A codec of films: the frames of another codec along a dim of time.

Sensors see a film as any other field: its grid has one axis more, on which times are counted in
frames, so that a value may lie between two of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from sciddm.data.codec import Codec, Grid
from sciddm.errors import InputError


@dataclass(frozen=True, eq=False)
class Filmed(Codec):
    """Films (B, C, T, *grid) of frames that ``inner`` knows.

    Parameters
    ----------
    inner : codec of one frame. time : name of the dim of time, first of the grid.
    times : (T,) rising numbers, the coordinate along it.
    """

    inner: Codec
    time: str
    times: np.ndarray

    def __post_init__(self) -> None:
        if self.time in self.inner.grid.dims or not len(self.times):
            raise InputError(
                f"Got {len(self.times)} times along {self.time!r} of frames on "
                f"{self.inner.grid.dims}; expected at least one, along a dim of its own."
            )

    @property
    def grid(self) -> Grid:  # type: ignore[override]
        own = self.inner.grid
        times = np.asarray(self.times, dtype=np.float64)
        return Grid((self.time, *own.dims), {self.time: times, **own.coords}, own.attrs)

    @property
    def variables(self) -> Mapping[str, Mapping[str, Any]]:
        return self.inner.variables

    @property
    def channels(self) -> int:
        return self.inner.channels

    @property
    def shape(self) -> tuple[int, ...]:
        channels, *space = self.inner.shape
        return (channels, len(self.times), *space)

    @property
    def mask(self) -> Tensor | None:
        own = self.inner.mask
        return None if own is None else own[:, None].repeat_interleave(len(self.times), 1)

    def encode(self, arrays: Mapping[str, np.ndarray]) -> Tensor:
        flat = {n: np.asarray(v).reshape(-1, *np.shape(v)[2:]) for n, v in arrays.items()}
        return _film(self.inner.encode(flat), len(self.times))

    def physical(self, x: Tensor) -> Tensor:
        return _film(self.inner.physical(_frames(x)), x.shape[2])

    def finish(self, values: Tensor) -> Tensor:
        return _film(self.inner.finish(_frames(values)), values.shape[2])

    def at(self, grid: Grid) -> Filmed:
        dims = self.inner.grid.dims
        if grid.dims != (self.time, *dims):
            raise InputError(f"Got a grid along {grid.dims}; expected {(self.time, *dims)}.")
        coords = {d: grid.coords[d] for d in dims}
        attrs = {d: grid.attrs.get(d, {}) for d in dims}
        return replace(
            self, inner=self.inner.at(Grid(dims, coords, attrs)), times=grid.coords[self.time]
        )


def _frames(x: Tensor) -> Tensor:
    """(B, C, T, *grid) -> (B T, C, *grid)."""
    return x.transpose(1, 2).flatten(0, 1)


def _film(x: Tensor, frames: int) -> Tensor:
    """The inverse of `_frames`."""
    return x.unflatten(0, (-1, frames)).transpose(1, 2).contiguous()
