"""Published standard sets for target speaker extraction, rebuilt from their published lists where the corpora are at hand."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from ss.data.folder import make
from ss.data.mixture import Mixture
from ss.data.published import librimix, wsj0_2mix_extr
from ss.data.published.rows import PublishedRow
from ss.data.published.settings import Published, Roots
from ss.errors import UserError

__all__ = ["Published", "plan", "rebuild", "render"]

RECIPES: dict[str, ModuleType] = {"librimix": librimix, "wsj0_2mix_extr": wsj0_2mix_extr}


def rebuild(config: Mapping[str, Any]) -> int:
    """Makes the triplets that are not there yet, and says what was done. config: the fields of Published.

    Gives the exit code: 1 where some could not be made, as what is measured on the others is not comparable. Raises UserError
    where the settings or lists do not allow it, where the folder holds other mixtures, or where not one could be made.
    """
    settings = Published.of(config)
    rows = plan(settings)
    make(rows, partial(render, roots=settings.roots), settings, _describe(rows, settings), [])
    out = Path(settings.out_folder)
    return int(not all((out / f"{row.name}-mixed.{settings.extension}").exists() for row in rows))


def plan(settings: Published) -> list[PublishedRow]:
    """The triplets of a set in the order of its list, each once. Raises UserError for a list that does not name any."""
    rows: dict[str, PublishedRow] = {}
    for row in RECIPES[settings.recipe].rows(settings):
        if rows.setdefault(row.name, row) != row:
            raise UserError(f"{settings.metadata}: expected one triplet {row.name}, found two that differ")
    if not rows:
        raise UserError(f"{settings.enrolments or settings.metadata}: expected a line for each triplet, found none")
    return list(rows.values())


def render(row: PublishedRow, roots: Roots) -> Mixture:
    """The waves of a row. Raises AudioError for a source that is missing, cut short, not mono of 16 kHz, or silent and levelled."""
    return RECIPES[row.recipe].render(row, roots)


def _describe(rows: Sequence[PublishedRow], settings: Published) -> str:
    """What the lists hold, in one line."""
    speakers = {row.name.split("_")[0] for row in rows}
    own = sum(row.ref_parts[row.ref].path == row.parts[row.target].path for row in rows)
    return (
        f"{len(rows)} triplets of {len(speakers)} target speakers by {settings.metadata}; "
        f"{own} enrolled by the very utterance that is the target, as published"
    )
