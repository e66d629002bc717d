"""The package as it is installed: public names, what is imported with what, and one version."""

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
from graphlib import TopologicalSorter
from importlib.metadata import PathDistribution, version
from pathlib import Path
from zipfile import Path as ZipPath
from zipfile import ZipFile

import pytest
from conftest import ROOT

import ss
from ss.runtime.native import PACKAGED, open_library
from ss.runtime.pretrained import read_sums

PUBLIC = {
    "ss.model": "SpexPlus SpexPlusShort SpexPlusShortRNN SpexPlusShortGRUModel SpexPlusShortCacheModel "
    "SpexPlusShortSpecialChannelsModel SpexPlusShortSpeakerHandler SpexPlusShortGRUMainModel SpexPlusOnline",
    "ss.loss": "SpexPlusLoss SpexPlusShortLoss PresenceLoss",
    "ss.metric": "ACC SNR SISDR STOI PESQ CompositeMetric Suppression STOIDrop",
    "ss.streamer": "Streamer",
    "ss.trainer": "Trainer CausalTrainer ShortCausalTrainer SimpleShortCausalTrainer",
    "ss.inferencer": "Inferencer CausalInferencer ShortCausalInferencer",
    "ss.datasets": "Triplets make_filenames loader",
    "ss.utils": "load_predecessor_checkpoint",
    "ss.wandb": "Wandb",
    "ss.export": "export",
    "ss.runtime": "Extractor Stream BatchStream Conditions",
}


@pytest.mark.parametrize("module", sorted(PUBLIC))
def test_public_names(module: str) -> None:
    for name in PUBLIC[module].split():
        assert hasattr(importlib.import_module(module), name), name


@pytest.mark.parametrize("module", ["ss", "ss.audio", "ss.config", "ss.data.mix"])
def test_what_needs_no_torch_imports_none(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules or 'wandb' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_the_data_engine_imports_one_way() -> None:
    """`ss.data` knows nobody above it, and none of its modules imports one that imports it."""
    found = {}
    for path in sorted((ROOT / "ss" / "data").rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom) and node.module]
        names = [f"{node.module}.{alias.name}" for node in nodes for alias in node.names if node.module.split(".")[0] == "ss"]
        found[name] = {
            name if (ROOT / name.replace(".", "/")).with_suffix(".py").exists() else name.rpartition(".")[0] for name in names
        }
    assert {name for names in found.values() for name in names} - set(found) == {"ss.audio", "ss.errors", "ss.files"}
    TopologicalSorter(found).prepare()  # raises CycleError


@pytest.mark.parametrize(
    "module", ["ss.runtime", "ss.runtime.live", "ss.runtime.extract", "ss.runtime.mic", "ss.integrations.call"]
)
def test_the_runtime_imports_little(module: str) -> None:
    heavy = ["torch", "hydra", "omegaconf", "wandb", "scipy", "matplotlib", "onnx", "tqdm", "sounddevice"]
    code = f"import sys, {module}; sys.exit(', '.join(name for name in {heavy} if name in sys.modules) or 0)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def build_wheel(folder: Path, **environment: str) -> tuple[ZipFile, str]:
    """The wheel of a copy of the sources, and what the build said on stderr."""
    shutil.copytree(ROOT / "ss", folder / "ss", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    shutil.copytree(ROOT / "libss", folder / "libss", ignore=shutil.ignore_patterns("build"))
    for name in ("setup.py", "pyproject.toml", "requirements.txt", "README.md", "MANIFEST.in"):
        shutil.copy(ROOT / name, folder)
    code = "from setuptools import build_meta; print(build_meta.build_wheel('.'))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True, env={**os.environ, **environment})
    return ZipFile(folder / done.stdout.split()[-1]), done.stderr


@pytest.mark.skipif(not shutil.which("cc"), reason="needs a C compiler")
def test_a_wheel_carries_the_library(tmp_path: Path) -> None:
    wheel, said = build_wheel(tmp_path)
    names = {Path(name).name: name for name in wheel.namelist() if name.startswith("ss/runtime/") and not name.endswith(".py")}
    assert {*names} == {PACKAGED.name, *(["ss_ladspa.so"] if sys.platform == "linux" else [])}
    name = names[PACKAGED.name]
    assert "C library" not in said
    assert "py3-none-" in str(wheel.filename)
    assert not str(wheel.filename).endswith("-any.whl")
    wheel.extract(name, tmp_path / "out")
    assert open_library(tmp_path / "out" / name).ss_version() == 2


@pytest.mark.parametrize("compiler", ["nowhere-cc", "false"])
def test_without_a_compiler_there_is_a_wheel_and_one_line_of_warning(tmp_path: Path, compiler: str) -> None:
    wheel, said = build_wheel(tmp_path, CC=compiler)
    assert not [name for name in wheel.namelist() if name.startswith("ss/runtime/") and not name.endswith(".py")]
    (warning,) = (line for line in said.splitlines() if "C library" in line)
    assert warning.startswith("warning: ss is built without its C library, and uses ONNX Runtime instead: ")


def test_what_pip_installs(tmp_path: Path) -> None:
    """`pip install .` takes four packages, and gives the commands and a model; what training needs is an extra."""
    wheel, _ = build_wheel(tmp_path)
    files = {name.removeprefix("ss/pretrained/spexplus_online/") for name in wheel.namelist() if "/pretrained/" in name}
    assert files >= {"README.md", "SHA256SUMS", *(f"{p}/{g}.onnx" for p in ("float32", "int8") for g in ("enroll", "step"))}
    assert files <= {"README.md", "SHA256SUMS", *read_sums(ROOT / "ss" / "pretrained" / "spexplus_online" / "SHA256SUMS")}
    metadata = PathDistribution(ZipPath(wheel, f"ss-{ss.__version__}.dist-info/"))
    plain = {re.split(r"\W", line)[0] for line in metadata.requires or [] if "extra ==" not in line}
    assert plain == {"numpy", "onnxruntime", "soundfile", "soxr"}
    extras = {line.split(";")[0].strip() for line in metadata.requires or [] if "extra ==" in line}
    assert {"torch", "hydra-core", "onnx", "onnxruntime-gpu", "sounddevice"} <= {re.split(r"[^\w-]", line)[0] for line in extras}
    assert set(metadata.metadata.get_all("Provides-Extra")) >= {"train", "live", "gpu", "docs", "dev"}
    assert (ROOT / "requirements.txt").read_text().splitlines()[-1] == "-e .[train]"
    commands = {"ss-extract": "ss.runtime.extract:main", "ss-live": "ss.runtime.live:main", "ss-mic": "ss.runtime.mic:main"}
    commands |= {"ss-wyoming": "ss.integrations.wyoming:main"}
    assert {entry.name: entry.value for entry in metadata.entry_points} == commands


def test_one_version() -> None:
    assert version("ss") == ss.__version__
