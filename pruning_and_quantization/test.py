"""Tests an exported model: python3 ./pruning_and_quantization/test.py -cp ./configs/ -cn spexplus_online"""

import hydra
from omegaconf import DictConfig

from ss.compression.job import test
from ss.config import run


@hydra.main(version_base=None, config_path="configs", config_name="spexplus_online")
def main(config: DictConfig) -> None:
    """Hydra composes the config; `ss` does the rest."""
    run(test, config)


if __name__ == "__main__":
    main()
