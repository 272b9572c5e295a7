"""How values show themselves in a notebook."""

from __future__ import annotations

from collections.abc import Container, Sequence
from html import escape

from simprompt.utils.terminal import visible


def html_table(
    title: str,
    head: Sequence[str],
    rows: Sequence[Sequence[object]],
    most: int = 100,
    *,
    bold: Container[tuple[int, int]] = (),
    note: str = "",
) -> str:
    """A small HTML table for notebooks; whatever is in it is shown as text.

    Args:
        most: rows that are shown.
        bold: (row, column) of cells that are written bold.
        note: a line below.
    """

    def shown(cell: object) -> str:
        return escape(visible(cell))

    def cells(number: int, row: Sequence[object]) -> str:
        texts = [
            f"<b>{shown(c)}</b>" if (number, i) in bold else shown(c) for i, c in enumerate(row)
        ]
        return "".join(f"<td>{text}</td>" for text in texts)

    remainder = f"<p>and {len(rows) - most} more</p>" if len(rows) > most else ""
    body = "".join(f"<tr>{cells(number, row)}</tr>" for number, row in enumerate(rows[:most]))
    return (
        f"<p>{shown(title.strip('<>'))}</p><table><thead><tr>"
        f"{''.join(f'<th>{shown(name)}</th>' for name in head)}</tr></thead>"
        f"<tbody>{body}</tbody></table>{remainder}{f'<p>{shown(note)}</p>' if note else ''}"
    )
