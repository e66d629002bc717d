"""Shows what int8 costs in every layer: python3 ./pruning_and_quantization/sensitivity.py -cp ./configs/ -cn spexplus_online"""

import hydra
from omegaconf import DictConfig

from ss.config import run
from ss.measure.compression import sensitivity


@hydra.main(version_base=None, config_path="configs", config_name="spexplus_online")
def main(config: DictConfig) -> None:
    """Hydra composes the config; `ss` does the rest."""
    run(sensitivity, config)


if __name__ == "__main__":
    main()
