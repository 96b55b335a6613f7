"""A Dirichlet condition of a model that draws both fields: members keep it, sensors know it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

import sciddm as sd
from sciddm.basis import Cosine
from sciddm.covariance import Matern, Spectral
from sciddm.data.codec import Grid, Normaliser
from sciddm.denoise import Gaussian
from sciddm.errors import InputError
from sciddm.guide import linear_posterior
from sciddm.process import VE, LogLinear
from sciddm.solve import Diffusion

UNIT = np.linspace(0, 1, 9)
CODEC = Normaliser(
    Grid(("y", "x"), {"y": UNIT, "x": UNIT}),
    ("a", "u"),
    {},
    np.array([1.0, 0.3]).reshape(2, 1, 1),
    np.array([2.0, 0.5]),
    edges={"u": -0.25},
)
PRIOR = Gaussian(
    torch.zeros(()),
    Spectral(Matern(0.5, 1.5, 1.0), (1.0, 1.0), Cosine()),
    VE(clock=LogLinear(0.01, 100.0)),
)
MODEL = sd.Model(sd.Task(sd.View(("a", "u"))), CODEC, Diffusion(PRIOR, steps=12), moments=PRIOR)


def on_edge(name: str, value: float, x: float = 1.0) -> xr.DataArray:
    return xr.DataArray([value], {"y": ("s", [0.4]), "x": ("s", [x])}, ("s",), name)


@pytest.mark.parametrize("side", [9, 14])
def test_every_member_has_the_value_on_the_edge_and_no_other_variable_does(side: int) -> None:
    new = sd.generate(MODEL, members=3, sizes={"y": side, "x": side})
    ring = np.ones((side, side), bool)
    ring[1:-1, 1:-1] = False
    assert (new["u"].values[:, ring] == np.float32(-0.25)).all()
    assert (new["u"].values[:, ~ring] != -0.25).all() and (new["a"].values[:, ring] != -0.25).all()


def test_a_sensor_on_the_edge_agrees_or_is_refused() -> None:
    """Agreeing, it teaches nothing; of the other variable it is a sensor like all."""
    ((_, _, told),) = sd.Observed(on_edge("u", -0.26), std=0.01).cases(CODEC)
    assert told is not None
    mean, _, _ = linear_posterior(PRIOR, told, torch.zeros(1, 2, 9, 9))
    assert not mean.any()
    sd.recover(MODEL, sd.Observed(on_edge("u", -0.26), std=0.01), members=1)
    said = r"'u' at y = 0.4, x = 1 is 0.1 with an error of 0.01, but every field .* is -0.25 there"
    with pytest.raises(InputError, match=said):
        sd.recover(MODEL, sd.Observed(on_edge("u", 0.1), std=0.01), members=3)
    free = sd.recover(MODEL, sd.Observed(on_edge("a", 9.0), std=0.01), members=3)
    np.testing.assert_allclose(free["a"].interp(y=0.4, x=1.0), 9.0, atol=0.1)


def test_the_condition_is_saved_with_the_model(tmp_path: Path) -> None:
    MODEL.save(tmp_path / "model")
    codec = sd.load(tmp_path / "model").codec
    assert isinstance(codec, Normaliser) and dict(codec.edges) == {"u": -0.25}


@pytest.mark.parametrize("edges", [{"v": 0.0}, {"u": np.nan}])
def test_an_edge_of_nothing_is_refused(edges: dict[str, float]) -> None:
    with pytest.raises(InputError, match="on the edges; expected a number"):
        Normaliser(CODEC.grid, CODEC.names, {}, CODEC.mean, CODEC.std, edges=edges)
