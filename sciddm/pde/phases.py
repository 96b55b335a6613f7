"""A sampler of two-phase coefficients, alone or given values of them or of their Darcy solution.

Values of the coefficient are signs of the latent field: draws are exact (`LevelSet.given`). Values
of the solution are met by Gauss-Newton on the boundary between the phases (`Interface`), whose
members are nearly exact where the operator bends little. Nothing is trained: the latent covariance
is fitted to fields by the arcsine law.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from sciddm.denoise import Context
from sciddm.errors import InputError
from sciddm.pde.interface import Interface, Seen
from sciddm.pde.level_set import LevelSet
from sciddm.random import Streams

NEAR = 1e-4
"""Share of a weight that counts as none, and by which weights may miss a sum of one."""


@final
@dataclass(frozen=True)
class Phases:
    """A `solve.Sampler` of fields (B, 1, H, W) of two phases on the nodes of the unit square.

    Fields are normalised by the middle and half the distance of the two values: -1 and 1.

    Parameters
    ----------
    law : the prior. coarse, modes : of the `Interface` under values of the solution.
    """

    law: LevelSet
    coarse: int = 64
    modes: int = 32

    def __call__(self, shape: Sequence[int], context: Context, rng: Streams) -> Tensor:
        like = torch.zeros(tuple(shape), dtype=torch.float64)
        return _sign(self.law.latent.sample(like, rng.at("latent"))).float()

    def posterior(self, rows: Tensor, values: Tensor, std: Tensor) -> Given:
        """The law given ``values`` (n,) with Gaussian errors of s.d. ``std`` (n,).

        rows : (n, 2, H, W), the weights of the coefficient and of the solution in each value.

        Raises `InputError` for values that are not at points, of both variables at once, or of the
        coefficient between its nodes or with errors that could turn one phase into the other.
        """
        size = rows.flatten(2).abs().sum(2)
        first = size[:, 0] > NEAR * size.sum(1)
        if bool(first.any() and not first.all()) or bool((size[first, 1] > NEAR).any()):
            raise InputError(
                "Got values of the coefficient and of the solution; expected one of them: the "
                "level set serves one at a time. Use a trained model for both."
            )
        if bool(first.all()):
            return Given(self, index=self._nodes(rows[:, 0], std), values=values)
        return Given(self, seen=Seen(self._places(rows[:, 1]), values, std), size=rows.shape[-1])

    def _nodes(self, rows: Tensor, std: Tensor) -> Tensor:
        """Flat index of the node that each value is at."""
        flat = rows.flatten(1)
        best, index = flat.abs().max(1)
        if bool((flat.abs().sum(1) > best * (1 + NEAR)).any()):
            raise InputError(
                "Got values of the coefficient between the nodes of the grid, or means over "
                "several; expected values at nodes, where there is one phase. Take the nearest."
            )
        limit = (self.law.high - self.law.low) / 8
        if float(std.max()) > limit:
            raise InputError(
                f"Got values of the coefficient with an error of {float(std.max()):g}; expected at "
                f"most {limit:g}, so that the phase is certain. Use a trained model for others."
            )
        return index

    def _places(self, rows: Tensor) -> Tensor:
        """Position (n, 2) in [0, 1] of each value, from its weights in linear interpolation."""
        count, height, width = rows.shape
        total = rows.flatten(1).sum(1)
        axes = [torch.linspace(0, 1, n, dtype=rows.dtype) for n in (height, width)]
        y = (rows.sum(2) * axes[0]).sum(1)
        x = (rows.sum(1) * axes[1]).sum(1)
        few = ((rows.abs() > NEAR).flatten(1).sum(1) <= 4).all()
        if not bool(few and ((total - 1).abs() < NEAR).all()):
            raise InputError(
                f"Got {count} values of the solution that are not at points; expected points: the "
                "level set knows no means and no integrals. Use a trained model for those."
            )
        return torch.stack([y, x], dim=1)


@final
class Given:
    """The posterior of `Phases`: draws of the coefficient, one for each address."""

    def __init__(
        self,
        prior: Phases,
        *,
        index: Tensor | None = None,
        values: Tensor | None = None,
        seen: Seen | None = None,
        size: int = 0,
    ) -> None:
        self.prior, self.seen = prior, seen
        self.nodes: tuple[Tensor, Tensor] | None = None
        if index is not None and values is not None:
            self.nodes = _once(index, values > 0.5 * (prior.law.low + prior.law.high))
        self.problem: Interface | None = None
        if seen is not None:
            self.problem = Interface(prior.law, size, min(prior.coarse, size), prior.modes)
        self._mode: Tensor | None = None

    def __call__(self, like: Tensor, rng: Streams) -> Tensor:
        """Fields (B, 1, H, W) of -1 and 1 like ``like``."""
        law = self.prior.law
        if self.nodes is not None:
            index, above = self.nodes
            phase = torch.where(above, law.high, law.low).double()
            return _sign(law.given(index, phase, like, rng)).to(like)
        assert self.problem is not None and self.seen is not None
        w = self.problem.draw(self.seen, self.mode, rng)
        return _sign(self.problem.latent(w))[:, None].to(like)

    @property
    def mode(self) -> Tensor:
        """White coefficients of the posterior mode (H, W), found once."""
        assert self.problem is not None and self.seen is not None
        if self._mode is None:
            self._mode = self.problem.mode(self.seen)
        return self._mode


def _sign(g: Tensor) -> Tensor:
    """-1 and 1; zero counts as above, as in `LevelSet`."""
    return torch.where(g >= 0, 1.0, -1.0)


def _once(index: Tensor, above: Tensor) -> tuple[Tensor, Tensor]:
    """Every place once, and its phase. Raises `InputError` for a place with both."""
    places, where = index.unique(return_inverse=True)
    votes = torch.zeros(len(places)).index_add_(0, where, above.float())
    both = int(((votes > 0) & (votes < torch.bincount(where, minlength=len(places)))).sum())
    if both:
        raise InputError(
            f"Got {both} places with both phases; expected one phase at each node. Check the "
            "places of the values."
        )
    return places, votes > 0
