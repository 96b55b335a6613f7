"""Data sets of series: made ones of a known law, public files that are themselves."""

from __future__ import annotations

import math
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

from sciddm import cli, recipe
from sciddm.data import items, split
from sciddm.errors import InputError

SHELF = Path(__file__).parents[2] / "datasets"
DATA = Path(__file__).parents[3] / "shared" / "data"
real = pytest.mark.skipif(not DATA.is_dir(), reason="the shared data are not here")
MADE = ("ou", "cir", "matern_gp", "periodic_gp", "lorenz63_series", "sines")


def shelf(name: str) -> ModuleType:
    return recipe.load(SHELF / f"{name}.py", "datasets")


def close(found: np.ndarray, expected: np.ndarray, error: np.ndarray) -> None:
    """Within four standard errors everywhere, and within two on most."""
    away = np.abs(found - expected) / error
    assert away.max() < 4.5 and np.mean(away < 2) > 0.8


@pytest.mark.parametrize("name", MADE)
def test_a_made_set_is_items_of_its_splits(name: str, tmp_path: Path) -> None:
    ds = shelf(name).make(tmp_path / "s.zarr")
    found = items.of(ds)
    assert len(found) == 48 and all(i.seen == i.values.size for i in found)
    parts = {part: items.of(split.select(ds, part)) for part in split.read(ds)}
    assert sum(map(len, parts.values())) == 48
    last = parts["test"].items[-1]
    assert np.array_equal(last.time, found.items[-1].time)
    assert np.array_equal(last.values, found.items[-1].values)


@pytest.mark.parametrize("name", ["ou", "matern_gp", "periodic_gp"])
def test_a_series_is_the_same_however_many_are_made(name: str, tmp_path: Path) -> None:
    make = shelf(name).make
    few = items.of(make(tmp_path / "a.zarr", items=5, seed=3))
    more = items.of(make(tmp_path / "b.zarr", items=9, seed=3))
    for one, other in zip(few, more, strict=False):
        assert np.array_equal(one.time, other.time) and np.array_equal(one.values, other.values)
    other = items.of(make(tmp_path / "c.zarr", items=5, seed=4))
    assert not np.array_equal(few.items[0].time[:9], other.items[0].time[:9])
    lengths = {len(i) for i in more}
    assert len(lengths) > 3 and min(lengths) >= 32 and max(lengths) <= 96


def test_the_law_of_ou_is_exact() -> None:
    """At 0, 1 .. 63 the moments of 4,000 series, and the law of values whitened at their own
    irregular times."""
    recipe_ = shelf("ou")
    values = np.stack([recipe_.series(1, i, True).values[:, 0] for i in range(4000)])
    time = np.arange(64.0)
    assert recipe_.mean(time)[-1] == pytest.approx(10.60, abs=0.01)
    spread = recipe_.covariance(time, time)
    close(values.mean(0), recipe_.mean(time), np.sqrt(spread / 4000))
    close(values.var(0), spread, spread * math.sqrt(2 / 4000))
    pairs = np.mean((values - recipe_.mean(time))[:, :-4] * (values - recipe_.mean(time))[:, 4:], 0)
    exact = recipe_.covariance(time[:-4], time[4:])
    close(pairs, exact, np.sqrt((spread[:-4] * spread[4:] + exact**2) / 4000))
    white = []
    for i in range(300):
        one = recipe_.series(2, i)
        matrix = recipe_.covariance(one.time[:, None], one.time[None])
        root = np.linalg.cholesky(matrix + 1e-12 * np.eye(len(one)))
        white.append(np.linalg.solve(root, one.values[:, 0] - recipe_.mean(one.time)))
    assert stats.kstest(np.concatenate(white), "norm").pvalue > 0.01


@pytest.mark.parametrize(
    ("name", "numbers"),
    [
        ("matern_gp", {"smoothness": 0.5}),
        ("matern_gp", {"smoothness": 1.5}),
        ("matern_gp", {"smoothness": 2.5, "length": 3.0}),
        ("periodic_gp", {}),
        ("periodic_gp", {"period": 7.0, "roughness": 0.5, "memory": 20.0}),
    ],
)
def test_the_law_of_a_gaussian_process_is_exact(name: str, numbers: dict[str, float]) -> None:
    recipe_, white = shelf(name), []
    for i in range(300):
        one = recipe_.series(1, i, **numbers)
        matrix = recipe_.covariance(one.time[:, None], one.time[None], **numbers)
        root = np.linalg.cholesky(matrix + 1e-9 * np.eye(len(one)))
        white.append(np.linalg.solve(root, one.values[:, 0]))
    assert stats.kstest(np.concatenate(white), "norm").pvalue > 0.01
    assert recipe_.covariance(np.array(3.0), np.array(3.0), **numbers) == 1


def test_covariances_are_the_library_s() -> None:
    torch = pytest.importorskip("torch")
    from sciddm.series import kernel

    s, t = torch.linspace(0, 9, 7, dtype=torch.float64), torch.linspace(1, 5, 4).double()
    matern = shelf("matern_gp").covariance
    for smoothness, shape in (
        (0.5, kernel.OrnsteinUhlenbeck(2.0)), (1.5, kernel.Matern32(2.0)),
        (2.5, kernel.Matern52(2.0)), (math.inf, kernel.SquaredExponential(2.0)),
    ):  # fmt: skip
        mine = matern(s.numpy()[:, None], t.numpy()[None], smoothness, 2.0)
        assert np.allclose(mine, shape(s, t).numpy(), atol=1e-14)
    season = kernel.Product((kernel.Season(5.0, 0.7), kernel.OrnsteinUhlenbeck(11.0)))
    mine = shelf("periodic_gp").covariance(s.numpy()[:, None], t.numpy()[None], 5.0, 0.7, 11.0)
    assert np.allclose(mine, season(s, t).numpy(), atol=1e-14)


def test_the_task_of_neural_processes_has_its_counts() -> None:
    recipe_ = shelf("matern_gp")
    made = [recipe_.series(1, i, math.inf, 0.05**0.5 / 2**0.5, 0, True) for i in range(2000)]
    counts = np.array([len(i) for i in made])
    assert counts.min() == 5 and counts.max() <= 50
    pmf = stats.poisson(8).pmf(np.arange(200))
    expected = np.sum(pmf * np.clip(np.arange(200), 5, 50))
    assert abs(counts.mean() - expected) < 0.3
    assert max(float(i.time.max()) for i in made) <= 1


def test_cir_ends_in_its_gamma_law() -> None:
    ds = shelf("cir").fields(1500, 64, seed=2)
    late = ds.value.values[:, 15::7].ravel()
    assert stats.kstest(late, "gamma", (60, 0, 0.02)).pvalue > 0.01
    assert float(ds.value.min()) > 0
    first = ds.value.values[:, 0]
    assert stats.kstest(first, "halfnorm").pvalue > 0.01
    # E[Y(1) | Y(0)] = 1.2 + exp(-1) (Y(0) - 1.2); the autocorrelation is exp(-1).
    slope = np.polyfit(ds.value.values[:, 20], ds.value.values[:, 21], 1)[0]
    assert slope == pytest.approx(math.exp(-1), abs=3 / math.sqrt(1500))
    assert np.array_equal(ds.value[7], shelf("cir").fields(1, 64, seed=2, start=7).value[0])


def test_lorenz_steps_are_of_fourth_order_and_its_equation_is_right() -> None:
    recipe_ = shelf("lorenz63_series")
    assert np.allclose(recipe_.tendency(np.array([1.0, 2.0, 3.0])), [10, 23, 2 - 2.667 * 3])
    root = math.sqrt(2.667 * 27)
    assert np.allclose(recipe_.tendency(np.array([root, root, 27.0])), 0, atol=1e-12)
    start = np.array([[1.0, 1.0, 20.0]])
    fine = recipe_.records(start, 401)[:, ::4]
    error = [
        np.abs(recipe_.records(start, n)[:, :: (n - 1) // 100][:, :50] - fine[:, :50]).max()
        for n in (101, 201)
    ]
    assert error[0] < 1e-4 and 12 < error[0] / error[1] < 22
    state, kept = 10 * np.random.default_rng(0).standard_normal((60, 3)), []
    for turn in range(40):
        film = recipe_.records(state, 30)
        state = film[:, -1]
        kept += [film] if turn > 9 else []
    assert np.allclose(np.concatenate(kept).std((0, 1)), recipe_.SPREAD, rtol=0.05)


def test_sines_have_frequencies_within_bounds() -> None:
    ds = shelf("sines").fields(300, 24, seed=1)
    for name in ds.data_vars:
        wave = 2 * ds[name].values.astype(float) - 1
        phase = np.arcsin(wave[:, 0])
        frequency = np.arcsin(wave[:, 1]) - phase
        steps = np.sin(frequency[:, None] * np.arange(24) + phase[:, None])
        assert np.allclose(steps, wave, atol=2e-5)
        for number in (phase, frequency):
            assert stats.kstest(number, "uniform", (0, 0.1)).pvalue > 0.001


@pytest.mark.parametrize(
    ("name", "numbers", "said"),
    [
        ("ou", {"rate": 0.0}, "rate=0.0"),
        ("ou", {"items": 2}, "Got 2 items; expected 3 or more"),
        ("matern_gp", {"smoothness": 1.0}, "expected a smoothness of"),
        ("matern_gp", {"length": -1.0}, "a positive length"),
        ("periodic_gp", {"memory": 0.0}, "memory=0.0"),
        ("cir", {"diffusion": 0.0}, "diffusion=0.0"),
        ("lorenz63_series", {"noise": -1.0}, "noise=-1.0"),
        ("sines", {"highest": 0.0}, "highest=0.0"),
    ],
)
def test_made_sets_refuse(name: str, numbers: dict[str, float], said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=said):
        shelf(name).make(tmp_path / "x.zarr", **numbers)
    assert not list(tmp_path.iterdir())


def test_a_cycle_that_never_changes_comes_again(tmp_path: Path) -> None:
    found = items.of(
        shelf("periodic_gp").make(tmp_path / "p.zarr", items=4, memory=math.inf, regular=True)
    )
    for one in found:
        assert np.allclose(one.values[12:], one.values[:-12], atol=1e-3)


def test_stores_of_series_are_verified(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shelf("ou").make(tmp_path / "ou.zarr", items=4)
    assert cli.main(["verify", str(tmp_path / "ou.zarr")]) == 0
    assert "whole" in capsys.readouterr().out
    next((tmp_path / "ou.zarr" / "value").rglob("c/0")).write_bytes(b"no zstd")
    assert cli.main(["verify", str(tmp_path / "ou.zarr")]) != 0


PUBLISHED = {
    "etth1": "series/ETTh1.csv", "exchange_rate": "series/exchange_rate.csv",
    "co2": "series/co2.csv", "nyc_weather": "stations/nyc_weather_2013.csv",
    "physionet2012": "series/physionet2012_set-a_400.csv.gz", "argo_profiles": "ocean",
}  # fmt: skip


def made(name: str, folder: Path, **numbers: object) -> xr.Dataset:
    return shelf(name).make(folder / f"{name}.zarr", source=str(DATA / PUBLISHED[name]), **numbers)


@real
def test_etth1_is_the_official_part_in_the_official_order(tmp_path: Path) -> None:
    ds = made("etth1", tmp_path)
    found = items.of(ds)
    assert found.variables == ("HUFL", "HULL", "MUFL", "MULL", "LUFL", "LULL", "OT")
    table = pd.read_csv(DATA / PUBLISHED["etth1"])
    values = table[list(found.variables)].to_numpy(np.float32)
    assert np.array_equal(found.items[0].values, values[:14400])
    assert {k: len(found.split(k).items[0]) for k in split.read(ds)} == {
        "train": 8640, "validation": 2880, "test": 2880,
    }  # fmt: skip
    assert ds.time.values[8640] == np.datetime64("2017-06-26") and ds.OT.units == "degree_Celsius"
    longer = made("etth1", tmp_path / "all", hours=17420)
    assert items.of(longer).split("test").items[0].values.shape == (17420 - 11520, 7)
    with pytest.raises(InputError, match="hours=17421"):
        made("etth1", tmp_path / "more", hours=17421)


@real
def test_exchange_rates_are_dollars_in_rows_of_trade(tmp_path: Path) -> None:
    found = items.of(made("exchange_rate", tmp_path))
    assert found.variables == ("aud", "gbp", "cad", "chf", "cny", "jpy", "nzd", "sgd")
    one = found.items[0]
    assert one.values.shape == (7588, 8) and np.array_equal(one.time, np.arange(7588))
    assert one.values[0] == pytest.approx(
        [0.7855, 1.611, 0.861698, 0.634196, 0.211242, 0.006838, 0.593, 0.525486], rel=1e-6
    )
    assert not found.dated and found.units["jpy"] == "USD"


@real
def test_co2_keeps_its_missing_weeks(tmp_path: Path) -> None:
    ds = made("co2", tmp_path)
    assert int(ds.co2.isnull().sum()) == 59 and ds.sizes["time"] == 2284
    assert (np.diff(ds.time.values) == np.timedelta64(7, "D")).all()
    test = split.select(ds, "test")
    assert test.time.values[0] == np.datetime64("1995-01-07") and test.sizes["time"] == 365
    assert float(ds.co2[0]) == pytest.approx(316.1)


@real
def test_weather_is_in_utc_with_absent_hours_empty(tmp_path: Path) -> None:
    ds = made("nyc_weather", tmp_path)
    assert dict(ds.sizes) == {"time": 8730, "item": 3}
    assert (np.diff(ds.time.values) == np.timedelta64(1, "h")).all()
    absent = ds.to_dataarray().isnull().all("variable")
    assert int(absent.sum()) == 75
    assert float(ds.wind_speed.max()) < 60
    assert float(ds.temp.sel(item="EWR")[0]) == pytest.approx(39.02)
    for part in ("train", "validation", "test"):
        assert items.of(split.select(ds, part)).names == ("EWR", "JFK", "LGA")
    assert str(split.select(ds, "test").time.values[0])[:10] == "2013-11-01"
    two = items.of(made("nyc_weather", tmp_path / "two", channels=("temp", "dewp")))
    assert two.variables == ("temp", "dewp")


@real
def test_stays_are_at_their_own_minutes(tmp_path: Path) -> None:
    ds = made("physionet2012", tmp_path, size="full")
    found = items.of(ds)
    assert len(found.variables) == 35 and found.variables[:3] == ("DiasABP", "HR", "Na")
    assert found.static == ("Age", "Gender", "Height", "Weight")
    assert {k: len(found.split(k)) for k in split.read(ds)} == {
        "train": 280, "validation": 40, "test": 80,
    }  # fmt: skip
    first = found["132539"]
    assert np.array_equal(first.static, [54, 0, np.nan, np.nan], equal_nan=True)
    heart = first.values[:, 1]
    seen = np.isfinite(heart)
    assert first.time[seen][:2] == pytest.approx([7 / 60, 37 / 60])
    assert heart[seen][:2].tolist() == [73, 77]
    urine = first.values[:, found.variables.index("Urine")]
    assert urine[np.isclose(first.time, 27 + 37 / 60)] == [0]  # 400 and then 0 in one minute
    cells = sum(i.values.size for i in found)
    assert sum(i.seen for i in found) < 0.2 * cells
    both = np.concatenate([i.values for i in found])
    lowest = dict(zip(found.variables, np.nanmin(both, 0), strict=True))
    assert lowest["Temp"] >= 24 and lowest["HR"] >= 5
    assert min(float(i.time[0]) for i in found) >= 0 and max(float(i.time[-1]) for i in found) <= 48
    raw = items.of(made("physionet2012", tmp_path / "raw", clean=False))
    typed = np.concatenate([i.values for i in raw])[:, raw.variables.index("DiasABP")]
    assert np.nanmin(typed) == 0 and np.nanmin([i.static[2] for i in raw]) > 0


@real
def test_stays_fetched_one_by_one_are_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe_ = shelf("physionet2012")
    table = recipe_.table(str(DATA / "series")).decode()
    files: dict[str, list[str]] = {}
    for line in table.splitlines()[1:]:
        stay, rest = line.split(",", 1)
        files.setdefault(stay, ["Time,Parameter,Value", f"00:00,RecordID,{stay}"]).append(rest)
    asked = []

    def fetched(url: str) -> bytes:
        asked.append(url.rsplit("/", 1)[-1].removesuffix(".txt"))
        return ("\n".join(files[asked[-1]]) + "\n").encode()

    monkeypatch.setattr("sciddm.data.public.fetched", fetched)
    assert recipe_.table().decode() == table and asked == list(files)
    files["132541"].pop()
    with pytest.raises(InputError, match="what was fetched is not the table of 400 stays"):
        recipe_.table()


@real
def test_profiles_hold_good_values_only(tmp_path: Path) -> None:
    ds = made("argo_profiles", tmp_path)
    found = items.of(ds)
    assert found.variables == ("temp", "psal") and found.time_units == "dbar"
    assert len(found) == 385 and len(found.split("test")) == 51
    assert {n[:7] for n in found.split("test").names} == {"2902696"}
    days = [i.static[2] for i in found]
    assert days == sorted(days)
    source = xr.open_dataset(DATA / "ocean" / "argo_1900857_prof.nc")
    good = (source.TEMP_ADJUSTED_QC.values.astype(str) == "1").sum()
    mine = [i for i in found if i.name.startswith("1900857")]
    assert sum(int(np.isfinite(i.values[:, 0]).sum()) for i in mine) == good
    salty = (source.PSAL_ADJUSTED_QC.values.astype(str) == "1").sum()
    assert sum(int(np.isfinite(i.values[:, 1]).sum()) for i in mine) == salty
    old = [i for i in found if i.name.startswith("13857")]
    assert all(np.isnan(i.values[:, 1]).all() for i in old)
    assert sum(i.seen for i in old) == 14148  # seven of flag 3, probably bad, are left out
    assert all((np.diff(i.time) > 0).all() for i in found)


@real
@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_another_file_is_refused_and_nothing_is_written(name: str, tmp_path: Path) -> None:
    copy = tmp_path / "copy.csv"
    copy.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="is not"):
        shelf(name).make(tmp_path / "x.zarr", source=str(copy))
    with pytest.raises(InputError, match="Nothing at"):
        shelf(name).make(tmp_path / "x.zarr", source=str(tmp_path / "nowhere"))
    assert [p.name for p in tmp_path.iterdir()] == ["copy.csv"]
