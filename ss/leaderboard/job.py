"""The command: scores entries on tests, measures what they cost, and writes results.json, leaderboard.md and index.html."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from glob import glob
from pathlib import Path
from typing import Any

from hydra.utils import instantiate

from ss import audio
from ss.data.corpus import read_genders
from ss.datasets.triplets import find_triplets
from ss.errors import UserError, as_list, require_positive
from ss.leaderboard import report
from ss.leaderboard.entries import Entry, make_entry
from ss.leaderboard.page import make_page
from ss.leaderboard.scoring import Score, TestSet, digest_of_folder, read_conditions, score
from ss.measure.report import machine

RESULTS = "\n## Results\n"  # what follows it in a document is replaced
Scores = Mapping[str, Mapping[str, list[Score]]]  # by test, then by entry


def run_leaderboard(config: Mapping[str, Any]) -> int:
    """Runs what `leaderboard.yaml` describes; 1 if an entry could not be run, whose reason is told. Raises UserError for a
    folder that is not there, and for a document without the heading."""
    require_positive(config, "piece_seconds")
    out, tests, document = Path(config["out_folder"]), find_tests(config), Path(config["document"] or "")
    if config["document"] is not None:
        if not document.is_file():
            raise UserError(f"document: expected a file, but there is none at {document}")
        if RESULTS not in document.read_text():
            raise UserError(f"{document}: expected a line {RESULTS.strip()!r}, behind which the results go, found none")
    entries: dict[str, dict[str, Any]] = {}
    running: dict[str, Entry] = {}
    scores: dict[str, dict[str, list[Score]]] = {}

    @contextmanager
    def failures_noted(label: str) -> Iterator[None]:
        """What an entry raises is told, and the entry does not run any more."""
        try:
            yield
        except Exception as error:  # what others' code raises is not known
            entries[label]["failed"] = str(error) if isinstance(error, UserError) else repr(error)
            print(f"{label} failed: {entries[label]['failed']}", flush=True)
            running.pop(label, None)

    for label, about in config["entries"].items():
        if about is not None:
            entries[label] = {"about": "", "bound": False, "failed": "", "costs": {}}
            with failures_noted(label):
                running[label] = entry = make_entry(about)
                entries[label] |= {"about": entry.about, "bound": entry.is_bound}
    for test in tests:
        scores[test.name] = {}
        for label, entry in list(running.items()):
            if any(fnmatch(test.name, pattern) for pattern in as_list(config["only"].get(label, "*"))):
                with failures_noted(label):
                    scores[test.name][label] = score(label, entry, test, out / "cache", config["piece_seconds"])
        write_results(config, entries, tests, scores)  # what is known so far, as others may take hours
    for label, entry in list(running.items()):
        with failures_noted(label):
            entries[label]["costs"] = find_costs(label, entry, out / "cache")
    text = write_results(config, entries, tests, scores)
    if config["document"] is not None:
        document.write_text(f"{document.read_text().partition(RESULTS)[0]}{RESULTS}\n{text}")
    print(f"{text}\n{out / 'index.html'}\n{out / 'results.json'}")
    return int(any(entry["failed"] for entry in entries.values()))


def find_tests(config: Mapping[str, Any]) -> list[TestSet]:
    """The folders of `folders`, which may be patterns. Raises UserError for none at one, two of the same name, and another rate."""
    found: dict[str, TestSet] = {}
    genders = read_genders(Path(config["speakers"])) if config["speakers"] else {}
    for pattern in as_list(config["folders"]):
        folders = sorted(path for path in map(Path, glob(pattern)) if path.is_dir())
        if not folders:
            raise UserError(f"folders: expected a folder of triplets at {pattern}, found none")
        for folder in folders:
            name = folder.name
            quick, calls = (any(fnmatch(name, pattern) for pattern in as_list(config[key])) for key in ("quick", "calls"))
            if name in found:
                raise UserError(f"folders: expected folders of different names, found {found[name].folder} and {folder}")
            if (rate := audio.sample_rate_of(find_triplets(folder)[0].mixture)) != Entry.sample_rate:
                raise UserError(f"{folder}: expected {Entry.sample_rate} Hz, which metrics and bounds are for, found {rate} Hz")
            chosen = config["call_metrics" if calls else "quick_metrics" if quick else "metrics"]
            known = digest_of_folder(folder), instantiate(chosen), chosen, read_conditions(folder, genders)
            found[name] = TestSet(name, folder, *known, quick, calls)
    if not found:
        raise UserError("folders: expected some of triplets, found none")
    return list(found.values())


def find_costs(label: str, entry: Entry, cache: Path) -> dict[str, Any]:
    """What an entry costs on this machine, measured once."""
    about = hashlib.sha256(json.dumps([entry.fingerprint, machine()]).encode()).hexdigest()[:16]
    path = cache / f"costs-{about}.json"
    if not path.is_file():
        print(f"measuring {label}", flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(entry.measure_costs()))
    return json.loads(path.read_text())


def write_results(config: Mapping[str, Any], entries: Mapping[str, Any], tests: Sequence[TestSet], scores: Scores) -> str:
    """Writes what is known, with every utterance, as JSON, as tables and as a page. Returns the tables."""

    def rank(label: str) -> float:
        """By the mean SI-SDRi on the first test, the best first; those without one last."""
        values = report.values_of(report.RANKING, (one.row for one in next(iter(scores.values())).get(label, ())))
        return -sum(values) / len(values) if values else float("inf")

    entries = {label: entries[label] for label in sorted(entries, key=rank)}
    curves: dict[str, Any] = {}
    results: dict[str, Any] = {"about": config["about"], "machine": machine(), "entries": entries, "tests": {}, "curves": curves}
    utterances: dict[str, dict[str, Any]] = {}
    for test in tests[: len(scores)]:
        found, by_entry = find_triplets(test.folder), scores[test.name]
        results["tests"][test.name] = {
            "folder": str(test.folder),
            "digest": test.digest,
            "quick": test.quick,
            "utterances": len(found),
            "seconds": sum(audio.n_samples(one.mixture) / audio.sample_rate_of(one.mixture) for one in found),
            "summaries": {label: report.summarize_scores(by_entry[label]) for label in entries if label in by_entry},
        }
        utterances[test.name] = {
            label: [
                {"name": one.name, "start": one.start, **one.row._asdict(), "conditions": test.conditions.get(one.name, {})}
                for one in rows
            ]
            for label, rows in by_entry.items()
        }
    for name, about in config["curves"].items():  # those that the tests know something for
        condition, metric = about.get("condition", name), about.get("metric", report.RANKING)
        chosen = [test for test in tests[: len(scores)] if any(fnmatch(test.name, pattern) for pattern in about["of"])]
        points = {}
        for label, entry in entries.items():
            known = [
                ({"minute": int(one.start // 60) + 1, **test.conditions.get(one.name, {})}, one.row)
                for test in chosen
                for one in scores[test.name].get(label, ())
                if one.start is not None
            ]
            everywhere = all(label in scores[test.name] for test in chosen)  # a curve of other mixtures cannot stand beside these
            if known and everywhere and not entry["failed"]:
                points[label] = report.curve(condition, about["edges"], known, metric)
        if any(points.values()):
            curves[name] = {"condition": condition, "metric": metric, "tests": [test.name for test in chosen], "entries": points}
    out, text = Path(config["out_folder"]), report.markdown(report.make_tables(results))
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(json.dumps({**results, "utterances": utterances}) + "\n")
    (out / "leaderboard.md").write_text(text)
    (out / "index.html").write_text(make_page(results))
    return text
