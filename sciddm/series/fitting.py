"""The law of a series by maximum likelihood: the exact density of cells at their own times.

A law is a tree of numbers (lengths, variances, loads). `fitted` takes any law of dataclasses as a
start and makes its numbers the likeliest, `polished` does so on few series to the last digit, and
`maximum_likelihood` for a law that any function builds of free parameters. Long records are cut by
`windows`, whose densities are multiplied.

Rasmussen, Williams. Gaussian processes for machine learning. 2006, eq. 5.8 (marginal likelihood).
Varin, Reid, Firth. An overview of composite likelihood methods. 2011 (products of windows).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from sciddm.errors import InputError
from sciddm.series.kernel import Mixed, Shape, Term
from sciddm.series.law import Law, log_prob
from sciddm.series.panel import Panel

Parameters = Mapping[str, Tensor]
Build = Callable[[Parameters], Law]
Panels = Panel | Callable[[int], Panel]
Loss = Callable[[Law, Panel], Tensor]


def maximum_likelihood(
    build: Build,
    start: Parameters,
    panels: Panels,
    *,
    steps: int = 150,
    rate: float = 0.1,
    batch: int = 32,
    loss: Loss | None = None,
) -> Law:
    """The likeliest ``build(parameters)``, by Adam on parts of the panels, float64.

    Parameters
    ----------
    build : free parameters, by name -> a law. start : their first values.
    panels : one panel, whose rows are taken ``batch`` at a time, or a function of the step that
        gives a panel. All real cells hold the truth, as in training; known or not makes no
        difference.
    rate : first step size; it falls to 0 along a cosine.
    loss : what is minimised instead of minus the mean density, a scalar.

    Raises `InputError` where no cell has a value, or the likelihood is not finite at the start.
    """
    free = {
        name: torch.as_tensor(value).detach().double().clone().requires_grad_()
        for name, value in start.items()
    }
    if isinstance(panels, Panel) and not bool(panels.real.any()):
        raise InputError("Got series without any value; expected some to fit a law to.")
    if not free:
        return build(free)
    optimiser = torch.optim.Adam(list(free.values()), lr=rate, betas=(0.9, 0.95))
    for step in range(steps):
        optimiser.param_groups[0]["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimiser.zero_grad()
        law, rows = build(free), part(panels, step, batch)
        value = -mean_log_prob(law, rows) if loss is None else loss(law, rows)
        if not bool(torch.isfinite(value)):
            raise InputError(
                f"The likelihood at step {step} of the fit is not finite; expected finite values "
                "and a start of the size of the data."
            )
        value.backward()
        optimiser.step()
    with torch.no_grad():
        return build({name: value.detach() for name, value in free.items()})


def fitted(
    law: Law,
    panels: Panels,
    *,
    steps: int = 150,
    rate: float = 0.1,
    batch: int = 32,
    fixed: Sequence[str] = ("period", "origin"),
    signed: Sequence[str] = ("loads", "offset"),
    loss: Loss | None = None,
) -> Law:
    """The likeliest law of the form of ``law``, from its numbers on; see `maximum_likelihood`.

    fixed : fields that keep their values. signed : fields of any sign; all other numbers are
    positive, and one that is 0 stays 0, so a law without loads keeps its channels apart.
    """
    start, build = _parts(law, fixed, signed)
    found = maximum_likelihood(build, start, panels, steps=steps, rate=rate, batch=batch, loss=loss)
    floats = _floats(law, found)
    assert isinstance(floats, Law)
    return floats


def polished(
    law: Law,
    panel: Panel,
    *,
    steps: int = 30,
    fixed: Sequence[str] = ("period", "origin"),
    signed: Sequence[str] = ("loads", "offset"),
) -> Law:
    """The same on all rows of one panel at once, by L-BFGS with a line search.

    For panels of moderate size, or after `fitted`: it reaches the maximum itself, where `fitted`
    stops at the noise of its batches, and variances that go to 0 in few steps.
    """
    start, build = _parts(law, fixed, signed)
    free = {name: value.clone().requires_grad_() for name, value in start.items()}
    if not free:
        return law
    optimiser = torch.optim.LBFGS(
        list(free.values()), max_iter=steps, tolerance_grad=1e-6, tolerance_change=1e-8,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> Tensor:
        optimiser.zero_grad()
        try:
            value = -mean_log_prob(build(free), panel)
        except ValueError:  # the line search went where no factor is
            return torch.tensor(1e10, dtype=torch.float64)
        value.backward()
        return value

    if not bool(torch.isfinite(closure())):
        raise InputError("The likelihood at the start is not finite; expected finite values.")
    optimiser.step(closure)
    found = build({name: value.detach() for name, value in free.items()})
    floats = _floats(law, found)
    assert isinstance(floats, Law)
    return likeliest([law, floats], panel)


def _parts(
    law: Law, fixed: Sequence[str], signed: Sequence[str]
) -> tuple[dict[str, Tensor], Build]:
    """The free parameters of a law, and what builds it of them."""
    start: dict[str, Tensor] = {}
    _free(law, "", fixed, signed, start)

    def build(free: Parameters) -> Law:
        made = _with(law, "", signed, free)
        assert isinstance(made, Law)
        return made

    return start, build


def likeliest(laws: Sequence[Law], panel: Panel) -> Law:
    """The one of several fits whose density of the real cells is highest."""
    with torch.no_grad():
        return max(laws, key=lambda law: float(mean_log_prob(law, panel)))


def mean_log_prob(law: Law, panel: Panel) -> Tensor:
    """log p of all real cells of the panel, in nats a cell, a scalar."""
    whole = panel.given(panel.real)
    return log_prob(law, whole).sum() / whole.known.sum().clamp_min(1)


def part(panels: Panels, step: int, batch: int) -> Panel:
    """The panel of a step: the next ``batch`` rows, around and around."""
    if not isinstance(panels, Panel):
        return panels(step)
    count = len(panels)
    if count <= batch:
        return panels
    # a stride without a factor in common with the count mixes rows that stand together
    stride = next(s for s in range(round(0.618 * count), 2 * count) if math.gcd(s, count) == 1)
    return panels.rows((step * batch + torch.arange(batch)) * stride % count)


def windows(panel: Panel, cells: int) -> Panel:
    """Every series cut, in order of time, into windows of at most ``cells`` cells.

    For likelihoods of long records: the cost grows with the cube of the window.
    """
    far = torch.where(panel.real, panel.time, torch.inf)
    order = far.argsort(dim=1, stable=True)
    count = -(-panel.cells // cells)
    slots = torch.arange(count * cells).clamp_max(panel.cells - 1)
    inside = (torch.arange(count * cells) < panel.cells).expand(len(panel), -1)

    def cut(x: Tensor) -> Tensor:
        return x.gather(1, order)[:, slots].reshape(-1, cells)

    def cut_fields(x: Tensor | None) -> Tensor | None:
        if x is None:
            return None
        k = x.shape[1]
        moved = x.gather(2, order[:, None].expand(-1, k, -1))[:, :, slots]
        return moved.reshape(len(panel), k, count, cells).transpose(1, 2).reshape(-1, k, cells)

    real = cut(panel.real) & inside.reshape(-1, cells)
    out = Panel(
        cut(panel.time), cut(panel.channel), cut(panel.value), cut(panel.known) & real, real,
        None if panel.error is None else cut(panel.error), cut_fields(panel.covariates),
        None if panel.static is None else panel.static.repeat_interleave(count, dim=0),
    )  # fmt: skip
    return out.rows(real.any(1))


def median_gap(panel: Panel) -> float:
    """The middle of all gaps between neighbouring times of one channel: the start of a length.

    Raises `InputError` where no channel has two times.
    """
    gaps = []
    for c in range(int(panel.channel.max()) + 1 if panel.real.any() else 0):
        mine = panel.real & (panel.channel == c)
        at = torch.where(mine, panel.time, torch.inf).sort(1).values.diff(dim=1)
        gaps.append(at[torch.isfinite(at) & (at > 0)])
    every = torch.cat(gaps) if gaps else torch.empty(0)
    if not len(every):
        raise InputError("Got series without two times in a channel; expected some gaps.")
    return float(every.median())


def moments(panel: Panel, channels: int) -> tuple[Tensor, Tensor]:
    """Mean and variance (C,) of the real cells of every channel; 0 and 1 where there are none."""
    of = torch.nn.functional.one_hot(panel.channel, channels).double() * panel.real[..., None]
    count = of.sum((0, 1))
    value = torch.where(panel.real, panel.value.double(), 0.0)[..., None]
    mean = (of * value).sum((0, 1)) / count.clamp_min(1)
    square = (of * (value - mean).square()).sum((0, 1)) / count.clamp_min(1)
    # a constant channel has some variance all the same
    return mean, torch.where(count > 0, square.clamp_min(1e-6), 1.0)


def guess(
    panel: Panel,
    channels: int,
    shapes: Sequence[Shape],
    *,
    rank: int = 0,
    rest: float = 0.1,
    centred: bool = False,
) -> Mixed:
    """A law to start `fitted` from: the variance of each channel, shared between the shapes.

    rank : columns of loads of each term, how channels go together. rest : white share.
    centred : the mean is 0 and stays 0, else it is the channel's mean and is fitted.
    """
    mean, variance = moments(panel, channels)
    share = (1 - rest) * variance / len(shapes)
    at = math.pi * (torch.arange(channels).double() + 0.5) / channels
    # half of the share in the loads, as cosines over the channels
    waves = torch.stack([(r * at).cos() for r in range(rank)], -1) if rank else at.new_zeros(0)
    waves = torch.nn.functional.normalize(waves.reshape(channels, rank), dim=1)
    loads = (0.5 * share).sqrt()[:, None] * waves
    own = (0.5 if rank else 1.0) * share
    terms = tuple(Term(shape, loads, own) for shape in shapes)
    return Mixed(terms, rest * variance, None if centred else mean)


Numbers = float | Tensor


def _children(value: object) -> list[tuple[str, object]]:
    """Fields of a dataclass, items of a tuple: the branches of a law."""
    if isinstance(value, tuple):
        return [(str(i), v) for i, v in enumerate(value)]
    if dataclasses.is_dataclass(value):
        return [(f.name, getattr(value, f.name)) for f in dataclasses.fields(value) if f.init]
    return []


def _free(
    value: object, path: str, fixed: Sequence[str], signed: Sequence[str], out: dict[str, Tensor]
) -> None:
    """Free parameters of every number below ``value``: itself where signed, else its log."""
    name = path.split(".")[-1]
    if name in fixed:
        return
    if isinstance(value, float) or (isinstance(value, Tensor) and value.is_floating_point()):
        number = torch.as_tensor(value).detach().double()
        if number.numel() and name in signed:
            out[path] = number
        elif bool((number > 0).any()):
            out[path] = number.clamp_min(1e-300).log()
    for key, child in _children(value):
        _free(child, f"{path}.{key}", fixed, signed, out)


def _with(value: object, path: str, signed: Sequence[str], free: Parameters) -> object:
    """The same tree with its free numbers put in."""
    if path in free:
        found = free[path]
        if path.split(".")[-1] in signed:
            return found
        return torch.where(torch.as_tensor(value).double() > 0, found.exp(), 0.0)
    made = {key: _with(child, f"{path}.{key}", signed, free) for key, child in _children(value)}
    return _rebuilt(value, made)


def _floats(like: object, value: object) -> object:
    """Numbers that were floats are floats again."""
    if isinstance(like, float) and isinstance(value, Tensor):
        return float(value)
    theirs = dict(_children(value))
    made = {key: _floats(child, theirs[key]) for key, child in _children(like)}
    return _rebuilt(value, made)


def _rebuilt(value: object, made: Mapping[str, object]) -> object:
    if isinstance(value, tuple):
        return tuple(made.values())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.replace(value, **made)
    return value
