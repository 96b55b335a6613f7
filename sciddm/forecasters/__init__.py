"""Forecasters: samplers of the frames that follow a past.

==================  ================================================================================
word                what it is
==================  ================================================================================
`Forecaster`        frame after frame of p(future | past), bounded memory
`Learner`           one with weights, and the loss that they are fitted by
`Known`             what is known of every frame: `Boundary` values, a `Band` of Fourier modes
`Autoregressive`    each next frame or block: a diffusion of what the mean leaves (the default)
`Rolling`           a window of frames, the deeper in noise the further ahead, that rolls on
`Scored`            one evaluation a frame, trained on the fair CRPS of its own members
`DYffusion`         blocks of frames by cold sampling over physical time, any real lead
`Refine`            PDE-Refiner: a prediction, refined at ever smaller amplitudes
`Film`              a prior over films, given its first frames and what is seen along the way
`Composed`          a denoiser of long films from one of short ones
`LinearGaussian`    the linear Gaussian law: exact, or fitted by `linear_inverse`
`Dropout`           a network with dropout left on, one mask a member
`Perturbed`         any forecaster from perturbed beginnings
`Climatology`       frames of the training record of that hour or day; `Persistent`,
                    `DampedAnomaly` beside it: baselines, with the `Cycle` that they know,
                    and `AboutCycle` for others of anomalies
`Mean`              what is expected next: `Persistence`, `Damped`, `Linear`; for short records
                    `Cyclic`, `Stencils`, `Blended`, with the covariance `Factored` of blocks
                    and their width of late `Pace`
==================  ================================================================================
"""

from sciddm.forecasters.autoregressive import Autoregressive
from sciddm.forecasters.base import Band, Boundary, Forecaster, Known, Learner, conditions
from sciddm.forecasters.baselines import AboutCycle, Climatology, Cycle, DampedAnomaly, Persistent
from sciddm.forecasters.composed import Composed
from sciddm.forecasters.dropout import Dropout
from sciddm.forecasters.dyffusion import DYffusion
from sciddm.forecasters.factored import Factored
from sciddm.forecasters.film import Assimilated, Film
from sciddm.forecasters.fitting import linear_inverse
from sciddm.forecasters.linear import LinearGaussian
from sciddm.forecasters.mean import Damped, Linear, Mean, Persistence
from sciddm.forecasters.pace import Pace
from sciddm.forecasters.perturbed import Perturbed
from sciddm.forecasters.refine import Refine
from sciddm.forecasters.regression import Blended, Cyclic, Stencils
from sciddm.forecasters.rolling import Emphasis, Rolling
from sciddm.forecasters.scored import Scored

__all__ = [
    "AboutCycle",
    "Assimilated",
    "Autoregressive",
    "Band",
    "Blended",
    "Boundary",
    "Climatology",
    "Composed",
    "Cycle",
    "Cyclic",
    "DYffusion",
    "Damped",
    "DampedAnomaly",
    "Dropout",
    "Emphasis",
    "Factored",
    "Film",
    "Forecaster",
    "Learner",
    "Linear",
    "Known",
    "LinearGaussian",
    "Mean",
    "Persistence",
    "Persistent",
    "Pace",
    "Perturbed",
    "Refine",
    "Rolling",
    "Scored",
    "Stencils",
    "conditions",
    "linear_inverse",
]
