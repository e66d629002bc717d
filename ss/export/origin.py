"""What an exported graph says of where it comes from, as ONNX metadata."""

import json
from pathlib import Path
from typing import Any

import onnx

ROW = ("epoch", "step", "valid")  # what metadata tells of a checkpoint's row


def of_checkpoint(content: dict[str, Any], sample_rate: int) -> dict[str, str]:
    """Of a checkpoint's content: what testing and extracting with the export want to know, and a line on its training."""
    config, speakers = content.get("config", {}), content.get("speakers", [])
    kept = {key: config.get(key) for key in ("streamer", "loss")} | {"data": {"sample_rate": sample_rate}}
    return {
        "checkpoint": json.dumps({"config": kept, "speakers": speakers}),
        "training": json.dumps(training(content)),
    }


def training(content: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint says of its training, in short: the run, and the row of its epoch."""
    row = content.get("row", {})
    run = {"run_dir": content["config"].get("run_dir"), "speakers": len(content.get("speakers", []))} if content else {}
    return {**run, **{key: row[key] for key in ROW if key in row}}


def with_metadata(path: Path, metadata: dict[str, str]) -> None:
    """Gives an ONNX file this metadata and no other."""
    model = onnx.load(str(path))
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, str(path))


def metadata_of(path: Path) -> dict[str, str]:
    """The metadata of an ONNX file."""
    return {prop.key: prop.value for prop in onnx.load(str(path)).metadata_props}
