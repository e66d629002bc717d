"""Measures one training step: python3 ./measure_weight_and_time/training_step.py -cp ./configs/ -cn training_step"""

import hydra
from omegaconf import DictConfig

from ss.config import run_alone
from ss.measure.training import measure_step


@hydra.main(version_base=None, config_path="configs", config_name="training_step")
def main(config: DictConfig) -> None:
    """Hydra composes the config; `ss` does the rest."""
    run_alone(measure_step, config)


if __name__ == "__main__":
    main()
