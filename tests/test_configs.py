"""Every yaml composes and instantiates: the shared groups alone, and each script's primary configs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.utils import get_class, instantiate

from ss import checkpoint
from ss.config import CONFIGS, plain
from ss.inferencer import Inferencer
from ss.model import Extractor
from ss.trainer import Settings, Trainer
from ss.trainer.job import scheduler_factory

SOURCE = "data.train.sources.audios_dir"
MODELS = sorted(path.stem for path in (CONFIGS / "model").glob("*.yaml"))


def primaries(folder: str) -> list[str]:
    return sorted(path.stem for path in (ROOT / folder / "configs").glob("*.yaml"))


@pytest.fixture(autouse=True)
def hydra_is_fresh() -> Iterator[None]:
    GlobalHydra.instance().clear()
    yield
    GlobalHydra.instance().clear()


def composed(folder: Path, name: str | None, *overrides: str) -> dict[str, Any]:
    with initialize_config_dir(str(folder), version_base=None):
        return plain(compose(name, list(overrides)))


def parameter() -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.zeros(1))


@pytest.mark.parametrize("name", MODELS)
def test_model(name: str) -> None:
    config = composed(CONFIGS, None, f"+model={name}")["model"]
    assert isinstance(checkpoint.build(config), Extractor)
    assert isinstance(instantiate(config), Extractor)


@pytest.mark.parametrize(
    ("name", "n_parameters"),
    [("spexplusshort", 13.39e6), ("spexplusshort_gru", 14.08e6), ("spexplusshort_gru_small", 7.95e6)],
)
def test_models_have_the_predecessors_size(name: str, n_parameters: float) -> None:
    model = checkpoint.build(composed(CONFIGS, None, f"+model={name}")["model"])
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(n_parameters, abs=0.005e6)


@pytest.mark.parametrize("group", ["streamer", "loss", "optimizer", "scheduler", "trainer", "writer", "metrics", "data"])
def test_every_file_of_a_group(group: str, tmp_path: Path) -> None:
    names = sorted(path.stem for path in (CONFIGS / group).glob("*.yaml"))
    assert names
    for name in names:
        more = {"scheduler": ["+optimizer.lr=0.1"], "data": ["+scene=everything", f"{SOURCE}=x"] if name == "scenes" else []}
        config = composed(CONFIGS, None, f"+{group}={name}", *more.get(group, []))[group]
        check_group(group, config, tmp_path)


def check_group(group: str, config: dict[str, Any], tmp_path: Path) -> None:
    match group:
        case "optimizer":
            instantiate(config, [parameter()])
        case "scheduler":
            scheduler_factory(config)(torch.optim.SGD([parameter()], 0.1), 100)
        case "trainer":
            check_trainer(config)
        case "writer":
            if config and not config["_target_"].endswith("Wandb"):
                instantiate(config, run_dir=tmp_path, sample_rate=16000).close()
        case "data":
            assert {"train", "valid", "sample_rate"} <= set(config)
        case _:
            instantiate(config)


def check_trainer(config: dict[str, Any]) -> None:
    settings = dict(config)
    if "_target_" in settings:  # the file that the others share has none
        assert issubclass(get_class(settings.pop("_target_")), Trainer)
    Settings(**settings)


@pytest.mark.parametrize("name", sorted(set(primaries("training")) - {"learning_curve"}))
def test_training(name: str, tmp_path: Path) -> None:
    config = composed(ROOT / "training" / "configs", name, *([f"{SOURCE}=x"] if name == "release" else []))
    assert isinstance(checkpoint.build(config["model"]), Extractor)
    for group in ("streamer", "loss", "optimizer", "scheduler", "trainer", "writer", "data"):
        check_group(group, config[group], tmp_path)
    assert config["run_dir"] == f"runs/{name}"
    if name != "release":  # its model is that of spexplus_online
        assert name in primaries("testing")
        assert name in primaries("inferencing")


@pytest.mark.parametrize("folder", ["testing", "inferencing"])
def test_testing_and_inferencing(folder: str) -> None:
    for name in set(primaries(folder)) - {"export", "release", "leaderboard", "test_sets"}:
        config = composed(ROOT / folder / "configs", name)
        assert issubclass(get_class(config["inferencer"]), Inferencer)
        assert config["checkpoint"] == f"runs/{name}/best.pth"
        assert name in primaries("training")


def test_export() -> None:
    config = composed(ROOT / "inferencing" / "configs", "export")
    assert config["checkpoint"] == "runs/spexplus_online/best.pth"
    assert config["folder"] == "runs/spexplus_online/exported"


def test_release() -> None:
    config = composed(ROOT / "inferencing" / "configs", "release")
    assert (ROOT / config["checkpoint"]).is_file()
    assert (ROOT / config["folder"] / "SHA256SUMS").is_file()
    assert issubclass(get_class(config["inferencer"]), Inferencer)
    assert {"SI-SDRi", "STOI", "absent-dB"} <= config["metrics"].keys()


@pytest.mark.parametrize("name", ["train", "dev", "test"])
def test_mixing(name: str) -> None:
    config = composed(ROOT / "mixing" / "configs", name, "audios_dir=corpus", "out_folder=data")
    assert config["nfiles"] > 0
