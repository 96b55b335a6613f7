"""Forecasters: samplers of the frames that follow a past.

==================  ================================================================================
word                what it is
==================  ================================================================================
`Forecaster`        frame after frame of p(future | past), bounded memory
`Learner`           one with weights, and the loss that they are fitted by
`Boundary`          values that are known in every frame
==================  ================================================================================
"""

from sciddm.forecasters.base import Boundary, Forecaster, Learner, conditions

__all__ = ["Boundary", "Forecaster", "Learner", "conditions"]
