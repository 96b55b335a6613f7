"""Lorenz-63 with sparse observations: every rule against a particle smoother."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sciddm.observe import Operator

DOUBLE = torch.float64


def rk4(x: Tensor, dt: float = 0.025) -> Tensor:
    """One Runge-Kutta step of Lorenz-63 (sigma 10, rho 28, beta 8/3), (..., 3)."""

    def slope(x: Tensor) -> Tensor:
        a, b, c = x.unbind(-1)
        return torch.stack([10 * (b - a), a * (28 - c) - b, a * b - 8 / 3 * c], dim=-1)

    k1 = slope(x)
    k2 = slope(x + dt / 2 * k1)
    k3 = slope(x + dt / 2 * k2)
    k4 = slope(x + dt * k3)
    return x + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


@dataclass(frozen=True, eq=False)
class Window:
    """The unknown z (3, L + 1) ~ N(0, I): initial deviation, then model noise."""

    centre: Tensor  # (3,)
    spread: float
    noise: float
    frames: int
    every: int

    def __call__(self, z: Tensor) -> Tensor:
        """Trajectories (B, 3, L + 1)."""
        x = self.centre + self.spread * z[..., 0]
        path = [x]
        for k in range(1, self.frames + 1):
            x = rk4(x) + self.noise * z[..., k]
            path.append(x)
        return torch.stack(path, dim=-1)


    def tangent(self, path: Tensor) -> Tensor:
        """d rk4(x) / d x at each frame but the last, (3 out, 3 in, L, B)."""
        a, b, c = path[..., :-1].permute(1, 2, 0)
        x = torch.stack([a, b, c])
        dt = 0.025

        def slope(x: Tensor) -> Tensor:
            a, b, c = x
            return torch.stack([10 * (b - a), a * (28 - c) - b, a * b - 8 / 3 * c])

        def times(x: Tensor, m: Tensor) -> Tensor:
            a, b, c = x
            return torch.stack(
                [
                    10 * (m[1] - m[0]),
                    (28 - c) * m[0] - m[1] - a * m[2],
                    b * m[0] + a * m[1] - 8 / 3 * m[2],
                ]
            )

        unit = torch.eye(3, dtype=DOUBLE)[:, :, None, None]
        k1 = slope(x)
        m1 = times(x, unit.expand(3, 3, *a.shape))
        x2 = x + dt / 2 * k1
        k2 = slope(x2)
        m2 = times(x2, unit + dt / 2 * m1)
        x3 = x + dt / 2 * k2
        k3 = slope(x3)
        m3 = times(x3, unit + dt / 2 * m2)
        m4 = times(x + dt * k3, unit + dt * m3)
        return unit + dt / 6 * (m1 + 2 * m2 + 2 * m3 + m4)


@dataclass(frozen=True, eq=False)
class First(Operator):
    """The first coordinate, every so many frames."""

    window: Window

    def __call__(self, x: Tensor) -> Tensor:
        return self.window(x)[:, 0, self.window.every :: self.window.every]

    def derivative(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Values (B, n) and their derivative (B, n, 3, L + 1), by the adjoint of the window."""
        window = self.window
        path = window(z)
        m = window.tangent(path)
        n = window.frames // window.every
        rows = torch.zeros(n, 3, window.frames + 1, len(z), dtype=DOUBLE)
        pull = torch.zeros(n, 3, len(z), dtype=DOUBLE)
        for k in range(window.frames, 0, -1):
            if k % window.every == 0:
                pull[k // window.every - 1, 0] += 1
            live = slice(-(-k // window.every) - 1, n)
            rows[live, :, k] = window.noise * pull[live]
            pull[live] = (pull[live][:, :, None] * m[:, :, k - 1]).sum(1)
        rows[:, :, 0] = window.spread * pull
        return path[:, 0, window.every :: window.every], rows.permute(3, 0, 1, 2).contiguous()
