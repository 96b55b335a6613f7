"""Ensembles: the exact posterior where there is one, and each member the same however drawn."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from scipy import stats
from torch import Tensor

import sciddm as sd
from sciddm import ensemble, recipe
from sciddm.data import store
from sciddm.denoise import Context, Denoiser, Gaussian, Preconditioned
from sciddm.ensemble import BLOCK, Job
from sciddm.errors import InputError, RunError
from sciddm.guide import DPS, MMPS, Conditioned
from sciddm.observe import Observation
from sciddm.process import Process
from sciddm.solve import Matched, Restart

ROOT = Path(__file__).parents[1]
SIDE = 12
UNIT = np.linspace(0, 1, SIDE)


def shelf(kind: str, name: str) -> Any:  # noqa: ANN401
    return recipe.load(ROOT / kind / f"{name}.py")


@pytest.fixture(scope="module")
def network() -> sd.Model:
    """The Poisson recipe, with a small network that says something."""
    ds = shelf("datasets", "poisson").fields(40, SIDE)
    model: sd.Model = shelf("models", "poisson").build(ds, width=4, modes=3, blocks=1, steps=8)
    torch.manual_seed(1)
    for weight in model.sampler.denoiser.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    return model


@pytest.fixture(scope="module")
def exact(network: sd.Model) -> sd.Model:
    """The same with its Gaussian base as the denoiser: every posterior is known."""
    assert network.gaussian is not None
    return replace(network, sampler=replace(network.sampler, denoiser=network.gaussian, steps=40))


@pytest.fixture(scope="module")
def truth(exact: sd.Model) -> xr.Dataset:
    """Three fields from the prior itself, so that the model is right."""
    drawn = sd.generate(exact, members=3, seed=77, steps=60)
    return drawn.rename(member="sample").assign_coords(sample=[4, 9, 23])


# ---------------------------------------------------------------------------- the exact posterior

See = Callable[[xr.Dataset], xr.Dataset]


def gridded(ds: xr.Dataset) -> xr.Dataset:
    """Every seventh grid point of the solution, the others not seen."""
    number = xr.DataArray(np.arange(SIDE**2).reshape(SIDE, SIDE) % 7, dims=("y", "x"))
    return ds[["solution"]].where(number == 3)


def stations(ds: xr.Dataset) -> xr.Dataset:
    """Nine places between the grid points, and one twice."""
    rng = np.random.default_rng(5)
    at = {d: xr.DataArray(rng.uniform(0.05, 0.95, 9)[[*range(9), 4]], dims="station") for d in "yx"}
    return ds[["solution"]].interp(at)


def window(ds: xr.Dataset) -> xr.Dataset:
    """A finer patch of the coefficient."""
    return ds[["coefficient"]].interp(y=[0.31, 0.33, 0.5], x=[0.2, 0.61])


def both(ds: xr.Dataset) -> xr.Dataset:
    seen = gridded(ds).assign(coefficient=ds["coefficient"].where(ds["x"] + ds["y"] > 1.8))
    return seen[["solution", "coefficient"]]


def blocks(ds: xr.Dataset) -> xr.Dataset:
    return ds[["coefficient"]].coarsen(y=3, x=4).mean()  # type: ignore[no-any-return]


SEEN: dict[str, tuple[See, dict[str, float], dict[str, int]]] = {
    "gaps": (gridded, {"solution": 2e-4}, {}),
    "stations": (stations, {"solution": 2e-4}, {}),
    "a window": (window, {"coefficient": 0.05}, {}),
    "both variables": (both, {"solution": 2e-4, "coefficient": 0.05}, {}),
    "block means": (blocks, {"coefficient": 0.03}, {"y": 3, "x": 4}),
}
seen_in_each_way = pytest.mark.parametrize(
    ("see", "std", "coarsen"), SEEN.values(), ids=SEEN.keys()
)


def observed(
    see: See, truth: xr.Dataset, std: dict[str, float], coarsen: dict[str, int], seed: int = 0
) -> sd.Observed:
    """What ``see`` sees of a field, with errors drawn from their law."""
    rng = np.random.default_rng(seed)
    seen = see(truth)
    noisy = {n: seen[n] + s * rng.standard_normal(seen[n].shape) for n, s in std.items()}
    return sd.Observed(seen.assign(noisy), std=std, coarsen=coarsen)


def law(
    model: sd.Model, see: See, seen: xr.Dataset, std: dict[str, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of the posterior, dense: unit fields through xarray, and numpy's solve.

    Rasmussen, Williams. Gaussian processes for machine learning. 2006, eq. 2.23-2.24.
    """
    assert model.gaussian is not None
    size = SIDE**2
    units = torch.cat([torch.eye(size), torch.zeros(1, size)]).view(-1, 1, SIDE, SIDE)
    rows = xr.DataArray(np.arange(size + 1), dims="member", name="member")
    values = see(model.codec.decode(units, rows).astype("f8"))
    flat = np.concatenate([values[n].values.reshape(size + 1, -1) for n in std], axis=1)
    y = np.concatenate([seen[n].values.ravel() for n in std])
    error = np.concatenate([np.full(seen[n].size, s) for n, s in std.items()])
    known = np.isfinite(y)
    a = (flat[:-1] - flat[-1])[:, known].T
    prior = model.gaussian.prior(units[:-1].double()).flatten(1).numpy()
    gram = a @ prior @ a.T + np.diag(error[known] ** 2)
    gain = np.linalg.solve(gram, a @ prior).T
    return gain @ (y - flat[-1])[known], prior - gain @ a @ prior


def whitened(model: sd.Model, post: xr.Dataset, mean: np.ndarray, cov: np.ndarray) -> np.ndarray:
    """Members in units of the exact posterior, along its directions of any spread: (M, d)."""
    inner = model.codec.inner  # type: ignore[attr-defined]
    x = (post["coefficient"].values.astype("f8") - inner.mean[0]) / inner.std[0]
    values, vectors = np.linalg.eigh(cov)
    kept = values > 1e-4 * values[-1]  # float32 fields know no less
    assert kept.sum() > 30
    return (x.reshape(len(x), -1) - mean) @ vectors[:, kept] / np.sqrt(values[kept])


@pytest.mark.parametrize("std", [1e-7, 1e-5, 1e-3])
def test_members_lie_as_far_from_small_errors_as_the_exact_posterior(
    exact: sd.Model, truth: xr.Dataset, std: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the errors are far below what the lowest noise level leaves undecided."""
    seen = sd.Observed(stations(truth.isel(sample=0, drop=True)), std=std)
    misfits = [
        verb(exact, seen, members=256, seed=3).attrs["misfit_sd"] for verb in (sd.recover, sd.krige)
    ]
    assert misfits[0] == pytest.approx(misfits[1], rel=0.08) and 0.7 < misfits[1] < 1.2
    monkeypatch.setattr(Conditioned, "fluctuation", lambda self, t, like, rng: 0 * like)
    closer = sd.recover(exact, seen, members=64, seed=3).attrs["misfit_sd"]
    assert std > 1e-4 or closer < 0.75


@seen_in_each_way
def test_kriging_draws_from_the_exact_posterior(
    see: See, std: dict[str, float], coarsen: dict[str, int], exact: sd.Model, truth: xr.Dataset
) -> None:
    """In units of the exact law every direction of every member is N(0, 1): mean and variance."""
    seen = observed(see, truth.isel(sample=0, drop=True), std, coarsen)
    post = sd.krige(exact, seen, members=256)
    z = whitened(exact, post, *law(exact, see, seen.values, std))
    m, d = z.shape
    assert 1e-4 < stats.chi2.cdf((m * z.mean(0) ** 2).sum(), d) < 1 - 1e-4
    assert 1e-4 < stats.chi2.cdf(((z - z.mean(0)) ** 2).sum(), (m - 1) * d) < 1 - 1e-4
    # members are apart: no direction is drawn twice
    assert abs(np.corrcoef(z)[np.triu_indices(m, 1)]).max() < 1 - 1e-3
    assert post.attrs["network_evaluations"] == 0 and post.attrs["guidance"] == "exact"


@seen_in_each_way
def test_recovery_with_the_exact_denoiser_is_near_the_exact_posterior(
    see: See, std: dict[str, float], coarsen: dict[str, int], exact: sd.Model, truth: xr.Dataset
) -> None:
    """What the solver's forty steps leave: some per cent of the spread."""
    seen = observed(see, truth.isel(sample=1, drop=True), std, coarsen)
    post = sd.recover(exact, seen, members=256)
    z = whitened(exact, post, *law(exact, see, seen.values, std))
    m, d = z.shape
    noise = math.sqrt(2 / ((m - 1) * d))
    assert abs(z.var(0, ddof=1).mean() - 1) < 0.06 + 5 * noise
    assert (m * z.mean(0) ** 2).mean() < 1.1 + 5 * math.sqrt(2 / d)
    assert 0.8 < post.attrs["misfit_sd"] < 1.2


def test_the_wrong_error_is_noticed_by_these_tests(exact: sd.Model, truth: xr.Dataset) -> None:
    """The power of the two above: errors of twice the size, or a sensor left out, are seen."""
    see, std, coarsen = SEEN["both variables"]
    seen = observed(see, truth.isel(sample=0, drop=True), std, coarsen)
    mean, cov = law(exact, see, seen.values, std)
    for wrong in (
        sd.Observed(seen.values, std={n: 1.5 * s for n, s in std.items()}),
        sd.Observed(seen.values[["solution"]], std=std),
    ):
        z = whitened(exact, sd.krige(exact, wrong, members=256), mean, cov)
        m, d = z.shape
        assert stats.chi2.sf(((z - z.mean(0)) ** 2).sum(), (m - 1) * d) < 1e-6


def test_each_case_has_its_own_posterior(exact: sd.Model, truth: xr.Dataset) -> None:
    """Sensors that come and go from case to case."""
    std = {"solution": 2e-4}
    number = xr.DataArray(np.arange(SIDE**2).reshape(SIDE, SIDE), dims=("y", "x"))
    every = xr.DataArray([7, 7, 5], dims="sample", coords={"sample": truth["sample"]})
    seen = observed(lambda ds: ds[["solution"]].where(number % every == 3), truth, std, {})
    post = sd.krige(exact, seen, members=128)
    assert post["solution"].dims == ("member", "sample", "y", "x")
    np.testing.assert_array_equal(post["sample"], truth["sample"])
    for k in range(3):
        keep = int(every[k])
        mean, cov = law(
            exact,
            lambda ds, keep=keep: ds[["solution"]].where(number % keep == 3),
            seen.values.isel(sample=k),
            std,
        )
        z = whitened(exact, post.isel(sample=k), mean, cov)
        m, d = z.shape
        assert 1e-4 < stats.chi2.cdf((m * z.mean(0) ** 2).sum(), d) < 1 - 1e-4


# ---------------------------------------------------------------------------- the same member

Draw = Callable[..., xr.Dataset]


def fields(ds: xr.Dataset) -> dict[str, bytes]:
    return {str(n): v.values.tobytes() for n, v in ds.data_vars.items()}


def points(truth: xr.Dataset, cases: int | None = None) -> sd.Observed:
    """Points of one field, or of several with patterns that change."""
    see, std, _ = SEEN["gaps"]
    chosen = truth.isel(sample=0, drop=True) if cases is None else truth.isel(sample=slice(cases))
    seen = see(chosen)
    if cases is not None:
        seen = seen.where((seen["sample"] != 9) | (seen["y"] > 0.4))
    return sd.Observed(seen, std=std)


DRAWS: dict[str, Callable[[sd.Model, xr.Dataset, int], xr.Dataset]] = {
    "generate": lambda m, t, n: sd.generate(m, members=n, seed=3),
    "recover": lambda m, t, n: sd.recover(m, points(t), members=n, seed=3),
    "recover cases": lambda m, t, n: sd.recover(m, points(t, 3), members=n, seed=3),
    "krige": lambda m, t, n: sd.krige(m, points(t), members=n, seed=3),
    "krige cases": lambda m, t, n: sd.krige(m, points(t, 3), members=n, seed=3),
    "mmps": lambda m, t, n: sd.recover(m, points(t), members=n, seed=3, rule=MMPS, steps=3),
    "dps": lambda m, t, n: sd.recover(m, points(t), members=n, seed=3, rule=DPS, steps=3),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS.keys())
def test_a_member_is_the_same_in_an_ensemble_of_any_size(
    draw: Callable[[sd.Model, xr.Dataset, int], xr.Dataset], network: sd.Model, truth: xr.Dataset
) -> None:
    five, some, many = (draw(network, truth, n) for n in (5, 17, 64))
    for larger in (some, many):
        assert fields(larger.isel(member=slice(5))) == fields(five)
    assert fields(many.isel(member=slice(17))) == fields(some)
    np.testing.assert_array_equal(many["member"], np.arange(64))
    assert len({m.tobytes() for m in many["coefficient"].values}) == 64


def test_the_size_of_a_batch_would_have_changed_a_member(network: sd.Model) -> None:
    """Why the blocks have one size: the test above could fail."""
    x = torch.randn(64, 1, SIDE, SIDE, generator=torch.manual_seed(0))
    t = torch.tensor(0.4)
    denoiser = network.sampler.denoiser
    alone = [denoiser(x[:n], t, Context())[0] for n in (1, 5, 17, 64)]
    if all(torch.equal(alone[0], a) for a in alone[1:]):
        pytest.skip("this machine's products do not depend on the batch")


@pytest.mark.parametrize("verb", [sd.recover, sd.krige])
def test_the_first_cases_are_the_same_among_more(
    verb: Draw, network: sd.Model, truth: xr.Dataset
) -> None:
    one, two, three = (verb(network, points(truth, n), members=5) for n in (1, 2, 3))
    assert fields(three.isel(sample=[0])) == fields(one)
    assert fields(three.isel(sample=[0, 1])) == fields(two)
    alone = verb(network, points(truth), members=5)
    assert fields(alone) == fields(three.isel(sample=0))
    # cases have noise of their own, even where they see the same
    twice = sd.Observed(points(truth).values.expand_dims(sample=[0, 1]), std=2e-4)
    a, b = (verb(network, twice, members=5)["coefficient"].isel(sample=k) for k in (0, 1))
    assert float(np.abs(a - b).max()) > 0.01


@pytest.mark.parametrize("cases", [None, 3])
def test_in_memory_or_streamed_is_the_same(
    cases: int | None, network: sd.Model, truth: xr.Dataset, tmp_path: Path
) -> None:
    seen = points(truth, cases)
    counts: list[tuple[int, int]] = []
    job = Job(network, seen, 20, seed=3)
    streamed = ensemble.run(job, tmp_path / "a.zarr", progress=lambda *n: counts.append(n))
    held = sd.recover(network, seen, members=20, seed=3)
    assert fields(streamed) == fields(held)
    xr.testing.assert_equal(streamed.coords.to_dataset(), held.coords.to_dataset())
    for name, v in held.data_vars.items():
        assert streamed[name].attrs == v.attrs and streamed[name].dims == v.dims
    assert {k: v for k, v in streamed.attrs.items() if k != "job"} == held.attrs
    total = 2 * (cases or 1)
    assert counts == [(k + 1, total) for k in range(total)]
    assert store.verify(tmp_path / "a.zarr") == []


def test_the_prior_is_streamed_as_well(network: sd.Model, tmp_path: Path) -> None:
    streamed = ensemble.run(Job(network, None, 18, seed=3), tmp_path / "a.zarr")
    assert fields(streamed) == fields(sd.generate(network, members=18, seed=3))
    assert streamed.attrs["guidance"] == "none"


# ---------------------------------------------------------------------------- kills


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def dying(target: object, name: str, nth: int, *, after: bool = False) -> None:
    """Make the ``nth`` call of a function the last thing that this process does."""
    function, count = getattr(target, name), [0]

    def last(*args: Any, **options: Any) -> Any:  # noqa: ANN401
        count[0] += 1
        if count[0] == nth and not after:
            die()
        result = function(*args, **options)
        if count[0] == nth:
            die()
        return result

    setattr(target, name, last)


KILLS: dict[str, tuple[int, Callable[[], None]]] = {
    # finished blocks, and the moment
    "before the first": (0, lambda: dying(ensemble.Guided, "__call__", 1)),
    "in the third draw": (2, lambda: dying(ensemble.Guided, "__call__", 3)),
    # each block has a note of its misfits, then its record; the plan comes first
    "noted, not written": (2, lambda: dying(store.disk, "write_json", 1 + 5, after=True)),
    "written, not recorded": (2, lambda: dying(store.disk, "write_json", 1 + 6)),
    "recorded": (3, lambda: dying(store, "put", 3, after=True)),
    "before the last record": (5, lambda: dying(store.disk, "write_json", 1 + 12)),
    "all drawn, no manifest": (6, lambda: dying(store.disk, "write_json", 1 + 13)),
    "at the last rename": (6, lambda: dying(store.disk, "swap", 1)),
}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


@pytest.fixture(scope="module")
def whole(
    network: sd.Model, truth: xr.Dataset, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """Every byte of the run that nobody interrupts: three cases of two blocks."""
    path = tmp_path_factory.mktemp("whole") / "post.zarr"
    ensemble.run(Job(network, points(truth, 3), 20, seed=3), path)
    return contents(path)


@pytest.mark.parametrize(("finished", "arrange"), KILLS.values(), ids=KILLS.keys())
def test_a_killed_run_resumed_has_the_same_bytes(
    finished: int,
    arrange: Callable[[], None],
    network: sd.Model,
    truth: xr.Dataset,
    whole: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "post.zarr"
    job = Job(network, points(truth, 3), 20, seed=3)

    def body() -> None:
        arrange()
        ensemble.run(job, path)

    process = multiprocessing.get_context("fork").Process(target=body)
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    assert not path.exists() and len(store.done(path)) == finished
    if finished:
        with pytest.raises(InputError, match="begun by an earlier run; say resume"):
            ensemble.run(job, path)
    drawn, call = [0], ensemble.Guided.__call__

    def counted(self: ensemble.Guided, *args: Any) -> Tensor:  # noqa: ANN401
        drawn[0] += 1
        return call(self, *args)

    monkeypatch.setattr(ensemble.Guided, "__call__", counted)
    post = ensemble.run(job, path, resume=True)
    assert drawn[0] == 6 - finished
    assert contents(path) == whole and store.verify(path) == []
    assert 0.5 < post.attrs["misfit_sd"] < 50
    assert dict(post.sizes) == {"member": 20, "sample": 3, "y": SIDE, "x": SIDE}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["post.zarr"]


CHANGES: dict[str, Callable[[Job], Job]] = {
    "another seed": lambda j: replace(j, seed=4),
    "more members": lambda j: replace(j, members=21),
    "more steps": lambda j: replace(j, steps=9),
    "another rule": lambda j: replace(j, rule=DPS),
    "other values": lambda j: replace(j, seen=replace(j.seen, values=j.seen.values + 1e-6)),
    "another error": lambda j: replace(j, seen=replace(j.seen, std=3e-4)),
    "other sensors": lambda j: replace(
        j, seen=replace(j.seen, values=j.seen.values.assign_coords(y=UNIT + 1e-9))
    ),
    "other weights": lambda j: replace(j, model=nudged(j.model)),
    "no observation": lambda j: replace(j, seen=None),
}  # type: ignore[arg-type]


def nudged(model: sd.Model) -> sd.Model:
    """One weight by one unit in its last place."""
    sampler, moments = deepcopy((model.sampler, model.moments))
    weight = next(sampler.denoiser.parameters()).data.view(-1)
    weight[0] = torch.nextafter(weight[0], torch.tensor(9.0))
    return replace(model, sampler=sampler, moments=moments)


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_a_run_is_not_resumed_with_another_job(
    change: Callable[[Job], Job],
    finished: bool,
    network: sd.Model,
    truth: xr.Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Members of two jobs in one store would be an ensemble of nothing."""
    path = tmp_path / "post.zarr"
    job = Job(network, points(truth), 20, seed=3, steps=3)
    if finished:
        ensemble.run(job, path)
    else:
        with monkeypatch.context() as patch:
            patch.setattr(store, "finalize", lambda path: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                ensemble.run(job, path)
    before = contents(tmp_path)
    with pytest.raises(InputError, match="another"):
        ensemble.run(change(job), path, resume=True)
    assert contents(tmp_path) == before
    monkeypatch.setattr(ensemble.Guided, "__call__", lambda *_: 1 / 0)  # nothing is drawn again
    assert fields(ensemble.run(job, path, resume=True)).keys() == {"coefficient", "solution"}


def test_what_a_kill_after_the_last_rename_leaves_is_cleared(
    network: sd.Model, truth: xr.Dataset, tmp_path: Path
) -> None:
    path, job = tmp_path / "post.zarr", Job(network, points(truth), 2, steps=2)

    def body() -> None:
        dying(store.disk, "swap", 1, after=True)
        ensemble.run(job, path)

    process = multiprocessing.get_context("fork").Process(target=body)
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    assert sorted(p.name for p in tmp_path.iterdir()) == ["post.zarr", "post.zarr.partial"]
    ensemble.run(job, path, resume=True)
    assert [p.name for p in tmp_path.iterdir()] == ["post.zarr"]
    assert store.verify(path) == []


def test_what_stands_there_is_kept_unless_it_is_to_be_replaced(
    network: sd.Model, tmp_path: Path
) -> None:
    path = tmp_path / "post.zarr"
    job = Job(network, None, 2, steps=2)
    ensemble.run(job, path)
    before = contents(path)
    with pytest.raises(InputError, match="exists"):
        ensemble.run(job, path)
    assert contents(path) == before
    ensemble.run(replace(job, seed=1), path, overwrite=True)
    assert contents(path) != before
    (tmp_path / "mine").mkdir()
    with pytest.raises(InputError, match="not replaced"):
        ensemble.run(job, tmp_path / "mine", overwrite=True)


# ---------------------------------------------------------------------------- what it says


class Counting(Denoiser):
    """Counts its calls, and their rows; breaks where it is told to."""

    def __init__(self, inner: Denoiser, process: Process, bad: int = -1) -> None:
        torch.nn.Module.__init__(self)
        self.inner, self.process, self.bad = inner, process, bad
        self.rows: list[int] = []

    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        self.rows.append(len(x_t))
        x_hat: Tensor = self.inner(x_t, t, context)
        if 0 <= self.bad < len(x_t):
            x_hat = x_hat.clone()
            x_hat[self.bad, 0, 2, 2] = torch.nan
        return x_hat


def counting(model: sd.Model, bad: int = -1) -> tuple[sd.Model, Counting]:
    inner = model.sampler.denoiser
    counter = Counting(inner, inner.process, bad)
    return replace(model, sampler=replace(model.sampler, denoiser=counter)), counter


@pytest.mark.parametrize("members", [1, BLOCK, BLOCK + 1])
@pytest.mark.parametrize("steps", [None, 2, 11])
def test_network_evaluations_are_counted_and_blocks_have_one_size(
    members: int, steps: int | None, network: sd.Model, truth: xr.Dataset
) -> None:
    model, counter = counting(network)
    post = sd.recover(model, points(truth), members=members, steps=steps)
    each = post.attrs["network_evaluations"]
    assert counter.rows == [BLOCK] * (each * math.ceil(members / BLOCK))
    assert post.attrs["steps"] == (steps or 8) and post.attrs["solver"].startswith("Multistep")
    assert post.sizes["member"] == members


def test_the_misfit_is_that_of_the_fields_that_are_returned(
    network: sd.Model, truth: xr.Dataset
) -> None:
    seen = points(truth, 3)
    post = sd.recover(network, seen, members=20)
    gap = (post["solution"] - seen.values["solution"]) / 2e-4
    each = np.sqrt((gap**2).mean(("y", "x")))  # of a member of a case
    assert post.attrs["misfit_sd"] == pytest.approx(float(np.sqrt((each**2).mean())), rel=1e-3)


def test_the_guidance_is_named(network: sd.Model, truth: xr.Dataset) -> None:
    seen = points(truth)
    jacobian = replace(network, moments=None)
    assert sd.recover(network, seen, members=1).attrs["guidance"].startswith("moment matching")
    assert sd.recover(jacobian, seen, members=1, steps=2).attrs["guidance"] == "MMPS"
    assert sd.recover(network, seen, members=1, steps=2, rule=DPS).attrs["guidance"] == "DPS"
    assert sd.generate(network, members=1).attrs["guidance"] == "none"


def test_cases_with_the_same_sensors_share_their_gains(
    network: sd.Model, truth: xr.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And those with others do not."""
    built, begin, given = [0], Conditioned.__init__, Conditioned.given

    def counted(self: Conditioned, *args: Any, **named: Any) -> None:  # noqa: ANN401
        built[0] += 1
        begin(self, *args, **named)

    def shares(self: Conditioned, observation: Observation) -> Conditioned:
        built[0] -= 1
        return given(self, observation)

    monkeypatch.setattr(Conditioned, "__init__", counted)
    monkeypatch.setattr(Conditioned, "given", shares)
    fixed = sd.Observed(SEEN["gaps"][0](truth), std=2e-4)
    shared = sd.recover(network, fixed, members=20, steps=3)
    assert built == [1]
    sd.recover(network, points(truth, 3), members=20, steps=3)
    assert built == [1 + 3]
    # shared or not, a member is the same: the second case of two, with gains of its own
    patterns = fixed.values.where((truth["sample"] != 4) | (fixed.values["x"] > 0.1))
    other = sd.recover(network, sd.Observed(patterns, std=2e-4), members=20, steps=3)
    assert fields(other.isel(sample=[1, 2])) == fields(shared.isel(sample=[1, 2]))


def test_labels_of_cases_come_back_with_their_calendar(network: sd.Model, tmp_path: Path) -> None:
    time = xr.date_range("2001-02-27", periods=3, calendar="360_day", use_cftime=True)
    values = xr.DataArray(
        1e-3 * np.random.default_rng(0).standard_normal((3, SIDE, SIDE)),
        dims=("time", "y", "x"),
        coords={"time": ("time", time, {"long_name": "valid time"}), "y": UNIT, "x": UNIT},
        name="solution",
    )
    seen = sd.Observed(values.isel(y=slice(1, 3)), std=1e-3)
    held = sd.recover(network, seen, members=2, steps=3)
    streamed = ensemble.run(Job(network, seen, 2, steps=3), tmp_path / "a.zarr")
    written = store.open(store.write(held, tmp_path / "b.zarr"))
    for post in (held, streamed, written):
        assert post["solution"].dims == ("member", "time", "y", "x")
        assert list(post["time"].values) == list(time) and post["time"].dt.calendar == "360_day"
        assert post["time"].attrs["long_name"] == "valid time"
        np.testing.assert_array_equal(post["y"], UNIT)
        assert post["y"].attrs == dict(network.codec.grid.attrs["y"])
        assert post["solution"].attrs["units"] == "1" and post["solution"].dtype == np.float32


@pytest.mark.parametrize("bad", [0, 3])
def test_a_member_that_diverges_stops_the_run_by_name(
    bad: int, network: sd.Model, truth: xr.Dataset, tmp_path: Path
) -> None:
    model, _ = counting(network, bad)
    job = Job(model, points(truth, 2), 20)
    for act in (lambda: ensemble.draw(job), lambda: ensemble.run(job, tmp_path / "a.zarr")):
        with pytest.raises(RunError, match=f"Member {bad} of case 0 diverged"):
            act()
    assert not (tmp_path / "a.zarr").exists()


def test_a_row_that_is_only_there_to_fill_a_block_may_diverge(
    network: sd.Model, truth: xr.Dataset
) -> None:
    model, _ = counting(network, bad=5)
    post = sd.recover(model, points(truth), members=5)
    assert bool(np.isfinite(post["coefficient"]).all())


NUMBERS: dict[str, tuple[str, dict[str, Any]]] = {
    "no member": ("0 members", {"members": 0}),
    "fewer": ("-3 members", {"members": -3}),
    "a negative seed": ("seed -1", {"members": 1, "seed": -1}),
    "one step": ("1 steps; expected at least 2", {"members": 1, "steps": 1}),
    "no step": ("0 steps", {"members": 1, "steps": 0}),
    "half a step": ("2.5 for members, seed or steps", {"members": 1, "steps": 2.5}),
    "half a member": ("2.5 for members", {"members": 2.5}),
    "values alone": ("a DataArray; expected", {"members": 1, "seen": xr.DataArray(1.0)}),
    "an unknown dim": ("no dimension 'z'. There are: y, x", {"members": 1, "sizes": {"z": 4}}),
    "one point": ("1 points along 'x'", {"members": 1, "sizes": {"x": 1}}),
}


@pytest.mark.parametrize(("said", "numbers"), NUMBERS.values(), ids=NUMBERS.keys())
def test_numbers_that_cannot_be_are_refused_before_anything_is_written(
    said: str, numbers: dict[str, Any], network: sd.Model, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said):
        ensemble.run(Job(network, **{"seen": None} | numbers), tmp_path / "a.zarr")
    assert list(tmp_path.iterdir()) == []


UNSERVED: dict[str, tuple[str, dict[str, Any]]] = {
    "levels outside the grid": ("inside the grid", {"solver": Restart(high=1e6)}),
    "no fluctuation": ("Got DPS", {"solver": Matched(), "rule": DPS}),
    "a solver by name": ("Got solver 'euler'", {"solver": "euler"}),
    "a rule by name": ("Got rule 'mmps'", {"rule": "mmps"}),
}


@pytest.mark.parametrize(("said", "numbers"), UNSERVED.values(), ids=UNSERVED.keys())
def test_a_solver_or_rule_that_cannot_serve_leaves_nothing_behind(
    said: str, numbers: dict[str, Any], network: sd.Model, truth: xr.Dataset, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said):
        ensemble.run(Job(network, points(truth), 2, **numbers), tmp_path / "a.zarr")
    assert list(tmp_path.iterdir()) == []


def test_the_same_law_on_a_finer_grid(exact: sd.Model, truth: xr.Dataset) -> None:
    """A prior in continuous form: the spread behind the same sensors does not know the grid."""
    seen = observed(stations, truth.isel(sample=0, drop=True), {"solution": 2e-4}, {})
    here = sd.krige(exact, seen, members=200)["coefficient"]
    there = sd.krige(exact, seen, members=200, sizes={"y": 2 * SIDE - 1, "x": 2 * SIDE - 1})
    assert there["coefficient"].shape == (200, 2 * SIDE - 1, 2 * SIDE - 1)
    inside = {"y": slice(0.2, 0.8), "x": slice(0.2, 0.8)}
    fine, coarse = (p.sel(inside).std("member").mean() for p in (there["coefficient"], here))
    assert 0.85 < float(fine / coarse) < 1.15
    both = there["coefficient"].interp(y=UNIT, x=UNIT).mean("member"), here.mean("member")
    assert float(xr.corr(*both)) > 0.95


def test_the_network_is_asked_and_the_base_alone_would_answer_otherwise(
    network: sd.Model, exact: sd.Model, truth: xr.Dataset
) -> None:
    """The fixture of this file is no Gaussian in disguise."""
    assert isinstance(network.sampler.denoiser, Preconditioned)
    assert isinstance(exact.sampler.denoiser, Gaussian)
    a, b = (sd.recover(m, points(truth), members=1)["coefficient"] for m in (network, exact))
    assert float(np.abs(a - b).max()) > 0.01
