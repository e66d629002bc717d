"""Makes the fixed test sets of a corpus: python3 ./testing/make_test_sets.py -cp ./configs/ -cn test_sets corpus=..."""

import csv
import shlex
import subprocess
import sys
from collections import defaultdict
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig

from ss.config import run_alone
from ss.errors import UserError, as_list

MIX = Path(__file__).parents[1] / "mixing" / "mix.py"


def make_test_sets(config: dict[str, Any]) -> None:
    """Prints and runs one mixing command per set. Raises UserError for an unknown set and for one that has no speakers."""
    sets, corpus = config["sets"], Path(config["corpus"]).resolve()
    if unknown := sorted(set(as_list(config["only"])) - set(sets)):
        raise UserError(f"only: expected some of {', '.join(sets)}, found {', '.join(unknown)}")
    for name in as_list(config["only"]) or sets:
        part, *patterns = sets[name]["of"].split()
        speakers = find_speakers(corpus / "speech" / "utterances.csv", part, patterns, sets[name].get("min_seconds", 0))
        if not speakers:
            raise UserError(f"{name}: expected speakers like {' '.join(patterns)} in {part} of {corpus}, found none")
        options = shlex.split(f"{config['common']} {sets[name]['mix']}".replace("{corpus}", str(corpus)))
        given = dict(option.split("=", 1) for option in options)  # a set's own argument comes after the common one and counts
        command = [
            sys.executable,
            str(MIX),
            "-cp",
            "./configs/",
            "-cn",
            "scenes",
            *(f"{key}={value}" for key, value in given.items()),
        ]
        command += [
            f"audios_dir={corpus}/speech",
            f"parts={part}",
            f"speakers=[{','.join(speakers)}]",
            f"out_folder={config['out_folder']}/{name}",
        ]
        print(shlex.join(command), flush=True)
        subprocess.run(command, check=True)


def find_speakers(table: Path, part: str, patterns: list[str], min_seconds: float) -> list[str]:
    """The speakers of a part of the corpus that match one of the patterns and have `min_seconds` of speech, sorted."""
    seconds: dict[str, float] = defaultdict(float)
    with table.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["split"] == part and any(fnmatch(row["speaker"], pattern) for pattern in patterns):
                seconds[row["speaker"]] += float(row["seconds"])
    return sorted(speaker for speaker, total in seconds.items() if total >= min_seconds)


@hydra.main(version_base=None, config_path="configs", config_name="test_sets")
def main(config: DictConfig) -> None:
    """Hydra composes the config; `ss` does the rest."""
    run_alone(make_test_sets, config)


if __name__ == "__main__":
    main()
