"""Compares recipes: python3 ./pruning_and_quantization/compare.py -cp ./configs/ -cn spexplus_online"""

import hydra
from omegaconf import DictConfig

from ss.config import run
from ss.measure.compression import compare


@hydra.main(version_base=None, config_path="configs", config_name="spexplus_online")
def main(config: DictConfig) -> None:
    """Hydra composes the config; `ss` does the rest."""
    run(compare, config)


if __name__ == "__main__":
    main()
