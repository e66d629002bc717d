"""Configs: puts the shared `configs/` on Hydra's search path, and runs a script's job with clear errors.

A script imports this module before Hydra composes its config; then `- model: spexplusshort_gru` is found from any folder.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

Job: TypeAlias = Callable[[dict[str, Any]], int | None]
CONFIGS = Path(__file__).parents[1] / "configs"


class SharedConfigs(SearchPathPlugin):
    """Adds the repository's `configs/` behind the script's own."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Called by Hydra."""
        search_path.append("ss", f"file://{CONFIGS}")


Plugins.instance().register(SharedConfigs)


def plain(config: DictConfig) -> dict[str, Any]:
    """The config as plain data, resolved. Raises OmegaConf's error for a mandatory value that was not given."""
    return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[return-value]


@contextmanager
def clear_errors() -> Iterator[None]:
    """Prints a user's error as one line and ends with 2; HYDRA_FULL_ERROR=1 shows where it came from."""
    try:
        yield
    except (ValueError, ArithmeticError, FileNotFoundError, HydraException, OmegaConfBaseException) as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None


def with_clear_errors(job: Job, values: dict[str, Any]) -> int | None:
    """The job's exit code; its errors are printed in the process where they happened."""
    with clear_errors():
        return job(values)


def run_alone(job: Job, config: DictConfig) -> None:
    """Runs `job(plain config)` in this process and ends with its exit code."""
    with clear_errors():
        raise SystemExit(job(plain(config)))


def run(job: Job, config: DictConfig) -> None:
    """Runs `job(plain config)` in one process per GPU (`n_gpu`) or on the CPU (`n_processes`), then ends with its exit code."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    from ss import distributed  # torch, which takes seconds to import and is not wanted everywhere

    with clear_errors():
        values = plain(config)
        try:
            codes = distributed.launch(
                with_clear_errors, job, values, n_gpu=values.get("n_gpu"), n_processes=values.get("n_processes", 1)
            )
        except ChildFailedError as failed:  # the process that failed has printed why
            raise SystemExit(max(1, failed.get_first_failure()[1].exitcode)) from None
        except SignalException as stopped:  # the processes were told, and have ended in their own way
            raise SystemExit(128 + int(stopped.sigval)) from None
    raise SystemExit(max(code or 0 for code in codes))
