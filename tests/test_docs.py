"""README and docs name only scripts, configs and pictures that exist."""

import re
from pathlib import Path

import pytest
from conftest import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *ROOT.glob("models/*/README.md")]
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


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
