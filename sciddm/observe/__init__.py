"""Observations: y = A(x) + e, an operator, its values and the law of its error.

Operators (`sciddm.observe.operators`) map fields (B, C, *grid) to values (B, n) and compose with
``@``. Error laws (`sciddm.observe.noise`) say how values scatter about A(x): Gaussian, Student-t,
Poisson counts, censored. Observations of the same field with independent errors join with ``&``.
"""

from sciddm.observe import noise
from sciddm.observe.noise import Noise
from sciddm.observe.observation import Observation
from sciddm.observe.operators import Coarsen, Function, Mask, Operator, Points, points
from sciddm.observe.weighted import Weighted

__all__ = [
    "Coarsen",
    "Function",
    "Mask",
    "Noise",
    "Observation",
    "Operator",
    "Points",
    "Weighted",
    "noise",
    "points",
]
