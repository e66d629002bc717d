"""Tables to read, in a terminal and in a Markdown document: a head and rows of cells, all text."""

from collections.abc import Collection, Iterable, Sequence


def text_table(head: Sequence[str], rows: Iterable[Sequence[str]], left: Collection[int] = (0, 1)) -> str:
    """Every column is as wide as its longest cell; those that `left` numbers are aligned to the left, the others to the right."""
    lines = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    sides = [str.ljust if number in left else str.rjust for number in range(len(head))]
    return "\n".join("  ".join(side(cell, n) for side, cell, n in zip(sides, line, widths, strict=True)).rstrip() for line in lines)


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The first column is aligned to the left, the others to the right."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---", *["---:"] * (len(head) - 1)], *rows))
