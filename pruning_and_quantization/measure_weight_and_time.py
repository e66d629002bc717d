"""Measures an exported model: python3 ./pruning_and_quantization/measure_weight_and_time.py -cp ./configs/ -cn spexplus_online"""

import hydra
from omegaconf import DictConfig

from ss.compression.measuring import measure
from ss.config import run


@hydra.main(version_base=None, config_path="configs", config_name="spexplus_online")
def main(config: DictConfig) -> None:
    """Hydra composes the config; `ss` does the rest."""
    run(measure, config)


if __name__ == "__main__":
    main()
