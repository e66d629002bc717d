"""The package, with the C library where there is a compiler; pyproject.toml has the rest."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py

SOURCES = Path(__file__).parent / "libss"
LIBRARIES = {{"darwin": "libss.dylib", "win32": "ss.dll"}.get(sys.platform, "libss.so"): ["ss.c"]}
if sys.platform == "linux":
    LIBRARIES["ss_ladspa.so"] = ["ladspa.c", "ss.c"]  # the virtual microphone
FLAGS = ["-std=gnu99", "-O2", "-ftree-vectorize", "-ffp-contract=fast", "-fno-math-errno", "-fvisibility=hidden", "-shared"]
FOR_GCC = "-fvect-cost-model=dynamic"  # at -O2 it vectorizes little without


def build_libraries(folder: Path) -> None:
    """Builds the C library and the plugin into a folder by CC, or the compiler that is there; says in a line why it cannot."""
    for name in LIBRARIES:  # of an earlier build
        (folder / name).unlink(missing_ok=True)
    compilers = [os.environ["CC"].split()] if os.environ.get("CC") else [["cc"], ["gcc"], ["clang"], ["zig", "cc"]]
    compiler = next((words for words in compilers if shutil.which(words[0])), None)
    reason, lacks = "found no C compiler" if compiler is None else "", "its C library, and uses ONNX Runtime instead"
    if not (SOURCES / "ss.c").is_file():
        reason = f"found no {SOURCES / 'ss.c'}"
    if compiler is not None and not reason:
        system = ["-DSS_BUILD_DLL"] if sys.platform == "win32" else ["-fPIC", "-lm"]
        system += ["-Wl,-Bsymbolic"] if sys.platform == "linux" else []  # a host may have another copy of the library
        probe = subprocess.run([*compiler, FOR_GCC, "-E", "-x", "c", os.devnull], capture_output=True, check=False)
        command = [*compiler, *FLAGS, *([] if probe.returncode else [FOR_GCC])]
        for name, sources in LIBRARIES.items():
            files = [*(str(SOURCES / source) for source in sources), "-o", str(folder / name)]
            done = subprocess.run([*command, *files, *system], capture_output=True, text=True, check=False)
            if done.returncode:
                reason = f"{' '.join(compiler)} failed: {(done.stderr.strip().splitlines() or ['no reason'])[0]}"
                break
            lacks = "its virtual microphone"  # which comes next
    if reason:
        print(f"warning: ss is built without {lacks}: {reason}", file=sys.stderr)


class BuildWithLibrary(build_py):
    """Builds the package, then the libraries into it: beside the sources for an editable installation."""

    def run(self) -> None:
        super().run()
        folder = Path("ss" if self.editable_mode else Path(self.build_lib, "ss"), "runtime")
        folder.mkdir(parents=True, exist_ok=True)
        build_libraries(folder)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        libraries = [Path(self.build_lib, "ss", "runtime", name) for name in LIBRARIES]
        return [*super().get_outputs(include_bytecode), *(str(library) for library in libraries if library.is_file())]


class PlatformDistribution(Distribution):
    """A wheel for this platform, as the library is, where there is the source of one."""

    def has_ext_modules(self) -> bool:
        return (SOURCES / "ss.c").is_file()


def wheel_commands() -> dict[str, Any]:
    """The wheel is for any Python 3 of its platform: the library knows nothing of Python."""
    try:
        from setuptools.command.bdist_wheel import bdist_wheel
    except ImportError:  # setuptools before 70.1
        return {}

    class PlatformWheel(bdist_wheel):
        def get_tag(self) -> tuple[str, str, str]:
            return ("py3", "none", super().get_tag()[2])

    return {"bdist_wheel": PlatformWheel}


setup(cmdclass={"build_py": BuildWithLibrary, **wheel_commands()}, distclass=PlatformDistribution)
