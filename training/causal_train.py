"""Trains SpEx+ over segments: python3 ./training/causal_train.py -cp ./configs/ -cn spexplus_causal"""

import hydra
from omegaconf import DictConfig

from ss.config import run
from ss.trainer.job import train


@hydra.main(version_base=None, config_path="configs", config_name="spexplus_causal")
def main(config: DictConfig) -> None:
    """Hydra composes the config; `ss` does the rest."""
    run(train, config)


if __name__ == "__main__":
    main()
