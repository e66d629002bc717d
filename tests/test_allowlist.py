"""What a file may ask for: nothing in a checkpoint's config or an export's metadata is called, whatever it names."""

import random
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from conftest import SIZES, WINDOWS

from ss import allowlist, checkpoint
from ss.compression.job import read_training_config
from ss.errors import UserError
from ss.export import export
from ss.inferencer import Inferencer
from ss.model import SpexPlusOnline, SpexPlusShort
from ss.streamer import Whole

MODEL: dict[str, Any] = {"_target_": "ss.model.SpexPlusOnline", **SIZES, **WINDOWS, "memory": "none"}
WHOLE = {"_target_": "ss.streamer.Whole"}
CALLED: list[str] = []


def harm(*_: Any, **__: Any) -> Whole:
    """What a file must not be able to call."""
    CALLED.append("harm")
    return Whole()


HARM = {"_target_": f"{__name__}.harm"}


def saved(path: Path, **config: Any) -> Path:
    """A checkpoint as somebody else may have written it: torch.save asks no questions."""
    torch.manual_seed(0)
    model = SpexPlusOnline(**{key: value for key, value in MODEL.items() if key != "_target_"})
    whole = {"model": MODEL, "streamer": WHOLE, "loss": None, "data": {"sample_rate": 16000}, "trainer": None, **config}
    torch.save({"format": 1, "config": whole, "model": model.state_dict()}, path)
    return path


@pytest.mark.parametrize("streamer", [HARM, {**WHOLE, "more": HARM}, {**WHOLE, "_partial_": True}, "text", [HARM]], ids=str)
def test_a_streamer_in_a_checkpoint_calls_nothing(streamer: Any, tmp_path: Path) -> None:
    CALLED.clear()
    with pytest.raises(UserError, match="streamer"):
        Inferencer(saved(tmp_path / "best.pth", streamer=streamer))
    assert not CALLED


@pytest.mark.parametrize("nested", [HARM, [HARM], {"inner": [1, HARM]}], ids=str)
def test_nothing_nested_in_a_model_is_called(nested: Any, tmp_path: Path) -> None:
    CALLED.clear()
    with pytest.raises(UserError, match=r"model.memory.*expected names of arguments, got '_target_'"):
        checkpoint.load_extractor(saved(tmp_path / "best.pth", model={**MODEL, "memory": nested}))
    assert not CALLED


def test_metadata_of_an_export_calls_nothing(tmp_path: Path) -> None:
    export(saved(tmp_path / "best.pth"), tmp_path / "exported")
    CALLED.clear()
    for file in (tmp_path / "exported").glob("*.onnx"):
        graph = onnx.load(str(file))
        for prop in graph.metadata_props:
            prop.value = prop.value.replace("ss.streamer.Whole", HARM["_target_"])
        onnx.save(graph, str(file))
    with pytest.raises(UserError, match=r"streamer: expected a _target_ in ss.streamer, got .*harm"):
        Inferencer(tmp_path / "exported")
    assert not CALLED


@pytest.mark.parametrize("role", ["loss", "optimizer", "scheduler", "trainer", "streamer", "writer", "model"])
def test_a_training_is_not_repeated_with_parts_that_a_file_made_up(role: str, tmp_path: Path) -> None:
    path = saved(tmp_path / "best.pth", **{role: HARM})
    with pytest.raises(UserError, match=f"{role}: expected a _target_ in .*harm"):
        read_training_config(path)


def test_a_list_that_holds_itself_and_text_to_look_up_are_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    for value in (endless, "${oc.env:HOME}"):
        with pytest.raises(UserError, match="model.kernels"):
            allowlist.create("model", {**MODEL, "kernels": value})


def test_whatever_a_config_says_it_is_refused_or_makes_one_of_ours() -> None:
    """Small changes of a sound config, many times over."""
    rng, made = random.Random(0), 0
    keys = [*MODEL, "_args_", "_partial_", "_recursive_", "body", "self", ""]
    values = [None, True, -1, 0, 3, 1e9, float("nan"), "none", "os.system", "ss.model.SpexPlusShort", "ss.model.os", [], [24] * 6]
    values += [HARM, [HARM], {"_target_": "os.system", "command": "true"}, {1: 2}, b"bytes", object(), (32, 96), "${oc.env:HOME}"]
    CALLED.clear()
    for _ in range(400):
        changes = {rng.choice(keys): rng.choice(values) for _ in range(rng.randint(0, 2))}
        if 1e9 in changes.values():  # a model of any size is allowed, but not here
            changes = {"memory": 1e9}
        try:
            model = allowlist.create("model", {**MODEL, **changes})
        except ValueError:
            continue
        made += 1
        assert type(model).__module__.startswith("ss.model")
    assert not CALLED
    assert 10 < made < 300


def test_a_class_of_your_own_is_loaded_once_it_is_registered(tmp_path: Path) -> None:
    class Mine(SpexPlusShort):
        """A user's model."""

    sizes = {**SIZES, "short_kernel": 40}
    config = {"model": {"_target_": f"{Mine.__module__}.{Mine.__qualname__}", **sizes}}
    content = {"config": config, "model": Mine(**sizes).state_dict()}
    with pytest.raises(UserError, match="model: expected a _target_ in ss.model, got .*a_class_of_your_own"):
        checkpoint.save(tmp_path / "best.pth", content)
    try:
        allowlist.register("model")(Mine)
        checkpoint.save(tmp_path / "best.pth", content)
        assert type(checkpoint.load_extractor(tmp_path / "best.pth")) is Mine
    finally:
        name = config["model"]["_target_"]
        allowlist.REGISTERED.pop(name)
        allowlist.CLASSES["model"].remove(name)
