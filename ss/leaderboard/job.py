"""The command: scores entries on tests, measures what they cost, and writes results.json, leaderboard.md and index.html."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from glob import glob
from pathlib import Path
from typing import Any

from hydra.utils import instantiate

from ss import audio
from ss.datasets.triplets import find_triplets
from ss.errors import UserError
from ss.leaderboard import report
from ss.leaderboard.conditions import read_conditions, read_genders
from ss.leaderboard.entries import Entry, make_entry
from ss.leaderboard.page import make_page
from ss.leaderboard.scoring import Score, TestSet, digest_of_folder, score
from ss.measure.report import machine

RESULTS = "\n## Results\n"  # what follows it in a document is replaced


def run_leaderboard(config: Mapping[str, Any]) -> int:
    """Runs what `leaderboard.yaml` describes; 1 if an entry could not be run, whose reason is told. Raises UserError for a
    folder that is not there, and for a document without the heading."""
    out, tests = Path(config["out_folder"]), find_tests(config)
    if config["document"] is not None and RESULTS not in read_document(config["document"]):
        raise UserError(f"{config['document']}: expected a line {RESULTS.strip()!r}, behind which the results go, found none")
    entries: dict[str, dict[str, Any]] = {}
    running: dict[str, Entry] = {}
    for label, about in config["entries"].items():
        if about is None:
            continue
        try:
            running[label] = entry = make_entry(about)
            entries[label] = {"about": entry.about, "bound": entry.is_bound, "failed": "", "costs": {}}
        except UserError as error:
            entries[label] = {"about": "", "bound": False, "failed": str(error), "costs": {}}
    scores: dict[str, dict[str, list[Score]]] = {}

    def write_results() -> str:
        order = rank_entries(entries, scores)
        scored = [test for test in tests if test.name in scores]
        results = {
            "about": config["about"],
            "machine": machine(),
            "entries": order,
            "tests": {test.name: describe_test(test, scores[test.name], order, config) for test in scored},
            "curves": find_curves(config["curves"], scored, scores, [label for label in order if label in running]),
        }
        return write(out, results, scored, scores)

    for test in tests:
        scores[test.name] = {
            label: score(label, entry, test, out / "cache", config["piece_seconds"]) for label, entry in running.items()
        }
        write_results()  # what is known so far, as others may take hours
    for label, entry in running.items():
        entries[label]["costs"] = find_costs(label, entry, out / "cache")
    text = write_results()
    if config["document"] is not None:
        before, heading, _ = read_document(config["document"]).partition(RESULTS)
        Path(config["document"]).write_text(f"{before}{heading}\n{text}")
    print(f"{text}\n{out / 'index.html'}\n{out / 'results.json'}")
    return int(any(entry["failed"] for entry in entries.values()))


def find_tests(config: Mapping[str, Any]) -> list[TestSet]:
    """The folders of `folders`, which may be patterns. Raises UserError for none at one, and for two of the same name."""
    found: dict[str, TestSet] = {}
    genders = read_genders(config["speakers"])
    for pattern in config["folders"]:
        folders = sorted(path for path in map(Path, glob(pattern)) if path.is_dir())
        if not folders:
            raise UserError(f"folders: expected a folder of triplets at {pattern}, found none")
        for folder in folders:
            chosen = config["quick_metrics"] if is_quick(folder.name, config) else config["metrics"]
            if folder.name in found:
                raise UserError(f"folders: expected folders of different names, found {found[folder.name].folder} and {folder}")
            conditions = read_conditions(folder, genders)
            found[folder.name] = TestSet(folder.name, folder, digest_of_folder(folder), instantiate(chosen), chosen, conditions)
    return list(found.values())


def is_quick(name: str, config: Mapping[str, Any]) -> bool:
    """Whether a test is for curves only."""
    return any(fnmatch(name, pattern) for pattern in config["quick"])


def find_costs(label: str, entry: Entry, cache: Path) -> dict[str, Any]:
    """What an entry costs on this machine, measured once."""
    about = hashlib.sha256(json.dumps([entry.fingerprint, machine()]).encode()).hexdigest()[:16]
    path = cache / f"costs-{about}.json"
    if not path.is_file():
        print(f"measuring {label}", flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        costs = json.dumps(entry.measure_costs())
        path.write_text(costs)
    return json.loads(path.read_text())


def rank_entries(entries: dict[str, Any], scores: Mapping[str, Mapping[str, list[Score]]]) -> dict[str, Any]:
    """The entries by their mean SI-SDRi on the first test, the best first; those without one last."""
    first = next(iter(scores.values()))

    def rank(label: str) -> float:
        values = report.values_of(report.RANKING, (one.row for one in first.get(label, ())))
        return -sum(values) / len(values) if values else float("inf")

    return {label: entries[label] for label in sorted(entries, key=rank)}


def describe_test(
    test: TestSet, scores: Mapping[str, list[Score]], order: Mapping[str, Any], config: Mapping[str, Any]
) -> dict[str, Any]:
    """A test with the summaries of all entries on it."""
    found = find_triplets(test.folder)
    seconds = sum(audio.n_samples(one.mixture) / audio.sample_rate_of(one.mixture) for one in found)
    return {
        "folder": str(test.folder),
        "digest": test.digest,
        "quick": is_quick(test.name, config),
        "utterances": len(found),
        "seconds": seconds,
        "summaries": {label: report.summarize_scores(scores[label]) for label in order if label in scores},
    }


def find_curves(
    config: Mapping[str, Any], tests: Sequence[TestSet], scores: Mapping[str, Mapping[str, list[Score]]], labels: Sequence[str]
) -> dict[str, Any]:
    """The curves that the tests know something for. config: by condition, patterns of tests (`of`) and `edges` between points."""
    curves = {}
    for condition, about in config.items():
        chosen = [test for test in tests if any(fnmatch(test.name, pattern) for pattern in about["of"])]
        points = {}
        for label in labels:
            known = [
                ({"minute": int(one.start // 60) + 1, **test.conditions.get(one.name, {})}, one.row)
                for test in chosen
                for one in scores[test.name][label]
            ]
            points[label] = report.curve(condition, about["edges"], known)
        if any(points.values()):
            curves[condition] = {"tests": [test.name for test in chosen], "entries": points}
    return curves


def write(out: Path, results: Mapping[str, Any], tests: Sequence[TestSet], scores: Mapping[str, Mapping[str, list[Score]]]) -> str:
    """Writes the results, with every utterance, their tables and the page. Returns the tables."""
    text = report.markdown(report.make_tables(results))
    utterances: dict[str, dict[str, Any]] = {}
    for test in tests:
        for label, found in scores[test.name].items():
            utterances.setdefault(test.name, {})[label] = [
                {"name": one.name, "start": one.start, **one.row._asdict(), "conditions": test.conditions.get(one.name, {})}
                for one in found
            ]
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(json.dumps({**results, "utterances": utterances}) + "\n")
    (out / "leaderboard.md").write_text(text)
    (out / "index.html").write_text(make_page(results))
    return text


def read_document(path: str) -> str:
    """The text of a document. Raises UserError where there is none."""
    if not Path(path).is_file():
        raise UserError(f"document: expected a file, but there is none at {path}")
    return Path(path).read_text()
