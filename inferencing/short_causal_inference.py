"""Extracts voices with a short model: python3 ./inferencing/short_causal_inference.py -cp ./configs/ -cn spexplusshort_gru"""

import hydra
from omegaconf import DictConfig

from ss.config import run
from ss.inferencer import infer


@hydra.main(version_base=None, config_path="configs", config_name="spexplusshort_gru")
def main(config: DictConfig) -> None:
    """Hydra composes the config; `ss` does the rest."""
    run(infer, config, inferencer="ss.inferencer.ShortCausalInferencer")


if __name__ == "__main__":
    main()
