r"""The covariance of a block of frames from few patterns: what a fit to a short record can carry.

The EOFs of whole blocks are blocks: a day of hourly fields each. Here every frame is
``x_k = sum_r c_{kr} p_r + rest`` with patterns p_r that all frames share, and the coefficients c of
the whole block are jointly Gaussian, of low rank. The eigenvectors are products of the two, so all
functions of it are those of `sciddm.covariance.LowRank`; what is kept is a thousandth of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from sciddm.covariance import Covariance, Function, LowRank
from sciddm.errors import InputError


@dataclass(frozen=True, eq=False)
class Factored(Covariance):
    """C = sum_n variances_n e_n e_n^T + floor (I - sum_n e_n e_n^T), e_n = sum_r l_{nkr} p_r.

    On blocks (B, C K, *grid), the K frames of a channel beside each other.

    Parameters
    ----------
    patterns : (R, C, *grid), orthonormal in the plain dot product over (C, *grid).
    links : (N, K, R), orthonormal over (K, R). variances : (N,), non-negative.
    floor : variance of every direction outside.
    """

    patterns: Tensor
    links: Tensor
    variances: Tensor
    floor: float = 0.0
    _whole: LowRank = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.links.ndim != 3 or self.links.shape[::2] != (
            len(self.variances),
            len(self.patterns),
        ):
            raise InputError(
                f"Got links of shape {tuple(self.links.shape)} for {len(self.variances)} "
                f"variances and {len(self.patterns)} patterns; expected (N, K, R)."
            )
        flat = self.patterns.flatten(1).to(self.links)
        modes = (self.links @ flat).unflatten(2, self.patterns.shape[1:])
        whole = LowRank(modes.movedim(1, 2).flatten(1, 2), self.variances, self.floor)
        object.__setattr__(self, "_whole", whole)

    @staticmethod
    def fit(blocks: Tensor, patterns: int, rank: int) -> Factored:
        """The law N(0, .) of ``blocks`` (n, C, K, *grid), with the EOFs of their frames; the rest
        is white. Raises `InputError` for fewer than two blocks."""
        if len(blocks) < 2:
            raise InputError(f"Got {len(blocks)} blocks of frames; expected at least 2.")
        frames = blocks.movedim(2, 1).double()  # (n, K, C, *grid)
        flat = frames.flatten(0, 1).flatten(1)
        size = flat.shape[1]
        few = min(patterns, *flat.shape)
        values, vectors = torch.linalg.eigh(flat.T @ flat)
        p = vectors[:, values.argsort(descending=True)[:few]].T
        z = (flat @ p.T).unflatten(0, frames.shape[:2])
        _, s, v = torch.linalg.svd(z.flatten(1), full_matrices=False)
        count = min(rank, len(s))
        variances = s[:count].square() / len(blocks)
        left = float(flat.square().sum()) / len(blocks) - float(variances.sum())
        outside = frames.shape[1] * size - count
        links = v[:count].unflatten(1, z.shape[1:]).float()
        shapes = p.unflatten(1, frames.shape[2:]).float()
        return Factored(shapes, links, variances, max(left, 0.0) / max(outside, 1))

    def joint(self, x: Tensor, other: Covariance, f: Function) -> Tensor:
        return self._whole.joint(x, other, f)

    def average(self, like: Tensor, other: Covariance, f: Function) -> Tensor:
        return self._whole.average(like, other, f)

    def sqrt(self, w: Tensor) -> Tensor:
        return self._whole.sqrt(w)

    def diagonal(self, like: Tensor) -> Tensor:
        return self._whole.diagonal(like)
