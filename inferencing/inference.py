"""Extracts voices from whole utterances: python3 ./inferencing/inference.py -cp ./configs/ -cn spexplus"""

import hydra
from omegaconf import DictConfig

from ss.config import run
from ss.inferencer import infer


@hydra.main(version_base=None, config_path="configs", config_name="spexplus")
def main(config: DictConfig) -> None:
    """Hydra composes the config; `ss` does the rest."""
    run(infer, config, inferencer="ss.inferencer.Inferencer")


if __name__ == "__main__":
    main()
