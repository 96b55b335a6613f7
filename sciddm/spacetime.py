r"""Gaussian laws of films that are stationary in space: one covariance in time for every mode.

A film X (C, T, *grid) whose law does not change under shifts in space has spatial modes that are
independent of each other. Each mode k has a covariance S_k over its C T values, real where patterns
do not travel, Hermitian where they do. Linear SPDEs with coefficients that are constant in space
have exactly such a law. Any function of S and of white noise costs one transform in space and one
(C T, C T) product a mode.

A law of m frames says how one frame follows the m - 1 before it, and so defines the law of any
longer film,

    x_n = A (x_{n-m+1}, ..., x_{n-1}) + e,   A = S_{last, first} S_{first, first}^{-1},
    Cov[e] = S_{last, last} - A S_{first, last},

which is exact where the process is Markov of order m - 1, and else the one of maximum entropy. A
fit is the sample covariance of m consecutive frames, made longer: m bounds what has to be estimated
whatever the length of the film.

References
----------
Lord, Powell, Shardlow. An introduction to computational stochastic PDEs. 2014, section 10.2.
Burg. Maximum entropy spectral analysis. Stanford 1975, ch. 2 (extension by the autoregression).
Wu, Pourahmadi. Nonparametric estimation of large covariance matrices of longitudinal data.
Biometrika 2003, section 2 (regressions on the recent past).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sciddm.basis import Basis, Periodic
from sciddm.covariance import Covariance, Function, White
from sciddm.errors import InputError


@dataclass(frozen=True, eq=False)
class SpaceTime(Covariance):
    """The covariance of films (B, C, T, *grid), stationary in space.

    Parameters
    ----------
    real : real part of S, (*modes, C T, C T), the channel slowest; modes as ``basis`` has them.
    frames : T. grid : points along each axis of space.
    imag : imaginary part, or None where patterns do not travel.
    basis : of space; with `Periodic` the part of the last axis that it keeps.

    Raises `InputError` for parts that do not fit each other.
    """

    real: Tensor
    frames: int
    grid: tuple[int, ...]
    imag: Tensor | None = None
    basis: Basis = field(default_factory=Periodic)
    _eigen: tuple[Tensor, Tensor] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        modes = tuple(self.basis.multiplicity(self.grid).shape)
        size = self.real.shape[-1]
        whole = self.real.shape == (*modes, size, size) and size % self.frames == 0
        if not whole or (self.imag is not None and self.imag.shape != self.real.shape):
            raise InputError(
                f"Got covariances of shape {tuple(self.real.shape)} for {self.frames} frames on "
                f"the grid {tuple(self.grid)}; expected (C T, C T) for each of {modes} modes."
            )
        values, vectors = torch.linalg.eigh(self.matrices.flatten(0, -3))
        object.__setattr__(self, "_eigen", (values.clamp_min(0), vectors))

    @property
    def matrices(self) -> Tensor:
        """S, (*modes, C T, C T), float64 or complex."""
        real = self.real.double()
        return real if self.imag is None else torch.complex(real, self.imag.double())

    @property
    def channels(self) -> int:
        """C."""
        return int(self.real.shape[-1]) // self.frames

    def joint(self, x: Tensor, other: Covariance, f: Function) -> Tensor:
        weight = f(self._values(x), self._noise(x, other)).to(x)
        # (..., C, T, *modes) -> (M, C T, 1 or B)
        flat = weight.flatten(-len(self.grid)).flatten(-3, -2)
        flat = flat.movedim(-1, 0).reshape(flat.shape[-1], -1, flat.shape[-2]).mT
        vectors = self._eigen[1]
        c = flat * times(vectors.mH, self.coefficients(x))
        return self.film(times(vectors, c), x)

    def average(self, like: Tensor, other: Covariance, f: Function) -> Tensor:
        count = self.basis.multiplicity(self.grid).to(like.device)
        values = f(self._values(like), self._noise(like, other)).flatten(0, -len(self.grid) - 1)
        return (count * values).sum() / (count.sum() * len(values))

    def sqrt(self, w: Tensor) -> Tensor:
        return self.joint(w, White(), lambda own, _: own.sqrt())

    def diagonal(self, like: Tensor) -> Tensor:
        self._noise(like, White())
        own = self.real.double().diagonal(dim1=-2, dim2=-1).movedim(-1, 0)
        parts = [self.basis.diagonal(values, self.grid) for values in own]
        return torch.stack(parts).unflatten(0, (self.channels, self.frames)).to(like.device)

    def matrix(self, noise: Tensor, f: Function) -> Tensor:
        """f(S, noise) of every mode, (M, C T, C T), for white noise of one variance."""
        values, vectors = self._eigen
        return (vectors * f(values, noise)[:, None, :]) @ vectors.mH

    def coefficients(self, x: Tensor) -> Tensor:
        """Films (B, C, T', *grid) -> the modes of each, (M, C T', B)."""
        c = self.basis.forward(x, len(self.grid)).flatten(3).flatten(1, 2)
        return c.permute(2, 1, 0)

    def film(self, c: Tensor, like: Tensor) -> Tensor:
        """The inverse of `coefficients`, for films of this law: (B, C, T, *grid)."""
        modes = self.basis.multiplicity(self.grid).shape
        c = c.permute(2, 1, 0).unflatten(1, (self.channels, self.frames)).unflatten(3, modes)
        return self.basis.inverse(c, self.grid).to(like)

    def log_prob(self, x: Tensor) -> Tensor:
        """log N(x; 0, S) of films (B, C, T, *grid): (B,), float64; variances below 1e-12 of the
        mean one count as that."""
        values, vectors = self._eigen
        values = values.clamp_min(1e-12 * values.mean())
        c = times(vectors.mH, self.coefficients(x.double()))
        square = (c.abs().square() / values[:, :, None]).sum(1)
        rest = (2 * math.pi * values).log().sum(1)[:, None]
        count = self.basis.multiplicity(self.grid).flatten()[:, None]
        return -0.5 * (count * (square + rest)).sum(0)

    def _values(self, like: Tensor) -> Tensor:
        """The eigenvalues as (C, T, *modes)."""
        values = self._eigen[0].to(like.device).mT
        modes = self.basis.multiplicity(self.grid).shape
        return values.unflatten(1, modes).unflatten(0, (self.channels, self.frames))

    def _noise(self, x: Tensor, other: Covariance) -> Tensor:
        if not isinstance(other, White):
            raise InputError(
                f"Got {type(other).__name__} beside a SpaceTime covariance; expected White noise."
            )
        want = (self.channels, self.frames, *self.grid)
        if tuple(x.shape[1:]) != want:
            raise InputError(
                f"Got films of shape {tuple(x.shape[1:])} for a law of {want}; a law of films has "
                "its own length and grid (spacetime.longer makes it longer)."
            )
        return other.variance(x)


def times(matrix: Tensor, c: Tensor) -> Tensor:
    """``matrix`` (M, m, n) on coefficients (M, n, B), in their precision."""
    if c.is_complex() and not matrix.is_complex():
        real = matrix.to(c.real)
        return torch.complex(real @ c.real, real @ c.imag)
    return matrix.to(c) @ c


def longer(law: SpaceTime, frames: int) -> SpaceTime:
    """The law of films of ``frames`` frames, by the regression on what came before; a shorter film
    is the beginning of the one that is known."""
    m, c = law.frames, law.channels
    window = _turned(law.matrices, c, m)  # (*modes, T C, T C), the frame slowest
    before = (m - 1) * c
    first, last = window[..., :before, :before], window[..., before:, before:]
    cross = window[..., before:, :before]
    step = cross @ torch.linalg.pinv(first, rtol=1e-13, hermitian=True)
    innovation = last - step @ cross.mH
    full = window[..., : frames * c, : frames * c]
    for n in range(m, frames):
        row = step @ full[..., n * c - before :, :]
        own = row[..., n * c - before :] @ step.mH + innovation
        full = _bordered(full, row, own)
    return _law(_turned(full, frames, c), frames, law.grid, law.basis)


def markov(
    start: Tensor, step: Tensor, noise: Tensor, frames: int, grid: Sequence[int], basis: Basis
) -> SpaceTime:
    """The law of x_{n+1} = step x_n + e_n, Cov[e_n] = noise, Cov[x_0] = start, mode by mode.

    start, step, noise : (*modes, C, C), float64 or complex.
    """
    row = step @ start.to(step)
    pair = _bordered(start.to(row), row, row @ step.mH + noise)
    first = _law(_turned(pair, 2, start.shape[-1]), 2, tuple(grid), basis)
    return longer(first, frames)


def _bordered(full: Tensor, row: Tensor, own: Tensor) -> Tensor:
    """A covariance with one more block: ``row`` beside the others, ``own`` in the corner."""
    upper = torch.cat([full, row.mH], dim=-1)
    return torch.cat([upper, torch.cat([row, own], dim=-1)], dim=-2)


def _turned(matrix: Tensor, slow: int, fast: int) -> Tensor:
    """Rows and columns counted by (slow, fast), counted by (fast, slow) instead."""
    order = torch.arange(slow * fast, device=matrix.device).view(slow, fast).T.flatten()
    return matrix[..., order, :][..., order]


def _law(matrix: Tensor, frames: int, grid: tuple[int, ...], basis: Basis) -> SpaceTime:
    matrix = 0.5 * (matrix + matrix.mH)
    imag = matrix.imag.contiguous() if matrix.is_complex() else None
    return SpaceTime(matrix.real.contiguous(), frames, grid, imag, basis)


def windows(
    x: Tensor, depth: int, basis: Basis, *, travelling: bool = True, shrinkage: float = 0.0
) -> SpaceTime:
    """The sample law of ``depth`` consecutive frames, over all films (N, C, T, *grid) of mean 0 and
    all places in them; `longer` makes films of it.

    travelling : whether patterns may move one way; else what is imaginary is left out.
    shrinkage : share of each covariance between frames or channels that is given up.
    Raises `InputError` for films that are too short, not finite, or fewer than two windows.
    """
    n, channels, frames, *grid = x.shape
    count = frames - depth + 1
    if depth < 1 or count < 1 or n * count < 2 or not bool(torch.isfinite(x).all()):
        raise InputError(
            f"Got {n} films of {frames} frames, finite: {bool(torch.isfinite(x).all())}, for "
            f"windows of {depth} frames; expected at least two windows of finite values."
        )
    c = basis.forward(x.double(), len(grid))  # (N, C, T, *modes)
    modes = c.shape[3:]
    c = c.flatten(3).permute(3, 1, 2, 0)
    total = torch.zeros(())
    for first in range(count):
        part = c[:, :, first : first + depth].flatten(1, 2)
        total = total + part @ part.mH
    matrix = total / (n * count)
    if not travelling and matrix.is_complex():
        matrix = matrix.real
    unit = torch.eye(channels * depth)
    matrix = matrix * (unit + (1 - shrinkage) * (1 - unit))
    return _law(matrix.unflatten(0, modes), depth, tuple(grid), basis)
