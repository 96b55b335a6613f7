"""Noise with an address: a row depends on its own address and on nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from sciddm.errors import InputError
from sciddm.random import SCHEME, Streams, normal

SIZE = 20_000


def draw(streams: Streams, *shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return streams.normal(torch.zeros(len(streams.members), *shape, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rows_are_the_same_in_any_batch(dtype: torch.dtype) -> None:
    whole = draw(Streams.of(5, 8), 2, 4, 3, dtype=dtype)
    parts = [draw(Streams.of(5, m), 2, 4, 3, dtype=dtype) for m in (range(3), range(3, 8))]
    assert torch.equal(whole, torch.cat(parts))
    order = [6, 0, 7, 3, 3]
    assert torch.equal(draw(Streams.of(5, order), 2, 4, 3, dtype=dtype), whole[order])


def test_a_draw_does_not_shift_another() -> None:
    a, b = Streams.of(1, 4).at("start"), Streams.of(1, 4).at("step", 7)
    first, second = draw(a, 5), draw(b, 5)
    draw(b, 100)
    np.random.seed(3)
    torch.manual_seed(3)
    assert torch.equal(second, draw(b, 5))
    assert torch.equal(first, draw(a, 5))


def test_addressed_noise_leaves_the_global_generators_alone() -> None:
    before = torch.get_rng_state(), np.random.get_state()[1]
    draw(Streams.of(0, 4), 50)
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])


BASE = Streams(3, (4,), (5,), "step", 6)
OTHERS = {
    "seed": replace(BASE, seed=2),
    "case": replace(BASE, cases=(3,)),
    "member": replace(BASE, members=(6,)),
    "purpose": BASE.at("start", 6),
    "step": BASE.at("step", 7),
    "case and member swapped": replace(BASE, cases=(5,), members=(4,)),
    "seed and case swapped": replace(BASE, seed=4, cases=(3,)),
    "member and step swapped": replace(BASE, members=(6,), step=5),
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS.keys())
def test_addresses_that_differ_in_one_part_are_uncorrelated(other: Streams) -> None:
    a, b = (draw(s, SIZE, dtype=torch.float64)[0] for s in (BASE, other))
    correlation = float(torch.corrcoef(torch.stack([a, b]))[0, 1])
    assert abs(correlation) < 4.5 / SIZE**0.5


def test_neighbouring_rows_and_steps_are_uncorrelated() -> None:
    rows = torch.cat([draw(Streams.of(0, 12).at("step", k), 4000) for k in range(4)]).double()
    off = torch.corrcoef(rows) - torch.eye(len(rows))
    assert float(off.abs().max()) < 5 / 4000**0.5
    assert float(off.square().sum()) * 4000 / (48 * 47) == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_law_is_standard_normal(dtype: torch.dtype) -> None:
    # members x places: a defect across rows shows as one within a row
    noise = draw(Streams.of(11, 200), 10, 25, dtype=dtype)
    assert noise.dtype == dtype
    assert stats.kstest(noise.flatten().numpy(), "norm").pvalue > 1e-4
    assert stats.kstest(noise[:, 3, 4].numpy(), "norm").pvalue > 1e-4
    fine = noise.double() != noise.float().double()
    assert bool(fine.any()) == (dtype == torch.float64)


def test_the_scheme_is_pinned() -> None:
    """Numbers that change with the addressing or with numpy: then `SCHEME` must change too."""
    assert SCHEME == "philox-1"
    found = draw(Streams(1, (2,), (3,), "start", 4), 3, dtype=torch.float64)[0]
    expected = [-0.390169779823169, 0.8832220137137643, -0.647592675922428]
    assert found.tolist() == pytest.approx(expected, rel=1e-12)


def test_without_an_address_torch_draws() -> None:
    torch.manual_seed(8)
    a = normal(torch.zeros(3, 2), None)
    torch.manual_seed(8)
    assert torch.equal(a, torch.randn(3, 2))
    assert torch.equal(normal(a, Streams.of(0, 3)), Streams.of(0, 3).normal(a))


def test_addresses_that_fit_no_batch_are_refused() -> None:
    with pytest.raises(InputError, match="batch of 3 for 2 addresses"):
        Streams.of(0, 2).normal(torch.zeros(3, 4))
    with pytest.raises(InputError, match="2 cases and 1 members"):
        Streams(0, (0, 1), (0,))
    for seed, case, member in ((-1, 0, 0), (0, -1, 0), (0, 0, -1)):
        with pytest.raises(InputError, match="non-negative"):
            Streams(seed, (case,), (member,))
