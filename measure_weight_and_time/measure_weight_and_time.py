"""Weighs and times: python3 ./measure_weight_and_time/measure_weight_and_time.py -cp ./configs/ -cn spexplusshort_gru"""

import hydra
from omegaconf import DictConfig

from ss.config import run_alone
from ss.measure.bench import measure


@hydra.main(version_base=None, config_path="configs", config_name="spexplusshort_gru")
def main(config: DictConfig) -> None:
    """Hydra composes the config; `ss` does the rest."""
    run_alone(measure, config)


if __name__ == "__main__":
    main()
