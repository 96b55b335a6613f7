"""Lorenz-63 over a window: the trajectory, its tangent, the observations and particle smoothing.

The unknown is z (3, L + 1) ~ N(0, I): the deviation of the initial state from its mean, then the
noise of the model at each frame,

    x_0 = centre + spread z_0,    x_k = rk4(x_{k-1}) + noise z_k.

So the prior of z is Gaussian, its denoiser exact, and only the rule that meets the operator
z -> (the first coordinate of x at some frames) is tried.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sciddm.observe import Operator

DOUBLE = torch.float64
DT = 0.025


def slope(x: Tensor) -> Tensor:
    """Lorenz 1963, sigma 10, rho 28, beta 8/3; components first, (3, ...)."""
    a, b, c = x
    return torch.stack([10 * (b - a), a * (28 - c) - b, a * b - 8 / 3 * c])


def rk4(x: Tensor) -> Tensor:
    """One Runge-Kutta step of states (3, ...)."""
    k1 = slope(x)
    k2 = slope(x + DT / 2 * k1)
    k3 = slope(x + DT / 2 * k2)
    k4 = slope(x + DT * k3)
    return x + DT / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def tangent(x: Tensor) -> Tensor:
    """d rk4(x) / d x of states (3, ...): (3 out, 3 in, ...)."""

    def times(x: Tensor, m: Tensor) -> Tensor:
        a, b, c = x
        second = (28 - c) * m[0] - m[1] - a * m[2]
        return torch.stack([10 * (m[1] - m[0]), second, b * m[0] + a * m[1] - 8 / 3 * m[2]])

    unit = torch.eye(3, dtype=DOUBLE).view(3, 3, *[1] * (x.ndim - 1)).expand(3, 3, *x.shape[1:])
    k1, m1 = slope(x), times(x, unit)
    x2 = x + DT / 2 * k1
    k2, m2 = slope(x2), times(x2, unit + DT / 2 * m1)
    x3 = x + DT / 2 * k2
    k3, m3 = slope(x3), times(x3, unit + DT / 2 * m2)
    m4 = times(x + DT * k3, unit + DT * m3)
    return unit + DT / 6 * (m1 + 2 * m2 + 2 * m3 + m4)


@dataclass(eq=False)
class Window(Operator):
    """The first coordinate every ``every`` frames, as a function of z; counts its integrations.

    Parameters
    ----------
    centre : (3,), mean of the initial state. spread, noise : s.d. of the initial state and of the
        model's noise at a frame. frames : L. error : s.d. of the observations.
    """

    centre: Tensor
    spread: float
    noise: float
    frames: int
    every: int
    error: float
    integrations: int = 0

    def path(self, z: Tensor) -> Tensor:
        """Trajectories (B, 3, L + 1) of z (B, 3, L + 1)."""
        self.integrations += len(z)
        drive = self.noise * z.permute(1, 2, 0)
        x = self.centre[:, None] + self.spread * z[..., 0].T
        states = [x]
        for k in range(1, self.frames + 1):
            x = rk4(x) + drive[:, k]
            states.append(x)
        return torch.stack(states, dim=-1).transpose(0, 1)

    def __call__(self, z: Tensor) -> Tensor:
        return self.path(z)[:, 0, self.every :: self.every]

    def derivative(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Values (B, n) and their derivative (B, n, 3, L + 1), by the adjoint."""
        path = self.path(z)
        m = tangent(path[..., :-1].permute(1, 2, 0))
        n = self.frames // self.every
        rows = torch.zeros(n, 3, self.frames + 1, len(z), dtype=DOUBLE)
        pull = torch.zeros(n, 3, len(z), dtype=DOUBLE)
        for k in range(self.frames, 0, -1):
            if k % self.every == 0:
                pull[k // self.every - 1, 0] += 1
            live = slice(-(-k // self.every) - 1, n)  # values at frame k or later
            rows[live, :, k] = self.noise * pull[live]
            pull[live] = (pull[live][:, :, None] * m[:, :, k - 1]).sum(1)
        rows[:, :, 0] = self.spread * pull
        return path[:, 0, self.every :: self.every], rows.permute(3, 0, 1, 2).contiguous()


def make(seed: int) -> tuple[Window, Tensor]:
    """A window from a random place on the attractor, and its observed values (6,)."""
    g = torch.Generator().manual_seed(seed)
    x = torch.tensor([1.0, 1.0, 20.0], dtype=DOUBLE) + torch.randn(3, dtype=DOUBLE, generator=g)
    for _ in range(400):
        x = rk4(x)
    window = Window(x, spread=2.0, noise=math.sqrt(DT), frames=48, every=8, error=1.0)
    z = torch.randn(1, 3, window.frames + 1, dtype=DOUBLE, generator=g)
    values = window(z)[0]
    return window, values + window.error * torch.randn(len(values), dtype=DOUBLE, generator=g)


def smoother(
    window: Window, y: Tensor, seed: int, count: int = 100_000
) -> tuple[Tensor, float, int]:
    """Bootstrap particle filter with its genealogies: paths (count, 3, L + 1) of the smoothing law,
    log p(y), and how many of them differ at the first frame.

    Gordon, Salmond, Smith 1993; the paths as in Kitagawa 1996.
    """
    g = torch.Generator().manual_seed(seed)
    x = window.centre[:, None] + window.spread * torch.randn(3, count, dtype=DOUBLE, generator=g)
    log_evidence, block, kept = 0.0, [x], []
    for k in range(1, window.frames + 1):
        x = rk4(x) + window.noise * torch.randn(3, count, dtype=DOUBLE, generator=g)
        block.append(x)
        if k % window.every == 0:
            log_weight = -0.5 * ((y[k // window.every - 1] - x[0]) / window.error) ** 2
            total = float(torch.logsumexp(log_weight, 0))
            log_evidence += total - math.log(count * window.error * math.sqrt(2 * math.pi))
            edges = (log_weight - total).exp().cumsum(0)
            first = torch.rand(1, dtype=DOUBLE, generator=g)
            pointers = (torch.arange(count, dtype=DOUBLE) + first) / count
            index = torch.searchsorted(edges, pointers).clamp_max(count - 1)
            kept.append((torch.stack(block), index))
            x, block = x[:, index], []
    index, parts = torch.arange(count), []
    for states, parent in reversed(kept):
        index = parent[index]
        parts.append(states[..., index])
    return torch.cat(parts[::-1]).permute(2, 1, 0), log_evidence, len(index.unique())


def kalman_smoother(window: Window, y: Tensor) -> tuple[Tensor, Tensor]:
    """Extended Kalman filter and Rauch-Tung-Striebel smoother: means and variances (3, L + 1)."""
    eye = torch.eye(3, dtype=DOUBLE)
    m, p = window.centre, window.spread**2 * eye
    filtered, predicted = [(m, p)], []
    for k in range(1, window.frames + 1):
        f = tangent(m)
        m, p = rk4(m), f @ p @ f.T + window.noise**2 * eye
        predicted.append((m, p, f))
        if k % window.every == 0:
            gain = p[:, 0] / (p[0, 0] + window.error**2)
            m = m + gain * (y[k // window.every - 1] - m[0])
            p = p - torch.outer(gain, p[0])
        filtered.append((m, p))
    means, variances = [m], [p.diagonal()]
    for (a, q), (ahead, spread, f) in zip(filtered[-2::-1], predicted[::-1], strict=True):
        gain = torch.linalg.solve(spread, f @ q).T
        m, p = a + gain @ (m - ahead), q + gain @ (p - spread) @ gain.T
        means.append(m)
        variances.append(p.diagonal())
    return torch.stack(means[::-1], 1), torch.stack(variances[::-1], 1)
