"""Data sets to forecast: a model whose equation is checked, public files that are themselves."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from sciddm import recipe, score
from sciddm.data import public, split, store
from sciddm.errors import InputError

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
CLIMATE, ENSEMBLES = str(DATA / "climate"), str(DATA / "ensembles")
real = pytest.mark.skipif(not DATA.is_dir(), reason="the shared data are not here")
lorenz, trefht, ostia, pacific = (
    recipe.load(ROOT / "datasets" / f"{name}.py")
    for name in ("lorenz96", "trefht", "ostia_sst", "sst_pacific")
)


# Lorenz-96.


def test_the_tendency_is_the_equation_cell_by_cell() -> None:
    rng = np.random.default_rng(0)
    x, n = rng.normal(size=(2, 7)), 7
    expected = [[(r[(i + 1) % n] - r[i - 2]) * r[i - 1] - r[i] + 8.0 for i in range(n)] for r in x]
    np.testing.assert_allclose(lorenz.tendency(x, 8.0), expected, rtol=1e-12)
    # The nonlinear part moves energy and makes none; the state F everywhere stays.
    energy = (x * (lorenz.tendency(x, 0.0) + x)).sum(-1)
    np.testing.assert_allclose(energy, 0.0, atol=1e-12)
    np.testing.assert_allclose(lorenz.tendency(np.full(9, 8.0), 8.0), 0.0)


def test_the_steps_are_of_fourth_order() -> None:
    x = 8.0 + np.random.default_rng(1).normal(size=(50, 40))

    def after(steps: int) -> np.ndarray:
        state = x
        for _ in range(steps):
            state = lorenz.advanced(state, 8.0, 0.4 / steps)
        return state

    best = after(256)
    errors = [np.sqrt(((after(n) - best) ** 2).mean()) for n in (8, 16, 32)]
    rates = np.log2(np.array(errors[:-1]) / errors[1:])
    assert (rates > 3.7).all() and (rates < 4.6).all()


def test_records_follow_one_another_and_samples_stand_alone() -> None:
    ds = lorenz.fields(5, 36)
    films = ds.state.values.astype(np.float64)
    state = films[:, 3]
    for _ in range(2):
        state = lorenz.advanced(state, 8.0, lorenz.STEP)
    np.testing.assert_allclose(films[:, 4], state, atol=1e-4)
    np.testing.assert_array_equal(lorenz.fields(2, 36, start=3).state, ds.state[3:])
    assert not np.allclose(lorenz.fields(5, 36, seed=1).state, ds.state)
    assert ds.x.attrs["period"] == 36.0 and ds.time.values[-1] == 2.0
    assert float(np.corrcoef(films[0, 0], films[1, 0])[0, 1]) < 0.7


def test_the_climate_is_the_published_one() -> None:
    """Mean 2.3 and s.d. 3.6 at F = 8 (Lorenz and Emanuel 1998), the same in every cell."""
    x = lorenz.fields(64, 40).state
    assert abs(float(x.mean()) - 2.35) < 0.1 and abs(float(x.std()) - 3.64) < 0.1


def test_noise_adds_the_variance_it_says() -> None:
    """From one state, two records with other noise are apart by sqrt(2) s sqrt(t), at first."""
    start = lorenz.fields(1, 40).state.values[0, 0].astype(np.float64)
    rng = np.random.default_rng(2)
    a = np.repeat(start[None], 400, 0)
    for _ in range(2):
        a = lorenz.advanced(a, 8.0, 0.025) + 0.5 * np.sqrt(0.025) * rng.standard_normal(a.shape)
    assert abs(a.std(0).mean() / (0.5 * np.sqrt(0.05)) - 1) < 0.1
    noisy, calm = lorenz.fields(3, 40, noise=0.5), lorenz.fields(3, 40)
    residual = noisy.state.values[:, 1:].astype(float)
    state = noisy.state.values[:, :-1].astype(float)
    for _ in range(2):
        state = lorenz.advanced(state, 8.0, 0.025)
    found = (residual - state).std()
    assert abs(found / (0.5 * np.sqrt(0.05)) - 1) < 0.1
    assert not np.allclose(noisy.state, calm.state)


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ({"grid": 3}, "circle of 3 cells"),
        ({"noise": -1.0}, "noise=-1"),
        ({"forcing": np.inf}, "inf"),
    ],
)
def test_lorenz_refuses(numbers: dict[str, float], said: str) -> None:
    with pytest.raises(InputError, match=said):
        lorenz.fields(**{"samples": 1, "grid": 40, **numbers})


# Public files.


@real
@pytest.mark.parametrize(
    ("module", "folder", "file"),
    [
        (trefht, CLIMATE, "TREFHT.B06.59.atm.1890-1999ANN.nc"),
        (ostia, CLIMATE, "ostia_monthly.nc"),
        (pacific, ENSEMBLES, "FOSI.SST.eastern_pacific.nc"),
    ],
)
def test_an_altered_or_missing_copy_is_refused_and_nothing_written(
    tmp_path: Path, module: object, folder: str, file: str
) -> None:
    (tmp_path / "in").mkdir()
    for name in ("57", "59", "60"):
        whole = Path(folder) / f"TREFHT.B06.{name}.atm.1890-1999ANN.nc"
        if module is trefht:
            shutil.copyfile(whole, tmp_path / "in" / whole.name)
    raw = bytearray((Path(folder) / file).read_bytes())
    raw[len(raw) // 2] ^= 1
    (tmp_path / "in" / file).write_bytes(raw)
    with pytest.raises(InputError, match=f"is not {file} as it was published.*'netcdf'"):
        module.make(tmp_path / "s.zarr", source=str(tmp_path / "in"))  # type: ignore[attr-defined]
    (tmp_path / "in" / file).unlink()
    with pytest.raises(InputError, match=f"expected a copy of {file}"):
        module.make(tmp_path / "s.zarr", source=str(tmp_path / "in"))  # type: ignore[attr-defined]
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_without_the_internet_it_is_said_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def offline(url: str, timeout: float) -> None:
        asked.append(url)
        raise OSError("no route")

    monkeypatch.setattr(public.urllib.request, "urlopen", offline)
    for module in (trefht, ostia, pacific):
        with pytest.raises(InputError, match=r"cannot be fetched \(no route\).*pass source="):
            module.make(tmp_path / "s.zarr")
    assert all(url.startswith("https://github.com/") and "/raw/" in url for url in asked)
    assert not list(tmp_path.iterdir())


@real
def test_what_is_fetched_is_what_a_copy_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = (DATA / "climate" / "ostia_monthly.nc").read_bytes()

    def online(url: str, timeout: float) -> object:
        assert url == ostia.URL
        return open(DATA / "climate" / "ostia_monthly.nc", "rb")

    monkeypatch.setattr(public.urllib.request, "urlopen", online)
    assert public.read(ostia.URL, ostia.SHA256) == raw
    with pytest.raises(InputError, match="sha256 e40d33fef22e"):
        public.read(ostia.URL, "0" * 64)


@real
def test_every_year_of_every_run_is_one_day_of_one_calendar(tmp_path: Path) -> None:
    ds = trefht.make(tmp_path / "full.zarr", size="full", source=CLIMATE)
    assert ds.trefht.dims == ("sample", "time", "latitude", "longitude")
    assert ds.trefht.shape == (3, 110, 64, 128) and list(ds.run.values) == [57, 59, 60]
    assert ds.time.dt.calendar == "noleap"
    assert {(t.month, t.day) for t in ds.time.values} == {(7, 16)}
    assert [ds.time.values[i].year for i in (0, -1)] == [1890, 1999]
    for i, run in enumerate((57, 59, 60)):
        name = f"{CLIMATE}/TREFHT.B06.{run}.atm.1890-1999ANN.nc"
        with xr.open_dataset(name, decode_times=False) as raw:
            np.testing.assert_array_equal(ds.trefht[i], raw.TREFHT)
    assert ds.attrs["sciddm_splits"] == {"train": [0, 1], "validation": [1, 2], "test": [2, 3]}
    np.testing.assert_allclose(ds.area.sum(), 2.0, rtol=1e-3)
    assert store.verify(tmp_path / "full.zarr") == []
    toy = trefht.make(tmp_path / "toy.zarr", source=CLIMATE, years=(1970, 1999))
    assert toy.trefht.shape == (3, 30, 16, 32) and toy.time.values[0].year == 1970
    # Means by area: every global mean stays what it was.
    late = ds.isel(time=slice(80, None)).trefht

    def globe(field: xr.DataArray) -> xr.DataArray:
        return field.weighted(score.cell_weights(field)).mean(("latitude", "longitude"))

    np.testing.assert_allclose(globe(toy.trefht), globe(late), rtol=1e-6)
    with pytest.raises(InputError, match="years 1880 to 1999; expected two from 1890"):
        trefht.make(tmp_path / "w.zarr", source=CLIMATE, years=(1880, 1999))


@real
def test_the_members_are_a_calibrated_ensemble_of_one_another() -> None:
    """Runs differ by their starts alone: each is a fair draw of the same law as the others."""
    runs = [trefht.coarse(trefht.member(r, CLIMATE), 8).drop_vars("time") for r in trefht.RUNS]
    both = xr.concat(runs[:2], "member")
    found = float(score.spread_skill(both, runs[2]))
    assert abs(found - 1) < 0.08


@real
def test_land_is_land_in_every_month(tmp_path: Path) -> None:
    ds = ostia.make(tmp_path / "s.zarr", source=CLIMATE)
    with xr.open_dataset(f"{CLIMATE}/ostia_monthly.nc") as raw:
        np.testing.assert_array_equal(ds.sst, raw.surface_temperature)
        np.testing.assert_allclose(ds.longitude, raw.longitude, atol=1e-3)
        np.testing.assert_allclose(ds.latitude, raw.latitude, atol=1e-3)
        np.testing.assert_array_equal(ds.time, raw.time)
    land = ds.sst.isnull()
    assert bool((land == land[0]).all()) and abs(float(land.mean()) - 0.264) < 1e-3
    assert set(ds.variables) == {"sst", "time", "latitude", "longitude"}
    np.testing.assert_allclose(np.diff(ds.longitude), 360 / 432)
    test, validation = split.select(ds, "test"), split.select(ds, "validation")
    assert str(test.time.values[0])[:7] == "2009-10" and test.sizes["time"] == 12
    assert str(validation.time.values[0])[:7] == "2008-12"
    # A score leaves land out: the anomaly of the last month against persistence.
    error = score.rmse(ds.sst[1].drop_vars("time"), ds.sst[0].drop_vars("time"))
    assert 0.1 < float(error) < 2


@real
def test_the_pacific_is_forecast_for_the_first_year_only(tmp_path: Path) -> None:
    ds = pacific.make(tmp_path / "s.zarr", source=ENSEMBLES)
    with xr.open_dataset(f"{ENSEMBLES}/FOSI.SST.eastern_pacific.nc") as raw:
        np.testing.assert_array_equal(ds.sst, raw.SST)
    assert ds.time.dt.calendar == "noleap" and ds.latitude.dims == ("nlat", "nlon")
    weights = score.cell_weights(ds.sst)
    assert weights.attrs["weights"] == "cell area 'area'" and weights.shape == (37, 26)
    assert 0.9 < float(weights.min()) < float(weights.max()) < 1.1
    assert str(split.select(ds, "test").time.values[0])[:4] == "2004"

    hindcasts = pacific.hindcasts(ENSEMBLES).sst
    within = hindcasts.isel(init_time=slice(0, 58), lead_time=slice(0, 3))
    truth = score.at_leads(ds.sst, within)
    assert truth.valid_time.values[0, 0].year == 1955
    anomaly = truth - truth.mean("init_time")
    ours = (within - within.mean("init_time")).drop_vars("valid_time")
    rmse = score.rmse(ours, anomaly.drop_vars("valid_time"), over=("init_time", "nlat", "nlon"))
    normal = np.sqrt((anomaly**2).mean())
    assert abs(float(rmse[0]) - 0.524) < 0.02  # climpred's own skill, and only there
    assert float(rmse[0]) < 0.9 * normal and (rmse[1:] > normal).all()
