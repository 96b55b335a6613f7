from __future__ import annotations

import math
import re

import pytest
import torch
from torch import Tensor

from sciddm.errors import InputError
from sciddm.model import CLASSES
from sciddm.pde import ObstacleFlow
from sciddm.pde.spectral import Torus, differentiate


def _divergence(flow: Tensor, torus: Torus) -> Tensor:
    return differentiate(flow[:, 0], torus, -1) + differentiate(flow[:, 1], torus, -2)


SMALL = ObstacleFlow(radius=0.12, walls=0.1, sponge=0.2, time=0.06, step=2e-3, viscosity=5e-3)
SIZES = (24, 32)


def test_the_flow_has_no_divergence_and_keeps_its_flux() -> None:
    torus, start = SMALL.torus(SIZES), SMALL.start(SIZES)
    later = SMALL(start)
    assert float((later - start).norm() / start.norm()) > 0.05
    for flow in (start, later):
        assert float(_divergence(flow, torus).abs().max()) < 1e-11
        # With no divergence the same amount passes every section.
        flux = flow[0, 0].mean(0)
        torch.testing.assert_close(flux, flux.mean().expand_as(flux), rtol=1e-12, atol=0)
    torch.testing.assert_close(later.mean((2, 3)), start.mean((2, 3)), rtol=0, atol=1e-14)


def test_an_empty_box_is_left_as_it_is() -> None:
    flow = ObstacleFlow(inflow=1.7, radius=0.0, time=0.1, step=5e-3)
    start = flow.start((16, 16))
    torch.testing.assert_close(start[0, 0], torch.full((16, 16), 1.7, dtype=torch.float64))
    torch.testing.assert_close(flow(start), start, rtol=0, atol=1e-13)


@pytest.mark.parametrize("penalty", [1e-2, 2.5e-3])
def test_a_shear_between_walls_decays_as_if_they_stood_a_layer_further_out(penalty: float) -> None:
    """sin(2 pi y / a) between no-slip walls a apart falls at the rate nu (2 pi / a)^2.

    A porous wall lets the flow in by sqrt(nu eta) on either side: the error goes like the root.
    """
    nu, a, size = 0.02, 0.75, 192
    flow = ObstacleFlow(
        radius=0.0, walls=0.25, sponge=0.0, viscosity=nu, penalty=penalty, time=0.5, step=5e-3,
        lengths=(1.0, 12 / size),
    )  # fmt: skip
    y = flow.torus((size, 12)).points(-2).expand(size, 12)
    u = torch.sin(2 * math.pi * (y - 0.125).clamp(0.0, a) / a)
    records = flow.trajectory(torch.stack([u, torch.zeros_like(u)])[None], (0.25, 0.5))[0, 0]
    middle, end = (float((record * u).sum()) for record in records)
    rate = math.log(middle / end) / 0.25 / (nu * (2 * math.pi / a) ** 2)
    assert rate - 1 == pytest.approx(-4 * math.sqrt(nu * penalty) / a, rel=0.15)


def test_the_body_stops_the_flow_in_proportion_to_the_penalty() -> None:
    slips = []
    for penalty in (8e-3, 2e-3):
        flow = ObstacleFlow(radius=0.15, viscosity=0.01, penalty=penalty, time=0.2, step=4e-3)
        torus = flow.torus((40, 40))
        y, x = torus.points(-2) - 0.5, torus.points(-1) - 0.3
        deep = torch.hypot(y, x) < 0.08
        slips.append(float(flow.speed(flow(flow.start((40, 40))))[0, 0][deep].max()))
    assert slips[1] < 0.05
    assert slips[1] < 0.4 * slips[0]


def test_the_flow_is_mirrored_with_the_cylinder() -> None:
    low = ObstacleFlow(centre=(0.375, 0.3), radius=0.12, time=0.06, step=2e-3)
    high = ObstacleFlow(centre=(0.625, 0.3), radius=0.12, time=0.06, step=2e-3)
    a, b = low(low.start((32, 32))), high(high.start((32, 32)))
    # The points i / 32 are mirrored onto each other by i -> -i.
    mirrored = torch.stack([a[:, 0], -a[:, 1]], dim=1).flip(2).roll(1, 2)
    torch.testing.assert_close(mirrored, b, rtol=0, atol=1e-12)


def test_energy_comes_from_the_pump_and_goes_into_body_and_viscosity() -> None:
    """d/dt 1/2 <u^2> = <u> . F / area - <chi u^2> / eta - nu <w^2>, F the force on the body."""
    nu, eta, h = 5e-3, 2e-3, 1e-3
    flow = ObstacleFlow(
        radius=0.12, sponge=0.0, viscosity=nu, penalty=eta, time=0.1, step=h, lengths=(1.0, 1.25)
    )
    torus = flow.torus((32, 40))
    begun = flow(flow.start((32, 40)))
    before, now, after = flow.trajectory(begun, (0.0, h, 2 * h)).unbind(2)
    energy = [0.5 * f.square().sum(1).mean() for f in (before, after)]
    curl = differentiate(now[:, 1], torus, -1) - differentiate(now[:, 0], torus, -2)
    force = flow.drag(now)
    pump = (now.mean((2, 3)) * force).sum() / 1.25
    body = (flow.body(torus) * now.square().sum(1)).mean() / eta
    expected = pump - body - nu * curl.square().mean()
    torch.testing.assert_close((energy[1] - energy[0]) / (2 * h), expected, rtol=1e-4, atol=0)
    assert float(force[0, 0]) > 0.1
    assert abs(float(force[0, 1])) < 1e-10  # a cylinder in the middle is not lifted


def test_gradients_batches_and_types() -> None:
    start = SMALL.start(SIZES)
    two = torch.cat([start, 0.8 * start])
    together = SMALL(two)
    torch.testing.assert_close(together[1:], SMALL(two[1:]), rtol=0, atol=1e-13)
    single = SMALL(two.float())
    assert single.dtype == torch.float32
    assert float((single - together).norm() / together.norm()) < 1e-5
    _, along = torch.func.jvp(SMALL, (start,), (start,))
    difference = (SMALL(1.00001 * start) - SMALL(0.99999 * start)) / 2e-5
    torch.testing.assert_close(along, difference, rtol=1e-6, atol=1e-7)
    free = start.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(SMALL(free).square().sum(), free)
    assert float((gradient * start).sum()) == pytest.approx(
        float((2 * together[:1] * along).sum()), rel=1e-9
    )


def test_an_unstable_step_is_refused_and_the_step_named_is_taken() -> None:
    with pytest.raises(InputError, match="largest stable") as caught:
        ObstacleFlow(step=0.05)(ObstacleFlow().start((32, 32)))
    (named,) = re.findall(r"pass step=([0-9.e+-]+)\.$", str(caught.value))
    step = float(named)
    assert 1e-3 < step < 2.9e-3  # the penalty's: 2.785 eta for the rule of order 4
    ObstacleFlow(step=step, time=step)(ObstacleFlow().start((32, 32)))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ObstacleFlow(centre=(0.5, 0.95)), "before the sponge"),
        (lambda: ObstacleFlow(centre=(0.05, 0.3)), "between the walls"),
        (lambda: ObstacleFlow(inflow=0.0), "positive"),
        (lambda: ObstacleFlow(radius=-1.0), "radius"),
        (lambda: ObstacleFlow(radius=0.05)(torch.zeros(1, 2, 16, 16)), "use 40 points"),
        (lambda: ObstacleFlow()(torch.zeros(1, 1, 64, 64)), r"\(B, 2, \*grid\)"),
        (lambda: ObstacleFlow().start((64,)), "2 axes"),
    ],
)
def test_impossible_flows_are_refused(make: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        make()  # type: ignore[operator]


def test_a_saved_model_may_hold_the_flow() -> None:
    assert CLASSES["ObstacleFlow"] is ObstacleFlow
