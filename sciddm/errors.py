"""What went wrong, said in one line: what came, what was expected, the usual fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LISTED = 40
"""Most names that fit into a line."""


class InputError(ValueError):
    """Bad input, found before any work started. The command line prints it and exits with 2."""


class RunError(RuntimeError):
    """A run that started and could not finish. The command line prints it and exits with 1."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A closing hint that names the nearest known name, and lists what is there if that is short.

    Returns ``" Did you mean 'x'?"`` or ``" There are: a, b, c."`` or both, to end a message.
    """
    names = [str(k) for k in known]
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.6)
    listed = f" There are: {', '.join(names) or 'none'}." if len(names) <= LISTED else ""
    return (f" Did you mean {close[0]!r}?" if close else "") + listed
