"""Series as tensors: every value is a cell, a channel at a time of its own.

A `Panel` holds B series of at most m cells. Cell j of series i is ``channel[i, j]`` at
``time[i, j]``: no common grid, no resampling; a regular series of C channels is the case of C n
cells, channel after channel. To forecast, to fill gaps and to generate are one thing: draw the
cells that are not ``known``, which lie after the last one, between others, or everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from sciddm.errors import InputError


@dataclass(frozen=True, eq=False)
class Panel:
    """Cells of B series.

    Parameters
    ----------
    time : (B, m) float64, in the model's unit of time, from the model's origin.
    channel : (B, m) int64, from 0.
    value : (B, m) normalised values. Only those at ``known`` cells may be used in drawing; in
        training the others hold the truth.
    known : (B, m) bool. real : (B, m) bool, False where a row is filled up to m cells.
    error : (B, m) s.d. of the known values in the same units, or None for values that are exact.
    covariates : (B, K, m), known at every cell, or None. static : (B, S), of the series, or None.
    dense : (C, n) where the m cells are C channels at n equal steps, channel after channel.
    """

    time: Tensor
    channel: Tensor
    value: Tensor
    known: Tensor
    real: Tensor
    error: Tensor | None = None
    covariates: Tensor | None = None
    static: Tensor | None = None
    dense: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        shape = self.time.shape
        for name in ("channel", "value", "known", "real"):
            if getattr(self, name).shape != shape:
                raise InputError(
                    f"Got {name} of shape {tuple(getattr(self, name).shape)} for times of shape "
                    f"{tuple(shape)}; expected one of each a cell."
                )

    def __len__(self) -> int:
        return len(self.time)

    @property
    def cells(self) -> int:
        """m, the cells of a row."""
        return self.time.shape[1]

    @property
    def wanted(self) -> Tensor:
        """(B, m) bool: the cells that are drawn."""
        return self.real & ~self.known

    def given(self, known: Tensor) -> Panel:
        """The same cells with others known, (B, m) bool; those outside `real` never are."""
        return replace(self, known=known & self.real)

    def rows(self, index: Tensor | slice) -> Panel:
        """Some of the series, or some of them several times."""

        def at(x: Tensor | None) -> Tensor | None:
            return None if x is None else x[index]

        return Panel(
            self.time[index], self.channel[index], self.value[index], self.known[index],
            self.real[index], at(self.error), at(self.covariates), at(self.static), self.dense,
        )  # fmt: skip

    def to(self, device: torch.device) -> Panel:
        """The same on another device."""
        parts: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(self)}
        for name, part in parts.items():
            parts[name] = part.to(device) if isinstance(part, Tensor) else part
        return Panel(**parts)

    def repeated(self, times: int) -> Panel:
        """Every series ``times`` over: rows 0, 0, .., 1, 1, .."""
        return self.rows(torch.arange(len(self)).repeat_interleave(times))
