"""Packs a folder of audio into tar shards: python3 ./mixing/pack.py -cp ./configs/ -cn pack folder=data/train out_folder=shards"""

import hydra
from omegaconf import DictConfig

from ss.config import run_alone
from ss.data.packed import pack


@hydra.main(version_base=None, config_path="configs", config_name="pack")
def main(config: DictConfig) -> None:
    """Hydra composes the config; `ss` does the rest."""
    run_alone(pack, config)


if __name__ == "__main__":
    main()
