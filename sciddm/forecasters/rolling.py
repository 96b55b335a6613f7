r"""Rolling diffusion: a window of frames that lie the deeper in noise the further they are ahead.

What is diffused is the innovation of each frame, e_k = (x_k - mean(frames before it)) / scale. In
a window of W frames at global time n (counted in units of one shift) frame k = 0 .. W - 1 has the
local time

    tau_k(n) = clip((n - (W - 1) + k) / W, 0, 1),        tau_{k+1}(n) = tau_k(n + 1),

so that from n = W to n = W - 1 the first frame becomes clean while every other one takes the place
of the one before it: the frame is given out, the window moves on by one, and a frame of pure noise
enters at its end. Every frame goes through W such units, a unit costs ``steps`` steps of the
solver, and a multistep solver keeps its memory over the shift. The same clock from n = 2 W - 1,
where all is noise, to n = W is the start: one network learns both.

Frames that are known are conditions, never noised: what the window holds is a draw of the noised
future given all that is past, at any time, so the frames are a draw of p(future | past) as the
steps become small. The noise may be an AR(1) from frame to frame.

References
----------
Ruhe, Heek, Salimans, Hoogeboom. Rolling diffusion models. ICML 2024, eq. 8-11 and section 3.3.
https://arxiv.org/abs/2402.09470
Cachay et al. Elucidated rolling diffusion models for probabilistic forecasting of complex dynamics.
NeurIPS 2025, section 3 (clock, weights, preconditioning a frame). https://arxiv.org/abs/2506.20024
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from sciddm.covariance import TimeCorrelated
from sciddm.denoise import Context, Denoiser
from sciddm.errors import InputError
from sciddm.forecasters.base import Known, Learner
from sciddm.forecasters.mean import Mean, Persistence
from sciddm.process import Clocked, OneClock
from sciddm.random import Streams
from sciddm.solve import Adams, History, InTime, RotationForm, Solver


@dataclass(frozen=True)
class Emphasis:
    """Weight of a noise level in the loss, beside the weight that makes all levels equal.

    It is exp(-((log kappa - mean) / std)^2 / 2): a log-normal density over its peak. A positive
    mean looks at frames that are still mostly noise, where a forecast is decided.
    """

    mean: float = 0.5
    std: float = 1.2

    def __call__(self, kappa: Tensor) -> Tensor:
        return torch.exp(-0.5 * ((kappa.log() - self.mean) / self.std) ** 2)


class Window(Denoiser):
    """E[innovations | noised innovations, the past] of a window of frames (B, C, W, *grid).

    Karras et al. 2022, eq. 7 at sigma_data = 1, a frame at a time: an untrained network is the
    exact answer for innovations of the law of the noise. The network sees, frame by frame, the
    noised innovation and the ``history`` frames before it: those that are known, and then the mean
    of what the noise still leaves open. ``context.past`` is the past, ``context.forcings`` those of
    as many frames and of the window.
    """

    def __init__(
        self, backbone: nn.Module, process: Clocked, mean: Mean, scale: Tensor, history: int
    ) -> None:
        nn.Module.__init__(self)
        self.backbone, self.process, self.mean = backbone, process, mean
        self.scale, self.history = scale, history

    def forward(self, x_t: Tensor, t: Tensor, context: Context) -> Tensor:
        known, size, answer = self.parts(x_t, t, context)
        return known + size * answer

    def parts(self, x_t: Tensor, t: Tensor, context: Context) -> tuple[Tensor, Tensor, Tensor]:
        """(known, size, answer): the estimate is known + size * answer of the network."""
        kappa = self.process.kappa(t)
        u = self.process.centred(x_t, t)
        known = u / (1 + kappa**2).to(x_t)
        inputs = torch.cat([u * torch.rsqrt(1 + kappa**2).to(x_t), self.before(known, context)], 1)
        forcings = context.forcings
        if forcings is not None:  # of the frame before and of its own
            forcings = forcings[:, :, -x_t.shape[2] - 1 :]
            forcings = torch.cat([forcings[:, :, :-1], forcings[:, :, 1:]], dim=1)
        beside = Context(fields=context.fields, scalars=context.scalars, forcings=forcings)
        answer = self.backbone(inputs, kappa.log(), beside)
        return known, (kappa * torch.rsqrt(1 + kappa**2)).to(x_t), answer

    def before(self, known: Tensor, context: Context) -> Tensor:
        """The frames before each frame of the window, (B, C history, W, *grid), oldest first."""
        assert context.past is not None
        recent, out = context.past, []
        for k in range(known.shape[2]):
            out.append(recent[:, :, -self.history :].transpose(1, 2).flatten(1, 2))
            if k + 1 < known.shape[2]:
                frame = self.mean(recent, context, k + 1) + scaled(known[:, :, k], self.scale)
                recent = torch.cat([recent[:, :, 1:], frame[:, :, None]], dim=2)
        return torch.stack(out, dim=2)


class Rolling(Learner):
    """A window of frames that rolls on, one clean frame a unit.

    Parameters
    ----------
    backbone : ``(x (B, C (1 + past), W, *grid), log_kappa (B or 1, 1, W, 1..), context)``, such as
        `sciddm.nn.FilmNet`, with S channels of static fields and 2 K of K forcings behind x.
    process : without an anchor; its noise is that of one frame, its clock the law of the levels.
        Noise of the covariance of the innovations (over ``scale``) makes every mode equally hard:
        few steps then serve, and an untrained model is ``mean`` plus such noise.
    mean : what is expected of a frame, or None for the newest one.
    scale : s.d. of the innovations, broadcasts against (C, *grid).
    width : W, at least 2. past : known frames that the network sees.
    correlation : of the noise from a frame to the next, in (-1, 1).
    solver, steps : of a unit. One step of the default is one evaluation a frame.
    startup : share of training at the start, where all frames are noise.
    emphasis : levels that the loss looks at, or None for all alike.
    """

    def __init__(
        self,
        backbone: nn.Module,
        process: OneClock,
        mean: Mean | None = None,
        scale: Tensor | None = None,
        width: int = 4,
        past: int = 1,
        correlation: float = 0.0,
        solver: Solver | None = None,
        steps: int = 1,
        startup: float = 0.2,
        emphasis: Emphasis | None = None,
        boundary: Known | None = None,
    ) -> None:
        nn.Module.__init__(self)
        if width < 2 or steps < 1 or past < 1 or not 0 <= startup <= 1:
            raise InputError(
                f"Got {width} frames in the window, {steps} steps a frame, {past} frames of the "
                f"past and a share of {startup} at the start; expected at least 2, 1 and 1, and a "
                "share from 0 to 1."
            )
        self.backbone, self.process, self.width, self.past = backbone, process, width, past
        self.mean = Persistence() if mean is None else mean
        self.scale = torch.ones(()) if scale is None else scale
        self.correlation, self.startup, self.emphasis = correlation, startup, emphasis
        self.solver = Adams(3, InTime(), RotationForm()) if solver is None else solver
        self.steps, self.boundary = steps, boundary
        self.history = max(past, self.mean.history)
        self.window = self.history + width

    @property
    def evaluations(self) -> float:
        """Network evaluations a frame; the start takes those of W - 1 frames more."""
        return self.solver.evaluations(self.steps + 1) - 1

    @property
    def unit(self) -> float:
        """Global time from one shift to the next."""
        return 1 / (2 * self.width - 1)

    def _time(self, units: float) -> Tensor:
        # rounding must not set a clock going that stands still, at the end of all
        return torch.tensor(units * self.unit + 1e-12, dtype=torch.float64)

    def denoiser(self, dims: int) -> Window:
        """Of windows on a grid of ``dims`` axes."""
        delay = torch.linspace(0, 1, self.width, dtype=torch.float64)
        noise = TimeCorrelated(self.process.noise, self.correlation)
        base: OneClock = replace(self.process, noise=noise)  # type: ignore[type-var]
        process = Clocked(base, delay.view(1, 1, -1, *[1] * dims), 1 - 1 / self.width)
        return Window(self.backbone, process, self.mean, self.scale, self.past)

    def walk(self, context: Context, rng: Streams) -> Iterator[Tensor]:
        assert context.past is not None
        recent = context.past[:, :, -self.history :]
        denoiser = self.denoiser(recent.ndim - 3)
        process = denoiser.process
        x, state = self._noise(recent, denoiser, rng), History()
        frame, n = 1, 2 * self.width - 1
        while True:
            now = replace(context, past=recent, forcings=self._forcings(context, frame))
            for unit in range(n, self.width - 1, -1):
                scope = rng.inside("frame", frame).inside("unit", unit)
                for k in range(self.steps):
                    t, s = (self._time(unit - j / self.steps) for j in (k, k + 1))
                    noise = scope.at("step", k)
                    x, state = self.solver.step(denoiser, x, t, s, now, state, noise)
            n = self.width
            clean = process.centred(x, s)[:, :, 0]
            new = self.mean(recent, now, 1) + scaled(clean, self.scale)
            new = self.imposed(new, context)
            recent = torch.cat([recent[:, :, 1:], new[:, :, None]], dim=2)
            yield new
            x, state = self._shifted(x, s, state, denoiser, now, rng.inside("frame", frame + n))
            frame += 1

    def _noise(self, recent: Tensor, denoiser: Window, rng: Streams) -> Tensor:
        """The window where all is noise, frame by frame from its own address."""
        frame = torch.zeros_like(recent[:, :, 0])
        white = [rng.inside("frame", k + 1).at("enter").normal(frame) for k in range(self.width)]
        process = denoiser.process
        z = process.noise.sqrt(torch.stack(white, dim=2))
        sigma = process.coefficients(torch.ones((), dtype=torch.float64))[2]
        return sigma.to(z) * z

    def _shifted(
        self, x: Tensor, t: Tensor, state: History, denoiser: Window, context: Context, rng: Streams
    ) -> tuple[Tensor, History]:
        """The window moved on by a frame, and what the solver remembers with it."""
        fresh = self.process.noise.sqrt(rng.at("enter").normal(torch.zeros_like(x[:, :, 0])))
        if self.correlation:
            fresh = self._continued(fresh, x, t, denoiser, context)
        sigma = denoiser.process.coefficients(torch.ones((), dtype=torch.float64))[2].flatten()[-1]
        x = torch.cat([x[:, :, 1:], sigma.to(x) * fresh[:, :, None]], dim=2)
        values = tuple(
            torch.cat([v[:, :, 1:], torch.zeros_like(v[:, :, :1])], 2) for v in state.x_hat
        )
        return x, History(values, tuple(v + self.unit for v in state.t))

    def _continued(
        self, fresh: Tensor, x: Tensor, t: Tensor, denoiser: Window, context: Context
    ) -> Tensor:
        """Noise (B, C, *grid) that follows that of the last frame, of which only the estimate
        z_hat is known; what it leaves open is drawn anew, as for innovations N(0, C)."""
        process, a = denoiser.process, self.correlation
        z_hat = process.residual(x, denoiser(x, t, context), t)[:, :, -1]
        alpha, _, sigma = (v.flatten() for v in process.coefficients(t))
        at = torch.arange(self.width, dtype=torch.float64)
        seen = sigma[:, None] * a ** (at[:, None] - at).abs() * sigma + torch.diag(alpha**2)
        gain = sigma * a ** (at[-1] - at)
        known = gain @ torch.linalg.solve(seen, gain)
        return a * z_hat + torch.sqrt(1 - a**2 * known).to(x) * fresh

    def _forcings(self, context: Context, frame: int) -> Tensor | None:
        """Of the `history` frames before ``frame`` and of the window from it; those that are not
        known any more are the last that are."""
        known = context.forcings
        if known is None:
            return None
        assert context.past is not None
        at = context.past.shape[2] + frame - 1
        if at >= known.shape[2]:
            raise InputError(
                f"Got forcings of {known.shape[2] - context.past.shape[2]} lead steps; expected at "
                f"least {frame}."
            )
        index = torch.arange(at - self.history, at + self.width).clamp_max(known.shape[2] - 1)
        return known[:, :, index.to(known.device)]

    def loss(self, film: Tensor, context: Context, rng: Streams, share: float) -> Tensor:
        past = recent = film[:, :, : self.history]
        now = replace(context, past=past, forcings=self._forcings(replace(context, past=past), 1))
        e = []
        for k in range(self.width):
            new = film[:, :, self.history + k]
            e.append(over(new - self.mean(recent, now, k + 1), self.scale))
            recent = torch.cat([recent[:, :, 1:], new[:, :, None]], dim=2)
        clean = torch.stack(e, dim=2)
        denoiser = self.denoiser(film.ndim - 3)
        t = self._times(film, rng)
        x_t, _ = denoiser.process.forward(clean, t, rng=rng.at("noise"))
        known, size, answer = denoiser.parts(x_t, t, now)
        kappa = denoiser.process.kappa(t)
        weight = torch.ones_like(kappa) if self.emphasis is None else self.emphasis(kappa)
        low, high = self.process.clock.ends()
        moves = (kappa > low * (1 + 1e-9)) & (kappa < high * (1 - 1e-9))
        gap = (answer - (clean - known) / size).square().flatten(3).mean(3).mean(1)
        weight = (weight * moves).flatten(2)[:, 0].to(gap)
        return (weight * gap).mean(1)

    def _times(self, film: Tensor, rng: Streams) -> Tensor:
        """Global times (B, 1, ..) of a training step: rolling, or at the start."""
        draws = torch.special.ndtr(rng.at("time").normal(film.new_zeros(len(film), 2).double()))
        which, place = draws[:, 0], draws[:, 1]
        units = torch.where(
            which < self.startup,
            self.width + (self.width - 1) * place,
            self.width - 1 + place,
        )
        return (units * self.unit).view(-1, *[1] * (film.ndim - 1))


def scaled(e: Tensor, scale: Tensor) -> Tensor:
    """Innovations (B, C, *grid) in the units of frames."""
    return e * _wide(scale, e)


def over(gap: Tensor, scale: Tensor) -> Tensor:
    """The inverse of `scaled`."""
    return gap / _wide(scale, gap)


def _wide(scale: Tensor, e: Tensor) -> Tensor:
    """``scale`` with ones in the place of the grid, if it has one number a channel."""
    scale = scale.to(e)
    return scale.view(-1, *[1] * (e.ndim - 2)) if scale.ndim == 1 else scale
