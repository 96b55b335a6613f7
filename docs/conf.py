"""The site: `make docs` makes the pictures, then these pages, into docs/_build/html."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from textwrap import dedent

from sphinx.application import Sphinx

from sciddm import __version__

HERE = Path(__file__).resolve().parent

project = "sciddm"
author = "the authors of sciddm"
project_copyright = author
version = release = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
nitpicky = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_inherit_docstrings = False
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True

html_theme = "pydata_sphinx_theme"
html_title = "sciddm"
html_static_path = ["_static"]
html_show_sourcelink = False
html_theme_options = {
    "navigation_with_keys": False,
    "show_prev_next": True,
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "header_links_before_dropdown": 8,
}

FIGURE = re.compile(r"(?ms)^:::\{figure\} (?:\.\./)?(_static/\S+\.png)\n.*?^:::$")
SPAN = re.compile(r"(``.+?``|`[^`\n]+`|:\w+:`[^`]+`)")
MARKUP = re.compile(r"[|*]|(?<=\w)_(?!\w)")
SECTION = re.compile(r"(Args|Returns|Raises|Yields|Attributes|References):")
ENTRY = re.compile(r"([\w*]+(?:, [\w*]+)*) ?: (.*)")
# a reference ends with a link, or with a full stop before the next surname
CITED = re.compile(r"(?<=\S)\n(?=[A-Z][\w-]+(?:,| et al))(?<=[.\d]\n)")
NEXT = re.compile(r"(?<=[.)]) (?=[a-z_]+(?:, [a-z_]+)* : )")


def picture_or_line(app: Sphinx, name: str, source: list[str]) -> None:
    """A picture that was not made is a line that says so, and the page still builds."""

    def keep(found: re.Match[str]) -> str:
        if (HERE / found[1]).is_file():
            return found[0]
        made = Path(found[1]).stem
        return f"*Not made here: `python docs/pictures.py {made}` says what is missing.*"

    source[0] = FIGURE.sub(keep, source[0])


def plain_text(
    app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]
) -> None:
    """Docstrings are plain text with formulas: E[X | x_t] and 2 * a are no markup."""
    out: list[str] = []
    inside = False
    for block in blocks(lines):
        first, indented = block[0], block[0].startswith(" ")
        heading = SECTION.fullmatch(first)
        inside = heading is not None or (inside and indented)
        if heading is not None:
            out += section(heading[1], dedent("\n".join(block[1:])).split("\n"))
        elif len(block) > 1 and re.fullmatch("-{3,}", block[1]):
            out += section(first, block[2:])
        elif re.match(r"[a-z_]+(, [a-z_]+)* : ", first):
            out += section("Parameters", block)
        elif inside:
            out += ["    " + escaped(line.strip()) for line in block]
        elif indented:  # a formula: kept as it is written
            out += [] if len(out) > 1 and out[-2].endswith("::") else ["::", ""]
            out += block
        else:
            out += table(block) if first.startswith("===") else map(escaped, block)
        out.append("")
    lines[:] = out


def blocks(lines: list[str]) -> Iterator[list[str]]:
    """The paragraphs of a docstring."""
    for full, group in groupby(lines, lambda line: bool(line.strip())):
        if full:
            yield list(group)


def table(block: list[str]) -> list[str]:
    """A table as it stands; with |d| in it, which a backslash would shift, in plain letters."""
    return ["::", "", *("    " + line for line in block)] if "|" in "".join(block) else block


def section(title: str, body: list[str]) -> list[str]:
    """Named entries as a list, references as a list, any other section as text."""
    if title == "References":
        items = CITED.split("\n".join(body))
        return [".. rubric:: References", "", *("* " + escaped(" ".join(i.split())) for i in items)]
    if title in ("Returns", "Yields"):
        return [f":{title}:", *("    " + escaped(line) for line in body)]
    out = [f":{'Parameters' if title == 'Args' else title}:"]
    for line in body:
        for part in [line] if line.startswith(" ") else NEXT.split(line):
            entry = ENTRY.fullmatch(part)
            named = f"    * **{escaped(entry[1])}**: {escaped(entry[2])}" if entry else ""
            out.append(named or "      " + escaped(part.strip()))
    return out


def escaped(line: str) -> str:
    """The line with everything outside backticks said as it stands."""
    parts = SPAN.split(line)
    return "".join(p if i % 2 else MARKUP.sub(r"\\\g<0>", p) for i, p in enumerate(parts))


def setup(app: Sphinx) -> None:
    """Pictures may be missing; docstrings are plain text."""
    app.connect("source-read", picture_or_line)
    app.connect("autodoc-process-docstring", plain_text)
