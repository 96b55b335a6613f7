"""Forecasters: samplers of the frames that follow a past.

==================  ================================================================================
word                what it is
==================  ================================================================================
`Forecaster`        frame after frame of p(future | past), bounded memory
`Learner`           one with weights, and the loss that they are fitted by
`Boundary`          values that are known in every frame
`Autoregressive`    each next frame or block: a diffusion of what the mean leaves (the default)
`LinearGaussian`    the linear Gaussian law: exact, or fitted by `linear_inverse`
`Mean`              what is expected next: `Persistence`, `Damped`, `Linear`
==================  ================================================================================
"""

from sciddm.forecasters.autoregressive import Autoregressive
from sciddm.forecasters.base import Boundary, Forecaster, Learner, conditions
from sciddm.forecasters.linear import LinearGaussian, linear_inverse
from sciddm.forecasters.mean import Damped, Linear, Mean, Persistence

__all__ = [
    "Autoregressive",
    "Boundary",
    "Damped",
    "Forecaster",
    "Learner",
    "Linear",
    "LinearGaussian",
    "Mean",
    "Persistence",
    "conditions",
    "linear_inverse",
]
