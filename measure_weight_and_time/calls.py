"""Measures what voice calls cost: python3 ./measure_weight_and_time/calls.py -cp ./configs/ -cn calls"""

import hydra
from omegaconf import DictConfig

from ss.config import run_alone
from ss.measure.calls import measure_calls


@hydra.main(version_base=None, config_path="configs", config_name="calls")
def main(config: DictConfig) -> None:
    """Hydra composes the config; `ss` does the rest."""
    run_alone(measure_calls, config)


if __name__ == "__main__":
    main()
