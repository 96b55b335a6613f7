"""A shelf file, found by name, checked before it runs, and loaded by its path.

The shelves (``datasets/``, ``models/``, ``pipelines/``, ``configs/``) stand beside this package in
the repository and are not in the wheel. They are never imported by name: ``datasets`` and
``models`` would collide with other people's packages. What a shelf file must define and what its
docstring, the card, must say is `SHELVES`; both are read from the source before a line of it runs.
"""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from sciddm.config import Data, checked
from sciddm.errors import InputError, nearest

if TYPE_CHECKING:
    import xarray as xr


@dataclass(frozen=True, slots=True)
class Shelf:
    """What a file of one shelf holds: the function ``verb(first, *, ...)`` and a card with
    ``headings``, each at the start of a line. The one argument of a pipeline may have any name."""

    suffix: str
    verb: str = ""
    first: str = ""
    headings: tuple[str, ...] = ()


SHELVES: Mapping[str, Shelf] = {
    "datasets": Shelf(
        ".py",
        verb="make",
        first="store",
        headings=(
            "Equation or source",
            "Grid and units",
            "Splits",
            "What is hard",
            "Licence",
            "Cite",
        ),
    ),
    "models": Shelf(
        ".py",
        verb="build",
        first="ds",
        headings=(
            "Draws p(",
            "Process and noise",
            "Backbone",
            "Trained on",
            "Scores",
            "Do not use for",
        ),
    ),
    "pipelines": Shelf(".py", verb="main", headings=("Reads", "Writes", "Costs")),
    "configs": Shelf(".toml"),
}

# Keywords of a data set's ``make`` that have keys of their own and are no numbers.
_SPOKEN_FOR = ("size", "seed", "overwrite", "workers", "resume")


def find(kind: str, name: str | Path) -> Path:
    """The shelf file ``name``: a path if it looks like one, else ``kind/name`` in the working
    folder or the nearest parent that has it. `InputError` names the nearest file otherwise."""
    suffix = SHELVES[kind].suffix
    given = Path(name)
    if given.suffix == suffix or len(given.parts) != 1:
        if given.is_file():
            return given
        known = [str(p) for p in sorted(given.parent.glob(f"*{suffix}"))]
        raise InputError(f"Got {str(name)!r}, no such file.{nearest(str(name), known)}")
    folders = [folder / kind for folder in (Path.cwd(), *Path.cwd().parents)]
    for folder in folders:
        if (folder / f"{name}{suffix}").is_file():
            return folder / f"{name}{suffix}"
    shelf = next((folder for folder in folders if any(folder.glob(f"*{suffix}"))), None)
    if shelf is None:
        raise InputError(
            f"Got {str(name)!r}, but there is no {kind}/ here or above: the shelves come with the "
            "repository, not with the wheel; run it there or give the path of a file."
        )
    names = sorted(p.stem for p in shelf.glob(f"*{suffix}"))
    raise InputError(f"Got {str(name)!r}, expected a file of {kind}/.{nearest(str(name), names)}")


def load(path: str | Path, kind: str | None = None) -> ModuleType:
    """The module of the shelf file at ``path``, under a private name.

    ``kind`` is the shelf; without it, the name of the folder. Raises `InputError` when the file
    does not parse, has an incomplete card, lacks its function, or fails while it loads.
    """
    path = Path(path)
    kind = path.resolve().parent.name if kind is None else kind
    if kind not in SHELVES:
        raise InputError(f"Got {str(path)!r}, expected a file of a shelf.{nearest(kind, SHELVES)}")
    problems = faults(path, kind)
    if problems:
        raise InputError(f"{path}: {problems[0]}")
    spec = importlib.util.spec_from_file_location(f"_sciddm_{kind}_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else "no message"
        raise InputError(f"{path} does not load: {type(error).__name__}: {reason}") from error
    return module


def faults(path: Path, kind: str) -> list[str]:
    """What the file lacks to stand on the shelf ``kind``, read from its source, nothing run."""
    shelf = SHELVES[kind]
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError:
        return ["no such file; see the names with `ls` on the shelf."]
    except (OSError, SyntaxError, ValueError) as error:
        return [f"expected a Python file: {str(error).splitlines()[0]}"]
    text = ast.get_docstring(tree) or ""
    found = [f"the card (module docstring) lacks the heading {h!r}; there are: {shelf.headings}."
             for h in shelf.headings if not re.search(rf"(?m)^{re.escape(h)}", text)]  # fmt: skip
    verbs = [f for f in tree.body if isinstance(f, ast.FunctionDef) and f.name == shelf.verb]
    wanted = f"{shelf.verb}({shelf.first}, *, ...)" if shelf.first else f"{shelf.verb}(run)"
    if not verbs:
        return [*found, f"expected a function {wanted}, found none; define it at the top level."]
    arguments = verbs[0].args
    positional = [a.arg for a in (*arguments.posonlyargs, *arguments.args)]
    right = positional == [shelf.first] if shelf.first else len(positional) == 1
    if not right or arguments.vararg or arguments.kwarg:
        found.append(f"got {shelf.verb}({ast.unparse(arguments)}), expected {wanted}.")
    return found


def card(path: str | Path) -> str:
    """The card of a shelf file: its docstring, read without running the file."""
    try:
        text = ast.get_docstring(ast.parse(Path(path).read_text(encoding="utf-8")))
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"Got {str(path)!r}, expected a shelf file: {error}") from None
    if not text:
        raise InputError(f"{path} has no card: its module docstring is empty.")
    return text


def bind(
    function: Callable[..., Any],
    numbers: Mapping[str, object],
    where: str,
    *,
    spoken_for: tuple[str, ...] = (),
) -> dict[str, Any]:
    """The named ``numbers`` as keywords of ``function``, each of the annotated type.

    Raises `InputError` for a name that the function does not take, one that it needs and does not
    get, and a value of another type, saying ``where`` in the config it stands.
    """
    hints = typing.get_type_hints(function)
    takes = {
        name: parameter
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY and name not in spoken_for
    }
    for name in numbers:
        if name not in takes:
            raise InputError(f"{where}.{name}: unknown number.{nearest(name, takes)}")
    for name, parameter in takes.items():
        if parameter.default is parameter.empty and name not in numbers:
            raise InputError(f"{where}.{name}: missing; this recipe has no default for it, add it.")
    return {n: checked(hints.get(n, Any), v, f"{where}.{n}: ") for n, v in numbers.items()}


def free(
    given: str | Path, overwrite: bool, *inputs: str | Path, marker: str | None = "zarr.json"
) -> Path:
    """Where a result may go, checked before any work: free, or an old result to ``overwrite``.

    Raises `InputError` for an output that is one of the ``inputs``, one that exists, and what is no
    folder with ``marker``, or no file where that is None: it is not ours and is never replaced.
    """
    out = Path(given)
    if out.resolve() in [Path(source).resolve() for source in inputs]:
        raise InputError(f"Got output {str(out)!r}, which is the input; choose another name.")
    if out.exists() and not overwrite:
        raise InputError(f"Got output {str(out)!r}, which exists; say --overwrite to replace it.")
    if out.exists() and not (out if marker is None else out / marker).is_file():
        wanted = "a file" if marker is None else f"a folder with {marker}"
        raise InputError(f"Got output {str(out)!r}, which is not {wanted}; it is not replaced.")
    return out


def make(
    data: Data, *, overwrite: bool = False, workers: int | None = None, resume: bool = False
) -> xr.Dataset:
    """Make the data set that ``data`` describes and open it; `overwrite` replaces an old store.

    ``workers`` processes share the work, as many as the machine has cores unless it is said, where
    the recipe can share it; `resume` completes a store that was begun, and opens one that is whole.
    `InputError` before any work when something stands in its place, or the recipe cannot do that.
    """
    from sciddm.data import generate, store

    recipe = load(find("datasets", data.recipe), "datasets")
    takes = inspect.signature(recipe.make).parameters
    # A recipe without the word goes on by itself, or begins again: both end in the same store.
    resume = resume and "resume" in takes
    path = Path(data.store) if resume else free(data.store, overwrite)
    numbers = bind(recipe.make, data.numbers, "data.numbers", spoken_for=_SPOKEN_FOR)
    replaces = path.exists() and not resume
    if replaces and "overwrite" not in takes:
        raise InputError(f"{data.recipe} cannot replace a store; remove {str(path)!r} yourself.")
    if workers is not None and "workers" not in takes:
        raise InputError(f"{data.recipe} works in one process; leave the workers out.")
    many = generate.machine() if workers is None else workers
    asked = {"overwrite": overwrite and not resume, "resume": resume, "workers": many}
    chosen = {name: value for name, value in asked.items() if name in takes and value}
    recipe.make(path, size=data.size, seed=data.seed, **chosen, **numbers)
    return store.open(path)


def opened(data: Data) -> xr.Dataset:
    """The store that ``data`` describes, made first when it is absent.

    Raises `InputError` when a store is there that was made by another recipe, of another size or
    with other numbers: training on it would answer another question.
    """
    from sciddm.data import store

    path = Path(data.store)
    if not path.exists():
        begun = path.with_name(f"{path.name}.partial").exists()
        return make(data, resume=begun)
    ds = store.open(path)
    wanted: dict[str, object] = {**_sized(data), **data.numbers, "seed": data.seed}
    made = {**ds.attrs.get("sciddm_generator", {})}
    made_by, recipe = ds.attrs.get("sciddm_dataset"), Path(data.recipe).stem
    if made_by is not None:
        wanted, made = {"recipe": recipe, **wanted}, {"recipe": made_by, **made}
    for name, value in wanted.items():
        if name in made and made[name] != value:
            raise InputError(
                f"Got store {str(path)!r} made with {name} = {made[name]!r}, expected {value!r}; "
                "name another store or make this one again with --overwrite."
            )
    return ds


def _sized(data: Data) -> dict[str, object]:
    """Samples and grid, or items, of the size that is asked for, where the recipe is at hand and
    says them."""
    try:
        sizes = getattr(load(find("datasets", data.recipe), "datasets"), "SIZES", None)
    except InputError:
        return {}
    if not isinstance(sizes, dict) or data.size not in sizes:
        return {}
    size = sizes[data.size]
    if isinstance(size, int):
        return {"items": size}
    return dict(zip(("samples", "grid"), size, strict=True)) if len(size) == 2 else {}
