"""Tests a SpEx+ checkpoint over segments: python3 ./testing/causal_test.py -cp ./configs/ -cn spexplus_causal"""

import hydra
from omegaconf import DictConfig

from ss.config import run
from ss.tester import test


@hydra.main(version_base=None, config_path="configs", config_name="spexplus_causal")
def main(config: DictConfig) -> None:
    """Hydra composes the config; `ss` does the rest."""
    run(test, config, inferencer="ss.inferencer.CausalInferencer")


if __name__ == "__main__":
    main()
