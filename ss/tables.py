"""Tables to read, in a terminal and in a Markdown document: a head and rows of cells, all text."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

Column: TypeAlias = str | Callable[[Any], str]


def scaled(key: str, unit: float, form: str) -> Column:
    """A column of a row's value in another unit."""
    return lambda row: format(row[key] / unit, form)


def text_table(head: Sequence[str], rows: Iterable[Sequence[str]], left: Collection[int] = (0, 1)) -> str:
    """Every column is as wide as its longest cell; those that `left` numbers are aligned to the left, the others to the right."""
    lines = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    sides = [str.ljust if number in left else str.rjust for number in range(len(head))]
    return "\n".join("  ".join(side(cell, n) for side, cell, n in zip(sides, line, widths, strict=True)).rstrip() for line in lines)


def rows_table(rows: Iterable[Mapping[str, Any]], columns: Mapping[str, Column], left: Collection[int] = (0, 1)) -> str:
    """Rows of figures as text. columns: by head, a format of a row's values by name, or a function of a row."""
    cells = ([one.format_map(row) if isinstance(one, str) else one(row) for one in columns.values()] for row in rows)
    return text_table(list(columns), cells, left)


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The first column is aligned to the left, the others to the right."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---", *["---:"] * (len(head) - 1)], *rows))
