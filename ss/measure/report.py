"""What all measurements have in common: rounds, the machine, and a file with the figures."""

import json
import platform
import re
from collections.abc import Callable, Hashable, Iterable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeVar

import torch
from tqdm import tqdm

from ss.measure.backend import ONNX
from ss.tables import rows_table

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
    name = re.search(r"^model name\s*: (.*)", cpuinfo.read_text(), re.M) if cpuinfo.exists() else None
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    runtime = version(ONNX) if find_spec(ONNX) else None
    return {"cpu": name[1].strip() if name else platform.processor(), "gpu": gpu, "torch": torch.__version__, ONNX: runtime}


def machine_line(machine: Any) -> str:
    """`machine` as a line."""
    return ", ".join(f"{name} {value}" for name, value in machine.items() if value)


def publish(
    folder: str | None, name: str, head: str, report: dict[str, Any], tables: dict[str, str], facts: str = "", method: str = ""
) -> None:
    """Prints a report: a head, the machine, tables, facts, and the method. Writes it as JSON where there is a folder.

    tables: the columns (see `rows_table`) of what the report has under each name.
    """
    report = {**report, "machine": machine(), "method": method.replace("\n", " ")}
    about = "\n".join(filter(None, [head, machine_line(report["machine"])]))
    printed = [about, *(rows_table(report[rows], columns) for rows, columns in tables.items()), facts, method]
    if folder:
        path = Path(folder, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=1) + "\n")
        printed.append(str(path))
    print("\n\n".join(filter(None, printed)))
