"""Makes mixtures from a corpus: python3 ./mixing/mix.py -cp ./configs/ -cn train audios_dir=..."""

import hydra
from omegaconf import DictConfig

from ss.config import run_alone
from ss.data.mix import mix


@hydra.main(version_base=None, config_path="configs", config_name="train")
def main(config: DictConfig) -> None:
    """Hydra composes the config; `ss` does the rest."""
    run_alone(mix, config)


if __name__ == "__main__":
    main()
