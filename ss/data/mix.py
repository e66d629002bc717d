"""A folder of triplets from a corpus: scenes, or two speakers each."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache, partial
from typing import Any

from ss.data import manifest
from ss.data.catalog import Catalog, make_catalog
from ss.data.corpus import Corpus, scan
from ss.data.folder import make
from ss.data.manifest import Row
from ss.data.plan import plan
from ss.data.render import Renderer
from ss.data.sampling import chances
from ss.data.scene import Scene
from ss.data.sources import Sources, check_sources
from ss.data.triplet import EXTENSIONS, Triplet
from ss.data.two_speakers import manifest as pairs
from ss.data.two_speakers.plan import plan as plan_pairs
from ss.data.two_speakers.render import render as render_pair
from ss.data.two_speakers.settings import Settings


@dataclass(frozen=True)
class Folder:
    """Where the triplets of `nfiles` scenes go, as which files; random_state: the seed of it all. See `ss.data.folder.Output`.

    Raises ValueError for a value out of range.
    """

    out_folder: str
    nfiles: int
    random_state: int = 0
    extension: str = "wav"
    num_workers: int = 1
    cluster: str | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        for key, least in (("nfiles", 1), ("num_workers", 1), ("random_state", 0)):
            if getattr(self, key) < least:
                raise ValueError(f"{key}: expected {'more than' if least else 'at least'} 0, found {getattr(self, key)}")
        if self.extension not in EXTENSIONS:
            raise ValueError(f"extension: expected one of {', '.join(EXTENSIONS)}, found {self.extension}")


def mix(config: Mapping[str, Any]) -> None:
    """Makes the triplets that are not there yet, and says what was done.

    config: `scene` and the fields of Sources and of Folder; or, without a scene, the fields of `ss.data.two_speakers.settings`.
    Raises ValueError where the settings or the sources do not allow it, where the folder holds other mixtures (and `overwrite` is
    not set), or where not one mixture could be made.
    """
    if "scene" in config:
        mix_scenes(config)
        return
    settings = Settings.of(config)
    corpus = scan(settings)
    made = partial(render_pair, audios_dir=settings.audios_dir)
    make(plan_pairs(corpus, settings), pairs, made, settings, describe_pairs(corpus, settings), corpus.unreadable)


def mix_scenes(config: Mapping[str, Any]) -> None:
    """See `mix`."""
    scene = Scene.of(config["scene"])
    names = {one.name for one in fields(Folder)}
    folder = Folder(**{key: config[key] for key in names & set(config)})
    both = {"num_workers", "random_state"}
    sources = Sources.of({key: value for key, value in config.items() if key not in names - both | {"scene"}})
    check_sources(scene, sources)
    found = make_catalog(sources)
    rows = plan(found, scene, folder.random_state, folder.nfiles)
    make(rows, manifest, partial(triplet, sources=sources), folder, describe(found, scene), found.corpus.unreadable)


def triplet(row: Row, sources: Sources) -> Triplet:
    """What is written of a row."""
    return Triplet(*renderer(sources)(row)[:3])


@cache
def renderer(sources: Sources) -> Renderer:
    """One for each process."""
    return Renderer(sources)


def describe(found: Catalog, scene: Scene) -> str:
    """What there is, in one line; and what of it this scene leaves aside."""
    samples = sum(span.stop - span.start for spans in found.corpus.speakers.values() for span in spans)
    hours = samples / found.sources.sample_rate / 3600
    unused = [("noise", found.noise and not scene.noisy), ("rooms", found.rirs and not scene.uses_rirs)]
    aside = "".join(f"; this scene uses no files of {name}" for name, leaves in unused if leaves)
    return (
        f"{len(found.corpus.speakers)} speakers, {hours:.2f} hours in {found.sources.audios_dir}; "
        f"{len(set(found.drawn.targets))} speakers can be the target; {len(found.noise)} files of noise, {len(found.rirs)} of rooms"
        f"{aside}"
    )


def describe_pairs(corpus: Corpus, settings: Settings) -> str:
    """What the corpus offers, in one line."""
    single = sum(len(spans) == 1 for spans in corpus.speakers.values())
    return (
        f"{len(corpus.speakers)} speakers, {sum(map(len, corpus.speakers.values()))} files in {settings.audios_dir}; "
        f"{single} speakers have one file; {len(set(chances(corpus, settings).targets))} speakers can be the target"
    )
