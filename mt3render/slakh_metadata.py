"""SLAKH's metadata.yaml. Written by hand: it has two levels and needs no YAML library."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pretty_midi

from mt3core.notes.table import DRUM_PROGRAM
from mt3render.stems import NORMALISED_LUFS, TARGET_PEAK_DB

# SLAKH's names for General MIDI's families of eight programs.
INSTRUMENT_CLASSES = (
    *("Piano", "Chromatic Percussion", "Organ", "Guitar", "Bass", "Strings", "Strings (continued)", "Brass"),
    *("Reed", "Pipe", "Synth Lead", "Synth Pad", "Synth Effects", "Ethnic", "Percussive", "Sound Effects"),
)
SOUND_EFFECTS = range(120, 128)  # SLAKH renders none of them


def slakh_metadata(
    track: str, uuid: str, source: str, overall_gain: float, stems: Mapping[str, Mapping[str, Any]]
) -> str:
    """The text of metadata.yaml with SLAKH's fields in its order. `source` is in the field for SLAKH's MIDI file."""
    fields = {
        "UUID": uuid,
        "audio_dir": f"{track}/stems",
        "lmd_midi_dir": source,
        "midi_dir": f"{track}/MIDI",
        "normalization_factor": NORMALISED_LUFS,
        "normalized": True,
        "overall_gain": overall_gain,
    }
    lines = [f"{key}: {_scalar(value)}" for key, value in fields.items()]
    lines.append("stems:" if stems else "stems: {}")
    for name, values in stems.items():
        lines.append(f"  {name}:")
        lines += [f"    {key}: {_scalar(value)}" for key, value in sorted(values.items())]
    lines.append(f"target_peak: {_scalar(TARGET_PEAK_DB)}")
    return "\n".join(lines) + "\n"


def stem_fields(program: int, is_drum: bool, plugin_name: str = "None", loudness_lufs: float | None = None) -> dict:
    """One stem's fields; without a loudness, those of a stem that was not rendered."""
    is_rendered = loudness_lufs is not None
    fields = {
        "audio_rendered": is_rendered,
        "inst_class": "Drums" if is_drum else INSTRUMENT_CLASSES[program // 8],
        "is_drum": is_drum,
        "midi_program_name": "Drums" if is_drum else pretty_midi.program_to_instrument_name(program),
        "midi_saved": is_rendered,
        "plugin_name": plugin_name,
        "program_num": DRUM_PROGRAM if is_drum else program,
    }
    return fields | ({"integrated_loudness": loudness_lufs} if is_rendered else {})


def _scalar(value: Any) -> str:
    """A YAML scalar. JSON strings are also YAML strings; plain words have no quotes, as in the original."""
    if isinstance(value, str):
        is_plain = value.isascii() and value[:1].isalpha() and value.replace("/", "").replace("_", "").isalnum()
        return value if is_plain else json.dumps(value)
    return json.dumps(value)
