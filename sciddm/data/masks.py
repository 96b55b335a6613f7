"""Which values are hidden in training, so that a model learns to draw them.

A mask is chosen by what is asked of the model later: `Ahead` for forecasts, `Share` and `Blocks`
for gaps, `Either` and `Both` to join them. It is saved with the model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np

from sciddm.errors import InputError


class Mask(ABC):
    """A law of what is hidden in a window of a series."""

    @property
    def ahead(self) -> int | None:
        """Rows at the end that are hidden together, the most that a forecast may ask for; None
        where the law sets no limit."""
        return None

    @abstractmethod
    def __call__(self, rows: int, channels: int, rng: np.random.Generator) -> np.ndarray:
        """(rows, channels) bool, true where hidden."""


@dataclass(frozen=True)
class Ahead(Mask):
    """The last ``horizon`` rows of every channel, as in a forecast."""

    horizon: int

    def __post_init__(self) -> None:
        if self.horizon < 1:
            raise InputError(f"Got a horizon of {self.horizon} rows; expected at least 1.")

    @property
    def ahead(self) -> int:
        return self.horizon

    def __call__(self, rows: int, channels: int, rng: np.random.Generator) -> np.ndarray:
        return np.broadcast_to((np.arange(rows) >= rows - self.horizon)[:, None], (rows, channels))


@dataclass(frozen=True)
class Share(Mask):
    """Every value on its own, with a probability that is drawn once a window: even from ``low`` to
    ``high``; (1, 1) hides everything."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high <= 1:
            raise InputError(f"Got shares from {self.low} to {self.high}; expected within 0 to 1.")

    def __call__(self, rows: int, channels: int, rng: np.random.Generator) -> np.ndarray:
        share = rng.uniform(self.low, self.high)
        return rng.random((rows, channels)) < share


@dataclass(frozen=True)
class Blocks(Mask):
    """``count`` stretches of ``low`` to ``high`` rows, their lengths even in the logarithm.

    alone : of one channel each, drawn at random; else of all of them.
    """

    low: int
    high: int
    count: int = 1
    alone: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.low <= self.high or self.count < 1:
            raise InputError(
                f"Got {self.count} blocks of {self.low} to {self.high} rows; expected at least one,"
                " of at least one row."
            )

    def __call__(self, rows: int, channels: int, rng: np.random.Generator) -> np.ndarray:
        hidden = np.zeros((rows, channels), bool)
        for _ in range(self.count):
            length = int(np.exp(rng.uniform(np.log(self.low), np.log(self.high + 1))))
            length = min(length, max(1, rows - 1))
            first = int(rng.integers(rows - length + 1))
            channel = int(rng.integers(channels))
            where = slice(channel, channel + 1) if self.alone else slice(None)
            hidden[first : first + length, where] = True
        return hidden


@dataclass(frozen=True)
class Either(Mask):
    """One of several masks, drawn once a window, with probabilities ``shares`` (even if empty)."""

    masks: tuple[Mask, ...]
    shares: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        fits = len(self.shares) in (0, len(self.masks)) and all(s > 0 for s in self.shares)
        if not self.masks or not fits:
            raise InputError(f"Got {len(self.masks)} masks and shares {self.shares}; expected one "
                             "positive share each.")  # fmt: skip

    @property
    def ahead(self) -> int | None:
        most = [m.ahead for m in self.masks]
        return None if None in most else max(n for n in most if n is not None)

    def __call__(self, rows: int, channels: int, rng: np.random.Generator) -> np.ndarray:
        shares = np.array(self.shares or np.ones(len(self.masks)))
        which = int(rng.choice(len(self.masks), p=shares / shares.sum()))
        return self.masks[which](rows, channels, rng)


@dataclass(frozen=True)
class Both(Mask):
    """What any of several masks hides, such as a forecast from a past with gaps."""

    masks: tuple[Mask, ...]

    @property
    def ahead(self) -> int | None:
        most = [m.ahead for m in self.masks if m.ahead is not None]
        return max(most) if most else None

    def __call__(self, rows: int, channels: int, rng: np.random.Generator) -> np.ndarray:
        hidden = np.zeros((rows, channels), bool)
        for mask in self.masks:
            hidden |= mask(rows, channels, rng)
        return hidden
