"""Films whose frames go together."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from sciddm.covariance.base import Covariance, Function
from sciddm.errors import InputError


@dataclass(frozen=True)
class TimeCorrelated(Covariance):
    """C = R x space for films (B, C, T, *grid): R_kl = correlation^|k - l|, an AR(1) over frames.

    space : covariance within a frame. correlation : in (-1, 1); 0 is independent frames.
    """

    space: Covariance
    correlation: float = 0.0

    def __post_init__(self) -> None:
        if not -1 < self.correlation < 1:
            raise InputError(
                f"Got a correlation of {self.correlation} from frame to frame; expected a number "
                "between -1 and 1."
            )

    def joint(self, x: Tensor, other: Covariance, f: Function) -> Tensor:
        vectors, own, theirs, space = self._pair(x.shape[2], other)
        turned = torch.einsum("kl,bcl...->bck...", vectors.T.to(x), x)
        parts = [
            self.space.joint(turned[:, :, k], space, partial(_times, f, own[k], theirs[k]))
            for k in range(x.shape[2])
        ]
        return torch.einsum("kl,bcl...->bck...", vectors.to(x), torch.stack(parts, dim=2))

    def average(self, like: Tensor, other: Covariance, f: Function) -> Tensor:
        _, own, theirs, space = self._pair(like.shape[2], other)
        parts = [
            self.space.average(like[:, :, k], space, partial(_times, f, own[k], theirs[k]))
            for k in range(like.shape[2])
        ]
        return torch.stack(parts).mean()

    def _pair(self, frames: int, other: Covariance) -> tuple[Tensor, Tensor, Tensor, Covariance]:
        """Eigenvectors over time (columns), the eigenvalues of both there, the other's space."""
        at = torch.arange(frames, dtype=torch.float64)
        own, vectors = torch.linalg.eigh(self.correlation ** (at[:, None] - at).abs())
        one = torch.ones(frames, dtype=torch.float64)
        if isinstance(other, TimeCorrelated):
            if other.correlation not in (0.0, self.correlation):
                raise InputError(
                    f"Got frames of correlation {other.correlation} beside {self.correlation}; "
                    "expected the same, or 0."
                )
            return vectors, own, own if other.correlation else one, other.space
        return vectors, own, one, other

    def sqrt(self, w: Tensor) -> Tensor:
        """By the recursion from frame to frame, so a film is the start of a longer one."""
        fresh = self.space.sqrt(w.transpose(1, 2).flatten(0, 1))
        fresh = fresh.unflatten(0, (w.shape[0], w.shape[2])).transpose(1, 2)
        if self.correlation == 0:
            return fresh
        frames, share = [fresh[:, :, 0]], math.sqrt(1 - self.correlation**2)
        for k in range(1, w.shape[2]):
            frames.append(self.correlation * frames[-1] + share * fresh[:, :, k])
        return torch.stack(frames, dim=2)

    def diagonal(self, like: Tensor) -> Tensor:
        frame = self.space.diagonal(like[:, :, 0])
        return frame.unsqueeze(1).expand(like.shape[1:])


def _times(f: Function, own: Tensor, theirs: Tensor, p: Tensor, c: Tensor) -> Tensor:
    return f(own * p, theirs * c)
