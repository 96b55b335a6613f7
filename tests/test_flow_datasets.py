from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import xarray as xr

from sciddm import recipe
from sciddm.errors import InputError
from sciddm.pde import Kolmogorov, KuramotoSivashinsky

SHELF = Path(__file__).parents[1] / "datasets"
SMALLEST = {"kolmogorov": 16, "kuramoto_sivashinsky": 50, "obstacle_flow": 32}
each = pytest.mark.parametrize("name", SMALLEST)


def _recipe(name: str) -> ModuleType:
    return recipe.load(SHELF / f"{name}.py", "datasets")


def _tensor(array: xr.DataArray) -> torch.Tensor:
    return torch.from_numpy(array.to_numpy()).double()


@each
def test_samples_have_the_same_bytes_in_any_block(name: str) -> None:
    fields, grid = _recipe(name).fields, SMALLEST[name]
    whole, part = fields(4, grid, seed=4), fields(1, grid, seed=4, start=2)
    xr.testing.assert_identical(whole.isel(sample=slice(2, 3)).drop_attrs(), part.drop_attrs())
    first = next(iter(whole.data_vars))
    other = fields(1, grid, seed=5)[first]
    assert not any(np.array_equal(whole[first][i], other[0]) for i in range(4))


@each
def test_bad_numbers_are_refused_before_any_work(name: str, tmp_path: Path) -> None:
    make = _recipe(name).make
    for bad in ({"samples": 1}, {"grid": 8}, {"seed": -1}):
        with pytest.raises(InputError, match="expected|at least"):
            make(tmp_path / "a.zarr", **{"samples": 4, "grid": SMALLEST[name], **bad})
    assert not list(tmp_path.iterdir())


def test_kolmogorov_fields_are_two_states_of_one_flow() -> None:
    ds = _recipe("kolmogorov").fields(2, 24, seed=1)
    w, later = _tensor(ds["initial"])[:, None], _tensor(ds["final"])[:, None]
    again = Kolmogorov(reynolds=200.0, step=0.5 / 24)(w)
    assert float((again - later).norm() / later.norm()) < 1e-4
    assert float((w - later).norm() / later.norm()) > 0.2
    assert float(later.mean((2, 3)).abs().max()) < 1e-5


def test_kuramoto_sivashinsky_records_follow_each_other() -> None:
    ds = _recipe("kuramoto_sivashinsky").fields(2, 128, seed=1)
    u = _tensor(ds["velocity"])
    assert ds["x"].attrs["period"] == 64.0 and ds.sizes["time"] == 32
    again = KuramotoSivashinsky(step=0.05, time=0.8)(u[:, :-1].reshape(-1, 1, 128))
    assert float((again.reshape(2, -1, 128) - u[:, 1:]).norm() / u.norm()) < 1e-3
    # On the attractor: cells of size 1 that neither die nor grow, round a mean that is kept.
    spread = u.std(-1)
    assert float(spread.min()) > 0.7 and float(spread.max()) < 2.0
    assert float(u.mean(-1).abs().max()) < 1e-6


def test_obstacle_fields_stop_in_the_body_and_carry_their_inflow() -> None:
    ds = _recipe("obstacle_flow").fields(3, 32, seed=2)
    assert {name: v.dims for name, v in ds.data_vars.items()} == {
        "early": ("sample", "y", "x"),
        "late": ("sample", "y", "x"),
        "body": ("sample", "y", "x"),
        "inflow": ("sample",),
    }
    solid = ds["body"] == 1
    middle = solid & (abs(ds["y"] - 0.5) < 0.4)  # of the cylinder, not of the walls
    assert bool(middle.any(("y", "x")).all())
    inflow = ds["inflow"]
    assert bool(((inflow > 0.5) & (inflow < 3)).all())
    assert float((ds["late"].where(middle).mean(("y", "x")) / inflow).max()) < 0.1
    # Just before the outlet the sponge has brought the inflow back.
    outlet = ds["late"].isel(x=-1).where(ds["body"].isel(x=-1) == 0).mean("y")
    np.testing.assert_allclose(outlet / inflow, 1.0, atol=0.05)
