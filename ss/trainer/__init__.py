"""Training: one loop for offline and segment models, alone or on many processes."""

from ss.trainer.trainer import CausalTrainer, NonFiniteError, Settings, ShortCausalTrainer, SimpleShortCausalTrainer, Trainer

__all__ = ["CausalTrainer", "NonFiniteError", "Settings", "ShortCausalTrainer", "SimpleShortCausalTrainer", "Trainer"]
