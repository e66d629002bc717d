"""A folder of triplets from a corpus: two speakers each, or scenes."""

from functools import partial
from typing import Any

from ss.mixing import manifest
from ss.mixing.corpus import Corpus, scan
from ss.mixing.folder import make
from ss.mixing.plan import chances, plan
from ss.mixing.render import render
from ss.mixing.settings import Settings
from ss.scenes import job as scenes


def mix(config: dict[str, Any]) -> None:
    """Makes the mixtures that are not there yet, and says what was done. config: the fields of Settings, or see `ss.scenes.job`.

    Raises ValueError where the settings or the corpus do not allow it, where the folder holds other mixtures (and `overwrite`
    is not set), or where not one mixture could be made.
    """
    if "scene" in config:
        scenes.mix(config)
        return
    settings = Settings.of(config)
    corpus = scan(settings)
    made = partial(render, audios_dir=settings.audios_dir)
    make(plan(corpus, settings), manifest, made, settings, _describe(corpus, settings), corpus.unreadable)


def _describe(corpus: Corpus, settings: Settings) -> str:
    """What the corpus offers, in one line."""
    single = sum(len(spans) == 1 for spans in corpus.speakers.values())
    return (
        f"{len(corpus.speakers)} speakers, {sum(map(len, corpus.speakers.values()))} files in {settings.audios_dir}; "
        f"{single} speakers have one file; {len(set(chances(corpus, settings).targets))} speakers can be the target"
    )
