"""Frames that items came in, and that draws are given back in: long and wide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from sciddm.data import stamps
from sciddm.data.items import Draws, Form, Items


@dataclass(frozen=True)
class Long(Form):
    """A row an item and time. ``item`` and ``time`` name columns, "" for a table of one item;
    ``order`` is that of the columns; ``labels`` the items' names as they came."""

    item: str = "item_id"
    time: str = "timestamp"
    order: tuple[str, ...] = ()
    labels: Mapping[str, Any] = field(default_factory=dict)
    index: tuple[str, ...] = ()

    def items(self, items: Items) -> pd.DataFrame:
        parts = []
        for item in items:
            part = self._begun(items, item.name, item.time)
            part |= dict(zip(items.variables, item.values.T, strict=True))
            if item.covariates is not None:
                part |= dict(zip(items.covariates, item.covariates.T, strict=True))
            if item.static is not None:
                part |= {
                    n: np.full(len(item), x) for n, x in zip(items.static, item.static, strict=True)
                }
            parts.append(pd.DataFrame(part))
        return self._finished(parts)

    def draws(self, draws: Draws, levels: Sequence[float] = ()) -> pd.DataFrame:
        parts, items = [], draws.items
        for i, (item, drawn) in enumerate(zip(items, draws.values, strict=True)):
            part = self._begun(items, item.name, item.time)
            if levels:
                parts.append(pd.DataFrame(part | draws.columns(i, levels)))
                continue
            members = np.repeat(np.arange(draws.members), len(item))
            part = {n: np.tile(v, draws.members) for n, v in part.items()} | {"member": members}
            part |= {n: drawn[:, :, c].ravel() for c, n in enumerate(items.variables)}
            parts.append(pd.DataFrame(part))
        return self._finished(parts)

    def _begun(self, items: Items, name: str, time: npt.NDArray[Any]) -> dict[str, Any]:
        when = stamps.dates(time, items.time_units, items.calendar)
        label = self.labels.get(name, name)
        return ({self.item: [label] * len(time)} if self.item else {}) | {self.time: when}

    def _finished(self, parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
        out = pd.concat(parts, ignore_index=True)
        first = [n for n in self.order if n in out]
        out = out[[*first, *(n for n in out if n not in first)]]
        return out.set_index(list(self.index)) if self.index else out


@dataclass(frozen=True)
class Wide(Form):
    """Times down, a column an item of one variable. Members are the outer level of the index."""

    time: str | None = None
    index: bool = True

    def items(self, items: Items) -> pd.DataFrame:
        return self._joined([
            self._part(items, {item.name: item.values[:, 0]}, item.time) for item in items
        ])  # fmt: skip

    def draws(self, draws: Draws, levels: Sequence[float] = ()) -> pd.DataFrame:
        items, name = draws.items, draws.items.variables[0]
        if levels:
            return self._joined([
                self._part(items, {
                    item.name + k.removeprefix(name): v for k, v in draws.columns(i, levels).items()
                }, item.time) for i, item in enumerate(items)
            ])  # fmt: skip
        every = [
            self._joined([
                self._part(items, {item.name: drawn[m, :, 0]}, item.time)
                for item, drawn in zip(items, draws.values, strict=True)
            ])
            for m in range(draws.members)
        ]  # fmt: skip
        out = pd.concat(every, keys=range(draws.members), names=["member"])
        return out if self.index else out.reset_index("member").reset_index(drop=True)

    def _part(self, items: Items, values: dict[str, Any], time: npt.NDArray[Any]) -> pd.DataFrame:
        when = stamps.dates(time, items.time_units, items.calendar)
        return pd.DataFrame(values, index=pd.Index(when, name=self.time))

    def _joined(self, parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
        out = pd.concat(parts, axis=1).sort_index()
        return out if self.index else out.reset_index()
