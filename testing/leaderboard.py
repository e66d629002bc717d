"""Compares extractors on the same tests: python3 ./testing/leaderboard.py -cp ./configs/ -cn leaderboard"""

import hydra
from omegaconf import DictConfig

from ss.config import run_alone
from ss.leaderboard.job import run_leaderboard


@hydra.main(version_base=None, config_path="configs", config_name="leaderboard")
def main(config: DictConfig) -> None:
    """Hydra composes the config; `ss` does the rest."""
    run_alone(run_leaderboard, config)


if __name__ == "__main__":
    main()
