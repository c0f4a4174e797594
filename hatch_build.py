"""Compiles the modules that every frame passes through, where there is a C compiler.

They are ordinary Python modules, and work as such: a `.pxd` file beside a module says which types
Cython may use for it. Three modules (`.pyx`) exist only compiled, and have a twin in Python.

`pip install` calls this as a build hook. `python hatch_build.py` compiles the source tree in place.
ANTIPHON_COMPILE=0 in the environment leaves it out; with 1, not to succeed is an error.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOTS = {"antiphon": "runtime", "antiphon_actors": "actors"}
MODULES = (
    "antiphon.utils.asyncio._stepper",
    "antiphon.utils.asyncio.receipts",
    "antiphon.processors.statistics",
    "antiphon.processors.lane",
    "antiphon.processors.inbox",
    "antiphon.frames._plan",
    "antiphon.frames._plain",
    "antiphon.frames._encode",
    "antiphon.frames._decode",
    "antiphon_actors.channels._records",
    "antiphon_actors.channels.outbox",
    "antiphon_actors.channels.framing",
    "antiphon_actors.channels.in_stream",
    "antiphon_actors.channels.retained",
    "antiphon_actors.channels.out_stream",
    "antiphon_actors.channels.streams",
    "antiphon_actors.session.progress",
    "antiphon_actors.session.receivers",
    "antiphon_actors.session.edge",
)
DIRECTIVES = {
    "language_level": 3,
    # The types are those of the .pxd files: an annotation may name a subclass's base or a protocol.
    "annotation_typing": False,
    "binding": True,
}


def source_of(root: Path, module: str) -> Path:
    """The source of a module: its `.py`, or `.pyx` for one that exists only compiled."""
    base = root / ROOTS[module.partition(".")[0]] / module.replace(".", "/")
    compiled_only = base.with_suffix(".pyx")
    return compiled_only if compiled_only.exists() else base.with_suffix(".py")


def compile_in_place(root: Path) -> list[Path]:
    """Compiles every module beside its source and returns the compiled files.

    Raises:
        Exception: Whatever Cython, setuptools or the C compiler raises; there are many.
    """
    from Cython.Build import cythonize
    from setuptools import Distribution, Extension

    before = Path.cwd()
    os.chdir(root)
    try:
        with tempfile.TemporaryDirectory(prefix="antiphon-build-") as work:
            extensions = [
                Extension(
                    module,
                    [str(source_of(root, module).relative_to(root))],
                    extra_compile_args=["-O2", "-g0"],
                )
                for module in MODULES
            ]
            distribution = Distribution(
                {
                    "name": "antiphon",
                    "ext_modules": cythonize(
                        extensions,
                        build_dir=work,
                        include_path=list(ROOTS.values()),
                        compiler_directives=DIRECTIVES,
                        quiet=True,
                    ),
                    "package_dir": {name: f"{path}/{name}" for name, path in ROOTS.items()},
                    "packages": list(ROOTS),
                }
            )
            command: Any = distribution.get_command_obj("build_ext")
            command.inplace = True
            command.build_temp = work
            command.build_lib = work
            command.parallel = os.cpu_count()
            command.ensure_finalized()
            command.run()
            return [root / command.get_ext_filename(module) for module in MODULES]
    finally:
        os.chdir(before)


def try_to_compile(root: Path) -> bool:
    """Compiles as the environment asks for; says so if there is nothing to compile with."""
    wanted = os.environ.get("ANTIPHON_COMPILE", "")
    if wanted == "0":
        return False
    try:
        compile_in_place(root)
    except (Exception, SystemExit) as error:
        if wanted == "1":
            raise
        for compiled in (path for base in ROOTS.values() for path in (root / base).rglob("*.so")):
            compiled.unlink()  # made from other sources than there are now
        print(
            "antiphon: not compiled, so frames will move more slowly; everything else is the same "
            f"({type(error).__name__}: {error}). It takes a C compiler and Python's headers.",
            file=sys.stderr,
        )
        return False
    return True


class CustomBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Compiles before a wheel or an editable installation is made."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compiles, and marks the wheel as one for this platform."""
        if self.target_name == "wheel" and try_to_compile(Path(self.root)):
            build_data["pure_python"] = False
            build_data["infer_tag"] = True
            build_data["artifacts"] += ["*.so", "*.pyd"]


if __name__ == "__main__":
    sys.exit(0 if try_to_compile(Path(__file__).parent.resolve()) else 1)
