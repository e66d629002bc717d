"""Makes mixtures from a corpus: python3 ./mixing/mix.py -cp ./configs/ -cn train audios_dir=... out_folder=..."""

import hydra
from omegaconf import DictConfig

from ss.mixing.job import mix
from ss.mixing.settings import Settings


@hydra.main(version_base=None, config_path="configs", config_name="train")
def main(config: DictConfig) -> None:
    """Makes the mixtures that the config describes."""
    mix(Settings.of(config))


if __name__ == "__main__":
    main()
