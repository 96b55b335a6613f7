r"""Discrete wavelet transforms of fields: periodic or bounded axes, exact inverses.

One level along an axis of n points is a product with an (n, n) matrix: n / 2 averages above n / 2
details,

    a_k = sum_j h_j x_{2k + L/2 - j},      d_k = sum_j g_j x_{2k + L/2 - j},

h and g the analysis filters of PyWavelets, of length L. What lies outside is wrapped round on a
periodic axis. On a bounded one it is mirrored, about the end point where the filter has a sample at
its centre (odd length) and half a cell outside it where it is symmetric of even length. The mirror
spoils the orthogonality of an orthonormal filter in the rows that meet an end; there the details
are made orthonormal among themselves, then the averages beside them, by the nearest rows that are.

All matrices can be inverted (condition at most 4), and the inverse is the matrix's own in float64:
as many coefficients as points, nothing lost, at the ends too. The next level takes the averages.
Orthonormal filters give orthonormal matrices, so energy is kept and the inverse is the adjoint.

Details of a filter with p vanishing moments are zero where the field is a polynomial of degree
below p, and away from a front they fall off as (cell)^p: a front is few large numbers.

Products with a cached matrix are quicker than strided filters at the sizes of fields (up to a
thousand points an axis), and gradients are free.

References
----------
Mallat. A theory for multiresolution signal decomposition. IEEE PAMI 11, 1989, eq. 23-25.
Cohen, Daubechies, Feauveau. Biorthogonal bases of compactly supported wavelets. CPAM 45, 1992.
Brislawn. Classification of nonexpansive symmetric extension transforms for multirate filter banks.
ACHA 3, 1996 (which mirror suits which filter).
Lee et al. PyWavelets: a Python package for wavelet analysis. JOSS 2019.
https://doi.org/10.21105/joss.01237
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import EllipsisType
from typing import final

import numpy as np
import pywt
import torch
from torch import Tensor

from sciddm.basis import along
from sciddm.errors import InputError, nearest

Corner = tuple[EllipsisType | slice, ...]


@final
@dataclass(frozen=True)
class DWT:
    """A wavelet transform along some of the grid axes of (..., *grid), as many numbers as points.

    Parameters
    ----------
    name : a discrete filter of PyWavelets. ``haar``, ``db2`` .. and ``sym2`` .. are orthonormal,
        ``bior2.4`` is short and symmetric.
    periodic : for each grid axis whether it is wrapped (else mirrored).
    levels : how often the averages are transformed again.
    axes : which grid axes, counted from 0; None takes all. The others keep their points.

    Raises `InputError` for an unknown filter, no level, and axes that are not there or named twice;
    the transforms for a field whose size is not a multiple of ``2^levels``.
    """

    name: str
    periodic: tuple[bool, ...]
    levels: int = 1
    axes: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        known = pywt.wavelist(kind="discrete")
        if self.name not in known:
            raise InputError(
                f"Got wavelet {self.name!r}; expected a discrete one of PyWavelets."
                + nearest(str(self.name), known)
            )
        if self.levels < 1 or not self.periodic:
            raise InputError(
                f"Got {self.levels} levels along {len(self.periodic)} axes; expected at least 1."
            )
        chosen = self.chosen
        if not chosen or sorted(set(chosen) & set(range(len(self.periodic)))) != sorted(chosen):
            raise InputError(
                f"Got axes {self.axes} of {len(self.periodic)} grid axes; expected each once, "
                "counted from 0."
            )

    @property
    def chosen(self) -> tuple[int, ...]:
        """The grid axes that are transformed."""
        return tuple(range(len(self.periodic))) if self.axes is None else tuple(self.axes)

    @property
    def orthonormal(self) -> bool:
        """Whether the energy is kept and the inverse is the adjoint."""
        return bool(pywt.Wavelet(self.name).orthogonal)

    @property
    def fold(self) -> int:
        """Channels of `channels` for each one of the field."""
        return int(2 ** (self.levels * len(self.chosen)))

    def coarse(self, grid: tuple[int, ...]) -> tuple[int, ...]:
        """Points of the averages of the last level, of a field on ``grid``."""
        step = 2**self.levels
        if len(grid) != len(self.periodic) or any(grid[a] % step for a in self.chosen):
            raise InputError(
                f"Got a grid {tuple(grid)} for {self.levels} levels along axes {self.chosen} of "
                f"{len(self.periodic)}; expected multiples of {step}. Take fewer levels or pad."
            )
        return tuple(n // step if a in self.chosen else n for a, n in enumerate(grid))

    def forward(self, x: Tensor) -> Tensor:
        """Coefficients of fields ``x`` (..., *grid), in the nested layout and the same shape.

        The averages of the last level stand in the first corner, the details of a level beside and
        below what it left.
        """
        grid = self._grid(x)
        out = x.clone()
        for level in range(self.levels):
            corner = self._corner(grid, level)
            out[corner] = self._level(out[corner], inverse=False)
        return out

    def inverse(self, c: Tensor) -> Tensor:
        """Fields (..., *grid) of coefficients in the nested layout: the inverse of `forward`."""
        grid = self._grid(c)
        out = c.clone()
        for level in reversed(range(self.levels)):
            corner = self._corner(grid, level)
            out[corner] = self._level(out[corner], inverse=True)
        return out

    def bands(self, c: Tensor) -> list[Tensor]:
        """The sub-bands of nested coefficients: the averages, then the details of every level from
        the coarsest to the finest, low before high along the first axis slowest."""
        grid = self._grid(c)
        parts = [c[self._corner(grid, self.levels)]]
        for level in reversed(range(self.levels)):
            parts += [c[corner] for corner in self._details(grid, level)]
        return parts

    def nested(self, parts: Sequence[Tensor], grid: tuple[int, ...]) -> Tensor:
        """The inverse of `bands` for a field on ``grid``."""
        lead = parts[0].shape[: parts[0].ndim - len(grid)]
        out = parts[0].new_empty(*lead, *grid)
        out[self._corner(grid, self.levels)] = parts[0]
        rest = iter(parts[1:])
        for level in reversed(range(self.levels)):
            for corner in self._details(grid, level):
                out[corner] = next(rest)
        return out

    def channels(self, c: Tensor) -> Tensor:
        """Nested (B, C, *grid) -> (B, C * fold, *coarse): sub-bands side by side on one grid.

        Of each channel the bands in the order of `bands`; a band finer than the coarsest grid is
        dealt out point by point, neighbours to neighbouring channels.
        """
        coarse = self.coarse(self._grid(c))
        parts = [_dealt(band, coarse) for band in self.bands(c)]
        return torch.cat(parts, dim=2).flatten(1, 2)

    def unchannels(self, y: Tensor, grid: tuple[int, ...]) -> Tensor:
        """(B, C * fold, *coarse) -> nested (B, C, *grid): the inverse of `channels`."""
        coarse = self.coarse(grid)
        if tuple(y.shape[2:]) != coarse or y.shape[1] % self.fold:
            raise InputError(
                f"Got sub-bands of shape {tuple(y.shape[1:])} for a grid {tuple(grid)}; expected a "
                f"multiple of {self.fold} channels on {coarse}."
            )
        y, parts = y.unflatten(1, (-1, self.fold)), []
        for size in [band.shape for band in self.bands(y.new_empty(1, *grid))]:
            share = tuple(n // m for n, m in zip(size[1:], coarse, strict=True))
            count = int(np.prod(share))
            parts.append(_gathered(y[:, :, :count], share))
            y = y[:, :, count:]
        return self.nested(parts, grid)

    def _grid(self, x: Tensor) -> tuple[int, ...]:
        if x.ndim < len(self.periodic) or not x.is_floating_point():
            raise InputError(
                f"Got a tensor of shape {tuple(x.shape)} and type {x.dtype}; expected floating "
                f"point values with {len(self.periodic)} grid axes at the end."
            )
        grid = tuple(x.shape[-len(self.periodic) :])
        self.coarse(grid)
        return grid

    def _corner(self, grid: tuple[int, ...], level: int) -> Corner:
        """The averages that ``level`` levels leave."""
        stop = [n // 2**level if a in self.chosen else n for a, n in enumerate(grid)]
        return (Ellipsis, *(slice(0, n) for n in stop))

    def _details(self, grid: tuple[int, ...], level: int) -> list[Corner]:
        """The detail bands of one level, in the nested layout."""
        found: list[Corner] = []
        for high in itertools.product((False, True), repeat=len(self.chosen)):
            if not any(high):
                continue
            corner = [slice(0, n) for n in grid]
            for axis, up in zip(self.chosen, high, strict=True):
                half = grid[axis] // 2 ** (level + 1)
                corner[axis] = slice(half, 2 * half) if up else slice(0, half)
            found.append((Ellipsis, *corner))
        return found

    def _level(self, x: Tensor, inverse: bool) -> Tensor:
        for axis in self.chosen:
            at = axis - len(self.periodic)
            pair = matrices(self.name, x.shape[at], self.periodic[axis], x.dtype)
            x = along(x, pair[inverse], at)
        return x


@lru_cache(maxsize=64)
@torch.inference_mode(False)  # what is cached under inference must stay usable by autograd
def matrices(name: str, n: int, periodic: bool, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """One level along an axis of ``n`` points, and its inverse: two (n, n) matrices."""
    wave = pywt.Wavelet(name)
    length, half = wave.dec_len, n // 2
    at = 2 * np.arange(half)[:, None] + length // 2 - np.arange(length)
    at = at % n if periodic else _mirrored(at, n, _between(wave))
    matrix = np.zeros((n, n))
    rows = np.broadcast_to(np.arange(half)[:, None], at.shape)
    np.add.at(matrix, (rows, at), wave.dec_lo)
    np.add.at(matrix, (rows + half, at), wave.dec_hi)
    if wave.orthogonal:  # the mirror spoils it, and the tables hold eleven digits
        matrix[half:] = _orthonormal(matrix[half:])
        matrix[:half] -= matrix[:half] @ matrix[half:].T @ matrix[half:]
        matrix[:half] = _orthonormal(matrix[:half])
    pair = matrix, np.linalg.inv(matrix)
    return torch.from_numpy(pair[0]).to(dtype), torch.from_numpy(pair[1]).to(dtype)


def _between(wave: pywt.Wavelet) -> bool:
    """Whether the averaging filter is symmetric about a place between two points."""
    taps = np.trim_zeros(np.array(wave.dec_lo))
    return len(taps) % 2 == 0 and bool(np.allclose(taps, taps[::-1]))


def _mirrored(at: np.ndarray, n: int, between: bool) -> np.ndarray:
    """Indices beyond the ends, mirrored half a cell outside them (``between``) or about them."""
    turn = 2 * n if between else 2 * n - 2
    at = at % turn
    return np.where(at < n, at, turn - at - between)


def _orthonormal(rows: np.ndarray) -> np.ndarray:
    """The orthonormal rows nearest to independent ``rows`` (m, n), of the same span."""
    left, _, right = np.linalg.svd(rows, full_matrices=False)
    return np.asarray(left @ right)


def _dealt(band: Tensor, coarse: tuple[int, ...]) -> Tensor:
    """(B, C, *band) -> (B, C, count, *coarse): every (band / coarse)-th point along each axis."""
    dim = len(coarse)
    sizes = [v for n, m in zip(band.shape[2:], coarse, strict=True) for v in (m, n // m)]
    split = band.reshape(*band.shape[:2], *sizes)
    order = [0, 1, *(3 + 2 * i for i in range(dim)), *(2 + 2 * i for i in range(dim))]
    return split.permute(order).flatten(2, 1 + dim)


def _gathered(part: Tensor, share: tuple[int, ...]) -> Tensor:
    """The inverse of `_dealt` for ``share`` points an axis in each cell of the coarse grid."""
    dim = len(share)
    split = part.unflatten(2, share)
    order = [0, 1, *(v for i in range(dim) for v in (2 + dim + i, 2 + i))]
    sizes = [m * r for m, r in zip(part.shape[3:], share, strict=True)]
    return split.permute(order).reshape(*part.shape[:2], *sizes)
