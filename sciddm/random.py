"""Noise with an address: a draw depends on where it is used, never on what was drawn before.

A row of a batch is one member of one case. Its noise is a pure function of
``(seed, case, member, purpose, step)``, so a member is the same in any batch, chunk, order or
number of workers, and a branch that draws more does not shift the draws of another.

References
----------
Salmon, Moraes, Dror, Shaw. Parallel random numbers: as easy as 1, 2, 3. SC 2011 (Philox).
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from sciddm.errors import InputError

SCHEME = "philox-1"
"""Version of the addressing; written into every output, changed whenever a draw would change."""


@dataclass(frozen=True)
class Streams:
    """Row i of every draw depends on ``(seed, cases[i], members[i], purpose, step)`` alone.

    Parameters
    ----------
    seed : the run's seed, a non-negative integer.
    cases, members : (B,) non-negative integers, the address of each row of a batch.
    purpose : what the noise is for ("start", "step", ...), hashed into the address.
    step : number of the step that uses it.
    scope : names the frame, or another part of a longer draw, that all of it belongs to.
    """

    seed: int
    cases: tuple[int, ...]
    members: tuple[int, ...]
    purpose: str = "draw"
    step: int = 0
    scope: str = ""

    def __post_init__(self) -> None:
        if len(self.cases) != len(self.members):
            raise InputError(
                f"Got {len(self.cases)} cases and {len(self.members)} members; "
                "expected one of each for every row of the batch."
            )
        if min((self.seed, self.step, *self.cases, *self.members)) < 0:
            raise InputError("Seeds, cases, members and steps are non-negative integers.")

    @staticmethod
    def of(seed: int, members: Sequence[int] | int, case: int = 0) -> Streams:
        """Streams of one case: ``members`` are the member numbers, or how many of them."""
        numbers = range(members) if isinstance(members, int) else members
        return Streams(seed, (case,) * len(numbers), tuple(int(m) for m in numbers))

    def at(self, purpose: str, step: int = 0) -> Streams:
        """The same rows, addressed for another purpose and step."""
        return replace(self, purpose=purpose, step=step)

    def inside(self, name: str, number: int = 0) -> Streams:
        """The same rows within a part of a longer draw, such as a frame of a forecast: what is
        drawn there with `at` shares no noise with another part."""
        return replace(self, scope=f"{self.scope}{name} {number}/")

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal noise of the shape, type and device of ``like`` (B, ...)."""
        if like.shape[0] != len(self.members):
            raise InputError(
                f"Got a batch of {like.shape[0]} for {len(self.members)} addresses; "
                "expected one address for every row."
            )
        kind = np.float64 if like.dtype == torch.float64 else np.float32
        rows = [self._row(i).standard_normal(like.shape[1:], dtype=kind) for i in range(len(like))]
        noise = torch.from_numpy(np.stack(rows)) if rows else torch.empty(like.shape)
        return noise.to(like)

    def _row(self, i: int) -> np.random.Generator:
        word = zlib.crc32((self.scope + self.purpose).encode())
        key = np.random.SeedSequence([self.seed, self.cases[i], self.members[i], word, self.step])
        return np.random.Generator(np.random.Philox(key))


def normal(like: Tensor, rng: Streams | None) -> Tensor:
    """Noise like ``like`` from ``rng``; from torch's own generator where ``rng`` is None
    (training only)."""
    return torch.randn_like(like) if rng is None else rng.normal(like)
