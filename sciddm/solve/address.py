"""Addresses of the noise of a solver: inside a solver, and where there must be none."""

from __future__ import annotations

from torch import Tensor

from sciddm.errors import InputError
from sciddm.random import Streams


def below(rng: Streams | None, purpose: str, number: int = 0) -> Streams | None:
    """The same rows, for a ``purpose`` inside whatever ``rng`` is addressed to.

    Purposes nest, so that a wrapper and the solver that it wraps never share a draw.
    """
    return None if rng is None else rng.at(f"{rng.purpose} {rng.step} {purpose}", number)


class Silent(Streams):
    """Stands where the probability flow is followed, and a solver must need no noise."""

    def normal(self, like: Tensor) -> Tensor:
        raise InputError(
            "Got a solver that draws noise, where the probability flow is followed; expected a "
            "deterministic solver such as Heun() or Multistep()."
        )
