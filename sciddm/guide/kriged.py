r"""Draws of the posterior of a Gaussian prior: exact for affine operators, nearly so for others.

Affine, by Matheron's rule: x + K (y - e - A x), x from the prior, e from the law of the errors, K
the gain of optimal interpolation. Otherwise each draw minimises

    |y - e - A(x*)|^2 / R + |x* - x|^2 / V

(randomised maximum likelihood), by chords with the rows of one linearisation near the mode. For an
affine operator that is Matheron's rule.

References
----------
Journel, Huijbregts. Mining geostatistics. 1978, ch. 7 (conditional simulation).
Oliver, He, Reynolds. Conditioning permeability fields to pressure data. ECMOR 1996 (randomised
maximum likelihood). Bardsley et al. Randomize-then-optimize. SIAM J. Sci. Comput. 2014.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sciddm.denoise import Gaussian
from sciddm.guide.anchored import Anchor, Chord
from sciddm.guide.linear import factor, gram, kalman_gain
from sciddm.observe import Observation
from sciddm.random import Streams


class Matheron:
    """Exact draws, for operators that are affine. The gain is made once.

    Parameters
    ----------
    rows : (n, C, *grid), float64: smooth operators and small errors make the system
        ill-conditioned.
    """

    def __init__(self, prior: Gaussian, observation: Observation, rows: Tensor) -> None:
        self.prior, self.observation, self.rows = prior, observation, rows
        self._gain = kalman_gain(prior.prior, rows, observation.covariance)

    def __call__(self, blank: Tensor, rng: Streams) -> Tensor:
        """Draws of the shape and type of ``blank`` (B, C, *grid)."""
        x, error = prior_draw(self.prior, self.observation, blank, rng)
        gap = self.observation.residual(x) - error
        return x + (gap @ self._gain.to(x).flatten(1)).view_as(x)

    def given(self, observation: Observation) -> Matheron:
        """The same sensors and errors with other values; shares the gain."""
        other = object.__new__(Matheron)
        other.prior, other.observation, other.rows = self.prior, observation, self.rows
        other._gain = self._gain
        return other


class RandomisedMode:
    """Draws by randomised maximum likelihood, for other operators.

    Parameters
    ----------
    anchor : the linearisation. passes : runs of the operator a draw at most.
    """

    def __init__(
        self, prior: Gaussian, observation: Observation, anchor: Anchor, passes: int = 12
    ) -> None:
        self.prior, self.observation = prior, observation
        self.anchor, self.passes = anchor, passes
        images = prior.prior(anchor.rows)
        self._images, self._spread = images.flatten(1), gram(anchor.rows, images)
        self._chol = factor(self._spread + observation.covariance)

    def __call__(self, blank: Tensor, rng: Streams) -> Tensor:
        """Draws of the shape and type of ``blank`` (B, C, *grid)."""
        x, error = prior_draw(self.prior, self.observation, blank, rng)
        y = self.observation.y.double() - error.double()

        def weights(mean: Tensor) -> Tensor:
            return torch.cholesky_solve((y - mean).T, self._chol).T

        def pull(weight: Tensor) -> Tensor:
            return (weight @ self._images).view_as(x).to(x)

        own = Observation(y, self.observation.operator, self.observation.law)
        return Chord(own, self.anchor, self.passes)(x, self._spread, weights, pull)


def prior_draw(
    prior: Gaussian, observation: Observation, blank: Tensor, rng: Streams
) -> tuple[Tensor, Tensor]:
    """A field from the prior (B, C, *grid) and errors (B, n), each at its own address."""
    x = prior.sample(blank, rng.at("prior"))
    white = rng.at("error").normal(x.new_zeros(len(x), observation.y.shape[-1]))
    return x, white @ torch.linalg.cholesky(observation.covariance).T.to(x)
