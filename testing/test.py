"""Tests a checkpoint on whole utterances: python3 ./testing/test.py -cp ./configs/ -cn spexplus"""

import hydra
from omegaconf import DictConfig

from ss.config import run
from ss.tester import test


@hydra.main(version_base=None, config_path="configs", config_name="spexplus")
def main(config: DictConfig) -> None:
    """Hydra composes the config; `ss` does the rest."""
    run(test, config, inferencer="ss.inferencer.Inferencer")


if __name__ == "__main__":
    main()
