"""Makes a release, as the package brings one: python3 ./inferencing/release.py -cp ./configs/ -cn release checkpoint=best.pth"""

import hydra
from omegaconf import DictConfig

from ss.config import run_alone
from ss.release import release


@hydra.main(version_base=None, config_path="configs", config_name="release")
def main(config: DictConfig) -> None:
    """Hydra composes the config; `ss` does the rest."""
    run_alone(release, config)


if __name__ == "__main__":
    main()
