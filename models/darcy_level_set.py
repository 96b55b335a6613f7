"""Two-phase Darcy flow as a level set: exact from the coefficient, Gauss-Newton from the pressure.

Draws p(what given what)
    p(coefficient, solution | points of the coefficient at nodes, or points of the solution
    anywhere, with Gaussian errors), on any grid of nodes of the unit square.
Process and noise
    None: the coefficient is the sign of a latent Gaussian field. Values of it are signs of that
    field, drawn by Gibbs sweeps; values of the solution move the boundary between the phases by
    Gauss-Newton steps, each member from its own draw of the prior and of the errors.
Backbone
    None. The solution is computed from the coefficient by the solver, so members are consistent.
Trained on
    Nothing: fitted in seconds to the training split of `datasets/darcy.py`. The latent covariance
    is the power law whose clipped correlations are those of the fields (arcsine law).
Scores
    `python benchmarks/pde_recovery.py darcy`; see models/darcy_level_set/card.md.
Do not use for
    Coefficients with other than two values; means, integrals, or values of both fields at once
    (models/darcy serves them); phases of very unequal share, which the latent mean of zero forbids.
"""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr

import sciddm
from sciddm.data import split
from sciddm.data.codec import Derived, Grid, Normaliser
from sciddm.pde import Darcy, LevelSet, Phases
from sciddm.pde.level_set import arcsine_law


def build(
    ds: xr.Dataset, *, fields: int = 10_000, coarse: int = 64, modes: int = 32
) -> sciddm.Model:
    """The model, ready to use: its covariance is fitted here to up to ``fields`` fields."""
    part = split.select(ds, "train")["coefficient"].isel(sample=slice(fields))
    values = torch.from_numpy(part.transpose("sample", "y", "x").values[:, None])
    low, high = float(values.min()), float(values.max())
    if not bool(((values == low) | (values == high)).all()) or low == high:
        raise sciddm.InputError(
            f"Got a coefficient of values from {low:g} to {high:g}; expected two values, such as "
            "those of the data set 'darcy'."
        )
    law = arcsine_law(torch.where(values == high, 1.0, -1.0))
    names = ("coefficient", "solution")
    attrs = {n: {k: v for k, v in ds[n].attrs.items() if isinstance(v, str)} for n in names}
    grid = Grid.of(ds, ("y", "x"))
    middle, half = np.full((1, 1, 1), 0.5 * (low + high)), np.full(1, 0.5 * (high - low))
    plain = Normaliser(grid, names[:1], attrs, middle, half)
    codec = Derived(plain, "solution", attrs["solution"], Darcy())
    sampler = Phases(LevelSet(law, low, high), coarse, modes)
    return sciddm.Model(sciddm.Task(sciddm.View(names)), codec, sampler)
