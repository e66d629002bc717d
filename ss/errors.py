"""What users did wrong, told apart from what is wrong in the software."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any


class UserError(ValueError):
    """A mistake of the user: the message says what was expected, what came, and in which file."""


def reject_unknown_keys(kind: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    """The config, if all its keys are fields of a dataclass. Raises UserError."""
    names = [field.name for field in fields(kind)]
    if unknown := sorted(set(config) - set(names)):
        raise UserError(f"unknown key {', '.join(unknown)}: expected some of {', '.join(names)}")
    return dict(config)
