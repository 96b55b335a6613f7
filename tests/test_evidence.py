"""Evidence joined: every kind of sensor at once against the exact posterior, and contradictions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

import sciddm as sd
from sciddm import ensemble, footprint
from sciddm.basis import Cosine
from sciddm.covariance import Matern, Spectral
from sciddm.data.checks import DataWarning
from sciddm.data.codec import Derived, Grid, Normaliser
from sciddm.denoise import Gaussian
from sciddm.ensemble import Job
from sciddm.errors import InputError
from sciddm.evidence import Evidence
from sciddm.guide import linear_posterior
from sciddm.observe import Observation
from sciddm.observe.noise import Joined
from sciddm.pde import Poisson
from sciddm.process import VE, LogLinear
from sciddm.solve import Diffusion

SIDE = 11
UNIT = np.linspace(0, 1, SIDE)
SQUARE = Grid(("y", "x"), {"y": UNIT, "x": UNIT})
INNER = Normaliser(SQUARE, ("coefficient",), {}, np.full((1, 1, 1), 0.5), np.array([2.0]))
CODEC = Derived(INNER, "solution", {"units": "1"}, Poisson())
PRIOR = Gaussian(
    torch.zeros(()),
    Spectral(Matern(0.5, 1.5, 1.0), (1.0, 1.0), Cosine()),
    VE(clock=LogLinear(0.001, 100.0)),
)
MODEL = sd.Model(
    sd.Task(sd.View(("coefficient", "solution"))), CODEC, Diffusion(PRIOR, steps=24), moments=PRIOR
)
TRUTH = CODEC.decode(
    PRIOR.sample(torch.zeros(1, 1, SIDE, SIDE)), xr.DataArray([0], dims="member", name="member")
).isel(member=0, drop=True)


def points(n: int, seed: int, name: str = "solution", std: float = 1e-3) -> xr.DataArray:
    """The truth off the grid, with errors."""
    rng = np.random.default_rng(seed)
    y, x = (xr.DataArray(rng.uniform(0.05, 0.95, n), dims="station") for _ in "yx")
    return TRUTH[name].interp(y=y, x=x) + std * rng.standard_normal(n)


RAYS = footprint.Line({"y": [0.0, 0.1, 0.0, 1.0], "x": 0.05}, {"y": [1.0, 0.9, 0.5, 0.2], "x": 0.9})
CELLS = footprint.Box({"y": [0.11, 0.5], "x": [0.2, 0.23]}, {"y": [0.47, 0.93], "x": [0.6, 0.61]})


def everything() -> tuple[Evidence, list[tuple[np.ndarray, np.ndarray, float]]]:
    """Points of one field, integrals of another, means over cells and blocks: as evidence, and as
    (rows on both physical fields, values, error) written out by hand."""
    source, state = TRUTH["coefficient"], TRUTH["solution"]
    here = points(9, 1)
    rays, cells = RAYS(source) + 0.01, CELLS(state) - 2e-4
    blocks = source.coarsen(y=3, x=4, boundary="trim").mean()  # type: ignore[attr-defined]
    seen = (
        sd.Observed(here, std=1e-3)
        & sd.Observed(rays, std=0.05, footprint=RAYS)
        & sd.Observed(cells, std=5e-4, footprint=CELLS.weights(state))
        & sd.Observed(blocks, std=0.3, coarsen={"y": 3, "x": 4})
    )
    unit = np.eye(SIDE**2).reshape(-1, SIDE, SIDE)
    fields = xr.DataArray(unit, {"y": UNIT, "x": UNIT}, ("k", "y", "x"))
    at = {"y": here["y"], "x": here["x"]}
    average = fields.coarsen(y=3, x=4, boundary="trim").mean()  # type: ignore[attr-defined]
    written = [
        (fields.interp(at).transpose("station", "k").values, here.values, 1e-3),
        (RAYS(fields).transpose("sensor", "k").values, rays.values, 0.05),
        (CELLS(fields).transpose("sensor", "k").values, cells.values, 5e-4),
        (average.values.reshape(SIDE**2, -1).T, blocks.values.ravel(), 0.3),
    ]
    return seen, written


def by_hand(written: list[tuple[np.ndarray, np.ndarray, float]]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and s.d. of the coefficient by dense linear algebra, in physical units."""
    unit = torch.eye(SIDE**2, dtype=torch.float64).view(-1, 1, SIDE, SIDE)
    prior = 4 * PRIOR.prior(unit).reshape(SIDE**2, -1).numpy()  # of 0.5 + 2 x
    solver = Poisson()(unit).reshape(SIDE**2, -1).numpy().T
    of_solution = (True, False, True, False)
    rows = [a @ solver if s else a for (a, _, _), s in zip(written, of_solution, strict=True)]
    a, y = np.concatenate(rows), np.concatenate([v for _, v, _ in written])
    noise = np.concatenate([np.full(len(v), e**2) for _, v, e in written])
    gain = prior @ a.T @ np.linalg.inv(a @ prior @ a.T + np.diag(noise))
    mean = 0.5 + gain @ (y - a @ np.full(SIDE**2, 0.5))
    spread = np.sqrt(np.diag(prior - gain @ a @ prior))
    return mean.reshape(SIDE, SIDE), spread.reshape(SIDE, SIDE)


def only(seen: Evidence) -> Observation:
    ((_, _, observation),) = seen.cases(CODEC)
    assert observation is not None
    return observation


def test_every_kind_of_sensor_at_once_has_the_posterior_written_out_by_hand() -> None:
    """Points between the grid, rays, cells of any size and blocks, of both fields."""
    seen, written = everything()
    mean, spread = by_hand(written)
    like = torch.zeros(1, 1, SIDE, SIDE, dtype=torch.float64)
    found, _, variance = linear_posterior(PRIOR, only(seen), like)
    np.testing.assert_allclose(0.5 + 2 * found[0, 0].numpy(), mean, atol=2e-4)
    np.testing.assert_allclose(2 * variance[0].sqrt().numpy(), spread, atol=2e-4)
    post = sd.recover(MODEL, seen, members=128, seed=1)
    draws = post["coefficient"]
    z = (draws.mean("member").values - mean) / spread * np.sqrt(128)
    assert 0.4 < np.sqrt((z**2).mean()) < 1.6
    ratio = np.sqrt((draws.var("member").values / spread**2).mean())
    assert 0.9 < ratio < 1.1 and 0.7 < post.attrs["misfit_sd"] < 1.2


def test_the_order_in_which_evidence_is_joined_is_no_matter() -> None:
    a = sd.Observed(points(4, 1), std=1e-3)
    b = sd.Observed(RAYS(TRUTH["coefficient"]), 0.1, footprint=RAYS)
    c = sd.Observed(points(3, 2, "coefficient"), std=0.1)
    like = torch.zeros(1, 1, SIDE, SIDE, dtype=torch.float64)
    means = [linear_posterior(PRIOR, only(e), like)[0] for e in ((a & b) & c, c & (b & a))]
    torch.testing.assert_close(*means, rtol=1e-8, atol=1e-8)
    assert list(((a & b) & c).identity()) != list((c & (b & a)).identity())


def test_two_sensors_that_differ_are_one_of_their_mean_and_half_the_variance() -> None:
    """To the draw: the same seed gives the same members."""
    one = points(5, 3)
    twice = xr.concat([one - 2e-3, one + 2e-3], "station")
    pair = sd.recover(MODEL, sd.Observed(twice, std=1e-3), members=4)
    single = sd.recover(MODEL, sd.Observed(one, std=1e-3 / np.sqrt(2)), members=4)
    both = sd.Observed(one - 2e-3, std=1e-3) & sd.Observed(one + 2e-3, std=1e-3)
    joined = sd.recover(MODEL, both, members=4)
    for post in (pair, joined):
        np.testing.assert_allclose(post["coefficient"], single["coefficient"], atol=2e-3)


def test_each_piece_keeps_its_law_of_errors() -> None:
    """A gross value in the piece of Student's law loses its pull; the Gaussian ones keep theirs."""
    good, wild = points(12, 4, std=1e-4), points(6, 5, std=1e-4)
    wild[2] += 0.5
    student = sd.Observed(good, std=1e-4) & sd.Observed(wild, std=1e-4, freedom=4)
    observation = only(student)
    assert isinstance(observation.law, Joined) and observation.law.counts == (12, 6)
    normal = sd.Observed(good, std=1e-4) & sd.Observed(wild.drop_isel(station=2), std=1e-4)
    error = [
        float(np.abs(sd.recover(MODEL, s, members=16)["coefficient"].mean("member")
                     - TRUTH["coefficient"]).mean())
        for s in (student, normal)
    ]  # fmt: skip
    assert error[0] < 1.3 * error[1]


def test_a_piece_without_cases_is_seen_in_each() -> None:
    """A constant profile beside a record; labels must agree."""
    record = xr.concat([points(4, 1) + k for k in range(3)], "sample").assign_coords(
        sample=[5, 8, 9]
    )
    fixed = sd.Observed(RAYS(TRUTH["coefficient"]), std=0.1, footprint=RAYS)
    cases = list((fixed & sd.Observed(record, std=0.5)).cases(CODEC))
    assert [int(label) for _, label, _ in cases if label is not None] == [5, 8, 9]
    for k, (_, _, observation) in enumerate(cases):
        assert observation is not None
        np.testing.assert_allclose(observation.y[:4], RAYS(TRUTH["coefficient"]) / 0.1)
        np.testing.assert_allclose(observation.y[4:], record[k] / 0.5)
    other = record.assign_coords(sample=[5, 8, 10])
    with pytest.raises(InputError, match="expected the same cases"):
        list((sd.Observed(record, std=0.5) & sd.Observed(other, std=0.5)).cases(CODEC))


def test_footprints_follow_the_model_to_another_grid_and_own_weights_do_not() -> None:
    """A line integral of a linear field is the same number on every grid."""
    fine = MODEL.at({"y": 21, "x": 21}).codec
    x = 0.1 + torch.linspace(0, 1, 21).view(1, 1, 21, 1).expand(1, 1, 21, 21)
    seen = sd.Observed(RAYS(TRUTH["coefficient"]), std=1.0, footprint=RAYS)
    ((_, _, on_fine),) = seen.cases(fine)
    assert on_fine is not None
    torch.testing.assert_close(
        on_fine.value(x), only(seen).value(x[..., ::2, ::2]), rtol=1e-5, atol=1e-5
    )
    own = sd.Observed(
        RAYS(TRUTH["coefficient"]), std=1.0, footprint=RAYS.weights(TRUTH["coefficient"])[:, ::-1]
    )
    torch.testing.assert_close(
        only(own).value(x[..., ::2, ::2]), only(seen).value(x[..., ::2, ::2])
    )
    with pytest.raises(InputError, match="on its grid, or give the shape itself"):
        list(own.cases(MODEL.at({"y": 12, "x": 12}).codec))


EDGE = xr.DataArray(
    [0.0], {"y": ("station", [0.0]), "x": ("station", [0.37])}, ("station",), "solution"
)


def test_a_value_that_contradicts_a_boundary_is_refused_by_name() -> None:
    inside = points(3, 1)
    both = xr.concat([inside, EDGE + 0.006], "station")
    said = (
        r"Observed 'solution' at y = 0, x = 0.37 is 0.006 with an error of 0.001, but every field "
        r"of this model is 0 there"
    )
    for draw in (sd.recover, sd.krige):
        with pytest.raises(InputError, match=said):
            draw(MODEL, sd.Observed(both, std=1e-3), members=2)
    with pytest.raises(InputError, match="through footprint 0"):
        along = footprint.Line({"y": 0.0, "x": 0.0}, {"y": 0.0, "x": 1.0})
        list(sd.Observed(EDGE.reset_coords(drop=True) + 1, std=0.1, footprint=along).cases(CODEC))


def test_a_value_that_agrees_with_a_boundary_does_no_harm() -> None:
    """To the digit: it carries no information."""
    inside = points(3, 1)
    with_edge = xr.concat([inside, EDGE + 0.002], "station")
    like = torch.zeros(1, 1, SIDE, SIDE, dtype=torch.float64)
    alone, both = (
        linear_posterior(PRIOR, only(sd.Observed(v, std=1e-3)), like)[0]
        for v in (inside, with_edge)
    )
    torch.testing.assert_close(alone, both, rtol=1e-9, atol=1e-12)
    # under Student's law a gross value is no contradiction; the coefficient is free everywhere
    only(sd.Observed(EDGE + 1, std=1e-3, freedom=4))
    only(sd.Observed((EDGE + 1).rename("coefficient"), std=1e-3))


def test_thresholds_on_a_boundary_are_no_contradiction() -> None:
    high = xr.concat([EDGE + 1, points(2, 1) * 0 + 1e-9], "station")
    found = sd.exceedance(MODEL, high, members=32, steps=8)
    assert 0 < found.probability <= 1


def test_nothing_seen_is_the_prior_with_a_warning() -> None:
    blind = points(3, 1) * np.nan
    prior = sd.generate(MODEL, members=3, seed=5)
    empty = sd.Observed(blind, std=0.1) & sd.Observed(blind[:0], std=0.1)
    for seen in (sd.Observed(blind, std=0.1), sd.Observed(blind[:0], std=0.1), empty):
        with pytest.warns(DataWarning, match="Nothing is observed: every value is NaN"):
            post = sd.recover(MODEL, seen, members=3, seed=5)
        xr.testing.assert_equal(post, prior)
        assert "misfit_sd" not in post.attrs and "chi_square" not in post.attrs


def test_a_case_with_nothing_among_others_is_the_prior(tmp_path: Path) -> None:
    record = xr.concat([points(3, 1) * np.nan, points(3, 1)], "sample").assign_coords(sample=[7, 9])
    seen = sd.Observed(record, std=1e-3)
    with pytest.warns(DataWarning, match=r"in case 0 \(7\), 1 in all"):
        post = sd.recover(MODEL, seen, members=3, seed=5)
    first = post["coefficient"].isel(sample=0, drop=True)
    xr.testing.assert_equal(first, sd.generate(MODEL, members=3, seed=5)["coefficient"])
    assert 0.5 < post.attrs["misfit_sd"] < 1.5 and "chi_square" in post.attrs
    with pytest.warns(DataWarning):
        stored = ensemble.run(Job(MODEL, seen, 3, seed=5), tmp_path / "post.zarr")
    xr.testing.assert_equal(stored.load(), post)


def test_a_run_is_not_resumed_with_other_footprints(tmp_path: Path) -> None:
    value = RAYS(TRUTH["coefficient"])
    other = footprint.Line(RAYS.start, {**RAYS.stop, "x": 0.8})
    job = Job(MODEL, sd.Observed(value, std=1.0, footprint=RAYS), 2)
    ensemble.run(job, tmp_path / "a.zarr")
    ensemble.run(job, tmp_path / "a.zarr", resume=True)
    for footprints in (other, RAYS.weights(TRUTH["solution"])):
        with pytest.raises(InputError, match="another job"):
            seen = sd.Observed(value, std=1.0, footprint=footprints)
            ensemble.run(Job(MODEL, seen, 2), tmp_path / "a.zarr", resume=True)


VALUE = RAYS(TRUTH["coefficient"])
WEIGHTS = RAYS.weights(TRUTH["coefficient"])
Make = Callable[[], object]
BAD: dict[str, tuple[str, Make]] = {
    "two ways": (
        "blocks and a footprint",
        lambda: sd.Observed(VALUE, 1.0, {"y": 2}, footprint=RAYS),
    ),
    "no shape": ("footprint in a list", lambda: sd.Observed(VALUE, 1.0, footprint=[1])),
    "another number": (
        r"sizes {'sensor': 3} for 4 footprints",
        lambda: sd.Observed(VALUE[:3], 1.0, footprint=RAYS),
    ),
    "another dim": (
        "for 4 footprints along 'sensor'",
        lambda: sd.Observed(VALUE.rename(sensor="ray"), 1.0, footprint=WEIGHTS),
    ),
    "weights of nothing": (
        "not finite",
        lambda: sd.Observed(VALUE, 1.0, footprint=WEIGHTS * np.nan),
    ),
    "weights without sensors": (
        "expected numbers along one dim of sensors",
        lambda: sd.Observed(VALUE, 1.0, footprint=WEIGHTS[0]),
    ),
    "weights elsewhere": (
        "expected some of the model's own 11",
        lambda: sd.Observed(VALUE, 1.0, footprint=WEIGHTS.assign_coords(y=UNIT + 0.03)),
    ),
    "integrals said to be means": (
        "is in 'K', the model in 'm'",
        lambda: sd.Observed(VALUE.assign_attrs(units="K"), 1.0, footprint=RAYS),
    ),
    "no mapping": (
        "given along 0.5", lambda: sd.Observed(VALUE, 1.0, footprint=footprint.Line(0.5, 0.6))  # type: ignore[arg-type]
    ),
    "a box of no mapping": (
        "given along 0.5", lambda: sd.Observed(VALUE, 1.0, footprint=footprint.Box(0.5, 0.6))  # type: ignore[arg-type]
    ),
    "a stop without a dim": (
        "given along",
        lambda: sd.Observed(VALUE, 1.0, footprint=footprint.Line(RAYS.start, {"y": 1})),
    ),
    "no evidence": ("& a Dataset", lambda: sd.Observed(VALUE, 1.0) & TRUTH),
}  # fmt: skip


@pytest.mark.parametrize(("said", "make"), BAD.values(), ids=BAD.keys())
def test_evidence_that_makes_no_sense_is_refused(said: str, make: Make) -> None:
    grid = Grid(("y", "x"), SQUARE.coords, {d: {"units": "m"} for d in "yx"})
    codec = Derived(
        Normaliser(grid, ("coefficient",), {}, INNER.mean, INNER.std), "solution", {}, Poisson()
    )
    with pytest.raises(InputError, match=said) as error:
        seen = make()
        assert isinstance(seen, sd.Observed)
        list(seen.cases(codec))
    assert "\n" not in str(error.value)


def test_a_coordinate_that_two_pieces_dispute_is_left_out() -> None:
    first, second = (points(2, 0).assign_coords(run=r, who="a") for r in (1, 2))
    joined = sd.Observed(first, 1.0) & sd.Observed(second, 1.0)
    assert {k: v.values.item() for k, v in joined.scalars.items()} == {"who": "a"}


def test_weights_on_land_are_refused_and_beside_it_are_not() -> None:
    valid = np.ones((1, SIDE, SIDE), bool)
    valid[0, 4:6, 4:6] = False
    coast = Normaliser(SQUARE, ("coefficient",), {}, INNER.mean, INNER.std, valid)
    over = footprint.Line({"y": 0.0, "x": [0.1, 0.4]}, {"y": 1.0, "x": [0.1, 0.4]})
    value = over(TRUTH["coefficient"])
    with pytest.raises(InputError, match="value 1 of 'coefficient' lies on masked points"):
        list(sd.Observed(value, 1.0, footprint=over).cases(coast))
    kept = sd.Observed(value.where([True, False]), 1.0, footprint=over)
    ((_, _, observation),) = kept.cases(coast)
    assert observation is not None
    x: Tensor = torch.zeros(1, 1, SIDE, SIDE)
    torch.testing.assert_close(observation.value(x), torch.full((1, 1), 0.5))
