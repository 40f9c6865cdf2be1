"""The kinds by name. Their modules are imported by the processes that need them."""

from __future__ import annotations

import importlib

from reliability.kinds import Kind

KINDS = {
    "audio": "recordings in every format that can be written here",
    "midi": "MIDI files",
    "notes": "transcriptions and other files of notes, and the JSON that we write and read",
    "weights": "model directories, files of PyTorch ports, T5X and Orbax checkpoints",
    "checkpoints": "checkpoints of a training run",
    "manifests": "Parquet manifests of prepared data",
    "shards": "ArrayRecord shards",
    "tokens": "random tokens through the decoder of notes",
    "kills": "kill -9 at a random moment of transcribe, prepare, render, convert and train",
    "disks": "full disks under the same commands",
    "places": "read-only places, and names that are not what they should be",
}
# Kinds with the sources of another one, which are made once.
SOURCES_OF = {"shards": "manifests", "disks": "kills", "places": "kills"}
_PLACES = {
    "audio": "reliability.audio:Audio",
    "midi": "reliability.midi:Midi",
    "notes": "reliability.texts:Notes",
    "weights": "reliability.weights:Weights",
    "checkpoints": "reliability.checkpoints:TrainingCheckpoints",
    "manifests": "reliability.prepared:Manifests",
    "shards": "reliability.prepared:Shards",
    "tokens": "reliability.tokens:Tokens",
    "kills": "reliability.interruptions:Kills",
    "disks": "reliability.interruptions:Disks",
    "places": "reliability.interruptions:Places",
}


def kind_of(name: str) -> type[Kind]:
    """The class of a kind, by its name or as `module:Class`."""
    module, _, attribute = _PLACES.get(name, name).partition(":")
    return getattr(importlib.import_module(module), attribute)
