"""An experiment as data: a TOML file read into frozen, typed values, or refused in one line.

A config composes nothing. It names a data set and a model of the shelves and gives numbers; what
they mean stands in Python. Its first line is a comment that says what the experiment is::

    # Darcy, two phases at 32 x 32: the shipped model, about 40 minutes on 2 cores
    [data]
    recipe = "darcy"
    store = "stores/darcy32.zarr"
    numbers = { samples = 4000, grid = 32 }

    [model]
    recipe = "darcy"

    [train]
    out = "models/darcy"
    steps = 20000

Nothing is guessed: an unknown key names its nearest, a value of another type is said as
``path.to.key: got, expected``, ``"1e-4"`` is text and not a number, and a path that the run writes
to stays below the working folder. The flags of the command line (``--out``, ``--store``) go where
their user says.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, ValidationInfo
from pydantic.dataclasses import dataclass

from sciddm.errors import InputError, nearest

Section = TypeVar("Section")

_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
_FILE = {"from": "file"}
_NAME = re.compile(r"[A-Za-z0-9_]+")


def inside(path: str, info: ValidationInfo) -> str:
    """A relative path that stays below the working folder, symbolic links included.

    Raises ``ValueError`` for an absolute path, ``..``, ``~``, control characters, and a link that
    leads out. Only a file is held to it (``info.context``): a person at the command line or in
    Python may write anywhere.
    """
    if info.context is None:
        return path
    parts = Path(path).parts
    here = Path.cwd().resolve()
    odd = not parts or not path.isprintable() or path.startswith("~")
    if odd or Path(path).is_absolute() or ".." in parts or "\\" in path:
        raise ValueError("a relative path below the working folder, without '..'")
    if not (here / path).resolve().is_relative_to(here):
        raise ValueError("a path below the working folder; a symbolic link leads out of it")
    return path


def shelf_name(name: str, info: ValidationInfo) -> str:
    """The name of a shelf file (letters, digits, ``_``) or a relative path that ends in ``.py``."""
    if _NAME.fullmatch(name):
        return name
    if not name.endswith(".py"):
        raise ValueError("the name of a shelf file (letters, digits, '_') or a path ending in .py")
    return inside(name, info)


def number(value: object) -> object:
    """A plain value, or a flat list of plain values; the recipe says which type it wants."""
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, (dict, list)) or (isinstance(item, float) and not math.isfinite(item)):
            raise ValueError("a finite number, a text, true or false, or a flat list of them")
    return value


Number = Annotated[Any, AfterValidator(number)]
Inside = Annotated[str, AfterValidator(inside)]
ShelfName = Annotated[str, AfterValidator(shelf_name)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(gt=0, le=1)]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Data:
    """Which data set, where its store is, and the numbers that its recipe is made with."""

    recipe: ShelfName
    store: Inside
    size: Annotated[str, Field(min_length=1)] = "toy"
    seed: NotNegative = 0
    numbers: dict[str, Number] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Architecture:
    """The section ``[model]``: which recipe builds the model, and with what numbers."""

    recipe: ShelfName
    numbers: dict[str, Number] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Train:
    """How long and how fast a model learns, and where it is saved.

    ``out`` is the folder of the saved model; ``run`` holds checkpoints and the log (default
    ``runs/<name of out>``). ``ema`` is the decay a step of the averaged weights, ``clip`` the
    largest gradient norm, ``warmup`` the steps over which the learning rate rises. ``patience``
    counts validations without a better loss before training stops; 0 never stops early.
    ``noise_mean`` and ``noise_std`` are those of log kappa, the noise levels trained on: wider than
    for photographs, because the members must also fit their sensors at low noise. ``amplitude`` is
    the s.d. of a random log factor on each training field, so that a short record also teaches
    weaker and stronger anomalies than it holds; 0 leaves the fields as they are. The first
    ``coarse_steps`` see means over blocks of ``coarse`` points along every axis, which cost that
    factor less for each axis.
    """

    out: Inside
    steps: Count
    batch: Count = 16
    learning_rate: Positive = 1e-3
    warmup: NotNegative = 0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    clip: Positive = 1.0
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.999
    noise_mean: float = -0.5
    noise_std: Positive = 2.0
    amplitude: Annotated[float, Field(ge=0)] = 0.0
    coarse_steps: NotNegative = 0
    coarse: Count = 2
    seed: NotNegative = 0
    checkpoint_every: Count = 1000
    validation_every: Count = 1000
    patience: NotNegative = 0
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    devices: Count = 1
    run: Inside | None = None

    def __post_init__(self) -> None:
        if self.warmup >= self.steps:
            raise ValueError(f"warmup = {self.warmup} below steps = {self.steps}")
        if self.folder == Path(self.out):
            raise ValueError(f"run and out to be two folders, both are {self.out!r}")

    @property
    def folder(self) -> Path:
        """Where checkpoints and the log go."""
        return Path(self.run) if self.run else Path("runs") / Path(self.out).name


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Fit:
    """Where a model is saved that its recipe fits and that has nothing to train."""

    out: Inside


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Recover:
    """A field from a file of observations: ``std`` is their standard error in the units of the
    variable; a table may carry its own instead. ``steps`` are network evaluations a member."""

    model: str
    observations: str
    out: Inside
    variable: str | None = None
    std: Positive | None = None
    members: Count = 64
    steps: Count | None = None
    seed: NotNegative = 0


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Inverse:
    """A coefficient and a solution from a file of sensors, with a report in the folder ``out``.

    ``truth`` is a file of both, where it is known. ``equation`` (poisson, helmholtz, darcy) is that
    of a model that draws both fields; one with a solver knows its own.
    """

    model: str
    observations: str
    out: Inside
    variable: str | None = None
    std: Positive | None = None
    members: Count = 64
    steps: Count | None = None
    seed: NotNegative = 0
    truth: str | None = None
    equation: str | None = None


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Evaluate:
    """Fields of one split, observed at random points and recovered, against what they were.

    ``share`` of the points of ``variable`` is seen with standard error ``std`` (in its units) or
    ``relative_std`` (in standard deviations of the training split): exactly one of the two.
    """

    model: str
    variable: str
    out: Inside
    share: Share = 0.03
    std: Positive | None = None
    relative_std: Positive | None = None
    split: Literal["train", "validation", "test"] = "test"
    cases: Count = 8
    members: Count = 64
    steps: Count | None = None
    seed: NotNegative = 0

    def __post_init__(self) -> None:
        if (self.std is None) == (self.relative_std is None):
            raise ValueError("exactly one of std and relative_std")


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Forecast:
    """What follows a past, scored where the past's file goes on, in the folder ``out``.

    ``past`` is a store or file with a time axis; without it, the ``split`` of the data set.
    ``starts`` are dates (or numbers) as text, or how many, evenly spread where history and truth
    are whole. ``films`` are how many of a data set of films. ``steps`` are lead steps. ``block``
    starts are resampled together for the intervals of the scores; without it none are given.
    """

    model: str
    out: Inside
    past: str | None = None
    split: Literal["train", "validation", "test"] = "test"
    steps: Count = 12
    starts: Count | list[str] = 8
    films: Count = 8
    members: Count = 64
    seed: NotNegative = 0
    forcings: str | None = None
    block: Count | None = None


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ImputeSeries:
    """Gaps of series, filled and, where they were hidden, held to what was there; in ``out``.

    ``file`` is a table or store with gaps; without it, ``items`` of the ``split`` of the data set,
    of which ``share`` of the values or one block of ``rows`` rows a variable is hidden.
    """

    model: str
    out: Inside
    file: str | None = None
    split: Literal["train", "validation", "test"] = "test"
    share: Share | None = None
    rows: Count | None = None
    items: Count = 8
    members: Count = 64
    seed: NotNegative = 0

    def __post_init__(self) -> None:
        if self.share is not None and self.rows is not None:
            raise ValueError("share or rows, not both")
        if self.file is None and self.share is None and self.rows is None:
            raise ValueError("a file with gaps, or what to hide: share or rows")


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class ForecastSeries:
    """What follows series, scored at ``starts`` starts that lie ``steps`` rows apart at the end of
    each of ``items`` items of ``file``, or of the ``split`` of the data set; in ``out``."""

    model: str
    out: Inside
    file: str | None = None
    split: Literal["train", "validation", "test"] = "test"
    steps: Count = 12
    starts: Count = 1
    items: Count = 8
    members: Count = 64
    seed: NotNegative = 0


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Run:
    """One experiment. A pipeline asks for the sections it needs with `need`."""

    title: str = ""
    data: Data | None = None
    model: Architecture | None = None
    train: Train | None = None
    fit: Fit | None = None
    recover: Recover | None = None
    evaluate: Evaluate | None = None
    pde_inverse: Inverse | None = None
    forecast: Forecast | None = None
    impute_series: ImputeSeries | None = None
    forecast_series: ForecastSeries | None = None
    resume: bool = False
    overwrite: bool = False
    as_json: bool = False

    def __post_init__(self) -> None:
        if self.resume and self.overwrite:
            raise ValueError("resume or overwrite, not both")
        draws = (self.recover, self.evaluate, self.pde_inverse, self.forecast, self.impute_series,
                 self.forecast_series)  # fmt: skip
        writes = [s.out for s in (self.train, self.fit, *draws) if s is not None]
        if self.data is not None and Path(self.data.store) in map(Path, writes):
            raise ValueError(f"an output that is not the input store {self.data.store!r}")


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Demo:
    """What ``pipelines/demo.py`` is asked for: a folder ``out``, and either nothing more (a fresh
    field of a PDE) or the user's own file ``data`` and its ``variable``."""

    out: str = "runs/demo"
    data: str | None = None
    variable: str | None = None
    members: Count = 64
    seed: NotNegative = 0
    overwrite: bool = False
    as_json: bool = False


# What a file may hold; the other fields of `Run` are said on the command line.
SECTIONS = {
    "data": Data,
    "model": Architecture,
    "train": Train,
    "fit": Fit,
    "recover": Recover,
    "evaluate": Evaluate,
    "pde_inverse": Inverse,
    "forecast": Forecast,
    "impute_series": ImputeSeries,
    "forecast_series": ForecastSeries,
}


def read(path: str | Path, *, resume: bool = False, overwrite: bool = False) -> Run:
    """The experiment in the TOML file ``path``.

    Raises `InputError` for a file that is missing, is not TOML, does not say in its first line
    what it is, or holds an unknown, missing, mistyped or contradicting key.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        tree = tomllib.loads(text)
    except FileNotFoundError:
        known = [str(p) for p in sorted(path.parent.glob("*.toml"))]
        hint = nearest(str(path), known)
        raise InputError(f"Got config {str(path)!r}, no such file.{hint}") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"Got config {str(path)!r}, expected a TOML file: {reason}.") from None
    first = text.splitlines()[0].strip() if text.strip() else ""
    title = first.lstrip("#").strip()
    if not first.startswith("#") or not title:
        raise InputError(
            f"Got {first[:60]!r} as the first line of {str(path)!r}, expected a comment that says "
            "what the experiment is: '# Poisson at 64 x 64, 30 minutes'."
        )
    unknown = [key for key in tree if key not in SECTIONS]
    if unknown:
        hint = nearest(unknown[0], SECTIONS)
        raise InputError(f"Got {unknown[0]!r} in {str(path)!r}, expected a known section.{hint}")
    tree |= {"title": title, "resume": resume, "overwrite": overwrite}
    run: Run = checked(Run, tree, f"{path}: ", from_file=True)
    return run


def need(section: Section | None, name: str) -> Section:
    """The section, or an `InputError` that names the one that is missing."""
    if section is None:
        raise InputError(f"Got a config without [{name}], which this pipeline reads; add it.")
    return section


def changed(section: Section, changes: Mapping[str, object]) -> Section:
    """A section (or a whole `Run`) with other values, held to the same rules."""
    tree: dict[str, object] = dataclasses.asdict(section) | {  # type: ignore[call-overload]
        key: dataclasses.asdict(value) if dataclasses.is_dataclass(value) else value  # type: ignore
        for key, value in changes.items()
    }
    result: Section = checked(type(section), tree)
    return result


def checked(kind: Any, value: object, where: str = "", *, from_file: bool = False) -> Any:
    """``value`` as a ``kind`` (any annotation), strictly typed, or one `InputError`.

    JSON is the road, not Python objects: a TOML array may then fill a tuple and a date a string,
    while ``"1"`` still fills no integer.
    """
    adapter = TypeAdapter(kind)
    try:
        text = json.dumps(value, default=str)
        return adapter.validate_json(text, strict=True, context=_FILE if from_file else None)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        # A misspelt key is also a missing one: say the cause, not the effect.
        problems.sort(key=lambda problem: problem["type"] not in _UNKNOWN)
        more = f" And {len(problems) - 1} more to mend." if len(problems) > 1 else ""
        raise InputError(where + _line(dict(problems[0])) + more) from None


_UNKNOWN = ("unexpected_keyword_argument", "extra_forbidden")
_MISSING = ("missing", "missing_argument", "missing_keyword_only_argument")


def _line(problem: dict[str, Any]) -> str:
    """One problem of pydantic's as ``path.to.key: got, expected``."""
    loc, got = problem["loc"], problem["input"]
    key = ".".join(map(str, loc))
    if problem["type"] in _UNKNOWN:
        known = [field.name for field in dataclasses.fields(SECTIONS[str(loc[0])])]
        return f"{key}: unknown key.{nearest(str(loc[-1]), known)}"
    if problem["type"] in _MISSING:
        return f"{key}: missing; it has no default, add it."
    wanted = str(problem["msg"]).removeprefix("Value error, ").removeprefix("Input should be ")
    whole = problem["type"] == "value_error" and len(loc) < 2  # two keys of a section that disagree
    came = "" if whole else f"got {got!r}, "
    return f"{key}: {came}expected {wanted}." if key else f"{came}expected {wanted}."
