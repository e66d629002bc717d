"""Measures the speed of mixing on one core: python3 ./mixing/benchmark.py audios_dir=..."""

import hydra
from omegaconf import DictConfig

from ss.config import run_alone
from ss.data.mix import benchmark


@hydra.main(version_base=None, config_path="configs", config_name="benchmark")
def main(config: DictConfig) -> None:
    """Hydra composes the config; `ss` does the rest."""
    run_alone(benchmark, config)


if __name__ == "__main__":
    main()
