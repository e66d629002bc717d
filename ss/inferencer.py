"""From a checkpoint and audio to estimates, and from a folder of mixtures to a folder of voices.

Shapes: B batch, S samples of the mixture, R of the enrolment.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import get_class, instantiate
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from ss import allowlist, audio, distributed
from ss.checkpoint import load_extractor
from ss.data.packed import Place
from ss.datasets import choose_kinds, scan
from ss.errors import UserError, explain
from ss.extraction import Chunking, check_chunks, cut, match_level, separate
from ss.model import Extraction, ExtractionModel
from ss.runtime.stream import mono_float
from ss.utils.predecessor import read_checkpoint

PREDECESSOR_RATE = 16000


class Inferencer:
    """An extractor ready to be used, and all that its checkpoint says of it.

    checkpoint: a file, or the folder of an export, which then runs in ONNX Runtime on `provider` (cpu or cuda), or in
    the C library (c).
    streamer: how utterances are cut; None: as the model was trained. speakers: those it was trained on.
    """

    def __init__(self, checkpoint: str | Path, streamer: Chunking | None = None, provider: str = "cpu") -> None:
        self.model: ExtractionModel
        if Path(checkpoint).is_dir():
            from ss.export.extractor import ExportedExtractor  # ONNX Runtime, which is not wanted for checkpoints

            exported = ExportedExtractor(checkpoint, provider)
            self.device, self.model, content = torch.device("cpu"), exported, json.loads(exported.runtime.metadata["checkpoint"])
        else:
            self.device, content = distributed.device(), read_checkpoint(checkpoint)
            self.model = load_extractor(content, self.device)
        trained = content["config"] if isinstance(content["config"], dict) else {}
        if streamer is None:
            if trained.get("streamer") is None:
                wanted = "give a streamer, e.g. +streamer=half or +streamer=whole"
                raise UserError(f"{checkpoint} does not say how it cuts utterances: {wanted}")
            streamer = allowlist.create("streamer", trained["streamer"])
        check_chunks(self.model, streamer)
        self.streamer: Chunking = streamer
        self.sample_rate: int = (trained.get("data") or {}).get("sample_rate", PREDECESSOR_RATE)
        self.speakers: list[str] = content.get("speakers", [])
        loss = (trained.get("loss") or {}).get("_target_")
        self.fixes_level: bool = loss in allowlist.CLASSES["loss"] and allowlist.class_of(loss).fixes_level

    @torch.inference_mode()
    def __call__(self, mixture: Tensor, lengths: Tensor, ref: Tensor, ref_lengths: Tensor) -> Extraction:
        """mixture [B,S], ref [B,R] and their samples -> Extraction with one wave [B,S], at its level in the mixture; on the CPU."""
        mixture, lengths, ref, ref_lengths = (x.to(self.device) for x in (mixture, lengths, ref, ref_lengths))
        waves, logits = separate(self.model, self.streamer, mixture, ref, ref_lengths, lengths)
        wave = cut(waves[0], lengths) if self.fixes_level else match_level(waves[0], mixture, lengths)
        return Extraction((wave.cpu(),), logits.cpu())

    def extract(self, mixture: NDArray[Any], ref: NDArray[Any]) -> audio.Wave:
        """One mixture [S] or [S,channels] and enrolment [R], of int16 or floats -> estimate [S].

        Raises UserError for what is no audio, and for an estimate that is not finite.
        """
        heard = (np.ascontiguousarray(mono_float(wave, self.sample_rate, self.sample_rate)) for wave in (mixture, ref))
        waves, _ = self(*(x for wave in heard for x in (torch.from_numpy(wave)[None], torch.tensor([len(wave)]))))
        if not waves[0].isfinite().all():
            raise UserError(
                "expected a finite estimate, found NaN or infinite samples: the weights or the audio are far out of range"
            )
        return waves[0][0].numpy()


class CausalInferencer(Inferencer):
    """An Inferencer over segments, chunk by chunk with carried state: it wants a streamer."""

    def __init__(self, checkpoint: str | Path, streamer: Chunking | None = None, provider: str = "cpu") -> None:
        super().__init__(checkpoint, streamer, provider)
        if self.streamer.window is None:
            hint = "test.py and inference.py take it as it is" if self.model.online else "give a streamer, e.g. +streamer=half"
            raise UserError(f"{checkpoint} was trained on whole utterances: {hint}")


ShortCausalInferencer = CausalInferencer


def inferencer(config: dict[str, Any]) -> Inferencer:
    """The inferencer that a config's `inferencer`, `checkpoint` and `streamer` describe."""
    kind = get_class(config["inferencer"])
    assert issubclass(kind, Inferencer)
    return kind(config["checkpoint"], instantiate(config.get("streamer")), config.get("provider", "cpu"))


def infer(config: dict[str, Any]) -> int:
    """Extracts every mixture of `folder`, or the files `mixture` and `enrolment`; 1 if any could not be used.

    Each bad file is reported and the rest goes on.
    """
    extractor, out = inferencer(config), Path(config["out_folder"])
    out.mkdir(parents=True, exist_ok=True)
    work = list(find_mixtures(config).items())
    problems = []
    for name, files in tqdm([work[i] for i in distributed.shard(len(work))], "extracting", disable=not distributed.is_main()):
        try:
            places = choose_kinds(name, files, "mixed", "ref")
            mixture, ref = (audio.read_any(place, extractor.sample_rate) for place in places)
            with explain(f"{places[0]} with {places[1]}", UserError):
                estimate = extractor.extract(mixture, ref)
            audio.write(out / f"{name}-pred.wav", estimate, extractor.sample_rate, "FLOAT")
        except UserError as error:
            problems.append(str(error))
    problems = distributed.gather(problems)
    if distributed.is_main():
        for problem in problems:
            print(f"skipped: {problem}", file=sys.stderr)
        print(f"{len(work) - len(problems)} of {len(work)} mixtures extracted to {out}")
    return 1 if problems else 0


def find_mixtures(config: dict[str, Any]) -> dict[str, dict[str, Place]]:
    """The files to extract from and to enrol from, by the mixture's name and their kind. Raises UserError where there are none."""
    mixture, enrolment = config["mixture"], config["enrolment"]
    if not (mixture or enrolment):
        return scan(config["folder"])
    if not (mixture and enrolment):
        raise UserError("expected both mixture=<file> and enrolment=<file>, got only one of them")
    return {Path(mixture).stem.removesuffix("-mixed"): {"mixed": Path(mixture), "ref": Path(enrolment)}}
