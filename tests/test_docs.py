"""README and docs name only scripts, configs, files, tests and pictures that exist; the example of a new model works."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from conftest import ROOT

from ss import allowlist
from ss.metric import evaluate

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *ROOT.glob("models/*/README.md")]
FILE = re.compile(
    r"`((?:ss|tests|configs|training|testing|inferencing|mixing|pruning_and_quantization|demo)/[\w/.]+\.(?:py|yaml|md))(?:::(\w+))?`"
)
COMMAND = re.compile(r"python3 (\./\S+/\S+\.py)(?: -cp \./configs/)?(?: -cn (\w+))?")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_links_exist(page: Path) -> None:
    text = page.read_text()
    for script, config in COMMAND.findall(text):
        assert (ROOT / script).is_file(), script
        folder = (ROOT / script).parent / "configs"
        trained = (folder / "default.yaml").is_file() and any(
            (ROOT / place / f"{config}.yaml").is_file() for place in ("training/configs", "configs/model")
        )
        assert not config or (folder / f"{config}.yaml").is_file() or trained, f"{script} -cn {config}"
    for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", text):
        assert (page.parent / target).exists(), target
    for file, test in FILE.findall(text):
        assert (ROOT / file).is_file(), file
        assert not test or f"def {test}(" in (ROOT / file).read_text(), f"{file}::{test}"


@torch.no_grad()
def test_the_examples_of_a_new_model_and_metric_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(allowlist.CLASSES, "model", list(allowlist.CLASSES["model"]))
    monkeypatch.setattr(allowlist, "REGISTERED", {})
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "docs/models.md").read_text(), re.DOTALL)
    for name, example in zip(("my_model", "my_metric"), examples, strict=True):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
        exec(example, vars(sys.modules[name]))
    sizes = {"n_channels": 8, "hidden_channels": 8, "out_channels": 4, "short_kernel": 4, "n_resnetblocks": 1, "n_speakers": 2}
    config = {"_target_": "my_model.SpexPlusShortMean", **sizes, "n_stacked_tcnblocks": 2, "n_tcnblocks": 1}
    model = allowlist.create("model", config).eval()
    model.separator.body.layers[1].scale += 1
    chunk = torch.randn(1, 80)
    state = model.init_state(model.enroll(torch.randn(1, 400)), samples=80)
    (first,), state = model.step(chunk, state)
    (second,), state = model.step(chunk, state)
    assert not torch.equal(first, second)  # the memory has heard the first chunk
    metrics = {"peak": vars(sys.modules["my_metric"])["PeakError"]()}
    assert evaluate(metrics, chunk[0] + 0.5, chunk[0], chunk[0]).values["peak"] == pytest.approx(0.5)


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
