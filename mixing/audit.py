"""Audits folders of triplets: python3 ./mixing/audit.py -cp ./configs/ -cn audit 'folders=[data/train,data/dev]'"""

import hydra
from omegaconf import DictConfig

from ss.config import run_alone
from ss.data.audit.job import audit


@hydra.main(version_base=None, config_path="configs", config_name="audit")
def main(config: DictConfig) -> None:
    """Hydra composes the config; `ss` does the rest."""
    run_alone(audit, config)


if __name__ == "__main__":
    main()
