"""Spectra by Parseval, single modes, known laws, and across resolutions."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from sciddm import score
from sciddm.errors import InputError


def grid(ny: int, nx: int, ly: float = 1.0, lx: float = 1.0) -> xr.Dataset:
    """Cell centres of a box."""
    y, x = (np.arange(ny) + 0.5) * ly / ny, (np.arange(nx) + 0.5) * lx / nx
    return xr.Dataset(coords={"y": ("y", y, {"units": "km"}), "x": ("x", x, {"units": "km"})})


def noise(ny: int, nx: int, members: int = 3) -> xr.DataArray:
    values = np.random.default_rng(0).normal(1.0, 2.0, (members, ny, nx))
    return xr.DataArray(values, dims=("member", "y", "x"), coords=grid(ny, nx).coords)


@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("shape", [(16, 16), (15, 8), (7, 31)])
def test_parseval(periodic: bool, shape: tuple[int, int]) -> None:
    field = noise(*shape)
    power = score.power_spectrum(field, ("y", "x"), periodic=periodic)
    total = (power * power.modes).sum("wavenumber")
    np.testing.assert_allclose(total, (field**2).mean(("y", "x")), rtol=1e-12)
    assert int(power.modes.sum()) == shape[0] * shape[1]


def test_parseval_in_one_and_three_dims() -> None:
    cube = xr.DataArray(np.random.default_rng(1).normal(size=(4, 5, 6)), dims=("z", "y", "x"))
    for dims in (("x",), ("z", "y", "x")):
        power = score.power_spectrum(cube, dims)
        total = (power * power.modes).sum("wavenumber")
        np.testing.assert_allclose(total, (cube**2).mean(dims), rtol=1e-12)


@pytest.mark.parametrize(("periodic", "cycles"), [(True, 5.0), (False, 3.5)])
def test_a_single_wave_has_all_its_power_at_its_wavenumber(periodic: bool, cycles: float) -> None:
    """cos along x over a box 2 km wide; half waves are modes of the cosine transform."""
    g = grid(24, 32, ly=1.5, lx=2.0)
    wave = 3.0 * np.cos(2 * np.pi * cycles * g.x / 2.0) + 0.0 * g.y
    power = score.power_spectrum(wave, ("y", "x"), periodic=periodic)
    content = power * power.modes
    at = int(content.values.argmax())
    np.testing.assert_allclose(content[at], 4.5, rtol=1e-12)
    np.testing.assert_allclose(power.wavenumber[at], cycles / 2.0, rtol=1e-12)
    assert float(content.sum() - content[at]) < 1e-20
    assert power.wavenumber.attrs["units"] == "1/km"
    np.testing.assert_allclose(power.nyquist, 8.0)


def test_the_mean_stands_at_wavenumber_zero() -> None:
    power = score.power_spectrum(xr.full_like(noise(8, 8), 7.0), ("y", "x"))
    np.testing.assert_allclose(power.isel(wavenumber=0), 49.0)
    assert float(power.wavenumber[0]) == 0.0 and int(power.modes[0]) == 1


@pytest.mark.parametrize("periodic", [True, False])
def test_white_noise_is_flat(periodic: bool) -> None:
    """Every mode of white noise of variance 4 on N cells holds 4/N."""
    values = np.random.default_rng(2).normal(0, 2, (400, 16, 16))
    field = xr.DataArray(values, dims=("case", "y", "x"))
    power = score.power_spectrum(field, ("y", "x"), periodic=periodic)
    error = 4 / 256 * np.sqrt(2 / (400 * power.modes))
    assert float((abs(power.mean("case") - 4 / 256) / error).max()) < 4


def test_the_cosine_transform_does_not_see_opposite_edges() -> None:
    """A slope is smooth; the FFT takes it for a saw and fills the small scales."""
    g = grid(64, 64)
    slope = g.x + 0.0 * g.y
    tail = {
        periodic: float(
            (s := score.power_spectrum(slope, ("y", "x"), periodic=periodic))
            .where(s.wavenumber > 8, drop=True)
            .pipe(lambda p: (p * p.modes).sum())
        )
        for periodic in (True, False)
    }
    assert tail[False] < 0.02 * tail[True]


def test_descending_and_transposed_fields_have_the_same_spectrum() -> None:
    field = noise(12, 9)
    turned = field.isel(y=slice(None, None, -1)).transpose("x", "member", "y")
    xr.testing.assert_allclose(
        score.power_spectrum(turned, ("y", "x")), score.power_spectrum(field, ("y", "x"))
    )
    np.testing.assert_allclose(
        score.power_spectrum(field.chunk(y=4), ("y", "x")),
        score.power_spectrum(field, ("y", "x")),
    )


def test_distance_of_a_field_scaled_by_ten_is_twenty_decibel() -> None:
    field = noise(16, 12, members=4)
    truth = field.isel(member=0, drop=True)
    same = truth.expand_dims(member=2)
    assert float(score.log_spectral_distance(same, truth, ("y", "x"))) == 0.0
    found = score.log_spectral_distance(10 * same, truth, ("y", "x"))
    np.testing.assert_allclose(found, 20.0, rtol=1e-10)
    assert found.attrs["units"] == "dB" and found.attrs["members"] == 2


def test_distance_sees_a_smoothed_ensemble_and_not_a_right_one() -> None:
    rng = np.random.default_rng(3)
    truth = xr.DataArray(rng.normal(size=(200, 16, 16)), dims=("case", "y", "x"))
    ens = xr.DataArray(rng.normal(size=(8, 200, 16, 16)), dims=("member", *truth.dims))
    right = float(score.log_spectral_distance(ens, truth, ("y", "x"), periodic=True))
    smooth = (ens + ens.roll(x=1)) / 2
    assert right < 0.25
    assert float(score.log_spectral_distance(smooth, truth, ("y", "x"), periodic=True)) > 1.0
    cases = score.log_spectral_distance(ens, truth, ("y", "x"), over=())
    assert cases.dims == ("case",) and float(cases.min()) > right


def test_distance_does_not_count_corners_beyond_the_nyquist_wavenumber() -> None:
    truth = noise(16, 16).isel(member=0, drop=True)
    corner = np.cos(15 * np.pi * truth.y) * np.cos(15 * np.pi * truth.x)
    edge = np.cos(15 * np.pi * truth.y)
    beyond, within = [(truth + 5 * f).expand_dims(member=2) for f in (corner, edge)]
    assert float(score.log_spectral_distance(beyond, truth, ("y", "x"))) < 1e-10
    assert float(score.log_spectral_distance(within, truth, ("y", "x"))) > 1


def test_distance_matches_points_by_value() -> None:
    field = noise(8, 8, members=3)
    truth = field.isel(member=0, drop=True)
    turned = truth.isel(y=slice(None, None, -1))
    np.testing.assert_allclose(
        score.log_spectral_distance(field, turned, ("y", "x")),
        score.log_spectral_distance(field, truth, ("y", "x")),
    )


@pytest.mark.parametrize(
    ("field", "dims", "said"),
    [
        (noise(8, 8), ("y", "z"), "'z' is no dim"),
        (noise(8, 8).isel(y=[0]), ("y", "x"), r"along \['y'\]"),
        (noise(8, 8), (), "no dims"),
        (noise(8, 8).isel(x=[0, 1, 2, 5, 6]), ("y", "x"), "'x' is not evenly spaced"),
        (noise(8, 8).where(lambda f: f.x > 0.2), ("y", "x"), "48 NaN of 192"),
        (
            noise(8, 2).assign_coords(x=["a", "b"]),
            ("x",),
            "'x' has dtype",
        ),
    ],
)
def test_fields_without_a_spectrum_are_refused(
    field: xr.DataArray, dims: tuple[str, ...], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        score.power_spectrum(field, dims)
