"""Scenes rendered while training: no files, no end, and every rank, worker and resumed run meets exactly its own examples.

Shapes: S samples of the mixture and target, R of the enrolment.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from ss.audio import Wave
from ss.data.augment import change_gains
from ss.data.catalog import make_catalog
from ss.data.mixture import FULL_SCALE, PCM
from ss.data.plan import plan_row
from ss.data.render import Renderer
from ss.data.scene import Scene
from ss.data.sources import Sources
from ss.datasets.triplets import Example
from ss.loss import UNKNOWN_SPEAKER

GAINS = 1  # the stream of numbers that gains are drawn from, beside the plan's


class Rendered(Dataset[Example]):
    """`examples` scenes an epoch, other ones in each; an item is asked for by (epoch, index), or by its index for epoch 0.

    scene, sources: as in the configs `scene` and `sources`. cache_mb: megabytes of decoded audio that are kept (see AudioCache).
    gain_db: as of `Triplets`.
    speakers: the training set's list; anybody else's number is -100, as is that of a voice played at another speed.
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
        gain_db: tuple[float, float] | None = None,
    ) -> None:
        self.scene, self.examples, self.seed = Scene.of(scene), examples, seed
        self.sample_rate, self.gain_db = sample_rate, gain_db
        self.catalog = make_catalog(Sources.of({**sources, "sample_rate": sample_rate}))
        self.render = Renderer(self.catalog.sources, cache_mb, self.catalog.files)
        self.speakers = {speaker: number for number, speaker in enumerate(speakers)}

    def __len__(self) -> int:
        return self.examples

    def shards(self) -> list[str]:
        """As of `Triplets`: scenes are drawn from everywhere."""
        return [""] * self.examples

    def __getitem__(self, key: int | tuple[int, int]) -> Example:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        row = plan_row(self.catalog, self.scene, self.seed, epoch, index)
        rendered = self.render(row)
        known = self.speakers.get(row.target.speaker, UNKNOWN_SPEAKER)
        number = known if row.target.speed == 1 else UNKNOWN_SPEAKER
        waves = wave(rendered.mixture), wave(rendered.target), wave(rendered.ref)
        mixture, target, ref = change_gains(*waves, self.gain_db, np.random.default_rng((self.seed, epoch, index, GAINS)))
        return Example(row.name, mixture, ref, target, number)


def wave(pcm: PCM) -> Wave:
    """16 bits to -1..1."""
    return pcm.astype(np.float32) / np.float32(FULL_SCALE)
