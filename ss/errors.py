"""What users did wrong, told apart from what is wrong in the software."""

from collections.abc import Iterable
from dataclasses import fields
from typing import Any


class UserError(ValueError):
    """A mistake of the user: the message says what was expected, what came, and in which file."""


def reject_unknown_keys(kind: Any, keys: Iterable[str]) -> None:
    """Raises UserError for keys of a config that are no fields of a dataclass."""
    names = [field.name for field in fields(kind)]
    if unknown := sorted(set(keys) - set(names)):
        raise UserError(f"unknown key {', '.join(unknown)}: expected some of {', '.join(names)}")
