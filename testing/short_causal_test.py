"""Tests a short model over segments: python3 ./testing/short_causal_test.py -cp ./configs/ -cn spexplusshort_gru"""

import hydra
from omegaconf import DictConfig

from ss.config import run
from ss.tester import test


@hydra.main(version_base=None, config_path="configs", config_name="spexplusshort_gru")
def main(config: DictConfig) -> None:
    """Hydra composes the config; `ss` does the rest."""
    run(test, config, inferencer="ss.inferencer.ShortCausalInferencer")


if __name__ == "__main__":
    main()
