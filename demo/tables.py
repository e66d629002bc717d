"""Nested dicts and lists, as JSON and YAML files hold them, as HTML tables to read."""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any


def number(value: float) -> str:
    """A number to read: four digits that matter, thousands apart, large ones in mega and giga."""
    for size, unit in ((1e9, "G"), (1e6, "M")):
        if abs(value) >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.4g}"


def cell(key: str, value: Any) -> str:
    """A value as text; the end of its key says how: bytes are shown as MiB."""
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value / 2**20:.1f} MiB" if key.endswith("bytes") else number(value)


def label(key: str) -> str:
    """A key as words."""
    return key.removesuffix("_bytes").replace("_", " ").replace("macs", "MACs").strip()


def flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """(key, leaf) of nested dicts and lists, the keys on the way joined by spaces."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        yield key, value
        return
    for name, inner in items:
        yield from flat(inner, f"{key} {name}".strip())


def key_values(values: Mapping[str, Any]) -> str:
    """A table of two columns; what is nested is flattened."""
    rows = [f"<tr><th>{escape(label(key))}</th><td>{escape(cell(key, value))}</td></tr>" for key, value in flat(values)]
    return f'<div class="scroll"><table class="facts">{"".join(rows)}</table></div>'


def records(rows: list[Mapping[str, Any]]) -> str:
    """A table of dicts with about the same keys: a column for each, headed by its first value, and a line per key; of more dicts
    than keys, a line for each."""
    columns = [dict(flat(row)) for row in rows]
    keys = list(dict.fromkeys(key for column in columns for key in column))
    if len(rows) > len(keys):
        lines = ["".join(f"<th>{escape(label(key))}</th>" for key in keys)]
        for row in columns:
            first, *rest = (escape(cell(key, row.get(key))) for key in keys)
            lines.append(f"<th>{first}</th>" + "".join(f"<td>{text}</td>" for text in rest))
        return f'<div class="scroll"><table class="records">{"".join(f"<tr>{line}</tr>" for line in lines)}</table></div>'
    head = "".join(f"<th>{escape(cell(keys[0], column.get(keys[0])))}</th>" for column in columns)
    lines = [f"<tr><th>{escape(label(keys[0]))}</th>{head}</tr>"]
    for key in keys[1:]:
        cells = "".join(f"<td>{escape(cell(key, column.get(key)))}</td>" for column in columns)
        lines.append(f"<tr><th>{escape(label(key))}</th>{cells}</tr>")
    return f'<div class="scroll"><table class="records">{"".join(lines)}</table></div>'


def report(values: Mapping[str, Any]) -> str:
    """Anything nested, on cards: a table for every list of dicts; then all plain values, with long texts as notes."""
    tabular = {key: value for key, value in values.items() if _is_records(value)}
    notes = {key: value for key, value in values.items() if isinstance(value, str) and len(value) > 100}
    plain = {key: value for key, value in values.items() if key not in tabular and key not in notes}
    facts = [key_values(plain)] if plain else []
    facts += [f'<p class="note">{escape(text)}</p>' for text in notes.values()]
    cards = ["".join(records(value) for value in tabular.values()), "".join(facts)]
    return "".join(f'<div class="card">{card}</div>' for card in cards if card)


def _is_records(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, Mapping) for item in value)
