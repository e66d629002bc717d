"""Training: one loop for offline and segment models, alone or on many processes."""

from ss.trainer.settings import Settings
from ss.trainer.trainer import CausalTrainer, NonFiniteError, ShortCausalTrainer, SimpleShortCausalTrainer, Trainer
