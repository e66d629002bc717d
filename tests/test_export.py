"""The exported graphs against the model they came from."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from conftest import RATE, ROOT, SIZES, WINDOWS, lively, run, training
from torch import nn

import ss
from ss import audio
from ss.checkpoint import load_extractor
from ss.distributed import BatchNorm
from ss.errors import UserError
from ss.export import export
from ss.export.graph import Product, normed_after, normed_before, product
from ss.model import SpexPlusOnline, SpexPlusShort
from ss.model.stateful import State, StatefulLayer
from ss.runtime import Extractor


def online(**changes: Any) -> SpexPlusOnline:
    torch.manual_seed(0)
    return lively(SpexPlusOnline(**{**SIZES, **WINDOWS, **changes}))


VARIANTS: dict[str, dict[str, Any]] = {
    "linear": {},
    "gru": {"memory": "gru"},
    "none": {"memory": "none"},
    "lstm": {"memory": "lstm", "complex_mask": True},
    "three taps": {"taps": 3},
    "lookahead": {"lookahead": 2},
    "half-overlapping, one scale": {"kernels": [48], "synthesis_kernel": 48},
    "windows and hop share few samples": {"kernels": [34, 98], "synthesis_kernel": 30},
    "no overlap": {"synthesis_kernel": 24},
}


@pytest.mark.parametrize("changes", VARIANTS.values(), ids=VARIANTS.keys())
def test_every_variant_equals_torch(changes: dict[str, Any], tmp_path: Path) -> None:
    assert export(online(**changes), tmp_path) < 1e-5


@torch.inference_mode()
def assert_a_thousand_steps_equal(model: SpexPlusOnline, folder: Path) -> None:
    """Exports the model and follows it for 1,000 steps of one and two hops."""
    export(model, folder)
    extractor, rng = Extractor.load(folder), np.random.default_rng(1)
    enrolment = 0.1 * rng.standard_normal((2, 3 * extractor.shortest_enrolment), np.float32)
    conditions, states = extractor.conditions_of(enrolment), extractor.zeros(2)
    state = model.init_state(model.enroll(torch.from_numpy(enrolment)))
    for step in range(1000):
        chunk = 0.1 * rng.standard_normal((2, model.hop * (1 + step % 2)), np.float32)
        (expected,), state = model.step(torch.from_numpy(chunk), state)
        wave, states = extractor.step(chunk, conditions, states)
        np.testing.assert_allclose(wave, expected.numpy(), atol=1e-4)


@pytest.mark.parametrize("memory", ["linear", "gru"])
def test_a_thousand_steps_equal_torch(memory: str, tmp_path: Path) -> None:
    assert_a_thousand_steps_equal(online(memory=memory), tmp_path)


def test_a_thousand_steps_of_the_trained_model_equal_torch(tmp_path: Path) -> None:
    model = load_extractor(ROOT / "models" / "spexplus_online" / "best.pth")
    assert isinstance(model, SpexPlusOnline)
    assert_a_thousand_steps_equal(model, tmp_path)


def test_a_trained_checkpoint_by_the_real_commands(triplets: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    sizes = ["model.kernels=[32,96]", "model.synthesis_kernel=32", "model.hop=24"]
    run("training/train.py", "-cn", "spexplus_online", *training(triplets, run_dir), *sizes, "writer=none")
    said = run("inferencing/export.py", "-cn", "export", f"run_dir={run_dir}").stdout
    assert "from torch" in said
    run("inferencing/inference.py", "-cn", "spexplus_online", f"run_dir={run_dir}", f"folder={triplets}/test")

    extractor = Extractor.load(run_dir / "exported")
    told = json.loads(extractor.metadata["training"])
    assert "run_dir" not in told
    assert told["speakers"] == 4
    assert told["epoch"] == 1
    mixture, expected = (read(path) for path in (triplets / "test/s0_a-mixed.wav", run_dir / "predictions/s0_a-pred.wav"))
    stream = extractor.stream(triplets / "test/s0_a-ref.wav")
    np.testing.assert_allclose(np.concatenate([stream.process(mixture), stream.flush()]), expected, atol=1e-4)


def read(path: Path) -> np.ndarray:
    return audio.read(path, RATE)


def test_what_the_files_say(tmp_path: Path) -> None:
    model = online()
    export(model, tmp_path, sample_rate=8000)
    for name in ("enroll.onnx", "step.onnx"):
        graph = onnx.load(tmp_path / name)
        said = {entry.key: entry.value for entry in graph.metadata_props}
        expected = {"format": "1", "ss": ss.__version__, "model": "SpexPlusOnline", "sample_rate": "8000", "hop": "24"}
        assert expected.items() <= said.items()
        assert (said["delay"], said["latency"]) == ("8", "32")
    inputs = {value.name: shape(value) for value in graph.graph.input}
    outputs = {value.name: shape(value) for value in graph.graph.output}
    assert inputs["chunk"] == outputs["wave"] == ["batch", "samples"]
    assert inputs["state.history"] == ["batch", 72]
    assert inputs["state.body"] == [2 * (1 + 1 + 2 + 4), "batch", SIZES["n_channels"]]
    assert inputs["state.overlap"] == [1, "batch", 8]
    states = [name for name in inputs if name.startswith("state.")]
    assert [name.replace("state", "next") for name in states] == [name for name in outputs if name != "wave"]
    assert all(inputs[name] == outputs[name.replace("state", "next")] for name in states)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["enroll.onnx", "model.ss", "step.onnx"]


def shape(value: onnx.ValueInfoProto) -> list[int | str]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def test_a_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    model = SpexPlusShort(**SIZES, short_kernel=40)
    with pytest.raises(UserError, match=r"expected a SpexPlusOnline.*got a SpexPlusShort"):
        export(model, tmp_path)


@pytest.mark.parametrize("seconds", [-1, 0.5])
def test_a_voice_sample_of_no_whole_seconds_is_refused(seconds: int, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"sherpa: expected whole seconds, 0 for none, of a SpexPlusOnline; got {seconds} of a "):
        export(online(), tmp_path / "exported", sherpa=seconds)


def test_a_layer_that_no_graph_is_known_for_is_refused(tmp_path: Path) -> None:
    model = online()
    model.body.layers[0].layers.append(Doubled())
    with pytest.raises(UserError, match="Doubled: expected a layer of the online model"):
        export(model, tmp_path)


class Doubled(StatefulLayer):
    def init_state(self, batch: int, frames: int) -> State:
        return ()

    def forward(self, x: torch.Tensor, speaker: torch.Tensor, state: State) -> tuple[torch.Tensor, State]:
        return 2 * x, state


def test_graphs_that_differ_from_the_model_are_not_written(tmp_path: Path) -> None:
    class Another(SpexPlusOnline):
        def features(self, spectrum: Any) -> torch.Tensor:
            return 1.1 * super().features(spectrum)

    with pytest.raises(UserError, match="differ from the model"):
        export(lively(Another(**SIZES, **WINDOWS)), tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_model_stays_as_it_is(tmp_path: Path) -> None:
    model = online().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    export(model, tmp_path)
    assert model.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@torch.inference_mode()
def test_norms_fold_into_the_products_beside_them() -> None:
    torch.manual_seed(0)
    before, linear, after = lively(BatchNorm(5)), nn.Linear(5, 4), lively(BatchNorm(4))
    x = torch.randn(7, 5)
    folded = normed_after(normed_before(before, product(linear)), after)
    np.testing.assert_allclose(applied(folded, x), after(linear(before(x))).numpy(), atol=1e-6)


@torch.inference_mode()
def test_a_channel_of_ones_carries_the_next_bias() -> None:
    first, second, x = nn.Linear(3, 4), nn.Linear(4, 2), torch.randn(5, 3)
    hidden = applied(product(first).with_one(), x).clip(0)
    np.testing.assert_allclose(hidden @ product(second).bias_as_row(), second(first(x).relu()).numpy(), atol=1e-6)


def applied(folded: Product, x: torch.Tensor) -> np.ndarray:
    return x.double().numpy() @ folded.weight + folded.bias
