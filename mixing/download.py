"""Downloads a corpus: python3 ./mixing/download.py -cp ./configs/ -cn download parts=[dev-clean,test-clean]"""

import hydra
from omegaconf import DictConfig

from ss.config import run_alone
from ss.data.download import download


@hydra.main(version_base=None, config_path="configs", config_name="download")
def main(config: DictConfig) -> None:
    """Hydra composes the config; `ss` does the rest."""
    run_alone(download, config)


if __name__ == "__main__":
    main()
