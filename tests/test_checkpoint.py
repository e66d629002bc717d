"""Checkpoints: the predecessor's, ours, and files that are neither."""

import os
import pickle
import resource
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SIZES, WINDOWS, lively

from ss import checkpoint
from ss.errors import UserError
from ss.model import SpexPlusOnline, SpexPlusShort
from ss.utils import load_predecessor_checkpoint
from ss.utils.predecessor import plain

GOLDEN = Path(__file__).parent / "assets" / "golden"
PREDECESSOR = GOLDEN / "predecessor_checkpoint.pth"


@torch.no_grad()
@pytest.mark.parametrize("load", [load_predecessor_checkpoint, checkpoint.load_extractor])
def test_predecessor_checkpoint_gives_the_golden_outputs(load: Any) -> None:
    model = load(PREDECESSOR).eval()
    with np.load(GOLDEN / "SpexPlusShortGRUModel_v0_noncausal.npz") as golden:
        chunks = torch.from_numpy(golden["chunks"]).reshape(int(golden["n_chunks"]), 2, -1)
        found = model(chunks, torch.from_numpy(golden["ref"])).waves[0].reshape(golden["chunked_s1"].shape)
        np.testing.assert_allclose(found.numpy(), golden["chunked_s1"], rtol=0, atol=1e-5)


class Malicious:
    """Runs a command when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.target}",)


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path) -> None:
    harm, path = tmp_path / "harm", tmp_path / "checkpoint.pth"
    torch.save({"model": {}, "config": Malicious(harm)}, path)
    with pytest.raises(UserError, match=r"checkpoint.pth: refused.*(posix|nt)\.system"):
        load_predecessor_checkpoint(path)
    assert not harm.exists()
    torch.load(path, weights_only=False)  # the file is what it says: with plain unpickling it does harm
    assert harm.exists()


def test_malice_inside_the_omegaconf_pickle_is_refused(tmp_path: Path) -> None:
    """The golden checkpoint with its config's pickle replaced: OmegaConf's names are known, what they hold is not trusted."""
    harm, path = tmp_path / "harm", tmp_path / "checkpoint.pth"
    with zipfile.ZipFile(PREDECESSOR) as source, zipfile.ZipFile(path, "w") as target:
        for item in source.infolist():
            data = source.read(item)
            if item.filename.endswith("data.pkl"):
                assert b"comegaconf.dictconfig\nDictConfig\n" in data
                data = data.replace(b"comegaconf.dictconfig\nDictConfig\n", b"cposix\nsystem\n", 1)
            target.writestr(item, data)
    with pytest.raises(UserError, match=r"refused.*system"):
        load_predecessor_checkpoint(path)
    assert not harm.exists()


def test_strict_about_weights() -> None:
    good = checkpoint.read_checkpoint(PREDECESSOR)
    weights = dict(good["model"])
    name = next(iter(weights))
    with pytest.raises(UserError, match="left over"):
        load_predecessor_checkpoint({**good, "model": {**weights, "module.more": torch.zeros(1)}})
    with pytest.raises(UserError, match="missing"):
        load_predecessor_checkpoint({**good, "model": {k: v for k, v in weights.items() if k != name}})
    with pytest.raises(UserError, match="expected shape"):
        load_predecessor_checkpoint({**good, "model": {**weights, name: torch.zeros(3, 3)}})


def test_unknown_architecture() -> None:
    config = {"arch": {"type": "Transformer", "args": {}}}
    with pytest.raises(UserError, match=r"config.arch.type: expected one of .*SpexPlus.*, got 'Transformer'"):
        load_predecessor_checkpoint({"model": {}, "config": config})


def test_our_own_checkpoint_is_plain_and_whole(tmp_path: Path) -> None:
    model = SpexPlusShort(**SIZES, short_kernel=40)
    config = {"model": {"_target_": "ss.model.SpexPlusShort", **SIZES, "short_kernel": 40}}
    path = tmp_path / "a" / "best.pth"
    checkpoint.save(path, {"model": model.state_dict(), "config": config})
    loaded = checkpoint.load_extractor(path)
    assert not loaded.training
    assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in model.state_dict().items())
    assert [file.name for file in path.parent.iterdir()] == ["best.pth"]


def test_weights_of_another_model_are_refused() -> None:
    config = {"model": {"_target_": "ss.model.SpexPlusShort", **SIZES, "short_kernel": 40}}
    for weights in ({}, []):
        with pytest.raises(UserError, match="expected the weights of the SpexPlusShort of the checkpoint's config, but: "):
            checkpoint.load_extractor({"model": weights, "config": config})


def test_a_full_disk_is_what_a_failed_save_says(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            checkpoint.save(tmp_path / "x.pth", {"config": {}, "model": {"x": torch.zeros(100_000)}})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


def test_a_failed_save_leaves_the_former_file(tmp_path: Path) -> None:
    path = tmp_path / "last.pth"
    checkpoint.save(path, {"model": {}, "config": {"n": 1}})
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        checkpoint.save(path, {"model": {}, "config": lambda: None})
    assert checkpoint.read_checkpoint(path)["config"] == {"n": 1}


@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"a text\nof several lines.\n", b"PK\x03\x04 broken"])
def test_broken_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match="broken.pth"):
        checkpoint.load_extractor(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing.pth: expected a checkpoint, but there is none"):
        checkpoint.load_extractor(tmp_path / "nothing.pth")


def test_a_target_outside_of_the_models_is_refused() -> None:
    with pytest.raises(UserError, match=r"expected a _target_ in ss.model, got 'os.system'"):
        checkpoint.build({"_target_": "os.system", "command": "true"})


def saved_online(path: Path, **changes: Any) -> SpexPlusOnline:
    """A model without memory, and its checkpoint."""
    torch.manual_seed(0)
    sizes = {**SIZES, **WINDOWS, "memory": "none", **changes}
    model = lively(SpexPlusOnline(**sizes))
    config = {"model": {"_target_": "ss.model.SpexPlusOnline", **sizes}}
    checkpoint.save(path, {"model": model.state_dict(), "config": config, "speakers": ["a", "b", "c"]})
    return model


@torch.no_grad()
@pytest.mark.parametrize(
    "grown",
    [{}, {"memory": "lstm"}, {"memory": "lstm", "complex_mask": True, "n_speakers": 9}, {"hidden_channels": 40}],
)
def test_a_grown_model_begins_as_the_smaller_one(grown: dict[str, Any], tmp_path: Path) -> None:
    before, path = saved_online(tmp_path / "small.pth"), tmp_path / "small.pth"
    model = SpexPlusOnline(**{**SIZES, **WINDOWS, "memory": "none", **grown}).eval()
    fresh = checkpoint.begin_from(model, path, ["x", "c", "a"])
    assert bool(fresh) == bool(grown)
    mixture, ref = 0.1 * torch.randn(1, 2, 960), 0.1 * torch.randn(2, 900)
    found, expected = model(mixture, ref), before(mixture, ref)
    torch.testing.assert_close(found.waves[0], expected.waves[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(found.logits[:, [1, 2]], expected.logits[:, [2, 0]])  # rows follow the names


@pytest.mark.parametrize("smaller", [{"hidden_channels": 16}, {"n_tcnblocks": 2}, {"n_channels": 24}], ids=str)
def test_weights_without_a_place_are_refused(smaller: dict[str, Any], tmp_path: Path) -> None:
    saved_online(tmp_path / "small.pth")
    with pytest.raises(UserError, match=r"small.pth: expected"):
        checkpoint.begin_from(SpexPlusOnline(**{**SIZES, **WINDOWS, "memory": "none", **smaller}), tmp_path / "small.pth", [])


@torch.no_grad()
@pytest.mark.parametrize("n_resnetblocks", [2, 4, 5])
def test_a_predecessor_with_another_number_of_residual_blocks(n_resnetblocks: int) -> None:
    """The last block but one goes from n_channels to out_channels; made of the golden checkpoint, with blocks out or in."""
    golden = checkpoint.read_checkpoint(PREDECESSOR)
    more, weights = n_resnetblocks - 3, {}
    for name, value in golden["model"].items():
        before, inner, after = name.partition("speaker_encoder.resnetblocks.")
        if not inner:
            weights[name] = value
            continue
        number, _, rest = after.partition(".")
        places = range(more + 1) if number == "0" else [int(number) + more]
        weights |= {f"{before}{inner}{place}.{rest}": value for place in places}
    arch = plain(golden["config"])["arch"]
    arch["args"]["n_resnetblocks"] = n_resnetblocks
    model = load_predecessor_checkpoint({"model": weights, "config": {"arch": arch}}).eval()
    assert len(model.speaker_encoder.blocks) == n_resnetblocks
    widths = [block.conv1.weight.shape[:2] for block in model.speaker_encoder.blocks]
    n, e = arch["args"]["n_channels"], arch["args"]["out_channels"]
    assert widths == [(n, n)] * (n_resnetblocks - 2) + [(e, n), (e, e)]
    assert model.enroll(0.1 * torch.randn(1, 8000)).shape == (1, e)
