"""Rebuilds a published set: python3 ./mixing/rebuild.py -cn libri2mix metadata=... enrolments=... roots.speech=..."""

import hydra
from omegaconf import DictConfig

from ss.config import run_alone
from ss.data.published import rebuild


@hydra.main(version_base=None, config_path="configs", config_name="libri2mix")
def main(config: DictConfig) -> None:
    """Hydra composes the config; `ss` does the rest."""
    run_alone(rebuild, config)


if __name__ == "__main__":
    main()
