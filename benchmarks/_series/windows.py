"""Windows of a regular record, what samplers draw in them, and their scores by channel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from sciddm import recipe, score
from sciddm.completion import address
from sciddm.config import Data
from sciddm.data.items import Item, Items, of
from sciddm.data.series import Coded, SeriesCodec
from sciddm.random import Streams
from sciddm.series import Panel, SeriesSampler

ROOT = Path(__file__).resolve().parents[2]
LOCAL = ROOT.parent / "shared" / "data" / "series"


def record(name: str, folder: str) -> Items:
    """The one item of a data set of the shelf, with its splits; from a local copy if there is."""
    numbers: dict[str, Any] = {"source": str(LOCAL)} if LOCAL.is_dir() else {}
    made = Data(recipe=name, store=str(Path(folder) / f"{name}.zarr"), numbers=numbers)
    return of(recipe.make(made))


@dataclass(frozen=True, eq=False)
class Window:
    """Rows of a record, and the cells (n, C) that are hidden."""

    part: Item
    hidden: np.ndarray

    def coded(self, codec: SeriesCodec) -> Coded:
        """The panel, whose hidden cells hold the truth."""
        short = replace(codec, window=len(self.part))
        return short.coded(self.part, ~self.hidden, np.ones_like(self.hidden))


def ahead(item: Item, start: int, context: int, horizon: int) -> Window:
    """``horizon`` rows from row ``start`` on, after ``context`` rows."""
    part = item.rows(slice(start - context, start + horizon))
    hidden = np.zeros(part.values.shape, bool)
    hidden[context:] = True
    return Window(part, hidden)


def scattered(item: Item, first: int, rows: int, share: float, seed: int) -> Window:
    """``rows`` from row ``first`` on, of which a share of the values is hidden at random."""
    part = item.rows(slice(first, first + rows))
    rng = np.random.default_rng([seed, first, round(1000 * share)])
    return Window(part, rng.random(part.values.shape) < share)


def panels(cases: Sequence[Window], codec: SeriesCodec) -> list[Panel]:
    return [case.coded(codec).panel for case in cases]


@dataclass(frozen=True, eq=False)
class Found:
    """Members of a sampler at the hidden cells of all windows, by channel.

    members : C arrays (M, k). truth : C arrays (k,). std : (C,) of the training data.
    """

    members: list[np.ndarray]
    truth: list[np.ndarray]
    std: np.ndarray

    def crps(self) -> float:
        """Fair, in units of each channel's s.d., the mean over channels."""
        each = [float(score.crps(*self._labelled(c))) / float(s) for c, s in enumerate(self.std)]
        return float(np.mean(each))

    def wql(self) -> tuple[float, float]:
        """``wql_9`` of each channel, averaged; and of all channels pooled."""
        each = [float(score.weighted_quantile_loss(*self._labelled(c)))
                for c in range(len(self.truth))]  # fmt: skip
        size = np.array([np.abs(t).sum() for t in self.truth])
        return float(np.mean(each)), float(np.average(each, weights=size))

    def coverage(self) -> float:
        """Of the central 90 %, the mean over channels."""
        return float(np.mean([float(score.coverage(*self._labelled(c), level=0.9))
                              for c in range(len(self.truth))]))  # fmt: skip

    def ratio(self) -> float:
        """Spread over skill: the root of (M + 1) / M times the mean variance over the mean square
        error of the mean, in units of each channel's s.d."""
        count = len(self.members[0])
        variance = [m.var(0, ddof=1).mean() / s**2
                    for m, s in zip(self.members, self.std, strict=True)]  # fmt: skip
        error = [((m.mean(0) - t) ** 2).mean() / s**2
                 for m, t, s in zip(self.members, self.truth, self.std, strict=True)]  # fmt: skip
        return float(np.sqrt((count + 1) / count * np.mean(variance) / np.mean(error)))

    def _labelled(self, c: int) -> tuple[xr.DataArray, xr.DataArray]:
        ens = xr.DataArray(self.members[c], dims=("member", "cell"))
        return ens, xr.DataArray(self.truth[c], dims="cell")


def drawn(
    sampler: SeriesSampler, codec: SeriesCodec, cases: Sequence[Window], members: int, seed: int
) -> Found:
    """``members`` of each window, in the record's units."""
    found: list[list[np.ndarray]] = [[] for _ in codec.names]
    truth: list[list[np.ndarray]] = [[] for _ in codec.names]
    for case in cases:
        coded = case.coded(codec)
        rng = Streams.of(seed, members, address(case.part))
        with torch.no_grad():
            values = codec.decode(sampler.draw(coded.panel, rng)[0], coded)
        for c, hidden in enumerate(case.hidden.T):
            found[c].append(values[:, hidden, c])
            truth[c].append(case.part.values[hidden, c])
    std = np.array([np.std(np.concatenate(t)) for t in truth]) if codec.warps else codec.std
    return Found([np.concatenate(f, 1) for f in found], [np.concatenate(t) for t in truth], std)


def said(values: Sequence[float]) -> tuple[float, float]:
    """Mean over seeds, and its standard error."""
    error = np.std(values, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0
    return float(np.mean(values)), float(error)
