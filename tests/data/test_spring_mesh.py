"""The mesh of springs: its forces, its energy, its integrator, its laws of the start."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import xarray as xr

from sciddm import recipe
from sciddm.errors import InputError

ROOT = Path(__file__).parents[2]
MESH: ModuleType = recipe.load(ROOT / "datasets" / "spring_mesh.py", "datasets")


def state(rows: int = 2, seed: int = 3) -> np.ndarray:
    return np.stack([MESH.begun(10, seed, i, 0.0, 0.35) for i in range(rows)])


def energy(x: np.ndarray) -> np.ndarray:
    return 0.5 * (x[:, :2] ** 2).sum((1, 2, 3)) + MESH.springs(x[:, 2:])[1]


def run(x: np.ndarray, step: float, steps: int) -> np.ndarray:
    for _ in range(steps):
        x = MESH.advanced(x, step)
    return x


def test_the_springs_are_those_of_the_specification() -> None:
    """342 springs between all neighbours, each summed by itself, against the arrays."""
    q = state(1)[:, 2:]
    nodes = list(itertools.product(range(10), range(10)))
    pairs = [
        (a, b)
        for a, b in itertools.combinations(nodes, 2)
        if max(abs(a[0] - b[0]), abs(a[1] - b[1])) == 1
    ]
    assert len(pairs) == 342
    force, total = np.zeros((10, 10, 2)), 0.0
    for a, b in pairs:
        rest = math.hypot(a[0] - b[0], a[1] - b[1])
        # a node (y, x) is at (x, y) plus its displacement
        apart = np.array([b[1] - a[1], b[0] - a[0]]) + q[0, :, *b] - q[0, :, *a]
        length = math.hypot(*apart)
        force[a] += (length - rest) * apart / length
        force[b] -= (length - rest) * apart / length
        total += 0.5 * (length - rest) ** 2
    found, found_energy = MESH.springs(q)
    np.testing.assert_allclose(np.moveaxis(force, 2, 0), found[0], atol=1e-13)
    assert found_energy[0] == pytest.approx(total, rel=1e-13)


def test_the_force_is_minus_the_gradient_of_the_energy_and_adds_up_to_nothing() -> None:
    q = state(1)[:, 2:]
    force, _ = MESH.springs(q)
    way = np.random.default_rng(0).standard_normal(q.shape)
    slope = (MESH.springs(q + 1e-5 * way)[1] - MESH.springs(q - 1e-5 * way)[1]) / 2e-5
    assert slope[0] == pytest.approx(-float((force * way).sum()), rel=1e-8)
    assert np.abs(force.sum((2, 3))).max() < 1e-12  # springs push both ends alike


def test_energy_falls_by_the_damping_alone() -> None:
    """dE/dt = -2 * 0.1 * kinetic energy, by central differences along a film."""
    x = run(state(), MESH.STEP, 40)
    step = 1e-3
    slope = (energy(MESH.advanced(x, step)) - energy(MESH.advanced(x, -step))) / (2 * step)
    kinetic = 0.5 * (x[:, :2] ** 2).sum((1, 2, 3))
    np.testing.assert_allclose(slope, -2 * MESH.DAMPING * kinetic, rtol=1e-4)


def test_the_integrator_is_of_fourth_order_and_converged_at_the_frames() -> None:
    x = state()
    coarse = [run(x, 0.8 / n, n) for n in (8, 16, 32)]
    rate = math.log2(np.abs(coarse[0] - coarse[1]).max() / np.abs(coarse[1] - coarse[2]).max())
    assert rate == pytest.approx(4, abs=0.3)
    fine = run(x, MESH.STEP / 2, 200)
    assert np.abs(run(x, MESH.STEP, 100) - fine).max() < 1e-8


def test_the_lattice_is_a_rest_and_its_mirror_image_moves_alike() -> None:
    rest = np.zeros((1, 4, 10, 10))
    np.testing.assert_allclose(run(rest, MESH.STEP, 3), rest, atol=1e-15)
    x = state()
    sign = np.array([-1.0, 1.0, -1.0, 1.0])[:, None, None]
    np.testing.assert_allclose(
        run(x[..., ::-1] * sign, MESH.STEP, 30), run(x, MESH.STEP, 30)[..., ::-1] * sign, atol=1e-12
    )


def test_the_fixed_row_stays_and_the_film_begins_at_rest() -> None:
    ds = MESH.fields(2, 10, frames=30)
    fixed = ds["fixed"].astype(bool)
    assert int(fixed.sum()) == 10 and bool(fixed.sel(y=9).all())
    for name in ("p_x", "p_y", "q_x", "q_y"):
        assert float(abs(ds[name].where(fixed)).max()) == 0
        assert float(ds[name].where(~fixed).isel(time=-1).std()) > 0.01
    assert float(abs(ds[["p_x", "p_y"]].isel(time=0)).to_array().max()) == 0


@pytest.mark.parametrize("ring", [(0.0, 0.35), (0.35, 0.45)])
def test_the_start_is_uniform_in_the_area_of_its_ring(ring: tuple[float, float]) -> None:
    """The share of the area within the radius of a particle is uniform, its angle too: means and
    variances within four standard errors."""
    x = np.stack([MESH.begun(10, 0, i, *ring)[2:, :-1] for i in range(60)])
    radius2 = (x**2).sum(1)
    share = ((radius2 - ring[0] ** 2) / (ring[1] ** 2 - ring[0] ** 2)).ravel()
    turn = (np.arctan2(x[:, 1], x[:, 0]) / (2 * math.pi) % 1).ravel()
    for values in (share, turn):
        assert values.min() >= -1e-12 and values.max() <= 1 + 1e-12
        error = 1 / math.sqrt(12 * values.size)
        assert abs(values.mean() - 0.5) < 4 * error
        assert abs(values.var() - 1 / 12) < 4 * math.sqrt(1 / 180 / values.size)
    assert abs(np.corrcoef(share, turn)[0, 1]) < 4 / math.sqrt(share.size)


def test_thinning_leaves_frames_of_the_same_film() -> None:
    whole, thin = MESH.fields(2, 10, frames=25), MESH.fields(2, 10, frames=25, every=6)
    xr.testing.assert_equal(whole.isel(time=slice(None, None, 6)), thin)
    assert float(thin["time"][1]) == pytest.approx(6 * 0.00781)
    one = MESH.fields(1, 10, start=1, frames=25)
    np.testing.assert_array_equal(one["q_x"].values[0], whole["q_x"].values[1])


def test_the_full_size_is_split_as_published(tmp_path: Path) -> None:
    from sciddm.data import generate

    splits = generate.splits(MESH.SIZES["full"][0], MESH.VALIDATION, MESH.TEST)
    assert splits == {"train": [0, 100], "validation": [100, 103], "test": [103, 118]}
    with pytest.raises(InputError, match="rising radii"):
        MESH.make(tmp_path / "mesh.zarr", ring=(0.4, 0.3))
