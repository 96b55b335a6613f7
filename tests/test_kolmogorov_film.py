"""Films of Kolmogorov flow: each frame follows from the one before it, whatever is made with it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import xarray as xr

from sciddm import recipe
from sciddm.errors import InputError
from sciddm.pde import Kolmogorov

RECIPE = recipe.load(Path(__file__).parents[1] / "datasets" / "kolmogorov_film.py", "datasets")


def test_frames_follow_each_other_and_a_film_is_the_same_in_any_block() -> None:
    whole = RECIPE.fields(3, 16, seed=1, frames=4)
    part = RECIPE.fields(1, 16, seed=1, start=2, frames=3)
    same = whole.isel(sample=slice(2, 3), time=slice(3)).drop_attrs()
    xr.testing.assert_identical(same, part.drop_attrs())
    w = torch.from_numpy(whole["vorticity"].values).double()
    again = Kolmogorov(reynolds=100.0, drag=0.1, step=0.05, time=0.2)(
        w[:, :-1].reshape(-1, 1, 16, 16)
    )
    later = w[:, 1:].reshape(-1, 1, 16, 16)
    assert float((again - later).norm() / later.norm()) < 1e-5
    assert float((w[:, 1:] - w[:, :-1]).norm() / w[:, 1:].norm()) > 0.05
    assert whole["time"].values.tolist() == pytest.approx([0.0, 0.2, 0.4, 0.6])


def test_the_test_films_are_the_last_eighth_and_numbers_are_checked_first(tmp_path: Path) -> None:
    ds = RECIPE.make(tmp_path / "a.zarr", samples=8, grid=14, frames=1)
    assert ds.attrs["sciddm_splits"] == {"train": [0, 6], "validation": [6, 7], "test": [7, 8]}
    for bad in ({"samples": 1}, {"grid": 8}, {"seed": -1}, {"frames": 0}):
        with pytest.raises(InputError, match="expected|at least"):
            RECIPE.make(tmp_path / "b.zarr", **{"samples": 4, "grid": 16, **bad})
    assert not (tmp_path / "b.zarr").exists()
