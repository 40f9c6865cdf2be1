"""What the two profiles share: settings from the environment, the manifest to measure on, and logs for later.

    CHUNK_TOKEN_PROFILE_MANIFEST=cache/chunk_manifest.parquet   CHUNK_TOKEN_PROFILE_SAMPLES=200
    CHUNK_TOKEN_PROFILE_MIX_VALUES=1,2,4                        CHUNK_TOKEN_PROFILE_LOG_DIR=test_files/...
    CHUNK_TOKEN_PROFILE_DATASET='{"feature_type": "waveform", "load_tokens": true, "dataset": "slakh"}'

and the same with CHUNK_DATALOADER_PROFILE_, which has _BATCH_SIZE and _NUM_WORKERS (with commas) besides.
"""

import dataclasses
import json
import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from mt3core.config.data import DataConfig, DatasetChoice
from mt3core.config.model import PRESETS
from mt3data.examples.examples import ExampleConfig
from mt3data.prepare.manifest import read_manifest
from mt3jax.pipeline import training_pipeline

ROOT = Path(__file__).resolve().parents[2]
DEFAULT_MANIFEST = "cache/chunk_manifest.parquet"
# The names of the earlier system, and ours.
FEATURE_TYPES = {"waveform": "int16", "int16": "int16", "float32": "float32", "log_mel": "log_mel", "mel": "log_mel"}
DATASET_KEYS = {"feature_type", "load_tokens", "preset", "dataset", "split", "variant", "seed"}


@dataclass(frozen=True)
class Profile:
    """One profile's settings; `name` is the middle of its variables, such as TOKEN."""

    name: str
    manifest: Path
    mix_values: tuple[int, ...]
    samples: int
    dataset: dict
    log_folder: Path

    def integers(self, variable, default):
        """A list of integers from a variable of this profile."""
        return integers(f"CHUNK_{self.name}_PROFILE_{variable}", default)

    def pipeline(self, max_examples_per_mix, batch_size=1, num_workers=0):
        """A pipeline for one host: mixes across tracks of 1 to so many parts, or the variant asked for."""
        example = ExampleConfig(
            model=PRESETS[self.dataset.get("preset", "mt3")],
            audio=FEATURE_TYPES[self.dataset.get("feature_type", "waveform")],
            load_tokens=self.dataset.get("load_tokens", True),
        )
        split = self.dataset.get("split", "train")
        shares = {"mix": 0.0, "stem": 0.0, "subset": 0.0, "across": 0.0, self.dataset.get("variant", "across"): 1.0}
        manifest = read_manifest(self.manifest)
        names = sorted(set(manifest["dataset"][manifest["split"] == split]))
        choices = tuple(DatasetChoice(name, **shares) for name in names if self.dataset.get("dataset", name) == name)
        data = DataConfig(
            str(self.manifest), datasets=choices, max_examples_per_mix=max_examples_per_mix, num_workers=num_workers
        )
        seed = self.dataset.get("seed", 0)
        return training_pipeline(data, batch_size, example=example, split=split, seed=seed, host=0, num_hosts=1)

    def write_log(self, results):
        """Writes settings, machine and results as JSON; returns the file."""
        self.log_folder.mkdir(parents=True, exist_ok=True)
        manifest = read_manifest(self.manifest)
        log = {
            "profile": self.name.lower(),
            "time": time.strftime("%Y-%m-%dT%H:%M:%S"),
            "manifest": str(self.manifest),
            "chunks": len(manifest),
            "samples": self.samples,
            "dataset": self.dataset,
            "machine": {"cores": os.cpu_count(), "python": platform.python_version(), "numpy": np.__version__},
            "results": [dataclasses.asdict(result) for result in results],
        }
        path = self.log_folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.json"
        path.write_text(json.dumps(log, indent=2) + "\n")
        return path


def read_profile(name, folder, mix_values, samples):
    """The profile's settings; skips the test where there is no manifest, fails it for settings that make no sense."""
    prefix = f"CHUNK_{name}_PROFILE_"
    manifest = ROOT / os.environ.get(prefix + "MANIFEST", DEFAULT_MANIFEST)
    if not manifest.exists():
        pytest.skip(f"needs {manifest}: make it with mt3 prepare, or set {prefix}MANIFEST")
    text = os.environ.get(prefix + "DATASET", "{}")
    try:
        dataset = json.loads(text)
    except ValueError as error:
        pytest.fail(f"{prefix}DATASET is no JSON ({error}): {text}")
    if not isinstance(dataset, dict) or set(dataset) - DATASET_KEYS:
        pytest.fail(f"{prefix}DATASET is {text}; it is an object with keys of {sorted(DATASET_KEYS)}")
    if dataset.get("feature_type", "waveform") not in FEATURE_TYPES:
        pytest.fail(f"{prefix}DATASET has a feature_type that is none of {sorted(FEATURE_TYPES)}")
    return Profile(
        name,
        manifest,
        integers(prefix + "MIX_VALUES", mix_values),
        integers(prefix + "SAMPLES", (samples,))[0],
        dataset,
        ROOT / os.environ.get(prefix + "LOG_DIR", f"test_files/{folder}"),
    )


def integers(variable, default):
    """Integers of at least 0, separated by commas."""
    text = os.environ.get(variable, "")
    if not text:
        return default
    try:
        values = tuple(int(part) for part in text.split(","))
    except ValueError:
        pytest.fail(f"{variable} is {text!r}; give integers with commas between them")
    if min(values) < 0:
        pytest.fail(f"{variable} is {text!r}; give integers of at least 0")
    return values
