"""A folder of triplets from a corpus, or how fast it could be made: plans scenes, and renders them."""

import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, fields
from functools import partial
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from ss.data.catalog import Catalog, make_catalog
from ss.data.folder import Output, make, write_triplet
from ss.data.manifest import Mixture, Row
from ss.data.plan import plan
from ss.data.render import Renderer
from ss.data.scene_settings import Scene
from ss.data.sources import Sources, check_sources
from ss.errors import UserError, reject_unknown_keys, require_positive


@dataclass(frozen=True, kw_only=True)
class Folder(Output):
    """The triplets of `nfiles` scenes; random_state: the seed of it all; cache_mb: megabytes of decoded audio that are kept."""

    nfiles: int
    random_state: int = 0
    cache_mb: float = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(vars(self), "nfiles", or_zero=["random_state", "cache_mb"])


def mix(config: Mapping[str, Any]) -> None:
    """Makes the triplets that are not there yet, and says what was done.

    config: `scene` and the fields of Sources and of Folder; without a scene, the keys of `as_scenes` instead.
    Raises UserError where the settings or the sources do not allow it, where the folder holds other mixtures (and `overwrite` is
    not set), or where not one mixture could be made.
    """
    scene, sources, folder = read_config(config)
    catalog = make_catalog(sources)
    rows = plan(catalog, scene, folder.random_state, folder.nfiles)
    RENDERERS[sources] = Renderer(sources, folder.cache_mb, catalog.files)
    make(rows, partial(render_row, sources=sources), folder, describe(catalog, scene), catalog.unusable)


def read_config(config: Mapping[str, Any]) -> tuple[Scene, Sources, Folder]:
    """What `mix` is asked for. Raises UserError for keys and values that cannot be, and for sources that the scene lacks."""
    config = config if "scene" in config else as_scenes(config)
    scene = Scene.from_config(config["scene"])
    names = {one.name for one in fields(Folder)}
    folder = Folder(**reject_unknown_keys(Folder, {key: config[key] for key in names & set(config)}))
    both = {"num_workers", "random_state"}
    sources = Sources.from_config({key: value for key, value in config.items() if key not in names - both | {"scene"}})
    check_sources(scene, sources)
    return scene, sources, folder


def as_scenes(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of scenes that a config of two-speaker mixing stands for (`mixing/configs/settings.yaml`); other keys stay.

    Lengths are in seconds, None is off. snr_levels: dB, one is drawn for each mixture. absent_share, partly_absent_share,
    clean_share: parts of the mixtures in which the target is silent, is silent for a part of the time, or speaks alone; in the
    rest, both speak. audio_len: of mixture and target; None: whole targets. ref_max_len: the longest enrolment. vad_db: silence so
    far below the loudest part of a file is dropped inside as well, instead of `trim_db` at the ends alone. loudness: LUFS of the
    targets, and levels compared so. Raises UserError for shares that cannot be.
    """
    rest = dict(config)
    absent, partly, clean = (rest.pop(key, None) or 0 for key in ("absent_share", "partly_absent_share", "clean_share"))
    if min(absent, partly, clean) < 0 or absent + partly + clean > 1 + 1e-9:
        found = f"absent_share {absent}, partly_absent_share {partly}, clean_share {clean}"
        raise UserError(f"shares: expected at least 0 each and at most 1 together, found {found}")
    patterns = {"full": max(0.0, 1 - absent - partly - clean)}
    patterns |= {f"silent_{where}": partly / 3 for where in ("start", "middle", "end")} | {"absent": absent, "alone": clean}
    scene = {"patterns": patterns, "seconds": rest.pop("audio_len", None), "enrolment": {"seconds": rest.pop("ref_max_len", None)}}
    scene |= {"sir_levels": rest.pop("snr_levels"), "loudness": rest.pop("loudness", None)}
    if (vad_db := rest.pop("vad_db", None)) is not None:
        rest |= {"trim_db": vad_db, "drop_pauses": True}
    return {**rest, "scene": scene}


RENDERERS: dict[Sources, Renderer] = {}  # of this process, and of those that are forked from it, which so share what is decoded


def render_row(row: Row, sources: Sources) -> Mixture:
    """The waves of a row, in any process."""
    if sources not in RENDERERS:
        RENDERERS[sources] = Renderer(sources)
    return RENDERERS[sources](row)


def describe(catalog: Catalog, scene: Scene) -> str:
    """What there is, in one line; and what of it this scene leaves aside."""
    spans = [span for spans in catalog.speakers.values() for span in spans]
    hours = sum(span.stop - span.start for span in spans) / catalog.sources.sample_rate / 3600
    unused = [("noise", catalog.noise and not scene.noisy), ("rooms", catalog.rirs and not scene.uses_rirs)]
    aside = "".join(f"; this scene uses no files of {name}" for name, leaves in unused if leaves)
    return (
        f"{len(catalog.speakers)} speakers, {len(spans)} files, {hours:.2f} hours in {catalog.sources.audios_dir}; "
        f"{len(set(catalog.drawn.targets))} speakers can be the target; {len(catalog.noise)} files of noise, "
        f"{len(catalog.rirs)} of rooms{aside}"
    )


def benchmark(config: Mapping[str, Any]) -> None:
    """Plans and renders `nfiles` mixtures `repeats` times, with and without decoded audio in memory; prints speeds and medians.

    config: as of `mix`, and `repeats`; write: whether they are written, to a folder that is made inside `out_folder` and deleted. A
    speed is the length of the mixtures over this process's time on the processor; the first round with a cache fills it and is not
    counted.
    """
    repeats, write = config["repeats"], config["write"]
    scene, sources, folder = read_config({key: value for key, value in config.items() if key not in ("repeats", "write")})
    catalog = make_catalog(sources)
    print(describe(catalog, scene))
    for cache_mb in (0, folder.cache_mb):
        render, speeds = Renderer(sources, cache_mb, catalog.files), []
        with TemporaryDirectory(dir=folder.out_folder) if write else nullcontext() as out:
            for _ in range(repeats + (cache_mb > 0)):
                began, samples = time.process_time(), 0
                for row in plan(catalog, scene, folder.random_state, folder.nfiles):
                    mixture = render(row)
                    samples += len(mixture.mixture)
                    if out:
                        write_triplet(row, mixture, out, folder.extension)
                speeds.append(samples / sources.sample_rate / (time.process_time() - began))
        counted = speeds[cache_mb > 0 :]
        kept = f"{render.cache.used / 1e6:.0f} MB of decoded audio kept" if cache_mb else "every file decoded anew"
        each, done = ", ".join(f"{speed:.0f}" for speed in counted), "written" if write else "rendered"
        print(f"{kept}: {each}: median {median(counted):.0f} seconds of mixture {done} per second of one core")
