"""Whether the graphs compute what the model computes."""

from pathlib import Path

import numpy as np
import torch

from ss.export.enroll import shortest
from ss.model import SpexPlusOnline
from ss.runtime.extractor import Extractor

TOLERANCE = 1e-4
HOPS = (1, 2, 5, 1, 3, 2, 40, 1)
BATCHES = (1, 2)
LEVEL = 0.1


@torch.inference_mode()
def check(model: SpexPlusOnline, folder: Path) -> float:
    """The largest difference from torch: the conditions of random enrolments, and waves over several steps of random audio.

    Raises ArithmeticError where it is more than 1e-4, or not a number.
    """
    was_training, device = model.training, next(model.parameters()).device
    try:
        difference = max(difference_of(model.cpu().eval(), Extractor.load(folder), batch) for batch in BATCHES)
    finally:
        model.train(was_training).to(device)
    if not difference <= TOLERANCE:
        raise ArithmeticError(f"the exported graphs differ from the model by {difference:.2g}, expected at most {TOLERANCE}")
    return difference


def difference_of(model: SpexPlusOnline, extractor: Extractor, batch: int) -> float:
    """The largest one over a stream of a batch."""
    rng = np.random.default_rng(0)
    enrolment = LEVEL * rng.standard_normal((batch, 3 * shortest(model)), np.float32)
    state = model.init_state(model.enroll(torch.from_numpy(enrolment)))
    conditions, states = extractor.conditions_of(enrolment), extractor.zeros(batch)
    differences = [np.abs(conditions - state[0].numpy()).max()]
    for hops in HOPS:
        chunk = LEVEL * rng.standard_normal((batch, hops * model.hop), np.float32)
        (expected,), state = model.step(torch.from_numpy(chunk), state)
        wave, states = extractor.step(chunk, conditions, states)
        differences.append(np.abs(wave - expected.numpy()).max())
    return float(np.max(differences))
