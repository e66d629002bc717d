"""Measures the speed of mixing on one core: python3 ./mixing/benchmark.py audios_dir=..."""

import hydra
from omegaconf import DictConfig

from ss.mixing.benchmark import benchmark
from ss.mixing.settings import Settings


@hydra.main(version_base=None, config_path="configs", config_name="benchmark")
def main(config: DictConfig) -> None:
    """Mixes and prints the speed."""
    settings = Settings.of({key: config[key] for key in config if key != "repeats"})
    benchmark(settings, config.repeats)


if __name__ == "__main__":
    main()
