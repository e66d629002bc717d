"""What an exported model costs: files, chunks of a live stream, memory, long sessions, all in ONNX Runtime."""

import json
from pathlib import Path
from typing import Any

from ss import allowlist
from ss.compression.sparse import nonzero
from ss.measure.job import machine
from ss.measure.listening import live_rows, macs_per_second, sessions
from ss.measure.parts import Settings
from ss.measure.sources import ONNX, Sources
from ss.measure.table import files, listening, machine_line
from ss.utils.predecessor import read_checkpoint

KEYS = ("threads", "chunk_ms", "live_seconds", "session_minutes")


def settings_of(checkpoint: Path, **asked: Any) -> Settings:
    """How to measure what a checkpoint of ours was exported to."""
    trained = read_checkpoint(checkpoint)["config"]
    allowlist.check("streamer", trained["streamer"])
    rate = trained["data"]["sample_rate"]
    return Settings("", trained["streamer"], checkpoint=str(checkpoint), sample_rate=rate, **asked)


def counts(checkpoint: Path) -> dict[str, Any]:
    """Numbers in a checkpoint's model that are not zero, and its operations on a second of a live stream."""
    settings = settings_of(checkpoint)
    parameters = nonzero(read_checkpoint(checkpoint)["model"])
    return {"parameters": parameters, "macs_per_second": macs_per_second(settings, settings.load())}


def measure(config: dict[str, Any]) -> int:
    """Measures `exported`, the graphs of `run_dir`'s checkpoint; prints tables, writes `measurement.json`; the exit code."""
    checkpoint, out = Path(config["run_dir"]) / "best.pth", Path(config["run_dir"]) / "measure"
    sources = Sources({ONNX: config["exported"]}, {})
    settings = settings_of(checkpoint, **{key: config[key] for key in KEYS})
    model = settings.load()
    report = {
        "model": type(model).__name__,
        "exported": config["exported"],
        **counts(checkpoint),
        "machine": machine(),
        "file_bytes": {path.name: path.stat().st_size for path in sorted(Path(config["exported"]).iterdir())},
        "live": live_rows(settings, model, sources, ["cpu"]),
        "sessions": sessions(settings, model, sources),
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "measurement.json").write_text(json.dumps(report, indent=1) + "\n")
    numbers = f"{report['parameters']:,} parameters that are not zero, {report['macs_per_second'] / 1e6:.1f} MMAC/s"
    head = [f"{report['model']} ({config['exported']}): {numbers}", machine_line(report), files(report)]
    print("\n".join([*head, "", *listening(report), "", str(out / "measurement.json")]))
    return 0
