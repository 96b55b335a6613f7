"""What is known ahead of a forecast: the calendar, forcing fields, and fields that never change."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr

from sciddm.data.codec import Normaliser
from sciddm.data.names import is_date
from sciddm.errors import InputError, nearest


@dataclass(frozen=True, eq=False)
class Forcings:
    """Channels that a forecaster sees beside the frames, at the times of past and future alike.

    day : sine and cosine of the hour of the day. year : of the share of the year that is gone, in
        the calendar of the times.
    fields : forcing variables with a time axis, normalised, or None.
    static : (S, *grid) normalised fields that never change (land, height, a mask), or None;
        names : what they are.
    """

    day: bool = False
    year: bool = False
    fields: Normaliser | None = None
    static: np.ndarray | None = None
    names: tuple[str, ...] = ()

    @property
    def channels(self) -> int:
        """Channels that change with time."""
        return 2 * self.day + 2 * self.year + (0 if self.fields is None else self.fields.channels)

    def at(self, times: xr.DataArray, given: xr.Dataset | None = None) -> np.ndarray | None:
        """(K, T, *grid), or (K, T) where only the calendar is known, float32; None without any.
        ``given`` holds the forcing variables at ``times`` (T,).

        Raises `InputError` for forcing variables that are missing, lack one of the times or are
        NaN or infinite, and for a calendar asked of times that are no dates.
        """
        if not self.channels:
            return None
        parts = []
        if self.day or self.year:
            if not is_date(times):
                raise InputError(
                    f"Got times of type {times.dtype}; expected dates, which this model's calendar "
                    "is read from: decode the time axis."
                )
            parts.append(self._calendar(times))
        if self.fields is None:
            return np.concatenate(parts)
        parts.append(self._given(times, given))
        grid = self.fields.grid.shape
        one = (1,) * len(grid)
        wide = [p.reshape(*p.shape, *one) if p.ndim == 2 else p for p in parts]
        return np.concatenate([np.broadcast_to(p, (*p.shape[:2], *grid)) for p in wide])

    def _calendar(self, times: xr.DataArray) -> np.ndarray:
        hour = times.dt.hour + times.dt.minute / 60 + times.dt.second / 3600
        parts = []
        if self.day:
            parts.append(hour.values / 24)
        if self.year:
            gone = times.dt.dayofyear.values - 1 + hour.values / 24
            parts.append(gone / times.dt.days_in_year.values)
        angle = 2 * np.pi * np.stack(parts)
        return np.stack([np.sin(angle), np.cos(angle)], 1).reshape(-1, len(times)).astype("f4")

    def _given(self, times: xr.DataArray, given: xr.Dataset | None) -> np.ndarray:
        assert self.fields is not None
        names, dim = self.fields.names, str(times.dims[0])
        for name in names:
            if given is None or name not in given:
                known = [] if given is None else [str(v) for v in given.data_vars]
                raise InputError(
                    f"The forcing {name!r} is missing; expected it at every lead time."
                    + nearest(name, known)
                )
        assert given is not None
        index = given.indexes[dim].get_indexer(times.to_index())
        if (index < 0).any():
            late = times.values[index < 0][0]
            raise InputError(
                f"The forcings {', '.join(names)} have no values at {late}; expected them at the "
                "times of the past and of every lead that is asked for."
            )
        part = given.isel({dim: index})
        order = (dim, *self.fields.grid.dims)
        tensor = self.fields.encode({n: part[n].transpose(*order).values for n in names})
        x = np.moveaxis(tensor.numpy(), 1, 0)
        bad = ~np.isfinite(x).all(axis=(0, *range(2, x.ndim)))
        if bad.any():
            raise InputError(
                f"The forcings {', '.join(names)} are NaN or infinite at "
                f"{times.values[int(bad.argmax())]}; expected numbers wherever training had them."
            )
        return x
