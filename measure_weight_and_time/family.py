"""Measures many models side by side: python3 ./measure_weight_and_time/family.py -cp ./configs/ -cn family"""

import hydra
from omegaconf import DictConfig

from ss.config import run_alone
from ss.measure.family import measure_family


@hydra.main(version_base=None, config_path="configs", config_name="family")
def main(config: DictConfig) -> None:
    """Hydra composes the config; `ss` does the rest."""
    run_alone(measure_family, config)


if __name__ == "__main__":
    main()
