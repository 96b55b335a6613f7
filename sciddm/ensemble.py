"""Ensembles: members in micro-batches of one fixed size, in memory or streamed to zarr.

Every network call has exactly `BLOCK` rows, so a member is the same to the bit whatever else was
drawn with it: float32 results depend on the batch size, not on the place in a batch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import xarray as xr
import zarr
from torch import Tensor

from sciddm import rollout
from sciddm.data import checks, disk
from sciddm.data import store as stores
from sciddm.draws import BLOCK, Anchors, Case, Guided, Kriged, Phased, Rule
from sciddm.errors import InputError, RunError
from sciddm.evidence import Evidence
from sciddm.guide import PriorFit, prior_fits
from sciddm.model import Model
from sciddm.observe import Observation
from sciddm.observe.noise import Gaussian as Normal
from sciddm.outlook import Outlook
from sciddm.pde import Phases
from sciddm.random import SCHEME, Streams
from sciddm.solve import Solver
from sciddm.tree import Encoder

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Job:
    """What to draw: a model, what is seen (None: nothing, the prior), how many members, a seed.

    rule : guidance, ``(prior denoiser, observation) -> denoiser``; None takes the default, moment
        matching in closed form where the model carries a covariance, else through its Jacobian.
    sizes : points along each grid dim, where they differ from the model's own.
    steps : times on the sampler's grid, or None for the model's own number.
    solver : in the place of the model's own.
    """

    model: Model
    seen: Evidence | None
    members: int
    seed: int = 0
    rule: Rule | None = None
    sizes: Mapping[str, int] | None = None
    steps: int | None = None
    solver: Solver | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.model, Model) or not isinstance(self.seen, Evidence | None):
            raise InputError(
                f"Got a {type(self.model).__name__} and a {type(self.seen).__name__}; expected a "
                "model (sciddm.load) and what is seen (sciddm.Observed)."
            )
        for number in (self.members, self.seed, 2 if self.steps is None else self.steps):
            if not isinstance(number, int | np.integer):
                raise InputError(f"Got {number!r} for members, seed or steps; expected an integer.")
        if self.members < 1:
            raise InputError(f"Got {self.members} members; expected at least 1.")
        if self.seed < 0:
            raise InputError(f"Got seed {self.seed}; expected a non-negative integer.")
        if self.steps is not None and self.steps < 2:
            raise InputError(f"Got {self.steps} steps; expected at least 2.")
        if self.solver is not None and not isinstance(self.solver, Solver):
            raise InputError(
                f"Got solver {self.solver!r}; expected a value such as solve.Euler() (names are of "
                "the command line: choices.SOLVERS)."
            )
        if self.rule is not None and not callable(self.rule):
            raise InputError(
                f"Got rule {self.rule!r}; expected a function of a denoiser and an observation "
                "such as guide.MMPS (names are of the command line: choices.RULES)."
            )

    @property
    def target(self) -> Model:
        """The model on the grid, with the steps and the solver that were asked for."""
        model = self.model if self.sizes is None else self.model.at(self.sizes)
        if self.steps is None and self.solver is None:
            return model
        sampler = model.diffusion
        if self.steps is not None:
            sampler = replace(sampler, steps=self.steps)
        if self.solver is not None:
            sampler = replace(sampler, solver=self.solver)
        return replace(model, sampler=sampler)

    @cached_property
    def cases(self) -> list[Case]:
        """(number, label, observation) of every case; None is drawn from the prior."""
        return [(0, None, None)] if self.seen is None else list(self.seen.cases(self.target.fields))

    @cached_property
    def anchors(self) -> Anchors | None:
        """Linearisations near the modes under the Gaussian inside the model, if there is one."""
        model = self.target
        blank = torch.zeros(1, *model.fields.shape)
        return None if model.gaussian is None else Anchors(model.gaussian, blank)


@dataclass(frozen=True, eq=False)
class Block:
    """Members ``first`` to ``first + len - 1`` of one case, drawn."""

    case: int
    label: xr.DataArray | None
    first: int
    fields: xr.Dataset
    misfit: Tensor


Draw = Callable[[Observation | None, Streams], Tensor]


def stream(
    job: Job, draw: Draw | None = None, skip: Callable[[int, int], bool] = lambda case, first: False
) -> Iterator[Block]:
    """Draw block after block; ``skip(case, first)`` leaves finished ones out.

    ``draw`` maps an observation and addressed noise to fields (BLOCK, C, *grid); None takes the
    job's own sampler and guidance. Everything is checked before the first draw. Raises `RunError`
    for a member that diverged.
    """
    model = job.target
    every = job.cases
    _warn_of_nothing(job, every)
    if draw is None:
        draw = _drawing(job, model, every)
    for case, label, observation in every:
        for first in range(0, job.members, BLOCK):
            if skip(case, first):
                continue
            rng = Streams.of(job.seed, range(first, first + BLOCK), case)
            x = draw(observation, rng)[: job.members - first]
            if not bool(torch.isfinite(x).all()):
                bad = first + int((~torch.isfinite(x).flatten(1).all(1)).nonzero()[0])
                raise RunError(
                    f"Member {bad} of case {case} diverged; nothing of it was kept. Take more "
                    "steps, or check the observations and their errors."
                )
            misfit = x.new_zeros(0) if observation is None else observation.misfit(x)
            number = xr.DataArray(np.arange(first, first + len(x)), dims="member", name="member")
            yield Block(case, label, first, model.fields.decode(x, number), misfit)


def _drawing(job: Job, model: Model, every: list[Case]) -> Draw:
    """The sampler and the guidance of the job."""
    if not isinstance(model.sampler, Phases):
        return Guided(model, job.rule, job.anchors)
    if job.rule is not None:
        _ = model.diffusion  # refuses it
    return Phased(model, job.seen, every)


def _warn_of_nothing(job: Job, every: list[Case]) -> None:
    blind = [(i, label) for i, label, observation in every if observation is None]
    if job.seen is None or not blind:
        return
    number, label = blind[0]
    where = "" if label is None else f" in case {number} ({label.values}), {len(blind)} in all"
    checks.warn(f"Nothing is observed{where}: every value is NaN. The draws are of the prior.")


def draw(job: Job, progress: Progress = lambda done, total: None) -> xr.Dataset:
    """The whole ensemble in memory: dims ``member`` (and the case dim, if it was observed)."""
    return _collect(job, stream(job), progress)


def krige(job: Job, progress: Progress = lambda done, total: None) -> xr.Dataset:
    """The same from the Gaussian model inside: optimal interpolation, drawn exactly, and values
    that are not linear in the field by randomised maximum likelihood.

    Raises `InputError` for a model without one.
    """
    if job.anchors is None:
        raise InputError("This model holds no Gaussian to interpolate with; use recover.")
    kriged = Kriged(job.target, job.anchors)
    post = _collect(job, stream(job, kriged), progress)
    law = "exact" if kriged.exact else "randomised maximum likelihood"
    how = {"solver": law, "steps": 0, "network_evaluations": 0, "guidance": law}
    return post.assign_attrs(how)


def _collect(job: Job, draws: Iterator[Block], progress: Progress) -> xr.Dataset:
    blocks, total = [], -(-job.members // BLOCK)
    for block in draws:
        blocks.append(block)
        progress(len(blocks), total)
    return _assemble(job, blocks)


def run(
    job: Job | Outlook,
    store: str | Path,
    *,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = lambda done, total: None,
) -> xr.Dataset:
    """Stream the ensemble to a zarr store, block by block, and return it lazily.

    A run that was killed goes on with ``resume=True``: finished blocks are not drawn again, and the
    result is the same to the bit. One that is finished is opened. An `Outlook` is a forecast; see
    `sciddm.rollout.run`.

    Raises `InputError` before anything is written, also for a store that another job began.
    """
    if isinstance(job, Outlook):
        return rollout.run(job, store, resume=resume, overwrite=overwrite, progress=progress)
    store = Path(store)
    model = job.target
    every = job.cases
    labels = [label for _, label, _ in every if label is not None]
    template = _template(job, model, labels).assign_attrs(job=_digest(job, model))
    if resume and store.exists():
        finished_ds = stores.open(store)
        if finished_ds.attrs.get("job") != template.attrs["job"]:
            raise InputError(f"{store} holds the draws of another job; choose another name.")
        stores.finalize(store)  # what a kill at the very end left behind
        return finished_ds
    chunks = {"member": min(BLOCK, job.members)} | ({str(labels[0].name): 1} if labels else {})
    if stores.done(store) and not resume:
        raise InputError(
            f"{store} was begun by an earlier run; say resume, or remove its .partial."
        )
    stores.create(template, store, chunks=chunks, overwrite=overwrite)
    finished = stores.done(store)
    total = len(every) * -(-job.members // BLOCK)
    count = len(finished)
    blocks = stream(job, skip=lambda case, first: _key(labels, case, first, job) in finished)
    for block in _served(blocks, store) if not finished else blocks:
        region = _region(labels, block.case, block.first, job)
        fields = block.fields.drop_vars(list(block.fields.coords))
        if labels:
            fields = fields.expand_dims({str(labels[0].name): 1}, axis=1)
        _note_misfit(store, stores.region_key(region), block.misfit)
        stores.put(store, fields, region)
        count += 1
        progress(count, total)
    _sum_misfits(store)
    stores.finalize(store)
    return stores.open(store)


def _served(blocks: Iterator[Block], store: Path) -> Iterator[Block]:
    """``blocks``; where the first is refused, by a solver or rule that cannot serve the job, the
    empty store is taken away."""
    try:
        yield next(blocks)
    except InputError:
        stores.discard(store)
        raise
    yield from blocks


def _note_misfit(store: Path, key: str, misfit: Tensor) -> None:
    """Keep the misfits of a block beside the unfinished store, before it is recorded as done."""
    folder = store.with_name(f"{store.name}.partial") / "misfit"
    folder.mkdir(exist_ok=True)
    disk.write_json(folder / f"{key}.json", misfit.tolist())


def _sum_misfits(store: Path) -> None:
    partial = store.with_name(f"{store.name}.partial")
    files = sorted((partial / "misfit").glob("*.json"))
    misfit = torch.tensor([v for f in files for v in json.loads(f.read_text())])
    if len(misfit):
        group = zarr.open_group(partial / "store", mode="r+", use_consolidated=False)
        group.attrs["misfit_sd"] = _rms(misfit)


def _rms(misfit: Tensor) -> float:
    return round(float(misfit.double().square().mean().sqrt()), 4)


def _region(labels: list[xr.DataArray], case: int, first: int, job: Job) -> dict[str, slice]:
    region = {"member": slice(first, min(first + BLOCK, job.members))}
    return region | ({str(labels[0].name): slice(case, case + 1)} if labels else {})


def _key(labels: list[xr.DataArray], case: int, first: int, job: Job) -> str:
    return stores.region_key(_region(labels, case, first, job))


def _template(job: Job, model: Model, labels: list[xr.DataArray]) -> xr.Dataset:
    ds = model.fields.grid.template()
    lead: dict[str, int] = {"member": job.members}
    ds = ds.assign_coords(member=("member", np.arange(job.members)))
    if labels:
        name = str(labels[0].name)
        # joined as variables: dates of a model calendar are objects, which numpy would nest
        ds = ds.assign_coords({name: xr.Variable.concat([v.variable for v in labels], name)})
        lead[name] = len(labels)
    shape = (*lead.values(), *model.fields.grid.shape)
    ds = ds.assign_coords(_kept(job, ds))
    for name, attrs in model.fields.variables.items():
        blank = np.broadcast_to(np.float32(0), shape)
        ds[name] = ((*lead, *model.fields.grid.dims), blank, dict(attrs))
    return ds.assign_attrs(_attrs(job, model) | _surprise(job, model))


def _assemble(job: Job, blocks: list[Block]) -> xr.Dataset:
    by_case: dict[int, list[Block]] = {}
    for block in blocks:
        by_case.setdefault(block.case, []).append(block)
    parts = []
    for group in by_case.values():
        ds = xr.concat([b.fields for b in group], "member")
        label = group[0].label
        if label is not None:
            name = str(label.name)
            ds = ds.assign_coords({name: label.variable}).expand_dims(name, 1)
        parts.append(ds)
    first = blocks[0].label
    ds = parts[0] if first is None else xr.concat(parts, str(first.name))
    ds = ds.assign_coords(_kept(job, ds))
    misfit = torch.cat([b.misfit for b in blocks])
    attrs = _attrs(job, job.target) | _surprise(job, job.target)
    if len(misfit):
        attrs["misfit_sd"] = _rms(misfit)
    return ds.assign_attrs(attrs)


def _kept(job: Job, ds: xr.Dataset) -> dict[str, xr.Variable]:
    """Coordinates without a dim that came with the observations, and clash with nothing of ours."""
    seen = {} if job.seen is None else job.seen.scalars
    return {
        n: v for n, v in seen.items() if n not in ds.dims and n not in job.model.fields.variables
    }


def _digest(job: Job, model: Model) -> str:
    """The model and what is seen, hashed: a run is not resumed with others."""
    encoder = Encoder()
    tree = [encoder.encode(part) for part in (model.fields, model.sampler, model.moments)]
    words = hashlib.sha256(json.dumps([tree, _attrs(job, model), job.members]).encode())
    for name, tensor in sorted(encoder.tensors.items()):
        words.update(name.encode() + tensor.numpy().tobytes())
    for part in () if job.seen is None else job.seen.identity():
        words.update(part)
    return words.hexdigest()[:16]


def _attrs(job: Job, model: Model) -> dict[str, str | int | float]:
    if isinstance(model.sampler, Phases):
        law = "level set: exact given the coefficient, Gauss-Newton members given the solution"
        said: dict[str, str | int | float] = {"solver": law, "guidance": law, "seed": job.seed}
        none = {"steps": 0, "network_evaluations": 0}
        return {"Conventions": "CF-1.10", **said, **none, "noise_scheme": SCHEME}
    sampler = model.diffusion
    return {
        "Conventions": "CF-1.10",
        "solver": repr(sampler.solver),
        "grid": repr(sampler.grid),
        "steps": sampler.steps,
        "network_evaluations": sampler.evaluations,
        "guidance": _guidance(job),
        "choice": "the default" if job.rule is None and job.solver is None else "the caller's",
        "seed": job.seed,
        "noise_scheme": SCHEME,
    }


def _surprise(job: Job, model: Model) -> dict[str, float | str]:
    """How far the observations lie from the model's Gaussian: the largest chi-square of a case, and
    the range of 99 in 100. Far above: a wrong prior, or errors said too small."""
    if job.seen is None or model.gaussian is None:
        return {}
    seen = [o for _, _, o in job.cases if o is not None]
    if not seen or not isinstance(seen[0].law, Normal):
        return {}
    assert job.anchors is not None  # the model holds a Gaussian
    bent = [o for o in seen if job.anchors.serve(o)]
    blank = torch.zeros(1, *model.fields.shape)
    fits = prior_fits(model.gaussian, [o for o in seen if o not in bent], blank)
    fits += [PriorFit.of([job.anchors.chi_square(o)], o.y.shape[-1]) for o in bent]
    worst = max(fits, key=lambda f: f.chi_square[0] / f.high)
    return {
        "chi_square": round(worst.chi_square[0], 2),
        "chi_square_range": f"{worst.low:.1f} to {worst.high:.1f}",
    }


def _guidance(job: Job) -> str:
    if job.seen is None:
        return "none"
    if job.rule is not None:
        return getattr(job.rule, "__name__", type(job.rule).__name__)
    return "MMPS" if job.model.moments is None else "moment matching, closed form"
