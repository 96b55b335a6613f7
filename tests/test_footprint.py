"""Footprints: integrals against geometry, against interpolation, and every bad shape."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import xarray as xr

from sciddm.errors import InputError
from sciddm.footprint import Beam, Box, Disc, Footprint, Line

Y, X = np.linspace(-1, 1, 17), np.concatenate([np.linspace(0, 1, 8)[:-1], np.linspace(1, 2, 15)])
"""One axis even, one with two spacings."""
PLANE = xr.DataArray(
    1 + 2 * Y[:, None] - 3 * X, {"y": Y, "x": X}, ("y", "x"), "t", attrs={"units": "K"}
)
ROUGH = PLANE.copy(data=np.random.default_rng(0).standard_normal(PLANE.shape))


def plane(y: float, x: float) -> float:
    return 1 + 2 * y - 3 * x


SHAPES: dict[str, tuple[Footprint, float, float]] = {
    "a slanted line": (
        Line({"y": -0.83, "x": 0.1}, {"y": 0.9, "x": 1.7}), plane(0.035, 0.9), math.hypot(1.73, 1.6)
    ),
    "a line along the grid": (Line({"y": 0.125, "x": 0.0}, {"y": 0.125, "x": 2.0}),
                              plane(0.125, 1.0), 2.0),
    "a line backwards": (Line({"y": 1.0, "x": 1.7}, {"y": -1.0, "x": 1.7}), plane(0.0, 1.7), 2.0),
    "a box": (Box({"y": -0.33, "x": 0.4}, {"y": 0.61, "x": 1.13}, mean=False),
              plane(0.14, 0.765), 0.94 * 0.73),
    "a box inside a cell": (Box({"y": 0.01, "x": 0.3}, {"y": 0.02, "x": 0.31}, mean=False),
                            plane(0.015, 0.305), 1e-4),
    "the domain": (Box({"y": -1, "x": 0}, {"y": 1, "x": 2}, mean=False), plane(0, 1), 4.0),
    "a disc": (Disc({"y": 0.2, "x": 1.1}, 0.7, mean=False), plane(0.2, 1.1), math.pi * 0.49),
    "a disc inside a cell": (Disc({"y": 0.06, "x": 0.2}, 0.02, mean=False),
                             plane(0.06, 0.2), math.pi * 4e-4),
}  # fmt: skip


@pytest.mark.parametrize(("shape", "value", "size"), SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("turn", ["as it is", "reversed", "transposed"])
def test_linear_fields_are_integrated_exactly(
    shape: Any, value: float, size: float, turn: str
) -> None:
    """The mean of a linear field is its value in the centre; the integral of 1 is the size."""
    field = {"as it is": PLANE, "reversed": PLANE[::-1, ::-1], "transposed": PLANE.T}[turn]
    np.testing.assert_allclose(shape(xr.ones_like(field)), [size], rtol=1e-10)
    np.testing.assert_allclose(shape(field), [size * value], rtol=1e-10)
    kind = type(shape)
    means = kind(**{k: getattr(shape, k) for k in shape.__dataclass_fields__ if k != "mean"},
                 mean=True)  # fmt: skip
    np.testing.assert_allclose(means(field), [value], rtol=1e-10)


def test_a_line_sees_what_interpolation_gives_along_it() -> None:
    """The integral of the interpolated field itself, by a very fine rule."""
    start, stop = np.array([-0.9, 0.03]), np.array([0.7, 1.96])
    s = (np.arange(200_000) + 0.5) / 200_000
    at = {d: xr.DataArray(a + s * (b - a), dims="s") for d, a, b in zip("yx", start, stop)}  # noqa: B905
    fine = float(ROUGH.interp(at).mean()) * math.hypot(*(stop - start))
    line = Line({"y": start[0], "x": start[1]}, {"y": stop[0], "x": stop[1]})
    np.testing.assert_allclose(line(ROUGH), [fine], rtol=1e-7)


def test_boxes_and_discs_see_what_interpolation_gives_inside() -> None:
    y, x = ((np.arange(1200) + 0.5) / 1200 * 1.4 - 0.7 + c for c in (0.1, 1.05))
    inside = ROUGH.interp(y=y, x=x)
    box = Box({"y": -0.6, "x": 0.35}, {"y": 0.8, "x": 1.75})
    np.testing.assert_allclose(box(ROUGH), [float(inside.mean())], atol=1e-6)
    round_ = (inside.y - 0.1) ** 2 + (inside.x - 1.05) ** 2 < 0.49
    disc = Disc({"y": 0.1, "x": 1.05}, 0.7)
    np.testing.assert_allclose(disc(ROUGH), [float(inside.where(round_).mean())], atol=2e-4)


def test_a_field_that_bends_is_met_to_second_order() -> None:
    """The integral of sin(3 x + 2 y) along a line, in closed form, on finer grids."""
    line = Line({"y": 0.1, "x": 0.2}, {"y": 0.8, "x": 0.9})
    phase = [0.8, 4.3]
    exact = math.hypot(0.7, 0.7) * (math.cos(phase[0]) - math.cos(phase[1])) / (phase[1] - phase[0])
    errors = []
    for n in (17, 33, 65):
        c = np.linspace(0, 1, n)
        field = xr.DataArray(np.sin(3 * c + 2 * c[:, None]), {"y": c, "x": c}, ("y", "x"))
        errors.append(abs(float(line(field)[0]) - exact))
    assert all(abs(math.log2(a / b) - 2) < 0.3 for a, b in zip(errors, errors[1:], strict=False))


@pytest.mark.parametrize("width", [1e-6, 0.03, 0.3])
def test_a_beam_is_a_gaussian_mean(width: float) -> None:
    """By a fine sum; a narrow one is a point."""
    beam = Beam({"y": 0.1, "x": 0.93}, width)
    if width < 1e-3:
        return np.testing.assert_allclose(beam(ROUGH), [float(ROUGH.interp(y=0.1, x=0.93))])
    y, x = np.linspace(-1, 1, 1601), np.linspace(0, 2, 1601)
    fine = ROUGH.interp(y=y, x=x)
    weight = np.exp(-0.5 * ((fine.y - 0.1) ** 2 + (fine.x - 0.93) ** 2) / width**2)
    np.testing.assert_allclose(beam(ROUGH), [float(fine.weighted(weight).mean())], atol=1e-3)
    uneven = Beam({"y": 0.1, "x": 0.93}, {"y": width, "x": 1e-6})
    alone = fine.interp(x=0.93)
    weight = np.exp(-0.5 * (alone.y - 0.1) ** 2 / width**2)
    np.testing.assert_allclose(uneven(ROUGH), [float(alone.weighted(weight).mean())], atol=1e-3)
    return None


def test_several_sensors_and_their_labels() -> None:
    at = xr.DataArray([0.2, 0.5, 1.1], dims="ray", coords={"ray": list("abc")})
    rays = Line({"y": -1.0, "x": at}, {"y": 1.0, "x": at})
    seen = rays(PLANE.expand_dims(sample=[3, 4]))
    assert seen.dims == ("sample", "ray") and seen.name == "t"
    np.testing.assert_allclose(seen[1], [2 * plane(0, x) for x in at.values])
    assert rays.weights(PLANE).dims == ("ray", "y", "x")


KM = 6371.0 * math.pi / 180


def test_lengths_and_areas_of_the_sphere() -> None:
    lat, lon = np.linspace(60, 40, 81), np.linspace(-10, 10, 81)
    one = xr.DataArray(
        np.ones((81, 81)), {"latitude": lat, "longitude": lon}, ("latitude", "longitude"), "q",
        attrs={"units": "kg m-2"},
    )  # fmt: skip
    parallel = Line({"latitude": 60, "longitude": -5}, {"latitude": 60, "longitude": 4})
    meridian = Line({"latitude": 41, "longitude": 2.2}, {"latitude": 52, "longitude": 2.2})
    np.testing.assert_allclose(parallel(one), [9 * KM / 2], rtol=1e-12)
    np.testing.assert_allclose(meridian(one), [11 * KM], rtol=1e-12)
    assert parallel(one).attrs["units"] == "kg m-2 km"
    box = Box({"latitude": 42, "longitude": -3}, {"latitude": 57, "longitude": 8.3}, mean=False)
    band = math.sin(math.radians(57)) - math.sin(math.radians(42))
    np.testing.assert_allclose(box(one), [6371.0**2 * math.radians(11.3) * band], rtol=1e-8)
    assert box(one).attrs["units"] == "kg m-2 km2"
    cells = Box({"latitude": 42, "longitude": -3}, {"latitude": 57, "longitude": 8.3})
    assert float(cells(one)[0]) == pytest.approx(1) and cells(one).attrs["units"] == "kg m-2"


def test_a_column_is_integrated_in_its_own_units() -> None:
    z = xr.DataArray([0.0, 1.0, 3.0, 8.0], dims="z", attrs={"units": "m"})
    field = xr.DataArray(
        np.ones((4, 3, 3)), {"z": z, "latitude": [1, 2, 3], "longitude": [4, 5, 6]},
        ("z", "latitude", "longitude"), "q",
    )  # fmt: skip
    place = {"latitude": 1.5, "longitude": 5.0}
    column = Line({"z": 0.0, **place}, {"z": 8.0, **place})
    assert "units" not in column(field).attrs
    field.attrs["units"] = "1"
    assert float(column(field)[0]) == pytest.approx(8) and column(field).attrs["units"] == "m"
    with pytest.raises(InputError, match="at once"):
        Line({"z": 0.0, **place}, {"z": 8.0, **place, "latitude": 2.0})(field)


def test_a_shape_goes_over_the_seam_of_a_periodic_axis() -> None:
    x = xr.DataArray(np.arange(8) / 8, dims="x", attrs={"period": 1.0})
    field = xr.DataArray(np.random.default_rng(1).standard_normal(8), {"x": x}, ("x",), "u")
    turned = field.roll(x=3)
    for make in (
        lambda c: Line({"x": c}, {"x": c + 0.41}),
        lambda c: Box({"x": c}, {"x": c + 0.41}),
        lambda c: Beam({"x": c + 0.2}, 0.05),
    ):
        shape = make  # a shape from c on
        np.testing.assert_allclose(shape(0.8)(field), shape(0.175)(turned), atol=1e-12)
    whole = Line({"x": 0.33}, {"x": 1.33})
    np.testing.assert_allclose(whole(field), [float(field.mean())], atol=1e-12)


Bad = tuple[str, Callable[[], object]]
BAD: dict[str, Bad] = {
    "outside": (
        "stop of footprint 1 is at x = 2.1, outside the domain 0 to 2",
        lambda: Line({"y": 0, "x": [0, 0]}, {"y": 0, "x": [1, 2.1]})(PLANE),
    ),
    "a disc over the edge": (
        "edge of footprint 0 is at y = -1.1",
        lambda: Disc({"y": -0.9, "x": 1}, 0.2)(PLANE),
    ),
    "another dim": ("no dim 'z'.*y, x", lambda: Line({"z": 0, "y": 0}, {"z": 1, "y": 0})(PLANE)),
    "a dim too few": ("given along", lambda: Line({"y": 0, "x": 0}, {"y": 1})(PLANE)),
    "no number": ("expected finite", lambda: Line({"y": 0, "x": np.nan}, {"y": 1, "x": 1})(PLANE)),
    "a word": ("expected finite", lambda: Line({"y": 0, "x": "a"}, {"y": 1, "x": 1})(PLANE)),
    "no length": (
        "Footprint 1 is empty",
        lambda: Line({"y": 0, "x": 0}, {"y": 0, "x": [1, 0]}, mean=True)(PLANE),
    ),
    "no length of an integral": (
        "Footprint 0 is empty", lambda: Line({"y": 0, "x": 1}, {"y": 0, "x": 1})(PLANE)
    ),
    "no mapping": ("expected a mapping", lambda: Line(0.5, {"y": 0, "x": 1})(PLANE)),  # type: ignore[arg-type]
    "no dim": ("expected a mapping", lambda: Line({}, {})(PLANE)),
    "rows of several lengths": (
        "expected finite", lambda: Line({"y": [[0], [0, 1]], "x": 0}, {"y": 1, "x": 1})(PLANE)  # type: ignore[list-item]
    ),
    "a length in two units": (
        "at once, in 1 and s: its length has no unit",
        lambda: Line({"y": 0, "x": 0}, {"y": 1, "x": 1})(
            PLANE.assign_coords(y=PLANE["y"].assign_attrs(units="s"))
        ),
    ),
    "a box inside out": (
        "Box 0 goes from 1 to 0 along 'y'",
        lambda: Box({"y": 1, "x": 0}, {"y": 0, "x": 1})(PLANE),
    ),
    "numbers of sensors": (
        r"\[2, 3\] sensors",
        lambda: Line({"y": 0, "x": [0, 1]}, {"y": 0, "x": [0, 1, 2]})(PLANE),
    ),
    "no radius": ("expected positive", lambda: Disc({"y": 0, "x": 1}, 0)(PLANE)),
    "a disc of degrees": (
        "Got discs on a grid of latitude and longitude",
        lambda: Disc({"latitude": 1, "longitude": 1}, 1)(
            xr.DataArray(
                np.ones((3, 3)), {"latitude": [0, 1, 2], "longitude": [0, 1, 2]},
                ("latitude", "longitude"),
            )
        ),
    ),
    "a width": ("expected positive", lambda: Beam({"y": 0, "x": 1}, -1)(PLANE)),
}  # fmt: skip


@pytest.mark.parametrize(("said", "make"), BAD.values(), ids=BAD.keys())
def test_a_shape_that_makes_no_sense_is_refused(said: str, make: Callable[[], object]) -> None:
    with pytest.raises(InputError, match=said) as error:
        make()
    assert "\n" not in str(error.value)


def test_a_mean_along_dims_in_two_units_is_that_of_the_map() -> None:
    """Half-way is half-way whatever the units; only a length needs one."""
    mixed = PLANE.assign_coords(y=PLANE["y"].assign_attrs(units="s"))
    line = Line({"y": -0.83, "x": 0.1}, {"y": 0.9, "x": 1.7}, mean=True)
    np.testing.assert_allclose(line(mixed), [plane(0.035, 0.9)], rtol=1e-10)
