"""Audits data sets: is what is on the disk what a training and a test expect? Every triplet is read once; then they are compared.

Prints a table of the checks, and writes `audit.json` (all that was found, by name) and `audit.png` (what was measured, as
histograms).
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from tqdm import tqdm

from ss.audit.checks import ABSENT, KINDS, AuditedTriplet, AuditSettings, Expected, Facts, examine, read_expected
from ss.data.packed import triplet_files
from ss.data.processes import map_in_processes
from ss.errors import UserError, reject_unknown_keys
from ss.tables import text_table

ERROR, WARNING = "error", "warning"
BINS = 40
MEASURED = ("duration (s)", "enrolment (s)", "SIR (dB)", "peak of the mixture (dB of full scale)", "mixtures of a target speaker")
Results: TypeAlias = dict[str, list[dict[str, str]]]  # by check, of every triplet, speaker or row: folder, name, why (if at fault)
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
    **{f"clipped_{kind}": (WARNING, f"clipped {word}s") for kind, word in KINDS.items()},
}


def audit(config: dict[str, Any]) -> int:
    """Audits the folders and says what was found. Returns the exit code: 0 if there is no error. config: see AuditSettings.

    Raises UserError where a folder holds no triplets, a manifest is none, or the settings cannot be.
    """
    settings = AuditSettings(**reject_unknown_keys(AuditSettings, config))
    planned = {folder: read_expected(folder) for folder in settings.folders}
    triplets = [triplet for folder in settings.folders for triplet in list_triplets(folder, planned[folder])]
    out = Path(settings.out_folder)
    if out.exists() and not out.is_dir():
        raise UserError(f"out_folder: expected a folder, found a file at {out}")
    out.mkdir(parents=True, exist_ok=True)
    examined = map_in_processes(partial(examine, settings=settings), triplets, settings.num_workers, TRIPLETS_AT_ONCE)
    facts = list(tqdm(examined, "auditing", len(triplets)))
    report = make_report(facts, check_all(facts, planned, settings), settings)
    (out / "audit.json").write_text(json.dumps(report, indent=1) + "\n")
    draw_histograms(facts, report, out / "audit.png")
    print("\n".join([summary_text(report), "", str(out / "audit.json"), str(out / "audit.png")]))
    return 0 if report["sound"] else 1


def list_triplets(folder: str, planned: dict[str, Expected]) -> list[AuditedTriplet]:
    """The triplets of a folder by name, whole or not. Raises UserError where there are none, or no such folder."""
    triplets = []
    for name, files in triplet_files(folder).items():
        in_no_manifest = Expected(target=False if name.endswith(f"_{ABSENT}") else None)
        triplets.append(AuditedTriplet(folder, name, files, planned.get(name) or in_no_manifest))
    return triplets


def check_all(facts: Sequence[Facts], planned: dict[str, dict[str, Expected]], settings: AuditSettings) -> Results:
    """All that the checks say, also what shows only when triplets are compared: rates, waves that come again, shared speakers."""
    results: Results = {check: [] for check in CHECKS}

    def note(check: str, folder: str, name: str, why: str) -> None:
        results[check].append({"folder": folder, "name": name, "why": why})

    for one in facts:
        for check, why in one.faults.items():
            note(check, *one.triplet[:2], why)
    rates = Counter(rate for one in facts for rate in one.rates.values())
    expected = settings.sample_rate or max(rates, key=lambda rate: rates[rate], default=0)
    for one in (one for one in facts if one.rates):
        others = [f"{KINDS[kind]} of {rate} Hz" for kind, rate in one.rates.items() if rate != expected]
        note("rates", *one.triplet[:2], f"{', '.join(others)}, expected {expected}" if others else "")
    for check, kinds in (("copy", ("mixed", "target", "ref")), ("same_mixture", ("mixed",)), ("same_target", ("target",))):
        first: dict[tuple[str | None, ...], AuditedTriplet] = {}  # by what its files hold
        for triplet, _, found, digests, *_ in facts:
            content = tuple(digests.get(kind) for kind in kinds)
            if not any(content) or not set(kinds) <= set(found):
                continue  # all silent, or unreadable
            former = first.setdefault(content, triplet)
            what = "all" if check == "copy" else KINDS[kinds[0]]
            why = "" if former is triplet else f"{what} of {former.folder}/{former.name}"
            here = check == "copy" or former.folder == triplet.folder
            note(check, *triplet[:2], why if here else "")
            if check != "copy" and len(planned) > 1:
                note(f"{check}_elsewhere", *triplet[:2], "" if here else why)
    there = {one.triplet[:2] for one in facts}
    for folder, rows in planned.items():
        for name in rows:
            note("rows", folder, name, "" if (folder, name) in there else "no files")
    homes: dict[str, list[str]] = {}
    for folder, speakers in by_speaker(facts).items():
        for speaker in speakers if len(planned) > 1 else ():
            homes.setdefault(speaker, []).append(folder)
    for speaker, (home, *more) in homes.items():
        note("speakers", home, speaker, f"also in {', '.join(more)}" if more else "")
    return results


def by_speaker(facts: Iterable[Facts]) -> dict[str, dict[str, int]]:
    """How often each speaker is the target, by folder."""
    counts: dict[str, Counter[str]] = {}
    for one in facts:
        counts.setdefault(one.triplet.folder, Counter())[one.triplet.name.partition("_")[0]] += 1
    return {folder: dict(sorted(speakers.items())) for folder, speakers in counts.items()}


def make_report(facts: Sequence[Facts], results: Results, settings: AuditSettings) -> dict[str, Any]:
    """All that audit.json holds."""
    checks = []
    for check, (verdict, what) in CHECKS.items():
        if check == "speakers" and not settings.disjoint:
            verdict = WARNING
        of, faults = len(results[check]), [one for one in results[check] if one["why"]]
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


def draw_histograms(facts: Sequence[Facts], report: dict[str, Any], path: Path) -> None:
    """Histograms of what was measured, a line for each folder, as a PNG."""
    from matplotlib.figure import Figure  # not wanted in the processes

    measured: list[list[list[float]]] = []  # by folder, then what of, all values
    for folder, content in report["folders"].items():
        some = [one[4:] for one in facts if one.triplet.folder == folder]  # seconds, ref_seconds, sir, peak
        columns = [[value for value in column if value is not None] for column in zip(*some, strict=True)]
        measured.append([*columns, list(content["speakers"].values())])
    figure = Figure(figsize=(13, 7), dpi=120, layout="constrained")
    *panels, legend = figure.subplots(2, 3).ravel()
    for axes, label, by_folder in zip(panels, MEASURED, zip(*measured, strict=True), strict=True):
        values = list(chain.from_iterable(by_folder))
        few = "speaker" in label and values and max(values) <= BINS  # numbers of things get a bin each
        edges = np.arange(0.5, max(values) + 1) if few else np.histogram_bin_edges(values, BINS)
        for column in by_folder:
            axes.hist(column, edges, weights=np.full(len(column), 1 / max(len(column), 1)), histtype="step", lw=1.5)
        axes.set(xlabel=label, ylabel="share of the speakers" if "speaker" in label else "share of the triplets")
        axes.grid(color="0.9", lw=0.5)
    for folder, content in report["folders"].items():
        legend.plot([], label=f"{folder}: {content['triplets']} triplets")
    legend.legend(loc="center", frameon=False)
    legend.axis("off")
    figure.savefig(path)
