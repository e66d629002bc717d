"""What all measurements have in common: rounds, the machine, and a file with the figures."""

import json
import platform
from collections.abc import Callable, Hashable, Iterable, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import torch
from tqdm import tqdm

from ss.measure.backend import ONNX

Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")


def in_rounds(names: Iterable[Key], rounds: int, run: Callable[[Key], Result]) -> dict[Key, list[Result]]:
    """Runs every name once in each round: what a busy machine does to one, it does to all."""
    results: dict[Key, list[Result]] = {name: [] for name in names}
    for name in tqdm(list(results) * rounds, "rounds"):
        results[name].append(run(name))
    return results


def machine() -> dict[str, Any]:
    """What it was measured on."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    runtime = version(ONNX) if find_spec(ONNX) else None
    return {"cpu": names[0] if names else platform.processor(), "gpu": gpu, "torch": torch.__version__, ONNX: runtime}


def machine_line(machine: Any) -> str:
    """`machine` as a line."""
    return ", ".join(f"{name} {value}" for name, value in machine.items() if value)


def publish(report: Any, path: Path | None, *blocks: str, pictures: Sequence[Path] = ()) -> None:
    """Writes a report as JSON, where there is a path, and prints blocks of lines and the paths."""
    files = [path, *pictures] if path else []
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=1) + "\n")
    print("\n\n".join([*blocks, *(["\n".join(map(str, files))] if files else [])]))
