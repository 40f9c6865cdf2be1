"""The packages that benchmarks/gpu.py needs on a machine without network, and which of them are missing.

A GPU machine is assumed to have jax, flax, optax, orbax-checkpoint, torch and their dependencies. The rest is copied as
wheels; `python benchmarks/gpu_needs.py` prints the command that downloads them and the one that installs them there.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Iterable

# Modules and their distributions. The second group is needed by the first. `pip download` must be given each of them,
# because following dependencies would also download jax, numpy and others that are already there.
_NETWORKS = {
    "array_api_compat": "array-api-compat",
    "cffi": "cffi",
    "jaxtyping": "jaxtyping",
    "platformdirs": "platformdirs",
    "pycparser": "pycparser",
    "safetensors": "safetensors",
    "soundfile": "soundfile",
    "soxr": "soxr",
    "wadler_lindig": "wadler-lindig",
}
_TRAINING_RUN = {
    "array_record": "array-record",
    "cloudpickle": "cloudpickle",
    "decorator": "decorator",
    "grain": "grain",
    "importlib_resources": "importlib-resources",
    "mido": "mido",
    "mir_eval": "mir-eval",
    "packaging": "packaging",
    "portpicker": "portpicker",
    "pretty_midi": "pretty-midi",
    "pyarrow": "pyarrow",
    "pyloudnorm": "pyloudnorm",
    "six": "six",
    "tinysoundfont": "tinysoundfont",
    "yaml": "pyyaml",
}
_DEVICE_TESTS = {
    "beartype": "beartype",
    "hypothesis": "hypothesis",
    "iniconfig": "iniconfig",
    "pluggy": "pluggy",
    "pygments": "pygments",
    "pytest": "pytest",
    "sortedcontainers": "sortedcontainers",
}
GIVEN = ("flax", "jax", "jaxlib", "msgpack", "numpy", "optax", "orbax", "scipy", "torch")
# By section. The others need only `_NETWORKS`.
_MORE = {"training_run": _TRAINING_RUN, "device_tests": _TRAINING_RUN | _DEVICE_TESTS}
# Wheels for Linux on x86-64 carry one of these tags.
_PLATFORMS = ("manylinux_2_28_x86_64", "manylinux2014_x86_64")


def needed(section: str) -> dict[str, str]:
    """The modules of a section, each with the distribution that brings it."""
    return {name: name for name in GIVEN} | _NETWORKS | _MORE.get(section, {})


def missing(sections: Iterable[str]) -> dict[str, list[str]]:
    """The distributions whose modules are missing, for each section that lacks any."""
    found = {
        section: [package for module, package in needed(section).items() if importlib.util.find_spec(module) is None]
        for section in sections
    }
    return {section: packages for section, packages in found.items() if packages}


def wheel_names(*sections: str) -> list[str]:
    """The distributions that have to be copied, for some sections or for all."""
    names = [needed(section) for section in sections or ("device_tests",)]  # which needs the most
    return sorted({package for modules in names for package in modules.values() if package not in GIVEN})


def download_line(names: Iterable[str], python: str = "3.12", folder: str = "wheels") -> str:
    """The command that downloads wheels, on a machine with a network."""
    platforms = " ".join(f"--platform {name}" for name in _PLATFORMS)
    return (
        f"python3 -m pip download --no-deps --only-binary=:all: --python-version {python} --implementation cp "
        f"{platforms} --constraint constraints-py312.txt --dest {folder} {' '.join(names)}"
    )


def install_line(folder: str = "wheels", site: str = "site") -> str:
    """The command that installs them, on a machine without one."""
    return (
        f"python3 -m pip install --quiet --no-index --no-deps --no-compile --target {site} {folder}/*.whl"
        f" && export PYTHONPATH=.:{site}"
    )


def what_is_missing(lacking: dict[str, list[str]]) -> str:
    """Sentences for the user, with the commands that fix it."""
    names = sorted({package for packages in lacking.values() for package in packages})
    lines = [f"Not installed here: {', '.join(names)}."]
    lines += [f"  {section} needs {', '.join(packages)}" for section, packages in lacking.items()]
    given = [name for name in names if name in GIVEN]
    if given:
        lines.append(f"{', '.join(given)} should be there already: is this the machine's right python3?")
    travelling = [name for name in names if name not in GIVEN]
    if travelling:
        lines += ["On a machine with a network:", f"  {download_line(travelling)}", "and here:", f"  {install_line()}"]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Print how to copy the packages that benchmarks/gpu.py needs.")
    parser.add_argument("--python", default="3.12", help="version there")
    parser.add_argument("--section", action="append", default=[], help="such as training_run [all]")
    parser.add_argument(
        "--there", nargs="*", default=[], metavar="NAME", help="distributions that the machine already has"
    )
    options = parser.parse_args()
    there = {name.lower().replace("_", "-") for name in options.there}
    print(download_line([name for name in wheel_names(*options.section) if name not in there], options.python))
    print(install_line())


if __name__ == "__main__":
    main()
