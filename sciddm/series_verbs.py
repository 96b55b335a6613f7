"""The verbs of series: ``sciddm impute`` and ``sciddm forecast``, from a table or store to one."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sciddm import recipe, verbs
from sciddm.errors import InputError

if TYPE_CHECKING:
    from sciddm.data.items import Draws, Items
    from sciddm.model import Model

TABLES = (".csv", ".csv.gz")
PRESENT = 0.5
"""Share of the rows of a regular record that must be there for it to be taken for one."""


def impute(args: argparse.Namespace) -> None:
    """Fill the gaps of a file with a saved model, or with a law fitted to its own values."""
    if len(args.inputs) > 2:
        raise InputError(f"Got {len(args.inputs)} inputs, expected [MODEL] FILE.")
    file, folder = args.inputs[-1], args.inputs[0] if len(args.inputs) > 1 else None
    out = free(args, *args.inputs)
    if folder is None and Path(file, "model.json").is_file():
        raise InputError(f"Got the model {file!r} without a file to fill, expected MODEL FILE.")
    if folder is not None:
        import sciddm

        model = sciddm.load(folder)
        if not of_series(model):
            _fields(args, model, file, out)
            return
        items, said = read(args, file), folder
    else:
        items = read(args, file)
        if args.std is None and whole(items):
            import numpy as np

            from sciddm.data.checks import warn
            from sciddm.data.items import Draws

            warn(f"Nothing is missing in {file}; it is given back as it is.")
            every = tuple(np.repeat(i.values[None], args.members, 0) for i in items)
            draws = Draws(items, every)
            write(args, draws, out)
            verbs.show({"output": str(out), "items": len(items), "filled": 0}, args.json)
            return
        model, said = own(items), f"a Gaussian law fitted to the known values of {file}"
    from sciddm import filling

    draws = filling.imputed(
        model, items, members=args.members, seed=args.seed, std=args.std,
        progress=verbs.progress,
    )  # fmt: skip
    write(args, draws, out)
    drawn = sum(v[0].size for v in draws.values) - sum(i.seen for i in items)
    facts = {"output": str(out), "model": said, **model.notes} if folder is None else {
        "output": str(out), "model": said}  # fmt: skip
    verbs.show(facts | {"items": len(draws.items), "filled": drawn} | tail(args, draws), args.json)


def forecast(args: argparse.Namespace, model: Model) -> None:
    """Forecast the series of a file."""
    for flag in ("forcings", "seen", "std", "names"):
        if getattr(args, flag) is not None:
            raise InputError(f"Got --{flag} for a model of series, expected covariates as columns "
                             "of the past, and known values in it (sciddm impute).")  # fmt: skip
    if args.resume:
        raise InputError("Got --resume for a model of series, whose output is written at once.")
    out = free(args, args.model, args.past)
    from sciddm import filling

    items = read(args, args.past)
    starts = args.start if args.start is not None and len(args.start) > 1 else None
    if starts is not None:
        if table(out):
            raise InputError("Got several starts for a table, expected one: --start DATE, or an "
                             "output that ends in .zarr.")  # fmt: skip
        from dataclasses import replace

        from sciddm.data import store
        from sciddm.data.ragged import Labelled

        plain = items if isinstance(items.form, Labelled) else replace(items, form=Labelled())
        ds = filling.forecast(
            model, plain, steps=args.steps, members=args.members, seed=args.seed, start=starts,
            progress=verbs.progress,
        )  # fmt: skip
        store.write(ds, out, overwrite=args.overwrite)
        verbs.show({"output": str(out), "items": len(items), "starts": len(starts),
                    "members": args.members, "seed": args.seed}, args.json)  # fmt: skip
        return
    draws, _ = filling.ahead(
        model, items, steps=args.steps, members=args.members, seed=args.seed,
        start=None if args.start is None else args.start[0], progress=verbs.progress,
    )  # fmt: skip
    write(args, draws, out)
    rows = max(map(len, draws.items))
    facts = {"output": str(out), "model": args.model, "items": len(draws.items), "rows": rows}
    verbs.show(facts | tail(args, draws), args.json)


def of_series(model: Model) -> bool:
    """Whether a model draws series."""
    from sciddm.data.series import SeriesCodec

    return isinstance(model.codec, SeriesCodec)


def read(args: argparse.Namespace, file: str) -> Items:
    """Items of the file, with the columns that the flags name. Raises `InputError` in the words of
    the command line."""
    from sciddm.data import items

    words = [word for word in args.missing or () if not _number(word)]
    codes = None if args.missing is None else [float(c) for c in args.missing if _number(c)]
    try:
        return items.of(
            file, item=args.item or "", time=tuple(args.time or ()),
            target=tuple(args.target or ()), time_format=args.time_format or "", na_values=words,
            missing_values=codes if codes or not words else None, sort=args.sort,
            keep=args.keep or "",
        )  # fmt: skip
    except InputError as fault:
        raise InputError(_as_flags(str(fault))) from None


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _as_flags(line: str) -> str:
    """Arguments of Python in ``line`` as flags."""
    line = line.replace("sort=True", "--sort").replace("keep='first'", "--keep first")
    line = re.sub(r"time_format='([^']*)'", r"--time-format '\1'", line)
    line = re.sub(r"missing_values=\(([^,()]+),\)", r"--missing \1", line)
    line = line.replace(
        ", or () if it is a measurement", ", or --missing alone if it is a measurement"
    )
    return re.sub(r"na_values=\('([^']*)',\)", r"--missing \1", line)


def own(items: Items) -> Model:
    """A law of the file's own known values, regular where its rows are."""
    from sciddm import series_law

    return series_law.model(items, clock_of(items), cells=120, batch=8, steps=150)


def whole(items: Items) -> bool:
    """Whether no value and no row of a regular record is missing."""
    clock = clock_of(items)
    return all(i.seen == clock.regular(i).values.size for i in items)


def clock_of(items: Items) -> Any:  # noqa: ANN401
    """The clock of a file: with a step where all rows stand on one and most are there."""
    from sciddm.data.clock import Clock

    clock = Clock.of(items, regular=True)
    try:
        filled = sum(len(clock.regular(i)) for i in items)
    except InputError:
        return Clock.of(items, regular=False)
    present = sum(map(len, items)) >= PRESENT * filled
    return clock if present else Clock.of(items, regular=False)


def free(args: argparse.Namespace, *inputs: str) -> Path:
    """The output: a table or a store, free or to be replaced."""
    out = Path(args.out)
    marker = None if table(out) else "zarr.json"
    return recipe.free(out, args.overwrite, *inputs, marker=marker)


def table(out: Path) -> bool:
    """Whether an output is a table by its name."""
    return out.name.lower().endswith(TABLES)


def write(args: argparse.Namespace, draws: Draws, out: Path) -> None:
    """The draws as a table of intervals or members, or as a store of members."""
    from dataclasses import replace

    from sciddm.data import disk, store
    from sciddm.data.forms import Long, Wide
    from sciddm.data.ragged import Labelled

    every = args.members_out == "all" if table(out) else args.members_out != "none"
    levels = () if every else tuple(100 * v for v in (args.interval or [0.9]))
    labelled = isinstance(draws.items.form, Labelled)
    if not table(out):
        form = draws.items.form if labelled else Labelled("item" if len(draws.items) > 1 else "")
        ds = replace(draws, items=replace(draws.items, form=form)).back(levels)
        store.write(ds, out, overwrite=args.overwrite)
        return
    form = draws.items.form if isinstance(draws.items.form, Long | Wide) else Long()
    frame = replace(draws, items=replace(draws.items, form=form)).back(levels)
    with disk.one_line(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        fresh = out.with_name(f".{os.getpid()}.{out.name}")  # its ending says how it is packed
        try:
            plain = frame.index.names == [None]
            frame.to_csv(fresh, index=not plain)
            os.replace(fresh, out)
        finally:
            fresh.unlink(missing_ok=True)


def tail(args: argparse.Namespace, draws: Draws) -> dict[str, object]:
    """What draws say about themselves."""
    return {"members": args.members, **draws.attrs}


def _fields(args: argparse.Namespace, model: Model, file: str, out: Path) -> None:
    """Fields with gaps, filled by a model of fields."""
    import sciddm
    from sciddm.data import store

    if table(out):
        raise InputError(f"Got the table {str(out)!r} for fields, expected OUT.zarr.")
    post = sciddm.impute(
        model, verbs.opened(file), members=args.members, seed=args.seed, std=args.std,
        progress=verbs.progress,
    )  # fmt: skip
    store.write(post, out, overwrite=args.overwrite)
    known = ("known_values", "known_std", *verbs.SAID)
    said = {n: post.attrs[n] for n in known if n in post.attrs}
    verbs.show({"output": str(out), "members": args.members, **said}, args.json)
