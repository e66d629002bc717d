"""Every config composes and instantiates: the shared groups alone, and each script's, those that only have a name too."""

import subprocess
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import ROOT, composed, run
from hydra.utils import get_class, instantiate

from ss import checkpoint
from ss.config import CONFIGS
from ss.inferencer import Inferencer
from ss.model import ExtractionModel
from ss.trainer import Settings, Trainer
from ss.trainer.settings import make_scheduler

SOURCE = "data.train.sources.audios_dir"
MODELS = sorted(path.stem for path in (CONFIGS / "model").glob("*.yaml"))
TRAININGS = sorted({path.stem for path in (ROOT / "training/configs").glob("*.yaml")} - {"default", "learning_curve"})
SHORT = [name for name in MODELS if name.startswith("spexplusshort")]


def parameter() -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.zeros(1))


@pytest.mark.parametrize("name", MODELS)
def test_model(name: str) -> None:
    config = composed("configs", None, f"+model={name}")["model"]
    assert isinstance(checkpoint.build(config), ExtractionModel)
    assert isinstance(instantiate(config), ExtractionModel)


@pytest.mark.parametrize(
    ("model", "n_parameters"),
    [
        (["+model=spexplusshort"], 13.39e6),
        (["+model=spexplusshort_gru"], 14.08e6),
        (["+model=spexplusshort_gru_small"], 7.95e6),
        (["+model=spexplusshort_gru", "sizes@model=small", "model.memory_size=96"], 7.95e6),
    ],
)
def test_models_have_the_predecessors_size(model: list[str], n_parameters: float) -> None:
    built = checkpoint.build(composed("configs", None, *model)["model"])
    assert sum(p.numel() for p in built.parameters()) == pytest.approx(n_parameters, abs=0.005e6)


@pytest.mark.parametrize("group", ["streamer", "loss", "optimizer", "scheduler", "trainer", "writer", "metrics", "data"])
def test_every_option_of_a_group(group: str, tmp_path: Path) -> None:
    names = list(yaml.safe_load((CONFIGS / "groups" / f"{group}.yaml").read_text()))
    assert len(names) > 1
    for name in names:
        more = {"scheduler": ["+optimizer.lr=0.1"], "data": ["+scene=everything", f"{SOURCE}=x"] if name == "scenes" else []}
        config = composed("configs", None, f"+{group}={name}", *more.get(group, []))[group]
        check_group(group, config, tmp_path)


def test_the_loss_is_of_the_rate_of_the_data() -> None:
    assert composed("training", "spexplus_online", "data.sample_rate=8000")["loss"]["sample_rate"] == 8000


def check_group(group: str, config: dict[str, Any], tmp_path: Path) -> None:
    match group:
        case "optimizer":
            instantiate(config, [parameter()])
        case "scheduler":
            make_scheduler(config, torch.optim.SGD([parameter()], 0.1), 100)
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
    assert issubclass(get_class(settings.pop("_target_")), Trainer)
    assert settings.keys() == {key.name for key in fields(Settings)}  # all are explained there
    Settings(**settings)


@pytest.mark.parametrize("name", sorted({*TRAININGS, *SHORT}))
def test_training(name: str, tmp_path: Path) -> None:
    overrides = [f"{SOURCE}=x"] if name in ("release", "trial") else []
    config = composed("training", name, *overrides)
    assert isinstance(checkpoint.build(config["model"]), ExtractionModel)
    for group in ("streamer", "loss", "optimizer", "scheduler", "trainer", "writer", "data"):
        check_group(group, config[group], tmp_path)
    if name in MODELS:
        assert config["model"] == composed("configs", None, f"+model={name}")["model"]
    if name != "trial":  # each of them is told its folder
        assert config["run_dir"] == f"runs/{name}"


@pytest.mark.parametrize("folder", ["testing", "inferencing", "pruning_and_quantization"])
@pytest.mark.parametrize("name", ["spexplusshort_gru_v1", "spexplus_causal", "mini"])
def test_a_training_is_tested_and_used_by_its_name(folder: str, name: str) -> None:
    assert composed(folder, name)["checkpoint"] == f"runs/{name}/best.pth"


@pytest.mark.parametrize(
    "script",
    [
        "training/short_causal_train.py",
        "testing/short_causal_test.py",
        "inferencing/short_causal_inference.py",
        "measure_weight_and_time/measure_weight_and_time.py",
        "pruning_and_quantization/test.py",
    ],
)
def test_a_name_that_nothing_has_is_refused_with_those_that_there_are(script: str) -> None:
    done = run(script, "-cn", "spexplusshort_grux", check=False)
    assert done.returncode != 0
    assert "Cannot find primary config 'spexplusshort_grux'" in done.stderr
    assert {"mini,", "spexplus_causal,", "spexplusshort_gru_v1,"} <= set(done.stderr.split())
    assert "default" not in done.stderr.split()
    assert "Traceback" not in done.stderr


def test_a_script_says_what_extracts() -> None:
    """A model of whole utterances is not run over segments without being told how."""
    for script in ("testing/causal_test.py", "inferencing/short_causal_inference.py"):
        checkpoint = f"checkpoint={ROOT}/models/spexplus_online/best.pth"
        done = run(script, "-cn", "spexplus_online", checkpoint, check=False)
        assert done.returncode == 2
        assert "was trained on whole utterances: test.py and inference.py take it as it is" in done.stderr
    done = run("testing/test.py", "-cn", "spexplus_online", checkpoint, "+streamer=half", check=False)
    assert done.returncode == 2
    assert "streamer: expected streamer=whole, as an online model streams by itself; found chunks that overlap" in done.stderr


def test_there_are_few_files() -> None:
    listed = subprocess.run(["git", "ls-files", "*.yaml"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    assert 0 < len(listed.stdout.splitlines()) <= 60


def test_export() -> None:
    config = composed("inferencing", "export")
    assert config["checkpoint"] == "runs/spexplus_online/best.pth"
    assert config["folder"] == "runs/spexplus_online/exported"


def test_release() -> None:
    config = composed("inferencing", "release")
    assert (ROOT / config["checkpoint"]).is_file()
    assert not config["folder"].startswith("ss")  # the package's release is replaced only where that is asked for
    assert issubclass(get_class(config["inferencer"]), Inferencer)
    assert {"SI-SDRi", "STOI", "absent-dB"} <= config["metrics"].keys()


@pytest.mark.parametrize("name", ["train", "dev", "test"])
def test_mixing(name: str) -> None:
    config = composed("mixing", name, "audios_dir=corpus", "out_folder=data")
    assert config["nfiles"] > 0
