"""The metadata of ONNX files."""

from pathlib import Path

import onnx


def with_metadata(path: Path, metadata: dict[str, str]) -> None:
    """Gives an ONNX file this metadata and no other."""
    model = onnx.load(str(path))
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, str(path))


def metadata_of(path: Path) -> dict[str, str]:
    """The metadata of an ONNX file."""
    return {prop.key: prop.value for prop in onnx.load(str(path)).metadata_props}
