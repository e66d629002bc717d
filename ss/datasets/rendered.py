"""Scenes rendered while training: no files, no end, and every rank, worker and resumed run meets exactly its own examples."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from ss.audio import Wave, to_wave
from ss.data.augment import scene_of
from ss.data.catalog import group_of, make_catalog
from ss.data.plan import plan_row
from ss.data.render import Renderer
from ss.data.scene_settings import Scene
from ss.data.sources import Sources
from ss.datasets.examples import Examples, RawExample
from ss.loss import UNKNOWN_SPEAKER

GAINS, CHANGES = 1, 2  # the streams of numbers that gains and other changes are drawn from, beside the plan's
MOST_ROWS = 2**31  # of an epoch


class Rendered(Examples):
    """`examples` scenes an epoch, other ones in each; without an epoch they are those of epoch 0. See `Examples`.

    scene, sources: as in the configs `scene` and `sources`. cache_mb: megabytes of decoded audio that are kept (see AudioCache).
    A voice played at another speed is nobody of the speakers.
    """

    def __init__(
        self,
        scene: Mapping[str, Any],
        sources: Mapping[str, Any],
        examples: int,
        sample_rate: int = 16000,
        cache_mb: float = 0,
        speakers: Sequence[str] = (),
        seed: int = 0,
        **changes: Any,
    ) -> None:
        super().__init__(sources["audios_dir"], sample_rate, speakers, seed, changes)
        self.scene, self.examples = Scene.from_config(scene), examples
        self.catalog = make_catalog(Sources.from_config({**sources, "sample_rate": sample_rate}))
        self.render = Renderer(self.catalog.sources, cache_mb, self.catalog.files)
        self.group = partial(group_of, regex=self.catalog.sources.speaker_group_regex)  # of those who may be mixed with a speaker
        targets = set(self.catalog.drawn.targets)
        for group in set(map(self.group, targets)):
            self.check_remix(speaker for speaker in targets if self.group(speaker) == group)

    def __len__(self) -> int:
        return self.examples

    def shards(self) -> list[str]:
        """As of `Triplets`: scenes are drawn from everywhere."""
        return [""] * self.examples

    def generators(self, epoch: int, index: int) -> tuple[np.random.Generator, np.random.Generator]:
        changes, gains = (np.random.default_rng((self.seed, epoch, index, stream)) for stream in (CHANGES, GAINS))
        return changes, gains

    def read(self, epoch: int, index: int) -> RawExample:
        row = plan_row(self.catalog, self.scene, self.seed, epoch, index)
        speaker = self.speakers.get(row.target.speaker, UNKNOWN_SPEAKER) if row.target.speed == 1 else UNKNOWN_SPEAKER
        mixture, target, ref = map(to_wave, self.render(row)[:3])
        return RawExample(row.name, speaker, target, ref, lambda: mixture, lambda: scene_of(mixture, target))

    def draw_targets(self, epoch: int, index: int, rng: np.random.Generator) -> Iterator[Wave]:
        speaker = plan_row(self.catalog, self.scene, self.seed, epoch, index).target.speaker
        while True:
            row = plan_row(self.catalog, self.scene, self.seed, epoch, int(rng.integers(MOST_ROWS)))
            if row.target.speaker != speaker and self.group(row.target.speaker) == self.group(speaker):
                yield to_wave(self.render(row).target)
