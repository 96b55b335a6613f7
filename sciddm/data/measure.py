"""What is done to values before a model of series sees them: transforms and scales of an item.

All of it works on plain numbers and can be undone. Unknown values are NaN.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from sciddm.errors import InputError

Numbers = npt.NDArray[np.float64]


class Warp(ABC):
    """A rising function of the values of one variable."""

    @abstractmethod
    def forward(self, x: Numbers) -> Numbers:
        """Physical to warped. Raises `InputError` outside its range."""

    @abstractmethod
    def back(self, y: Numbers) -> Numbers:
        """Warped to physical."""

    @abstractmethod
    def slope(self, x: Numbers) -> Numbers:
        """Derivative of `forward`: what a small error is multiplied with."""


@dataclass(frozen=True)
class Log(Warp):
    """log(x + offset), for values above ``-offset``."""

    offset: float = 0.0

    def forward(self, x: Numbers) -> Numbers:
        low = x[x <= -self.offset]
        if low.size:
            raise InputError(
                f"Got the value {low[0]:g} for a logarithm, and {low.size} such values; expected "
                f"values above {-self.offset:g}."
            )
        return np.asarray(np.log(x + self.offset))

    def back(self, y: Numbers) -> Numbers:
        return np.asarray(np.exp(y) - self.offset)

    def slope(self, x: Numbers) -> Numbers:
        return np.asarray(1 / (x + self.offset))


@dataclass(frozen=True)
class Asinh(Warp):
    """asinh(x / width): as x near 0, as its logarithm far from it, for values of any sign."""

    width: float = 1.0

    def forward(self, x: Numbers) -> Numbers:
        return np.asarray(np.arcsinh(x / self.width))

    def back(self, y: Numbers) -> Numbers:
        return np.asarray(np.sinh(y) * self.width)

    def slope(self, x: Numbers) -> Numbers:
        return np.asarray(1 / np.sqrt(x**2 + self.width**2))


@dataclass(frozen=True, eq=False)
class NormalScore(Warp):
    """The normal quantile of a value's rank in the training data, linear between knots.

    values : (K,) rising. scores : (K,) rising. Beyond the ends it goes on with the slopes there,
    and `back` stays within them: what is drawn lies in the range of the training data.
    """

    values: Numbers
    scores: Numbers

    @staticmethod
    def fit(x: Numbers, knots: int = 33) -> NormalScore:
        """Of values ``x`` (any shape, NaN where unknown); equal ones share the middle of their
        ranks. Raises `InputError` for fewer than two different values."""
        known = np.sort(x[np.isfinite(x)])
        values, first, count = np.unique(known, return_index=True, return_counts=True)
        if len(values) < 2:
            raise InputError("Got a constant for normal scores; expected values that differ.")
        middle = (first + 0.5 * count) / len(known)
        if len(values) > knots:
            near = np.searchsorted(middle, (np.arange(knots) + 0.5) / knots)
            keep = np.unique(np.concatenate([[0, len(values) - 1], near.clip(0, len(values) - 1)]))
            values, middle = values[keep], middle[keep]
        low = 0.5 / len(known)
        return NormalScore(values, np.asarray(ndtri(middle.clip(low, 1 - low))))

    def forward(self, x: Numbers) -> Numbers:
        left, right = self._slopes[[0, -1]]
        out = np.interp(x, self.values, self.scores)
        out = np.where(x < self.values[0], self.scores[0] + left * (x - self.values[0]), out)
        return np.where(x > self.values[-1], self.scores[-1] + right * (x - self.values[-1]), out)

    def back(self, y: Numbers) -> Numbers:
        return np.asarray(np.interp(y, self.scores, self.values))

    def slope(self, x: Numbers) -> Numbers:
        place = np.searchsorted(self.values, np.nan_to_num(x)) - 1
        return np.asarray(self._slopes[place.clip(0, len(self._slopes) - 1)])

    @property
    def _slopes(self) -> Numbers:
        return np.asarray(np.diff(self.scores) / np.diff(self.values))


class Scale(ABC):
    """Location and scale of an item by what is known of it in a window."""

    @abstractmethod
    def __call__(self, x: Numbers) -> tuple[Numbers, Numbers]:
        """Of warped values (n, C): (C,) and (C,); NaN where nothing known says it."""


@dataclass(frozen=True)
class MeanAbsolute(Scale):
    """Values over the mean of the absolute known ones."""

    def __call__(self, x: Numbers) -> tuple[Numbers, Numbers]:
        count = np.isfinite(x).sum(0)
        size = np.nansum(np.abs(x), 0) / np.maximum(count, 1)
        return np.zeros_like(size), _positive(size)


@dataclass(frozen=True)
class Centred(Scale):
    """Values about the mean of the known ones, over their s.d."""

    def __call__(self, x: Numbers) -> tuple[Numbers, Numbers]:
        count = np.isfinite(x).sum(0)
        mean = np.where(count > 0, np.nansum(x, 0) / np.maximum(count, 1), np.nan)
        square = np.nansum(np.where(np.isfinite(x), x - mean, 0.0) ** 2, 0) / np.maximum(count, 1)
        return mean, _positive(np.where(count > 1, np.sqrt(square), 0.0))


@dataclass(frozen=True)
class FromLast(Scale):
    """Values about the last known one, over the root mean square of the known steps: for series
    that walk."""

    def __call__(self, x: Numbers) -> tuple[Numbers, Numbers]:
        last, size = np.full(x.shape[1], np.nan), np.zeros(x.shape[1])
        for c in range(x.shape[1]):
            known = x[np.isfinite(x[:, c]), c]
            if known.size:
                last[c] = known[-1]
            if known.size > 1:
                size[c] = np.sqrt(np.mean(np.diff(known) ** 2))
        return last, _positive(size)


def _positive(size: Numbers) -> Numbers:
    return np.where(size > 0, size, np.nan)
