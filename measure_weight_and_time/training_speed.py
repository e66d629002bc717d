"""Measures how fast a training goes: python3 ./measure_weight_and_time/training_speed.py -cp ./configs/ -cn training_speed"""

import hydra
from omegaconf import DictConfig

from ss.config import run_alone
from ss.measure.training import measure_speed


@hydra.main(version_base=None, config_path="configs", config_name="training_speed")
def main(config: DictConfig) -> None:
    """Hydra composes the config; `ss` does the rest."""
    run_alone(measure_speed, config)


if __name__ == "__main__":
    main()
