"""The scripts of pruning_and_quantization/, as a user runs them, on tiny models."""

import copy
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import onnx
import pytest
import soundfile
import torch
import yaml
from conftest import RATE, ROOT, TINY, run, training, voice

from ss import audio
from ss.checkpoint import load_extractor
from ss.compression.constraints import sparsity
from ss.compression.job import merge
from ss.compression.quantization import Pair, export_recipe, training_pairs
from ss.compression.recipe import Recipe, read_recipe
from ss.errors import UserError
from ss.export import export
from ss.runtime import Extractor

SCRIPTS = "pruning_and_quantization"


@pytest.fixture(scope="module")
def online(tmp_path_factory: pytest.TempPathFactory, triplets: Path) -> Path:
    """The run folder of a tiny online model, trained for an epoch."""
    run_dir = tmp_path_factory.mktemp("online") / "run"
    run("training/train.py", "-cn", "spexplus_online", *training(triplets, run_dir), "writer=none")
    return run_dir


def test_null_switches_a_key_off() -> None:
    config = {"trainer": {"average": 0.99, "precision": "bf16"}, "data": {"train": {"sources": {"noise": "noise"}}}}
    changes = {"trainer": {"average": None, "precision": "as_trained"}, "data": {"train": {"sources": {"noise": None}}}}
    expected = {"trainer": {"average": None, "precision": "bf16"}, "data": {"train": {"sources": {"noise": None}}}}
    assert merge(config, changes) == expected


def words(online: Path, folder: Path, config: str = "spexplus_online") -> list[str]:
    """What the scripts of the folder are called with, for a run in `folder`."""
    return ["-cn", config, f"checkpoint={online}/best.pth", f"recipe={folder}/recipe.yaml", f"run_dir={folder}/run"]


def prune(
    model: Path,
    triplets: Path,
    folder: Path,
    recipe: dict[str, Any],
    *more: str,
    check: bool = True,
    config: str = "spexplus_online",
) -> CompletedProcess[str]:
    """Runs a recipe in a folder."""
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    data = [f"data.train.folder={triplets}/train", f"data.valid.folder={triplets}/dev"]
    return run(f"{SCRIPTS}/prune_and_quantize.py", *words(model, folder, config), *data, *more, check=check)


STRUCTURED = {
    "about": "narrower",
    "stages": [
        {"structured": {"macs": 0.96, "drop_blocks": 2, "smallest": 8, "multiple": 4}, "batches": 2, "epochs": 1, "lr": 0.001},
        {"distil": 0.5, "epochs": 1, "lr": 0.001},
    ],
}


def test_fewer_channels_after_two_stages_and_a_resumed_one(online: Path, triplets: Path, tmp_path: Path) -> None:
    stopped = prune(online, triplets, tmp_path, STRUCTURED, "trainer.max_minutes=0.0001")
    assert "stopped; the same command goes on" in stopped.stdout
    assert not (tmp_path / "run" / "stage-2").exists()
    done = prune(online, triplets, tmp_path, STRUCTURED)
    assert "resuming" in done.stdout
    assert done.stdout.count("finished") == 2
    model = load_extractor(tmp_path / "run" / "best.pth")
    kept = torch.load(tmp_path / "run" / "best.pth", weights_only=True)["config"]["model"]["hidden_channels"]
    assert kept.count(0) == 2
    assert len(kept) == 6
    assert sum(p.numel() for p in model.parameters()) < sum(p.numel() for p in load_extractor(online / "best.pth").parameters())
    test = ["-cn", "spexplus_online", f"checkpoint={tmp_path}/run/best.pth", f"folder={triplets}/test", "metrics=fast"]
    in_torch = run("testing/test.py", *test, f"out_folder={tmp_path}/test").stdout.splitlines()[1:3]
    exported = run(f"{SCRIPTS}/test.py", *words(online, tmp_path), f"folder={triplets}/test", "metrics=fast").stdout.splitlines()[
        1:3
    ]
    assert in_torch == exported
    assert in_torch[1].startswith("SI-SDRi")
    changed = copy.deepcopy(STRUCTURED)
    changed["stages"][0]["structured"]["macs"] = 0.9
    refused = prune(online, triplets, tmp_path, changed, check=False)
    assert refused.returncode == 2
    assert f"error: {tmp_path}/run/stage-1 holds a model narrowed in another way (macs: 0.96 then, 0.9 now)" in refused.stderr


@pytest.mark.slow
def test_judged_by_two_processes(online: Path, triplets: Path, tmp_path: Path) -> None:
    recipe = {"about": "narrower", "stages": STRUCTURED["stages"][:1]}
    prune(online, triplets, tmp_path, recipe, "n_processes=2", "trainer.batch_size=1")
    assert torch.load(tmp_path / "run" / "best.pth", weights_only=True)["config"]["model"]["hidden_channels"].count(0) == 2


def test_sparse_weights_and_int8(online: Path, triplets: Path, tmp_path: Path) -> None:
    stages = [{"sparsity": 0.1, "epochs": 1, "lr": 0.001}, {"sparsity": 0.3, "quantize": True, "epochs": 1, "lr": 0.001}]
    recipe = {"about": "sparse", "precision": "int8", "keep": ["encoder", "decoder"], "calibration": 2, "stages": stages}
    prune(online, triplets, tmp_path, recipe)
    first, last = (load_extractor(tmp_path / "run" / name) for name in ("stage-1/best.pth", "best.pth"))
    assert sparsity(first) == pytest.approx(0.1, abs=1e-3)
    assert sparsity(last) == pytest.approx(0.3, abs=1e-3)
    quantized(tmp_path / "run" / "exported" / "step.onnx")
    export(tmp_path / "run" / "best.pth", tmp_path / "float")
    wave, ref = (audio.read(triplets / "test" / f"s0_a-{kind}.wav", RATE) for kind in ("mixed", "ref"))
    in_float, in_int8 = (heard(Extractor.load(folder), wave, ref) for folder in (tmp_path / "float", tmp_path / "run" / "exported"))
    assert 0 < np.square(in_int8 - in_float).sum() < 0.03 * np.square(in_float).sum()
    small = ["live_seconds=0.5", "session_minutes=0.02", "chunk_ms=[10]"]
    assert "onnxruntime" in run(f"{SCRIPTS}/measure_weight_and_time.py", *words(online, tmp_path), *small).stdout
    run(f"{SCRIPTS}/inference.py", *words(online, tmp_path), f"folder={triplets}/test")
    assert len(list((tmp_path / "run" / "predictions").glob("*-pred.wav"))) == 3


def heard(extractor: Extractor, wave: audio.Wave, ref: audio.Wave) -> audio.Wave:
    """What comes out of a stream."""
    stream = extractor.stream(ref)
    return np.concatenate([stream.process(wave), stream.flush()])


def calibration(triplets: Path) -> Iterator[Pair]:
    """Two mixtures to calibrate on."""
    return training_pairs({"data": {"train": {"folder": triplets / "train"}, "sample_rate": RATE}, "seed": 0}, 2)


@pytest.mark.slow
def test_state_carried_through_int8_does_not_drift(triplets: Path, tmp_path: Path) -> None:
    """Thirty minutes through the model that is shipped: the error against float of each minute stays what it was."""
    recipe = Recipe("int8", precision="int8", keep=("encoder", "decoder"))
    for folder, one in (("float", Recipe("as it is")), ("int8", recipe)):
        export_recipe(one, ROOT / "models" / "spexplus_online" / "best.pth", tmp_path / folder, calibration(triplets))
    ref = audio.read(triplets / "test" / "s0_a-ref.wav", RATE)
    streams = [Extractor.load(tmp_path / folder).stream(ref) for folder in ("float", "int8")]
    rng, errors = np.random.default_rng(0), []
    minute = np.concatenate([voice(rng, pitch, 3 * RATE) + voice(rng, 1.4 * pitch, 3 * RATE) for pitch in range(80, 280, 10)])
    for _ in range(30):
        in_float, in_int8 = (np.concatenate([stream.process(part) for part in np.split(minute, 60)]) for stream in streams)
        errors.append(10 * np.log10(np.square(in_int8 - in_float).sum() / np.square(in_float).sum()))
    assert -60 < errors[0] < -10
    assert max(errors) - min(errors) < 0.5


def test_quantized_graphs_run_where_torch_is_not(online: Path, trained: Path, triplets: Path, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('torch', 'hydra', 'onnx', 'scipy')));"
        "import numpy as np; from ss.runtime import Extractor;"
        f"streams = [Extractor.load('{tmp_path}/online').stream(np.ones(9000, np.float32)),"
        f" Extractor.load('{tmp_path}/segments').stream(np.ones(9000, np.float32))];"
        "outs = [np.concatenate([s.process(np.ones(8001, np.float32)), s.flush()]) for s in streams];"
        "assert all(len(out) == 8001 and np.isfinite(out).all() for out in outs)"
    )
    for model, folder in ((online, "online"), (trained, "segments")):
        recipe = Recipe("int8", precision="int8", keep=("encoder", "decoder"))
        export_recipe(recipe, model / "best.pth", tmp_path / folder, calibration(triplets))
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_only_what_products_take_is_rounded(online: Path, triplets: Path, tmp_path: Path) -> None:
    recipe = Recipe("int8", precision="int8", keep=("encoder", "decoder"))
    export_recipe(recipe, online / "best.pth", tmp_path / "int8", calibration(triplets))
    graph = onnx.load(str(tmp_path / "int8" / "step.onnx")).graph
    rounded = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    assert rounded
    assert {node.op_type for node in graph.node if rounded & {*node.input}} == {"Gemm"}


def test_a_provider_that_is_not_there(online: Path, triplets: Path, tmp_path: Path) -> None:
    export(online / "best.pth", tmp_path / "exported")
    there = [*words(online, tmp_path), f"exported={tmp_path}/exported", f"folder={triplets}/test"]
    done = run(f"{SCRIPTS}/test.py", *there, "provider=cuda", check=False)
    assert done.returncode == 2
    assert "ONNX Runtime cannot use cuda here" in done.stderr
    assert "pip install onnxruntime-gpu" in done.stderr
    assert "Traceback" not in done.stderr


def test_scenes_and_folders_to_fine_tune_on(triplets: Path, tmp_path: Path) -> None:
    sources = ["data=scenes", "scene=two_speakers", "scene.seconds=[0.5,0.5]", f"data.train.sources.audios_dir={tmp_path}/corpus"]
    rng = np.random.default_rng(0)
    for speaker in range(3):
        for number in range(2):
            path = tmp_path / "corpus" / "part" / str(speaker) / "1" / f"{number}.flac"
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, voice(rng, 90 + 40 * speaker, RATE), RATE)
    few = ["data.train.examples=2", "data.train.sources.num_workers=1", "trainer.epochs=1", "trainer.batch_size=2", "writer=none"]
    valid = f"data.valid.folder={triplets}/dev"
    small = [*TINY, valid, f"run_dir={tmp_path}/scenes", "trainer.num_workers=0"]
    run("training/train.py", "-cn", "spexplus_online", *sources, *few, *small)
    recipe = {"about": "int8", "precision": "int8", "calibration": 1, "stages": [{"quantize": True, "epochs": 1, "lr": 0.001}]}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    for name, folder in (("scenes", "as_trained"), ("folder", f"{triplets}/train")):
        given = [*words(tmp_path / "scenes", tmp_path), valid, f"data.train.folder={folder}", f"run_dir={tmp_path}/{name}_int8"]
        run(f"{SCRIPTS}/prune_and_quantize.py", *given)
        quantized(tmp_path / f"{name}_int8" / "exported" / "step.onnx")
        train = torch.load(tmp_path / f"{name}_int8" / "best.pth", weights_only=True)["config"]["data"]["train"]
        assert ("scene" in train) == (name == "scenes")


def quantized(path: Path) -> None:
    """Fails if no product of a graph takes int8 weights."""
    graph = onnx.load(str(path)).graph
    assert any(weight.data_type == onnx.TensorProto.INT8 and len(weight.dims) > 1 for weight in graph.initializer)


def test_segments_through_int8(trained: Path, triplets: Path, tmp_path: Path) -> None:
    recipe = {"about": "int8", "precision": "int8", "calibration": 1}
    prune(trained, triplets, tmp_path, recipe, config="spexplusshort_gru")
    quantized(tmp_path / "run" / "exported" / "GRUMainModel.onnx")
    test = [*words(trained, tmp_path, "spexplusshort_gru"), f"folder={triplets}/test", "metrics=fast"]
    lines = run(f"{SCRIPTS}/test.py", *test).stdout
    assert "SI-SDRi" in lines
    assert "ACC" in lines


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"about": "x", "stages": [{"epochs": 1}]}, "recipe.yaml: not a recipe: stage 1: "),
        ({"about": "x", "stages": [{"epochs": 1, "lr": 1, "wrong": 2}]}, "stage 1: unknown key wrong: expected some of epochs, lr"),
        ({"about": "x", "precision": "int8", "calibration": 0}, "calibration: expected more than 0, found 0"),
        ({"about": "x", "precision": "int4"}, "precision: expected one of fp32, fp16, dynamic, int8, found int4"),
        ({"about": "x", "stages": [{"epochs": 1, "lr": 0.1, "sparsity": 2}]}, "sparsity: expected a part from 0 to below 1, got 2"),
    ],
)
def test_a_wrong_recipe_is_refused(tmp_path: Path, recipe: dict[str, Any], message: str) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    with pytest.raises(UserError, match=re.escape(message)):
        read_recipe(tmp_path / "recipe.yaml")


def test_a_recipe_that_is_none_is_refused() -> None:
    with pytest.raises(UserError, match="recipe: expected a file, or one of dynamic, float, .*, found tiny"):
        read_recipe("tiny")


def test_every_recipe_can_be_read() -> None:
    recipes = list(yaml.safe_load((ROOT / SCRIPTS / "recipes.yaml").read_text()))
    assert len(recipes) > 5
    assert all(read_recipe(name).about for name in recipes)


def test_recipes_side_by_side(online: Path, triplets: Path, tmp_path: Path) -> None:
    data = [f"data.train.folder={triplets}/train", f"data.valid.folder={triplets}/dev", f"folder={triplets}/test"]
    recipes = {"float": "about: as it is", "int8": "about: int8\nprecision: int8\ncalibration: 1\nkeep: [encoder, decoder]"}
    for name, text in recipes.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    names = ",".join(f"{tmp_path}/{name}.yaml" for name in recipes)
    small = ["rounds=1", "live_seconds=0.3", "metrics=fast", f"recipes=[{names}]", f"runs={tmp_path}/run"]
    done = run(f"{SCRIPTS}/compare.py", "-cn", "spexplus_online", f"checkpoint={online}/best.pth", *data, *small)
    table = json.loads((tmp_path / "run_compared" / "table.json").read_text())
    assert [row["recipe"] for row in table["rows"]] == list(recipes)
    in_float, in_int8 = table["rows"]
    assert in_int8["bytes"]["step.onnx"] < in_float["bytes"]["step.onnx"]
    assert in_int8["bytes"].keys() == in_float["bytes"].keys()
    assert in_int8["parameters"] == in_float["parameters"]
    assert all(row["quality"]["SI-SDRi"] > -60 and row["real_time_factors"]["10"] > 0 for row in table["rows"])
    assert "as it is" in done.stdout
    assert all(
        Path(f"{tmp_path}/run_{tmp_path}/{name}.yaml/best.pth").is_file() for name in recipes
    )  # as prune_and_quantize.py does
    other = tmp_path / "other.pth"  # the same command with another checkpoint shows what that one does
    content = torch.load(online / "best.pth", weights_only=True)
    torch.save({**content, "model": {name: 0.9 * value for name, value in content["model"].items()}}, other)
    run(f"{SCRIPTS}/compare.py", "-cn", "spexplus_online", f"checkpoint={other}", *data, *small)
    again = json.loads((tmp_path / "run_compared" / "table.json").read_text())["rows"][0]
    assert again["quality"]["SI-SDRi"] != in_float["quality"]["SI-SDRi"]
    small = [*small, f"out_folder={tmp_path}/costs", "folder=null"]
    run(f"{SCRIPTS}/compare.py", "-cn", "spexplus_online", f"checkpoint={online}/best.pth", *data[:2], *small)
    costs = json.loads((tmp_path / "costs" / "table.json").read_text())["rows"]
    assert [row["quality"] for row in costs] == [{}, {}]


def test_what_int8_costs_in_every_layer(online: Path, triplets: Path, tmp_path: Path) -> None:
    data = [f"data.train.folder={triplets}/train", f"folder={triplets}/test", "mixtures=1", f"out_folder={tmp_path}"]
    done = run(f"{SCRIPTS}/sensitivity.py", "-cn", "spexplus_online", f"checkpoint={online}/best.pth", *data)
    rows = json.loads((tmp_path / "sensitivity.json").read_text())
    assert {"conv1", "mask", "decoder", "encoder.0", "body.layers.1.layers.3.output"} <= {row["layer"] for row in rows}
    assert all(-120 < row["error_db"] < 0 for row in rows)
    assert (tmp_path / "sensitivity.png").stat().st_size > 1000
    assert "body.layers.1.layers.3.output" in done.stdout
