"""The claims of the PDE recovery benchmark on a small exact problem: right draws keep them, and
draws that are too narrow, too wide, shifted or off their sensors do not.

The whole is `benchmarks/pde_recovery.py`.
"""

import functools
import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import xarray as xr

import sciddm as sd
from sciddm.random import Streams


def shared(name: str) -> ModuleType:
    """A module of the benchmark's folder."""
    folder = str(Path(__file__).parents[1] / "benchmarks")
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(name)


cases, report = shared("_recovery.cases"), shared("_report")
PROBLEM = cases.Problem.of("poisson", 16)


@functools.cache
def observed(task: str) -> list:
    """24 fields at 16 x 16, three to each set of 12 sensors, errors of 5 %."""
    return [PROBLEM.case(task, k, points=12, noise=0.05, fields=3) for k in range(8)]


def failed(task: str, scale: float = 1.0, shift: float = 0.0) -> set[str]:
    """The claims that do not hold for exact draws whose distance to the posterior mean is
    multiplied by ``scale``, moved by ``shift`` posterior s.d."""

    def draw(case: object) -> xr.Dataset:
        post = sd.krige(PROBLEM.exact, case.seen, members=32, seed=1)  # type: ignore[attr-defined]
        wanted, seen = cases.WANTED[task], cases.SEEN[task]
        moved = case.mean + scale * (post[wanted] - case.mean)  # type: ignore[attr-defined]
        post[wanted] = moved + shift * xr.DataArray(case.std, dims=("y", "x"))  # type: ignore[attr-defined]
        centre = post[seen].mean("member")
        post[seen] = centre + scale * (post[seen] - centre)
        return post

    found = cases.measured("draws", task, observed(task), draw, 0)
    result = report.Report("test", {})
    cases.claim(result, "test", found, 1.10)
    return {c["name"].removeprefix("test: ") for c in result.claims if not c["holds"]}


@pytest.mark.parametrize("task", ["inverse", "forward"])
def test_exact_draws_keep_every_claim(task: str) -> None:
    assert failed(task) == set()


@pytest.mark.parametrize("task", ["inverse", "forward"])
@pytest.mark.parametrize("scale", [0.7, 1.4])
def test_a_wrong_spread_is_found(task: str, scale: float) -> None:
    assert {"s.d. over exact", "90 % coverage"} <= failed(task, scale=scale)


@pytest.mark.parametrize("task", ["inverse", "forward"])
def test_a_shift_is_found(task: str) -> None:
    assert {"expected error over exact", "90 % coverage"} <= failed(task, shift=0.7)


def test_the_misfit_is_that_of_the_library_and_finds_members_off_their_sensors() -> None:
    (case,) = observed("inverse")[:1]
    post = sd.krige(PROBLEM.exact, case.seen, members=16)
    found = cases.misfit(case, post["solution"])
    assert found == pytest.approx(post.attrs["misfit_sd"], rel=1e-3)
    assert cases.misfit(case, post["solution"] + 2 * case.seen.std) > 1.5


@pytest.mark.parametrize("task", ["inverse", "forward"])
def test_the_closed_form_is_the_law_of_the_draws(task: str) -> None:
    """Mean and s.d. of the posterior against 2048 exact draws; the prior's s.d. against its own."""
    case = PROBLEM.case(task, 0, points=12, noise=0.05)
    draws = sd.krige(PROBLEM.exact, case.seen, members=2048)[cases.WANTED[task]].isel(sample=0)
    floor = 1e-3 * case.std.max()
    far = np.abs(draws.mean("member").values - case.mean[0]) / np.maximum(case.std, floor)
    assert far.max() < 5 / np.sqrt(2048)
    assert np.mean(draws.var("member").values) == pytest.approx(np.mean(case.std**2), rel=0.05)
    blank = torch.zeros(4096, 1, 16, 16, dtype=torch.float64)
    x = PROBLEM.exact.gaussian.sample(blank, Streams.of(1, 4096))
    sampled = PROBLEM.exact.codec.physical(x).square().mean(0)[..., 1:-1, 1:-1]
    known = PROBLEM.prior_variance[..., 1:-1, 1:-1]
    assert float((sampled / known - 1).abs().max()) < 0.15
