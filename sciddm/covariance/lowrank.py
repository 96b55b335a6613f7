"""Fitted modes and a diagonal rest."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sciddm.covariance.base import Covariance, Function, White, scalar
from sciddm.errors import InputError


@dataclass(frozen=True, eq=False)
class LowRank(Covariance):
    """C = sum_r variances_r e_r e_r^T + floor (I - sum_r e_r e_r^T): EOFs and a diagonal rest.

    Parameters
    ----------
    modes : (R, C, *grid), orthonormal in the plain dot product over (C, *grid).
    variances : (R,), non-negative.
    floor : variance of every direction outside the modes.
    """

    modes: Tensor
    variances: Tensor
    floor: float = 0.0

    def joint(self, x: Tensor, other: Covariance, f: Function) -> Tensor:
        inside, rest = self._values(x, other, f)
        # one noise level a row arrives as (B, 1, ..., R)
        more = (inside - rest).reshape(-1, len(self.variances)).to(x)
        flat = self.modes.flatten(1).to(x)
        return rest.to(x) * x + (x.flatten(1) @ flat.T * more @ flat).view_as(x)

    def average(self, like: Tensor, other: Covariance, f: Function) -> Tensor:
        inside, rest = self._values(like, other, f)
        size = self.modes[0].numel()
        return (inside.sum() + (size - len(self.variances)) * rest) / size

    def _values(self, x: Tensor, other: Covariance, f: Function) -> tuple[Tensor, Tensor]:
        """f at the modes (R,) and at the floor ()."""
        if not isinstance(other, White):
            raise InputError(
                f"Got {type(other).__name__} beside a LowRank covariance; expected White noise."
            )
        if x.shape[1:] != self.modes.shape[1:]:
            raise InputError(
                f"Got fields of shape {tuple(x.shape[1:])} for modes of shape "
                f"{tuple(self.modes.shape[1:])}; a fitted covariance lives on its own grid."
            )
        theirs = other.variance(x)
        inside = f(self.variances.double().to(x.device), theirs)
        return inside, f(scalar(self.floor), theirs)

    def sqrt(self, w: Tensor) -> Tensor:
        return self.joint(w, White(), lambda own, _: own.clamp_min(0).sqrt())

    def diagonal(self, like: Tensor) -> Tensor:
        inside, rest = self._values(like, White(), lambda own, _: own)
        modes = self.modes.to(inside)
        return rest + torch.einsum("r,r...->...", inside - rest, modes.square())
