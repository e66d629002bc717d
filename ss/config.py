"""Configs: where Hydra finds them, and running a script's job with clear errors.

A script imports this module before Hydra composes its config. Hydra then finds, from any folder, in this order:
1. the files beside the script, e.g. `training/configs/mini.yaml`;
2. the files of the shared `configs/`, e.g. `model: spexplusshort_gru`;
3. for `-cn <name>` without a file of that name: the script's `default.yaml` for the training of that name (`NamedConfigs`);
4. the options in `configs/groups/<group>.yaml`, e.g. `optimizer: muon`.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.object_type import ObjectType
from hydra.core.plugins import Plugins
from hydra.errors import HydraException, MissingConfigException
from hydra.plugins.config_source import ConfigResult, ConfigSource
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ss.errors import STOPPED, UserError

Job: TypeAlias = Callable[[dict[str, Any]], int | None]
Names: TypeAlias = list[str]
ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs"
TRAININGS = ROOT / "training" / "configs"
NO_TRAININGS = {"default", "learning_curve"}  # of the files in that folder


class SharedConfigs(SearchPathPlugin):
    """Adds the repository's `configs/`, and the configs that only have a name, behind the script's own."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Called by Hydra."""
        script = next((element.path for element in search_path.get_path() if element.provider == "main"), None)
        search_path.append("ss", f"file://{CONFIGS}")
        if script is not None:
            search_path.append("ss", f"{NamedConfigs.scheme()}://{script.removeprefix('file://')}")


class NamedConfigs(ConfigSource):
    """`-cn <name>` without a file of that name: the script's `default.yaml` for the training of that name.

    For a training that is `model=<name>`. For other scripts every group that their default leaves open (`- model: ???`) is as the
    training has it, so a config in `training/configs/` is all that a training needs to be tested, used and measured by its name.
    What the training changes in an option is given as such, so that the command line may still choose another one.
    """

    @staticmethod
    def scheme() -> str:
        """Of the search path."""
        return "named"

    def available(self) -> bool:
        """Always: where a script has no default, there is nothing here."""
        return True

    def is_group(self, config_path: str) -> bool:
        """Only the top level."""
        return config_path == ""

    def is_config(self, config_path: str) -> bool:
        """Any name at the top level (`_` begins Hydra's own), so that `load_config` can say which there are."""
        return config_path[:1] not in ("", "_") and "/" not in config_path and (Path(self.path) / "default.yaml").is_file()

    def names(self) -> Names:
        """Of the trainings."""
        files = [*(CONFIGS / "model").glob("*.yaml"), *TRAININGS.glob("*.yaml")]
        return sorted({path.stem for path in files} - NO_TRAININGS)

    def load_config(self, config_path: str) -> ConfigResult:
        """Raises MissingConfigException with the names that there are for one that is none of them."""
        name, folder = config_path.removesuffix(".yaml"), Path(self.path)
        if name not in self.names():
            others = {path.stem for path in folder.glob("*.yaml")} - {"default"}
            known = ", ".join(sorted(others.union(self.names())))
            raise MissingConfigException(f"Cannot find primary config '{name}' in {self.path}: expected one of {known}", name)
        opened = [group for group, option in read_config(folder, "default")[0].items() if option == "???"]
        choices, values = dict.fromkeys(opened, name), {}
        if opened and folder.resolve() != TRAININGS.resolve():
            has_file = (TRAININGS / f"{name}.yaml").is_file()
            chosen, given = read_config(TRAININGS, name if has_file else "default")
            choices = {group: chosen[group] if has_file or group != "model" else name for group in opened}
            values = {group: given[group] for group in opened if group in given}
        defaults = ["default", *({f"override {group}": option} for group, option in choices.items()), "_self_"]
        return ConfigResult(self.provider, self.full_path(), OmegaConf.create({"defaults": defaults, **values}), {"package": None})

    def list(self, config_path: str, results_filter: ObjectType | None) -> Names:
        """The names, for the shell's completion."""
        return [] if config_path or results_filter == ObjectType.GROUP else self.names()


def read_config(folder: Path, name: str) -> tuple[dict[str, str], dict[str, Any]]:
    """What a file and those of its folder that it builds on choose: the options, by group, and the values that are their own."""
    content: Any = OmegaConf.to_container(OmegaConf.load(folder / f"{name}.yaml"))
    options: dict[str, str] = {}
    values: Any = {}
    for entry in content.pop("defaults"):
        if isinstance(entry, dict):
            options |= {group.removeprefix("override "): option for group, option in entry.items()}
        elif (folder / f"{entry}.yaml").is_file():
            chosen, values = read_config(folder, entry)
            options |= chosen
    return options, OmegaConf.to_container(OmegaConf.merge(values, content))  # type: ignore[return-value]


Plugins.instance().register(SharedConfigs)
Plugins.instance().register(NamedConfigs)
for path in sorted((CONFIGS / "groups").glob("*.yaml")):
    for option, content in OmegaConf.load(path).items():
        ConfigStore.instance().store(group=path.stem, name=str(option), node=content, provider=f"configs/groups/{path.name}")


def plain(config: DictConfig) -> dict[str, Any]:
    """The config as plain data, resolved. Raises OmegaConf's error for a mandatory value that was not given."""
    return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # type: ignore[return-value]


@contextmanager
def clear_errors() -> Iterator[None]:
    """Prints an error of the user, or of files and disks, as one line and ends with 2; HYDRA_FULL_ERROR=1 shows where it came from.
    Ctrl-C ends with 130.

    Any other error is one of the software, and shows its traceback.
    """
    try:
        yield
    except (UserError, OSError, HydraException, OmegaConfBaseException) as error:
        if os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        said = str(error)
        if isinstance(error, OmegaConfBaseException) and error.full_key:
            said = f"{error.full_key}: {said.splitlines()[0]}"
        elif isinstance(error, OSError) and error.strerror:
            what = "there is no such file" if isinstance(error, FileNotFoundError) else error.strerror
            place = error.filename2 or error.filename  # of two, what was to be written
            said = f"{place}: {what}" if place else what
        print(f"error: {said}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        raise SystemExit(STOPPED) from None


def with_clear_errors(job: Job, values: dict[str, Any]) -> int | None:
    """The job's exit code; its errors are printed in the process where they happened."""
    with clear_errors():
        return job(values)


def run_alone(job: Job, config: DictConfig) -> None:
    """Runs `job(plain config)` in this process and ends with its exit code."""
    with clear_errors():
        raise SystemExit(job(plain(config)))


def run(job: Job, config: DictConfig, **script: Any) -> None:
    """Runs `job(plain config)` in one process per GPU (`n_gpu`) or on the CPU (`n_processes`), then ends with its exit code.

    script: values that are the script's own, where the config does not give them.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    from ss import distributed  # torch, which takes seconds to import and is not wanted everywhere

    with clear_errors():
        values = {**script, **plain(config)}
        try:
            processes = {key: values[key] for key in ("n_gpu", "n_processes") if key in values}
            codes = distributed.launch(with_clear_errors, job, values, **processes)
        except ChildFailedError as failed:  # the process that failed has printed why
            raise SystemExit(max(1, failed.get_first_failure()[1].exitcode)) from None
        except SignalException as stopped:  # the processes were told, and have ended in their own way
            raise SystemExit(128 + int(stopped.sigval)) from None
    raise SystemExit(max(code or 0 for code in codes))
