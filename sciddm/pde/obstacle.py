"""Flow round a cylinder in a channel, by volume penalisation on a periodic box.

The body is a porous medium of vanishing permeability: with ``chi`` 1 in the body and 0 outside,

    u_t = P[ u x w - (chi / eta) u - s (u - U) ] + nu Laplace u,    w = dv/dx - du/dy,

where P takes away the part with divergence (the pressure) and the mean, so that the flux through
the box is kept. Inside the body u is of the order of ``eta``; the layer that the flow leaves in it
is ``sqrt(nu eta)`` deep, which is the error of the method. The box is periodic; a sponge s before
its right edge pulls the wake back to the inflow U, so that the left edge is an inlet. No-slip walls
at the lower and upper edge are a strip of the same medium.

``chi`` falls from 1 to 0 over one grid spacing. The penalty is explicit, so a step is below about
``2.8 eta`` at order 4, like that of the flow itself on usual grids.

References:
    A penalization method to take into account obstacles in incompressible viscous flows, Angot,
    Bruneau and Fabrie, 1999 (eq. 1.3 and theorem 1, the error in eta). A Fourier spectral method
    for the Navier-Stokes equations with volume penalization for moving solid obstacles, Kolomenskiy
    and Schneider, 2009 (on the torus).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from sciddm.errors import InputError
from sciddm.pde.etd import Tendency
from sciddm.pde.evolution import Evolution, check_numbers
from sciddm.pde.spectral import Torus, cast


@final
@dataclass(frozen=True)
class ObstacleFlow(Evolution):
    """Velocity (u, v) round a cylinder: ``(B, 2, H, W)`` at 0 to the same at ``time``, dims (y, x).

    u blows along x, from left to right. Start from :meth:`start`, or from a field without
    divergence whose mean is that of the inflow: the mean is kept.

    Args:
        inflow: speed U of the inflow, above 0.
        centre: (y, x) of the cylinder. radius: of it; 0 is no cylinder.
        viscosity: nu, above 0. penalty: eta, the time in which the body stops the flow.
        walls: thickness of the wall, half of it at either edge in y; 0 is none.
        sponge: length of the sponge before the right edge; 0 is none.
        lengths: sides (along y, along x) of the box.
        time: final time.
        step: largest time step.
        order: of the time stepping.

    Raises:
        InputError: a number out of its range, a cylinder outside the box; for the call, besides
            what :class:`Evolution` refuses, a radius or wall below two grid spacings.
    """

    inflow: float = 1.0
    centre: tuple[float, float] = (0.5, 0.3)
    radius: float = 0.08
    viscosity: float = 1e-3
    penalty: float = 1e-3
    walls: float = 0.0
    sponge: float = 0.15
    lengths: tuple[float, float] = (1.0, 1.0)
    time: float = 1.0
    step: float = 1e-3
    order: int = 4

    def __post_init__(self) -> None:
        check_numbers(self)
        positive = (self.inflow, self.viscosity, self.penalty, *self.lengths)
        if not all(0.0 < value < math.inf for value in positive):
            raise InputError(
                f"Got inflow, viscosity, penalty and lengths {positive}; expected positive numbers."
            )
        (y, x), (height, width), r = self.centre, self.lengths, self.radius
        half, end = 0.5 * self.walls, width - self.sponge
        inside = half + r < y < height - half - r and r < x < end - r
        if min(self.walls, self.sponge, r) < 0.0 or not (inside or r == 0.0):
            raise InputError(
                f"Got a cylinder of radius {r:g} at (y, x) = ({y:g}, {x:g}); expected it between "
                f"the walls, {half:g} < y < {height - half:g}, and before the sponge, 0 < x < "
                f"{end:g}; move it or make it smaller."
            )

    @property
    def channels(self) -> int:
        return 2

    def torus(self, sizes: tuple[int, ...]) -> Torus:
        if len(sizes) != 2:
            raise InputError(f"Got a grid of {sizes} points; expected 2 axes, (B, 2, H, W).")
        torus = Torus(sizes, self.lengths)
        spacing = _spacing(torus)
        for name, thick in (("radius", self.radius), ("wall", self.walls), ("sponge", self.sponge)):
            if 0.0 < thick < 2.0 * spacing:
                least = math.ceil(2.0 * max(self.lengths) / thick)
                raise InputError(
                    f"Got a {name} of {thick:g} on {sizes} points, below two grid spacings of "
                    f"{spacing:g}; use {least} points or more along the longer side."
                )
        return torus

    def body(self, torus: Torus) -> Tensor:
        """``chi`` of cylinder and walls, 0 to 1 over one spacing, float64 ``(H, W)``."""
        y, x = torus.points(-2), torus.points(-1)
        spacing = max(
            length / size for length, size in zip(torus.lengths, torus.sizes, strict=True)
        )
        into = self.radius - torch.hypot(y - self.centre[0], x - self.centre[1])
        into_wall = 0.5 * self.walls - torch.minimum(y, torus.lengths[0] - y).expand_as(into)
        depths = [d for d, thick in ((into, self.radius), (into_wall, self.walls)) if thick > 0.0]
        chi = torch.zeros(torus.sizes, dtype=torch.float64)
        for depth in depths:
            chi = torch.maximum(chi, (0.5 + depth / spacing).clamp(0.0, 1.0))
        return chi

    def start(self, sizes: tuple[int, int], *, dtype: torch.dtype = torch.float64) -> Tensor:
        """The inflow set off at once, without divergence and stopped in the body: ``(1, 2, H, W)``.

        Outside it is nearly the potential flow round the cylinder, with the flux of the inflow.
        """
        torus = self.torus(sizes)
        flow = torch.stack([1.0 - self.body(torus), torch.zeros(sizes, dtype=torch.float64)])
        mean = self._profile(torus).mean() / flow[0].mean()
        spectrum = torus.spectrum(self.inflow * mean * flow[None]) * torus.kept()
        return torus.field(_without_divergence(torus, spectrum)).to(dtype)

    def speed(self, velocity: Tensor) -> Tensor:
        """``sqrt(u^2 + v^2)``: ``(B, 2, *rest) -> (B, 1, *rest)``."""
        return torch.linalg.vector_norm(velocity, dim=1, keepdim=True)

    def drag(self, velocity: Tensor) -> Tensor:
        """Force of the flow on cylinder and walls along (x, y), per density: ``(B, 2)``.

        The drag coefficient is ``2 F_x / (U^2 2 r)``.
        """
        torus = self.torus(tuple(velocity.shape[-2:]))
        chi = cast(self.body(torus), velocity.dtype, velocity.device)
        area = math.prod(torus.lengths) / math.prod(torus.sizes)
        return (velocity * chi).sum((-2, -1)) * (area / self.penalty)

    def linear(self, torus: Torus) -> Tensor:
        return self.viscosity * torus.laplacian()

    def tendency(self, torus: Torus, dtype: torch.dtype, device: torch.device) -> Tendency:
        d_y, d_x = (cast(torus.derivative(a), dtype, device) for a in (-2, -1))
        brake, kept = self._brake(torus), torus.kept()
        pull = torch.stack([self._pull(torus) * self._profile(torus), torch.zeros_like(brake)])
        pull = cast(self.inflow * pull, dtype, device)
        brake, kept = cast(brake, dtype, device), cast(kept, dtype, device)
        project = _Projection(torus, dtype, device)

        def tendency(flow: Tensor) -> Tensor:
            curl = d_x * flow[:, 1] - d_y * flow[:, 0]
            u, v, w = torus.field(torch.cat([flow, curl.unsqueeze(1)], dim=1)).unbind(1)
            push = torch.stack([v * w - brake * u, -u * w - brake * v], dim=1) + pull
            return project(torus.spectrum(push) * kept)

        return tendency

    def explicit(self, torus: Torus, v: Tensor) -> tuple[Tensor, Tensor]:
        speed = float(torus.field(v).abs().sum(1).max())
        number = torch.arange(min(torus.highest) + 1)
        k = max(torus.wave_number(a).reshape(-1)[1] for a in (-2, -1)) * number
        turning = 1j * speed * k
        linear = self.linear(torus)[number, number]
        strongest = float(self._brake(torus).max())
        return torch.cat([linear, linear]), torch.cat([turning, turning - strongest])

    def _profile(self, torus: Torus) -> Tensor:
        """The inflow over its speed: 1 between the walls, 0 in them, ``(H, 1)``."""
        return 1.0 - self.body(torus)[:, -1:] if self.walls > 0.0 else torch.ones(torus.sizes[0], 1)

    def _pull(self, torus: Torus) -> Tensor:
        """Rate s of the sponge, smooth; it leaves e^-10 of what passes it at the inflow's speed."""
        if self.sponge == 0.0:
            return torch.zeros(torus.sizes, dtype=torch.float64)
        along = (torus.points(-1) - (torus.lengths[1] - self.sponge)) / self.sponge
        bump = torch.sin(math.pi * along.clamp(0.0, 1.0)) ** 2
        return (20.0 * self.inflow / self.sponge * bump).expand(torus.sizes)

    def _brake(self, torus: Torus) -> Tensor:
        return self.body(torus) / self.penalty + self._pull(torus)


def _spacing(torus: Torus) -> float:
    return max(length / size for length, size in zip(torus.lengths, torus.sizes, strict=True))


class _Projection:
    """Takes away divergence and mean: spectra ``(B, 2, *half)`` of (x, y) parts to the same."""

    def __init__(self, torus: Torus, dtype: torch.dtype, device: torch.device) -> None:
        slopes = torch.broadcast_tensors(torus.derivative(-1), torus.derivative(-2))
        self.slopes = cast(torch.stack(slopes), dtype, device)
        # Of the slopes themselves, so that nothing is left where the highest mode has none.
        total = self.slopes.real.square() + self.slopes.imag.square()
        self.weights = self.slopes.conj() / torch.where(total.sum(0) == 0.0, 1.0, total.sum(0))
        self.keep = torch.ones_like(total[0])
        self.keep[0, 0] = 0.0

    def __call__(self, push: Tensor) -> Tensor:
        divergence = (self.slopes * push).sum(1, keepdim=True)
        return (push - self.weights * divergence) * self.keep


def _without_divergence(torus: Torus, flow: Tensor) -> Tensor:
    out = _Projection(torus, torch.float64, flow.device)(flow)
    out[..., 0, 0] = flow[..., 0, 0]
    return out
