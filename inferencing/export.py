"""Exports a model for live use without torch: python3 ./inferencing/export.py -cp ./configs/ -cn export"""

import hydra
from omegaconf import DictConfig

from ss.config import run_alone
from ss.export import run


@hydra.main(version_base=None, config_path="configs", config_name="export")
def main(config: DictConfig) -> None:
    """Hydra composes the config; `ss` does the rest."""
    run_alone(run, config)


if __name__ == "__main__":
    main()
