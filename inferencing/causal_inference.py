"""Extracts voices with SpEx+, chunk by chunk: python3 ./inferencing/causal_inference.py -cp ./configs/ -cn spexplus_causal"""

import hydra
from omegaconf import DictConfig

from ss.config import run
from ss.inferencer import infer


@hydra.main(version_base=None, config_path="configs", config_name="spexplus_causal")
def main(config: DictConfig) -> None:
    """Hydra composes the config; `ss` does the rest."""
    run(infer, config, inferencer="ss.inferencer.CausalInferencer")


if __name__ == "__main__":
    main()
