"""How often the speaker of the enrolment is recognised.

Shapes: B batch, n speakers.
"""

from torch import Tensor

from ss.loss import UNKNOWN_SPEAKER


class ACC:
    """Accuracy of the speaker classifier. An unknown speaker (id -100) is nobody's mistake and gives no value."""

    def __call__(self, logits: Tensor, ids: Tensor) -> Tensor:
        """logits [B,n], ids [B] -> 1 or 0 for each speaker that is known, in order; empty where none is."""
        if logits.ndim != 2 or ids.shape != logits.shape[:1]:
            got = f"{tuple(logits.shape)} and {tuple(ids.shape)}"
            raise ValueError(f"accuracy takes logits [batch, speakers] and ids [batch], got {got}")
        known = ids != UNKNOWN_SPEAKER
        return (logits[known].argmax(-1) == ids[known]).float()
