"""Adds a checkpoint to a learning curve: python3 ./training/learning_curve.py -cp ./configs/ -cn learning_curve"""

import hydra
from omegaconf import DictConfig

from ss.config import run_alone
from ss.learning_curve import extend_curve


@hydra.main(version_base=None, config_path="configs", config_name="learning_curve")
def main(config: DictConfig) -> None:
    """Hydra composes the config; `ss` does the rest."""
    run_alone(extend_curve, config)


if __name__ == "__main__":
    main()
