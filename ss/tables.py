"""Tables to read, in a terminal and in a Markdown document: a head and rows of cells, all text."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from string import Formatter
from typing import Any

UNITS = {"m": 1e-3, "M": 1e6, "G": 1e9, "Mi": 2**20}


class CellFormatter(Formatter):
    """Formats the values of a row as `str.format_map` does; `{macs/M:.1f}`: in one of UNITS.

    missing: what stands for None, and for `{times[first]}` where `times` has no `first`. Raises KeyError for a row without `times`.
    `{times[-1]}`: the last of a list.
    """

    def __init__(self, missing: str) -> None:
        self.missing = missing

    def get_field(self, field_name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, str]:
        """The value of a field, in its unit, and the field's name."""
        path, _, unit = field_name.partition("/")
        name, *keys = path.replace("]", "").split("[")
        value = kwargs[name]
        for key in keys:
            value = value[int(key)] if isinstance(value, list) else (value or {}).get(key)
        return value / UNITS[unit] if unit and value is not None else value, name

    def format_field(self, value: Any, format_spec: str) -> str:
        """The text of a value."""
        return self.missing if value is None else super().format_field(value, format_spec)


def rows_table(rows: Iterable[Mapping[str, Any]], columns: str, left: Collection[int] = (0, 1), missing: str = "n/a") -> str:
    """Rows of figures as text. columns: heads and formats, "name {name} | MMAC/s {macs/M:.1f}"; missing: see CellFormatter."""
    forms = {head: "{" + form for head, form in (column.split(" {", 1) for column in columns.split(" | "))}
    formatter = CellFormatter(missing)
    return text_table(list(forms), [[formatter.vformat(form, (), row) for form in forms.values()] for row in rows], left)


def text_table(head: Sequence[str], rows: Iterable[Sequence[str]], left: Collection[int] = (0, 1)) -> str:
    """Every column is as wide as its longest cell; those that `left` numbers are aligned to the left, the others to the right."""
    lines = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    sides = [str.ljust if number in left else str.rjust for number in range(len(head))]
    return "\n".join("  ".join(side(cell, n) for side, cell, n in zip(sides, line, widths, strict=True)).rstrip() for line in lines)


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The first column is aligned to the left, the others to the right."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---", *["---:"] * (len(head) - 1)], *rows))
