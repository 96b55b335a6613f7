"""Series with labels to panels of cells, and back."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, eq=False)
class SeriesCodec:
    """Items of series <-> normalised panels."""

    names: tuple[str, ...]
