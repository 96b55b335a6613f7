"""Addresses of the noise of a solver inside a solver."""

from __future__ import annotations

from sciddm.random import Streams


def below(rng: Streams | None, purpose: str, number: int = 0) -> Streams | None:
    """The same rows, for a ``purpose`` inside whatever ``rng`` is addressed to.

    Purposes nest, so that a wrapper and the solver that it wraps never share a draw.
    """
    return None if rng is None else rng.at(f"{rng.purpose} {rng.step} {purpose}", number)
