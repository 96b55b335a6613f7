"""Evidence: what is known of a field besides the model, joined with ``&``.

Values seen (`sciddm.task.Observed`) and equations that hold (`sciddm.equation.Residual`) are
evidence; pieces with independent errors join into one::

    seen = sd.Observed(points, std=0.1) & sd.Observed(rays, std=0.02, footprint=paths)

Everything is checked before a member is drawn. A value that no field of the model can differ at, on
a Dirichlet boundary say, must be what the model has there to within `LIMIT` errors. A case in which
nothing is seen is not refused: its posterior is the prior.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import reduce

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sciddm.data.codec import Codec, Derived
from sciddm.errors import InputError
from sciddm.observe import Observation
from sciddm.random import Streams

LIMIT = 5.0
"""Errors that a value may lie away from the one that every field has at its place."""


@dataclass(frozen=True, eq=False)
class Sight:
    """What is seen in one case.

    number, label : of the case; the label is None where cases are not counted.
    observation : of physical channels (B, K, *grid), whitened by ``std`` (n,); None for nothing.
    name : value i in words, with its place.
    """

    number: int
    label: xr.DataArray | None
    observation: Observation | None
    std: np.ndarray = field(default_factory=lambda: np.zeros(0))
    name: Callable[[int], str] = str


class Evidence(ABC):
    """Something known of a field in one or several cases."""

    @abstractmethod
    def sights(self, codec: Codec) -> Iterator[Sight]:
        """What is seen, case by case. Raises `InputError` for what ``codec`` cannot use."""

    @property
    @abstractmethod
    def scalars(self) -> dict[str, xr.Variable]:
        """Coordinates without a dim, such as the one time of all values; draws keep them."""

    @abstractmethod
    def identity(self) -> Iterator[bytes]:
        """Bytes that differ where the evidence does: a run is not resumed with other evidence."""

    def cases(self, codec: Codec) -> Iterator[tuple[int, xr.DataArray | None, Observation | None]]:
        """(number, label, observation) of every case, lowered to the tensors of ``codec``; None
        where nothing is seen.

        Values are whitened: each is divided by its error, so the errors have variance 1.
        Raises `InputError` before anything is drawn, also for a value that contradicts every field.
        """
        fields = physical(codec)
        probed: Tensor | None = None
        for sight in self.sights(codec):
            if sight.observation is None:
                yield sight.number, sight.label, None
                continue
            if probed is None:
                probed = fields(_probe(codec))
            _check_fixed(sight, probed, codec)
            seen = sight.observation
            yield (
                sight.number,
                sight.label,
                Observation(seen.y, seen.operator @ needed(codec, seen.operator), seen.law),
            )

    def __and__(self, other: Evidence) -> Evidence:
        """Both at once, with independent errors."""
        if not isinstance(other, Evidence):
            raise InputError(
                f"Got observations & a {type(other).__name__}; expected sciddm.Observed on both "
                "sides."
            )
        return Together((*_parts(self), *_parts(other)))


@dataclass(frozen=True, eq=False)
class Together(Evidence):
    """Several pieces of evidence with independent errors; made by ``&``.

    Pieces that count cases must count the same ones; a piece that counts none is seen in each.
    """

    parts: tuple[Evidence, ...]

    def sights(self, codec: Codec) -> Iterator[Sight]:
        each = [list(part.sights(codec)) for part in self.parts]
        labelled = [part for part in each if part[0].label is not None]
        for part in labelled[1:]:
            _check_cases(labelled[0], part)
        for i in range(len(labelled[0]) if labelled else 1):
            now = [part[i if part[0].label is not None else 0] for part in each]
            label = labelled[0][i].label if labelled else None
            yield _joined(i, label, [s for s in now if s.observation is not None])

    @property
    def scalars(self) -> dict[str, xr.Variable]:
        """Those of all parts, but for names of which two parts say different things."""
        merged: dict[str, xr.Variable] = {}
        clash = set()
        for part in self.parts:
            for name, value in part.scalars.items():
                if not merged.setdefault(name, value).equals(value):
                    clash.add(name)
        return {name: value for name, value in merged.items() if name not in clash}

    def identity(self) -> Iterator[bytes]:
        for part in self.parts:
            yield from part.identity()


def physical(codec: Codec) -> Callable[[Tensor], Tensor]:
    """Normalised to physical fields, with zeros on land, which a weight of 0 may meet."""
    if codec.mask is None:
        return codec.physical
    return lambda x: torch.nan_to_num(codec.physical(x), 0.0, torch.inf, -torch.inf)


def needed(codec: Codec, operator: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """`physical`, without the solver where ``operator`` does not look at what the solver makes."""
    if not isinstance(codec, Derived):
        return physical(codec)
    given = physical(codec.inner)

    def unsolved(x: Tensor) -> Tensor:
        values = given(x)
        return torch.cat([values, torch.full_like(values[:, :1], torch.nan)], dim=1)

    blind = bool(torch.isfinite(operator(unsolved(torch.zeros(1, *codec.shape)))).all())
    return unsolved if blind else physical(codec)


def _parts(evidence: Evidence) -> tuple[Evidence, ...]:
    return evidence.parts if isinstance(evidence, Together) else (evidence,)


def _joined(number: int, label: xr.DataArray | None, seen: list[Sight]) -> Sight:
    whole = [s.observation for s in seen if s.observation is not None]
    if not whole:
        return Sight(number, label, None)
    ends = np.cumsum([len(s.std) for s in seen])

    def name(i: int) -> str:
        part = int(np.searchsorted(ends, i, side="right"))
        return seen[part].name(i - int(ends[part]) + len(seen[part].std))

    both = reduce(lambda a, b: a & b, whole)
    return Sight(number, label, both, np.concatenate([s.std for s in seen]), name)


def _check_cases(first: list[Sight], other: list[Sight]) -> None:
    a, b = (xr.concat([s.label for s in p if s.label is not None], "case") for p in (first, other))
    if len(a) != len(b) or not np.array_equal(a.values, b.values):
        raise InputError(
            f"Observations that are joined have {len(a)} and {len(b)} cases, the first "
            f"{a.values[0]} and {b.values[0]}; expected the same cases. Select those of both."
        )


def _probe(codec: Codec) -> Tensor:
    """The mean field and two near it (3, *shape)."""
    blank = torch.zeros(3, *codec.shape)
    noise = 0.05 * Streams.of(0, 3).at("fixed values").normal(blank)
    return noise * torch.tensor([0.0, 1.0, 1.0]).view(3, *[1] * (blank.ndim - 1))


def _check_fixed(sight: Sight, probed: Tensor, codec: Codec) -> None:
    """Raise `InputError` for a value that contradicts what every field has at its place."""
    seen = sight.observation
    assert seen is not None
    values = seen.operator(probed).double()
    fixed = (values == values[:1]).all(0)
    far = fixed & (seen.law.chi_square(seen.y, values[:1])[0] > LIMIT**2)
    for i in far.nonzero()[:, 0].tolist():
        # equal values may be a matter of rounding: the derivative decides
        with torch.enable_grad():
            x = torch.zeros(1, *codec.shape).requires_grad_()
            (slope,) = torch.autograd.grad(
                seen.operator(physical(codec)(x))[0, i], x, allow_unused=True
            )
        if slope is None or not bool(slope.any()):
            std = float(sight.std[i])
            raise InputError(
                f"Observed {sight.name(i)} is {float(seen.y[i]) * std:g} with an error of {std:g}, "
                f"but every field of this model is {float(values[0, i]) * std:g} there, as on a "
                f"boundary; {int(far.sum())} such values. Check their places, units and errors, or "
                "leave them out."
            )
