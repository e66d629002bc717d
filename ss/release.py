"""From a checkpoint to a release: graphs in float32 and int8, their sums, and a card with the figures of these very files.

A release is a folder with `float32` and `int8` (enroll.onnx, step.onnx and model.ss each), SHA256SUMS, and README.md, the card.
What people write in a card stays; what stands between its two marks is written anew.
"""

from pathlib import Path
from typing import Any

from ss import tester
from ss.compression.quantization import first_pairs, quantize_calibrated, step_inputs, store_in_half
from ss.datasets import Triplets
from ss.errors import UserError, require_positive
from ss.export import export
from ss.files import folders_by_name, whole_folder
from ss.runtime import Extractor
from ss.runtime.pretrained import ENROLL, PRECISIONS, STEP, SUMS, sum_of
from ss.tables import markdown_table

BEGIN, END = "<!-- figures: written by inferencing/release.py -->", "<!-- end of figures -->"
CARD = "README.md"
TITLES = {
    "SI-SDRi": "SI-SDRi, dB",
    "STOI": "STOI",
    "PESQ": "PESQ",
    "absent-dB": "absent target: output over mixture, dB",
    "STOI-drop": "clean target: STOI lost",
}
RANKING, WORSE = "SI-SDRi", "worse than the mixture"


def release(config: dict[str, Any]) -> None:
    """Makes a release of `checkpoint` in `folder`.

    calibration: triplets that int8 takes its ranges from. tests: folders of triplets, for the card. Raises UserError where the
    graphs of both precisions are more than `max_mb`, or int8 loses more than `max_int8_loss` dB of SI-SDRi in the mean of one of
    tests; then the folder stays as it was.
    """
    require_positive(config, "examples", "max_mb")
    folder, tests = Path(config["folder"]), folders_by_name(config["tests"])
    if RANKING not in (config.get("metrics") or {}):
        raise UserError(f"metrics: expected {RANKING} among them, which int8 is judged by, found none")
    with whole_folder(folder, *PRECISIONS, SUMS, CARD) as aside:
        difference = export(config["checkpoint"], aside / "float32")
        quantize(config, aside / "int8")
        total = sum(path.stat().st_size for path in aside.rglob("*.onnx")) / 1e6
        if total > config["max_mb"]:
            raise UserError(f"expected graphs of at most {config['max_mb']:g} MB in sum, got {total:.1f} MB")
        results = {(title, name): run_test(config, str(tests[title]), aside / name) for title in tests for name in PRECISIONS}
        for title in tests:
            exact, rounded = (results[title, name][RANKING]["mean"] for name in PRECISIONS)
            most = config["max_int8_loss"]
            if exact is not None and rounded is not None and exact - rounded > most:
                found = f"{rounded:.2f} and {exact:.2f} dB of SI-SDRi"
                raise UserError(f"{title}: expected int8 within {most:g} dB of float32, got {found}")
        card = (folder / CARD).read_text() if (folder / CARD).is_file() else f"# {folder.resolve().name}\n\n{BEGIN}\n{END}\n"
        if card.count(BEGIN) != 1 or card.count(END) != 1:
            raise UserError(f"{folder / CARD}: expected the lines {BEGIN} and {END} once each, for the figures")
        text = figures(config, aside, results)
        (aside / CARD).write_text(f"{card.split(BEGIN)[0]}{BEGIN}\n{text}\n{END}{card.split(END)[1]}")
        names = sorted(str(path.relative_to(aside)) for precision in PRECISIONS for path in (aside / precision).iterdir())
        (aside / SUMS).write_text("".join(f"{sum_of(aside / name)}  {name}\n" for name in names))
    print(f"{text}\n{folder}: float32 is at most {difference:.1g} from torch")


def quantize(config: dict[str, Any], folder: Path) -> None:
    """The step in int8; the enrolment, which runs once, with weights of 16 bits; the same for the C library."""
    export(config["checkpoint"], folder, plain=True, int8=True)
    examples = Triplets(config["calibration"], Extractor.load(folder).sample_rate)
    inputs = step_inputs(folder, first_pairs(examples, config["examples"]))
    quantized = folder / "quantized.onnx"
    quantize_calibrated(folder / STEP, quantized, inputs, config["keep"])
    quantized.replace(folder / STEP)
    store_in_half(folder / ENROLL)


def run_test(config: dict[str, Any], triplets: str, exported: Path) -> dict[str, Any]:
    """What `ss.tester` finds of a precision on a folder of triplets, by metric; WORSE: the part of the mixtures that got worse."""
    rows, summary = tester.run_from_config({**config, "checkpoint": str(exported), "folder": triplets})
    worse = [row.values[RANKING] < 0 for row in rows.values() if RANKING in row.values]
    return {**summary["metrics"], WORSE: sum(worse) / len(worse) if worse else None}


def figures(config: dict[str, Any], aside: Path, results: dict[tuple[str, str], dict[str, Any]]) -> str:
    """What the card says in numbers: of the model and its files, and a table of the tests, by folder and precision."""
    extractor = Extractor.load(aside / "float32")
    behind = 1000 * extractor.latency / extractor.sample_rate
    sizes = [f"{name} {sum(path.stat().st_size for path in (aside / name).glob('*.onnx')) / 1e6:.2f} MB" for name in PRECISIONS]
    columns = {name: title for name, title in TITLES.items() if any(found.get(name, {}).get("count") for found in results.values())}
    rows = []
    for about, metrics in results.items():
        known = [metrics.get(name, {"count": 0}) for name in columns]
        cells = [f"{one['mean']:.2f}, {one['median']:.2f} ({one['count']})" if one["count"] else "-" for one in known]
        rows.append([*about, *cells, "-" if metrics[WORSE] is None else f"{metrics[WORSE]:.0%}"])
    return f"""\
- {extractor.metadata["model"]}, {extractor.sample_rate} Hz, {behind:g} ms behind; {", ".join(sizes)}
- from a checkpoint whose SHA-256 sum begins with {sum_of(Path(config["checkpoint"]))[:16]}

{markdown_table(["mixtures", "graphs", *columns.values(), WORSE], rows)}

Means, medians, and how many mixtures have a value."""
