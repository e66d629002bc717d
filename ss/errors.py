"""What users did wrong, told apart from what is wrong in the software."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin

STOPPED = 130  # the exit code of a command that was stopped, as shells have it
PLAIN = {int, float, bool, str, NoneType}  # types that are checked


class UserError(ValueError):
    """A mistake of the user: the message says what was expected, what came, and in which file."""


def as_list(value: Any) -> list[Any]:
    """The values of a list; one number or text stands for a list of it, and None for an empty one."""
    return [] if value is None else [value] if isinstance(value, int | float | str) else list(value)


def reject_unknown_keys(kind: Any, config: Mapping[str, Any]) -> dict[str, Any]:
    """The config, if all its keys are fields of a dataclass, and what should be a number, text or flag is one; one value where a
    list should be is a list of it. Raises UserError."""
    types: dict[str, set[Any]] = {
        one.name: {*get_args(one.type)} if isinstance(one.type, UnionType) else {one.type} for one in fields(kind)
    }
    if unknown := sorted(set(config) - set(types)):
        raise UserError(f"unknown key {', '.join(unknown)}: expected some of {', '.join(types)}")
    for key, value in config.items():
        expected = types[key] | ({int} if float in types[key] else set())
        if types[key] <= PLAIN and type(value) not in expected:
            names = sorted("null" if one is NoneType else one.__name__ for one in types[key])
            raise UserError(f"{key}: expected {' or '.join(names)}, found {value!r}")
    lists = {key for key in types if any(get_origin(one) in (list, Sequence) or ... in get_args(one) for one in types[key])}
    return {key: as_list(value) if key in lists and value is not None else value for key, value in config.items()}


def import_extra(package: str, reason: str) -> Any:
    """A package that only some features need. Raises UserError with the reason to install it where it is not there."""
    with explain(reason, ImportError):
        return import_module(package)


@contextmanager
def explain(message: str, *kinds: type[Exception]) -> Iterator[None]:
    """Turns errors of these kinds into a UserError: the message, and what the error says."""
    try:
        yield
    except kinds as error:
        said = "" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{message}: {said or repr(error)}") from error


def require_choice(key: str, value: Any, choices: Collection[Any]) -> None:
    """Raises UserError for a value that is none of the choices."""
    if value not in choices:
        raise UserError(f"{key}: expected one of {', '.join(map(str, choices))}, found {value}")


def require_choices(settings: Any) -> None:
    """Raises UserError for the first field of a dataclass whose value its type, a Literal of the choices, does not name."""
    for one in fields(settings):
        if get_origin(one.type) is Literal:
            require_choice(one.name, getattr(settings, one.name), get_args(one.type))


def require_file(path: str | Path, what: str, hint: str = "") -> None:
    """Raises UserError for a file that is not there. what: which file it is; hint: what to do about it."""
    if not Path(path).is_file():
        raise UserError(f"{path}: expected {what}, but there is none{hint}")


def require_positive(config: Mapping[str, Any], *keys: str, or_zero: Collection[str] = (), or_none: Collection[str] = ()) -> None:
    """Raises UserError for the first of these keys that is no number above 0; those of `or_zero` may be 0, of `or_none` None."""
    for key in (*keys, *or_zero, *or_none):
        value = config[key]
        fits = isinstance(value, int | float) and (value > 0 or (value == 0 and key in or_zero))
        if not (fits or (value is None and key in or_none)):
            raise UserError(f"{key}: expected {'at least 0' if key in or_zero else 'more than 0'}, found {value}")
