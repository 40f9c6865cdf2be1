"""The systems compared: what each needs, which adapter runs it, and which notes it can find."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

# Without torchvision, which mt3-infer requires but does not use, and which must match PyTorch exactly.
_MT3_INFER_ALONE = ("mt3-infer==0.2.0", "torchaudio")
_MT3_INFER = (
    "absl-py",
    "einops",
    "librosa",
    "mido",
    "mir-eval",
    "numpy",
    "pretty_midi",
    "pyyaml",
    "soundfile",
    "soxr",
    "torch",
    "tqdm",
    "transformers>=4.57,<5",
)


@dataclass(frozen=True)
class System:
    """One row of the registry.

    `adapter` is a module of `workers/`. `requirements` and `without_dependencies` are what pip installs into the
    system's environment (the second with `--no-deps`); a system without any runs in the environment that runs the
    comparison. The compiled part of packages in `drop_broken_extensions` is removed if it cannot be loaded: the index's
    torchaudio is linked to CUDA, which a CPU-only PyTorch does not include, and it works without.

    `weights_option` says where weights outside the package come from: `model`, from `--model`; `port`, converted from
    `--model` unless given; `given`, only from `--weights NAME=PATH`.
    """

    name: str
    summary: str
    adapter: str
    requirements: tuple[str, ...] = ()
    without_dependencies: tuple[str, ...] = ()
    needs_modules: tuple[str, ...] = ()
    drop_broken_extensions: tuple[str, ...] = ()
    weights_option: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    finds_drums: bool = False
    finds_instruments: bool = False

    @property
    def is_ours(self) -> bool:
        """Whether it runs in the environment that runs the comparison."""
        return not (self.requirements or self.without_dependencies)


SYSTEMS: tuple[System, ...] = (
    System(
        "mt3kit-torch",
        "this project, PyTorch",
        "run_mt3kit",
        needs_modules=("torch",),
        weights_option="model",
        options={"backend": "torch"},
        finds_drums=True,
        finds_instruments=True,
    ),
    System(
        "mt3kit-jax",
        "this project, JAX",
        "run_mt3kit",
        needs_modules=("jax", "flax"),
        weights_option="model",
        options={"backend": "jax"},
        finds_drums=True,
        finds_instruments=True,
    ),
    System(
        "small",
        "this project, PyTorch, with the weights that it brings",
        "run_mt3kit",
        needs_modules=("torch",),
        options={"backend": "torch", "model": "small"},
        finds_drums=True,
        finds_instruments=True,
    ),
    System(
        "small-best",
        "the same with --quality best",
        "run_mt3kit",
        needs_modules=("torch",),
        options={"backend": "torch", "model": "small", "quality": "best"},
        finds_drums=True,
        finds_instruments=True,
    ),
    System(
        "mt3-infer",
        "mt3-infer 0.2.0, mt3_pytorch (kunato/mt3-pytorch), with the weights of --model",
        "run_mt3_infer",
        requirements=_MT3_INFER,
        without_dependencies=_MT3_INFER_ALONE,
        drop_broken_extensions=("torchaudio",),
        weights_option="port",
        options={"model": "mt3_pytorch"},
        finds_drums=True,
        finds_instruments=True,
    ),
    System(
        "mt3-infer-mr-mt3",
        "mt3-infer 0.2.0, mr_mt3",
        "run_mt3_infer",
        requirements=_MT3_INFER,
        without_dependencies=_MT3_INFER_ALONE,
        drop_broken_extensions=("torchaudio",),
        weights_option="given",
        options={"model": "mr_mt3"},
        finds_drums=True,
        finds_instruments=True,
    ),
    System(
        "mt3-infer-yourmt3",
        "mt3-infer 0.2.0, yourmt3",
        "run_mt3_infer",
        requirements=_MT3_INFER,
        without_dependencies=_MT3_INFER_ALONE,
        drop_broken_extensions=("torchaudio",),
        weights_option="given",
        options={"model": "yourmt3"},
        finds_drums=True,
        finds_instruments=True,
    ),
    System(
        "transkun",
        "Transkun 2.0.1 (piano only), the weights of its package",
        "run_transkun",
        # moduleconf and others may need pkg_resources, which newer versions of setuptools no longer have.
        requirements=(
            "mir-eval",
            "moduleconf",
            "ncls",
            "numpy",
            "pretty-midi",
            "scipy",
            "setuptools<80",
            "soundfile",
            "soxr",
            "torch",
            "tqdm",
        ),
        # It also requires packages that only its training and its plots import.
        without_dependencies=("transkun==2.0.1", "torchaudio"),
        drop_broken_extensions=("torchaudio",),
    ),
    System(
        "basic-pitch",
        "basic-pitch 0.4.0 (notes without instruments), the weights of its package, ONNX Runtime",
        "run_basic_pitch",
        # It requires a TensorFlow that does not exist for Python 3.11; its ONNX weights do not need it.
        requirements=(
            "librosa",
            "mir_eval",
            "numpy<2",
            "onnxruntime",
            "pretty_midi",
            "resampy==0.4.2",
            "scikit-learn",
            "scipy",
            "setuptools<80",
            "typing-extensions",
        ),
        without_dependencies=("basic-pitch==0.4.0",),
    ),
)


def weights_of(
    system: System, given: Mapping[str, Path], model: str, make_port: Callable[[], Path]
) -> tuple[str, str | None]:
    """The weights for a system ("" if its package has them), and the reason if it cannot run."""
    if system.name in given:
        path = given[system.name]
        return (str(path), None) if path.exists() else ("", f"there are no weights at {path}")
    if system.weights_option == "given":
        return "", f"its weights are not part of the package: give them by --weights {system.name}=PATH"
    if system.weights_option and "://" not in model and not Path(model).exists():
        return "", f"there is no model {model} (--model)"
    if system.weights_option == "port":
        try:
            return str(make_port()), None
        except Exception as error:
            return "", f"the weights of --model cannot be written as the port's: {error}"
    return (model if system.weights_option == "model" else ""), None
