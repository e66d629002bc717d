"""Trains a model on whole utterances: python3 ./training/train.py -cp ./configs/ -cn spexplus"""

import hydra
from omegaconf import DictConfig

from ss.config import run
from ss.trainer.job import train


@hydra.main(version_base=None, config_path="configs", config_name="spexplus")
def main(config: DictConfig) -> None:
    """Hydra composes the config; `ss` does the rest."""
    run(train, config)


if __name__ == "__main__":
    main()
