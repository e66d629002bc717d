"""Audits data sets: is what is on the disk what a training and a test expect? Every triplet is read once; then they are compared.

Prints a table of the checks, and writes `audit.json` (all that was found, by name) and `audit.png` (what was measured, as
histograms).
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from tqdm import tqdm

from ss import audio
from ss.audit.checks import ABSENT, KINDS, AuditedTriplet, AuditSettings, Expected, Facts, examine, read_expected
from ss.data.shards import Place, files_in
from ss.errors import UserError
from ss.tables import text_table

ERROR, WARNING = "error", "warning"
BINS = 40
Measured: TypeAlias = dict[str, dict[str, list[float]]]
TRIPLETS_AT_ONCE = 8  # that a process is given
CHECKS = {
    "incomplete": (ERROR, "files missing, or two of a kind"),
    "unreadable": (ERROR, "unreadable files"),
    "rates": (ERROR, "another sample rate"),
    "lengths": (ERROR, "mixture and target of different lengths"),
    "silent_mixed": (ERROR, "silent mixtures"),
    "silent_ref": (ERROR, "silent enrolments"),
    "silent_target": (ERROR, "silent targets that are to speak"),
    "other_scene": (ERROR, "not absent or clean as planned"),
    "no_interferer": (ERROR, "no interferer where one is planned"),
    "sir": (ERROR, "SIR other than planned"),
    "leak": (ERROR, "enrolment and target share audio"),
    "copy": (ERROR, "triplets that come again"),
    "same_mixture_elsewhere": (ERROR, "mixtures that another folder has too"),
    "same_target_elsewhere": (ERROR, "targets that another folder has too"),
    "speakers": (ERROR, "target speakers of several folders"),
    "same_mixture": (WARNING, "mixtures that come again in a folder"),
    "same_target": (WARNING, "targets that come again in a folder"),
    "unexplained": (WARNING, "silent target or no interferer, unplanned"),
    "unnamed": (WARNING, "names without a speaker's id"),
    "rows": (WARNING, "rows of a manifest without a triplet"),
    "short_mixed": (WARNING, "short mixtures"),
    "short_ref": (WARNING, "short enrolments"),
    "clipped_mixed": (WARNING, "clipped mixtures"),
    "clipped_target": (WARNING, "clipped targets"),
    "clipped_ref": (WARNING, "clipped enrolments"),
}


class CheckResult(NamedTuple):
    """Of a check on a triplet (or speaker, or row) of a folder; why: what is wrong, or empty."""

    check: str
    folder: str
    name: str
    why: str = ""


def audit(config: dict[str, Any]) -> int:
    """Audits the folders and says what was found. Returns the exit code: 0 if there is no error. config: see AuditSettings.

    Raises UserError where a folder holds no triplets, a manifest is none, or the settings cannot be.
    """
    settings = AuditSettings.from_config(config)
    planned = {folder: read_expected(Path(folder)) for folder in settings.folders}
    triplets = [triplet for folder in settings.folders for triplet in list_triplets(folder, planned[folder])]
    out = Path(settings.out_folder)
    if out.exists() and not out.is_dir():
        raise UserError(f"out_folder: expected a folder, found a file at {out}")
    out.mkdir(parents=True, exist_ok=True)
    with tqdm(examine_all(triplets, settings), "auditing", len(triplets)) as bar:
        facts = list(bar)
    alone = [CheckResult(check, *one.triplet[:2], why) for one in facts for check, why in one.faults.items()]
    there = {one.triplet[:2] for one in facts}
    rows = [(folder, name) for folder, expected in planned.items() for name in expected]
    unmade = [CheckResult("rows", *row, "" if row in there else "no files") for row in rows]
    report = make_report(facts, [*alone, *compare_triplets(facts, settings), *unmade], settings)
    (out / "audit.json").write_text(json.dumps(report, indent=1) + "\n")
    draw_histograms(find_values(facts, report), out / "audit.png")
    print("\n".join([summary_text(report), "", str(out / "audit.json"), str(out / "audit.png")]))
    return 0 if report["sound"] else 1


def list_triplets(folder: str, planned: dict[str, Expected]) -> list[AuditedTriplet]:
    """The triplets of a folder by name, whole or not. Raises UserError where there are none, or no such folder."""
    found: dict[str, dict[str, list[Place]]] = {}
    for path in files_in(folder):
        name, _, kind = path.stem.rpartition("-")
        if path.suffix.lower() in audio.EXTENSIONS and kind in KINDS and not path.name.startswith("."):
            found.setdefault(name, {}).setdefault(kind, []).append(path)
    if not found:
        raise UserError(f"{folder}: expected files <name>-mixed, -target and -ref ({' '.join(audio.EXTENSIONS)}), found none")
    triplets = []
    for name, files in found.items():
        in_no_manifest = Expected(target=False if name.endswith(f"_{ABSENT}") else None)
        triplets.append(AuditedTriplet(folder, name, files, planned.get(name) or in_no_manifest))
    return triplets


def examine_all(triplets: Sequence[AuditedTriplet], settings: AuditSettings) -> Iterator[Facts]:
    """The facts of all triplets, in their order, found by `num_workers` processes."""
    one = partial(examine, settings=settings)
    if settings.num_workers == 1:
        yield from map(one, triplets)
        return
    pool = ProcessPoolExecutor(settings.num_workers)
    try:
        yield from pool.map(one, triplets, chunksize=TRIPLETS_AT_ONCE)
    finally:
        pool.shutdown(cancel_futures=True)


def compare_triplets(facts: Sequence[Facts], settings: AuditSettings) -> Iterator[CheckResult]:
    """What shows only when triplets are compared: their rates, waves that come again, and speakers of several folders."""
    rates = Counter(rate for one in facts for rate in one.rates.values())
    expected = settings.sample_rate or max(rates, key=lambda rate: rates[rate], default=0)
    for one in (one for one in facts if one.rates):
        others = [f"{KINDS[kind]} of {rate} Hz" for kind, rate in one.rates.items() if rate != expected]
        why = f"{', '.join(others)}, expected {expected}" if others else ""
        yield CheckResult("rates", one.triplet.folder, one.triplet.name, why)
    for triplet, first in again(facts, ("mixed", "target", "ref")):
        why = "" if first is triplet else f"all of {first.folder}/{first.name}"
        yield CheckResult("copy", triplet.folder, triplet.name, why)
    for kind in ("mixed", "target"):
        for triplet, first in again(facts, (kind,)):
            why = "" if first is triplet else f"{KINDS[kind]} of {first.folder}/{first.name}"
            here = first.folder == triplet.folder
            yield CheckResult(f"same_{KINDS[kind]}", triplet.folder, triplet.name, why if here else "")
            if len(settings.folders) > 1:
                yield CheckResult(f"same_{KINDS[kind]}_elsewhere", triplet.folder, triplet.name, "" if here else why)
    homes: dict[str, list[str]] = {}
    for folder, speakers in by_speaker(facts).items():
        for speaker in speakers if len(settings.folders) > 1 else ():
            homes.setdefault(speaker, []).append(folder)
    for speaker, (home, *more) in homes.items():
        yield CheckResult("speakers", home, speaker, f"also in {', '.join(more)}" if more else "")


def again(facts: Iterable[Facts], kinds: Sequence[str]) -> Iterator[tuple[AuditedTriplet, AuditedTriplet]]:
    """Each triplet, and the first whose files of these kinds hold the same samples; not where all of them are silent."""
    first: dict[tuple[str | None, ...], AuditedTriplet] = {}
    for one in facts:
        digests = tuple(one.digests.get(kind) for kind in kinds)
        if any(digests) and set(kinds) <= set(one.rates):
            yield one.triplet, first.setdefault(digests, one.triplet)


def by_speaker(facts: Iterable[Facts]) -> dict[str, dict[str, int]]:
    """How often each speaker is the target, by folder."""
    counts: dict[str, Counter[str]] = {}
    for one in facts:
        counts.setdefault(one.triplet.folder, Counter())[one.triplet.name.partition("_")[0]] += 1
    return {folder: dict(sorted(speakers.items())) for folder, speakers in counts.items()}


def make_report(facts: Sequence[Facts], results: Iterable[CheckResult], settings: AuditSettings) -> dict[str, Any]:
    """All that audit.json holds."""
    by_check: dict[str, list[CheckResult]] = {check: [] for check in CHECKS}
    for result in results:
        by_check[result.check].append(result)
    checks = []
    for check, (verdict, what) in CHECKS.items():
        if check == "speakers" and not settings.disjoint:
            verdict = WARNING
        of = len(by_check[check])
        faults = [{"folder": one.folder, "name": one.name, "why": one.why} for one in by_check[check] if one.why]
        numbers = {"of": of, "count": len(faults), "share": len(faults) / of if of else None}
        checks.append({"check": check, "verdict": verdict, "what": what, **numbers, "found": faults})
    folders = {}
    for folder, speakers in by_speaker(facts).items():
        seconds = [one.seconds or 0.0 for one in facts if one.triplet.folder == folder]
        folders[folder] = {"triplets": len(seconds), "hours": sum(seconds) / 3600, "speakers": speakers}
    untold = Counter(one.triplet.expected.why_no_sir or "cannot be heard" for one in facts if "sir" not in one.faults)
    return {
        "sound": not any(check["count"] for check in checks if check["verdict"] == ERROR),
        "folders": folders,
        "no_sir": dict(untold.most_common()),
        "checks": checks,
    }


def find_values(facts: Sequence[Facts], report: dict[str, Any]) -> Measured:
    """What is worth a histogram: by what it is, then by folder."""
    values: Measured = {"duration (s)": {}, "enrolment (s)": {}, "SIR (dB)": {}, "peak of the mixture (dB of full scale)": {}}
    for folder in report["folders"]:
        some = [one for one in facts if one.triplet.folder == folder]
        columns = zip(*((one.seconds, one.ref_seconds, one.sir, one.peak) for one in some), strict=True)
        for by_folder, column in zip(values.values(), columns, strict=True):
            by_folder[folder] = [value for value in column if value is not None]
    counts = {folder: list(content["speakers"].values()) for folder, content in report["folders"].items()}
    return {**values, "mixtures of a target speaker": counts}


def summary_text(report: dict[str, Any]) -> str:
    """The checks as a table with an example each, the folders, and the verdict."""
    rows = []
    for check in report["checks"]:
        verdict = check["verdict"] if check["count"] else "ok" if check["of"] else "n/a"
        share = f"{100 * check['share']:.3g}%" if check["of"] else ""
        example = "{folder}/{name}: {why}".format(**check["found"][0]) if check["count"] else ""
        rows.append([verdict, check["what"], str(check["of"]), str(check["count"]), share, example])
    lines = [text_table(["verdict", "check", "of", "count", "share", "example"], rows, left=(0, 1, 5))]
    for folder, content in report["folders"].items():
        counts = content["speakers"].values()
        often = f"{len(counts)} target speakers, {min(counts)} to {max(counts)} mixtures each"
        lines.append(f"{folder}: {content['triplets']} triplets, {content['hours']:.2f} h, {often}")
    untold = ", ".join(f"{n} ({why})" for why, n in report["no_sir"].items())
    lines += [f"SIR not held against a plan: {untold}"] if untold else []
    failed = Counter(check["verdict"] for check in report["checks"] if check["count"])
    n = f"errors in {failed[ERROR]} of {len(report['checks'])} checks, warnings in {failed[WARNING]}"
    lines.append(f"{'sound' if report['sound'] else 'not sound'}: {n}")
    return "\n".join(lines)


def draw_histograms(measured: Measured, path: Path) -> None:
    """Histograms, a line for each folder, as a PNG."""
    from matplotlib.figure import Figure  # not wanted in the processes

    figure = Figure(figsize=(13, 7), dpi=120, layout="constrained")
    *panels, legend = figure.subplots(2, 3).ravel()
    for axes, (label, by_folder) in zip(panels, measured.items(), strict=True):
        values = [value for column in by_folder.values() for value in column]
        few = "speaker" in label and values and max(values) <= BINS  # numbers of things get a bin each
        edges = np.arange(0.5, max(values) + 1) if few else np.histogram_bin_edges(values, BINS)
        for column in by_folder.values():
            axes.hist(column, edges, weights=np.full(len(column), 1 / max(len(column), 1)), histtype="step", lw=1.5)
        axes.set(xlabel=label, ylabel="share of the speakers" if "speaker" in label else "share of the triplets")
        axes.grid(color="0.9", lw=0.5)
    for folder, column in by_folder.items():
        legend.plot([], label=f"{folder}: {sum(column)} triplets")
    legend.legend(loc="center", frameon=False)
    legend.axis("off")
    figure.savefig(path)
