"""The package as it is installed: public names, what is imported with what, and one version."""

import importlib
import subprocess
import sys
from importlib.metadata import version

import pytest
from conftest import ROOT

import ss

PUBLIC = {
    "ss.model": "SpexPlus SpexPlusShort SpexPlusShortRNN SpexPlusShortGRUModel SpexPlusShortCacheModel "
    "SpexPlusShortSpecialChannelsModel SpexPlusShortSpeakerHandler SpexPlusShortGRUMainModel",
    "ss.loss": "SpexPlusLoss SpexPlusShortLoss",
    "ss.metric": "ACC SNR SISDR STOI PESQ CompositeMetric",
    "ss.streamer": "Streamer",
    "ss.trainer": "Trainer CausalTrainer ShortCausalTrainer SimpleShortCausalTrainer",
    "ss.inferencer": "Inferencer CausalInferencer ShortCausalInferencer",
    "ss.datasets": "Triplets make_filenames loader",
    "ss.utils": "load_predecessor_checkpoint",
    "ss.wandb": "Wandb",
}


@pytest.mark.parametrize("module", sorted(PUBLIC))
def test_public_names(module: str) -> None:
    for name in PUBLIC[module].split():
        assert hasattr(importlib.import_module(module), name), name


@pytest.mark.parametrize("module", ["ss", "ss.audio", "ss.config", "ss.mixing.job"])
def test_what_needs_no_torch_imports_none(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules or 'wandb' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_one_version() -> None:
    assert version("ss") == ss.__version__
