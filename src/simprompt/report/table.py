"""A table of values, written as text, Markdown, LaTeX, or HTML in a notebook (the page has its own
HTML)."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from simprompt.utils.notebook import html_table
from simprompt.utils.terminal import one_line

Kind = Literal["text", "percent", "difference", "interval", "ratio", "number", "count", "p"]

NOTHING = "–"
MARK = "†"
ROUNDING = "Differences are taken before rounding, so one can look off by one in its last digit."


class Shared(float):
    """A difference over the runs that both sides have, in a table that shows means of more runs.

    It is written with a mark, and the table says what that means.
    """


@dataclass(frozen=True)
class Column:
    """Heading of a column, how its values are written, and a heading over several columns."""

    name: str
    kind: Kind = "text"
    group: str = ""


@dataclass
class Table:
    """Values with headings.

    Attributes:
        breaks: rows before which a line is drawn; the first cell is not repeated in between.
        note: what the columns are; see `legend`.
        best: (row, column) of the highest values, written bold where that is possible.
    """

    title: str
    columns: list[Column]
    rows: list[list[Any]] = field(default_factory=list)
    note: str = ""
    breaks: set[int] = field(default_factory=set)
    best: set[tuple[int, int]] = field(default_factory=set)

    def __repr__(self) -> str:
        return text(self)

    def _repr_html_(self) -> str:
        """The same for notebooks."""
        return html_table(
            one_line(self.title), self.headings, cells(self), bold=self.best, note=self.legend
        )

    @property
    def legend(self) -> str:
        """The note, and what follows from how its values are written."""
        sentences = [self.note] if self.note else []
        if any(c.kind == "difference" for c in self.columns):
            sentences.append(ROUNDING)
        if any(isinstance(value, Shared) for row in self.rows for value in row):
            sentences.append(
                f"{MARK}: over the tasks and seeds that both have, so not the difference of the "
                "means shown."
            )
        return one_line(" ".join(sentences))

    @property
    def headings(self) -> list[str]:
        """The names of the columns, as they are written."""
        return [one_line(column.name) for column in self.columns]

    def add_group(self, rows: Sequence[list[Any]], compare: Sequence[int] = ()) -> None:
        """Append rows that belong together; in the columns `compare` the highest is the best."""
        start = len(self.rows)
        self.breaks.add(start)
        self.rows += rows
        for column in compare if len(rows) > 1 else ():
            values = [row[column] for row in rows]
            numbers = [v for v in values if v is not None and not math.isnan(v)]
            self.best |= {
                (start + i, column) for i, v in enumerate(values) if numbers and v == max(numbers)
            }


def shown(value: Any, kind: Kind, digits: int = 1) -> str:
    """One value as text; what is not there, or not a number, is a dash."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return NOTHING
    if kind == "ratio":
        return f"{value:.3f}".replace("-", "−")
    if kind == "percent":
        return f"{value:.{digits}f}"
    if kind == "difference":
        return signed(value, digits) + (MARK if isinstance(value, Shared) else "")
    if kind == "interval":
        if not all(map(math.isfinite, value)):
            return NOTHING
        return f"[{signed(value[0], digits)}, {signed(value[1], digits)}]"
    if kind == "p":
        return "<0.001" if value < 0.001 else f"{value:.3f}"
    if kind == "number":
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    return str(value)


def signed(value: float, digits: int = 1) -> str:
    """A difference with its sign; none on a zero."""
    text = f"{value:+.{digits}f}"
    return text.replace("-", "−") if float(text) else text[1:]


def cells(table: Table, digits: int = 1) -> list[list[str]]:
    """All values as text; a first cell that only repeats the one above is empty."""
    rows = []
    for number, row in enumerate(table.rows):
        values = zip(row, table.columns, strict=True)
        line = [one_line(shown(value, column.kind, digits)) for value, column in values]
        if number not in table.breaks and number and row[0] == table.rows[number - 1][0]:
            line[0] = ""
        rows.append(line)
    return rows


def text(table: Table, digits: int = 1) -> str:
    """Aligned plain text with lines between groups, the note below."""
    lines = [table.headings, *cells(table, digits)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(table.columns))]
    rule = "─" * (sum(widths) + 2 * len(widths) - 2)

    def aligned(line: list[str]) -> str:
        return "  ".join(
            cell.ljust(w) if c.kind == "text" else cell.rjust(w)
            for cell, w, c in zip(line, widths, table.columns, strict=True)
        ).rstrip()

    out = [one_line(table.title), rule, aligned(lines[0])]
    for number, line in enumerate(lines[1:]):
        if number in table.breaks:
            out.append(rule)
        out.append(aligned(line))
    return "\n".join([*out, rule, *textwrap.wrap(table.legend, max(len(rule), 60))])


def _md(value: str) -> str:
    """A text in which Markdown sees no mark-up, and no HTML."""
    plain = re.sub(r"([\\`*_~$\[\]|])", r"\\\1", value)
    return plain.replace("&", "&amp;").replace("<", "&lt;")


def markdown(table: Table, digits: int = 1) -> str:
    """A GitHub table under a bold title, the note below."""

    def line(values: Sequence[str]) -> str:
        return "| " + " | ".join(values) + " |"

    out = [f"**{_md(one_line(table.title))}**", "", line([_md(n) for n in table.headings])]
    out.append(line(["---" if c.kind == "text" else "---:" for c in table.columns]))
    for r, row in enumerate(cells(table, digits)):
        values = [_md(v) for v in row]
        out.append(line([f"**{v}**" if (r, c) in table.best else v for c, v in enumerate(values)]))
    return "\n".join([*out, *(["", _md(table.legend)] if table.legend else [])])


_TEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "Δ": r"$\Delta$",
    "−": "$-$",
    "–": "--",
    MARK: r"\dag{}",
}


def _tex(value: str) -> str:
    return "".join(_TEX.get(character, character) for character in value)


def _tex_row(values: Sequence[str]) -> str:
    """A row; the one before ends in what would take a bracket or a star for its argument."""
    line = " & ".join(values) + r" \\"
    return "{}" + line if line.startswith(("[", "*")) else line


def latex(table: Table, digits: int = 1) -> str:
    """A `table` environment for the booktabs package."""
    spec = "".join("l" if c.kind == "text" else "r" for c in table.columns)
    out = [
        "% \\usepackage{booktabs}",
        "\\begin{table}",
        "\\centering",
        f"\\caption{{{_tex(one_line(table.title))}. {_tex(table.legend)}}}",
        f"\\begin{{tabular}}{{{spec}}}",
        "\\toprule",
        _tex_row([_tex(name) for name in table.headings]),
    ]
    for r, row in enumerate(cells(table, digits)):
        if r in table.breaks:
            out.append("\\midrule")
        values = [
            f"\\textbf{{{_tex(v)}}}" if (r, c) in table.best else _tex(v) for c, v in enumerate(row)
        ]
        out.append(_tex_row(values))
    return "\n".join([*out, "\\bottomrule", "\\end{tabular}", "\\end{table}"])
