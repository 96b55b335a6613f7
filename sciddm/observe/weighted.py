"""Weighted sums of a field: averages over any cell, instrument footprints, line integrals."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from sciddm.errors import InputError
from sciddm.observe.operators import Linear


@dataclass(frozen=True, eq=False)
class Weighted(Linear):
    """Values ``sum over the grid of weight_i x[channel]``.

    Parameters
    ----------
    channel : of the field (B, C, *grid). weight : (n, *grid), one field of weights a value.
    """

    channel: int
    weight: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        if x.shape[2:] != self.weight.shape[1:]:
            raise InputError(
                f"Got fields on a grid {tuple(x.shape[2:])}; expected that of the weights, "
                f"{tuple(self.weight.shape[1:])}."
            )
        return x[:, self.channel].flatten(1) @ self.weight.to(x).flatten(1).T
