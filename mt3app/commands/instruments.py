"""`mt3 instruments`: General MIDI's classes and instruments with their numbers, as `--instruments` takes them."""

from __future__ import annotations

import json

from mt3core.notes.instruments import CLASS_NAMES, INSTRUMENT_NAMES, PROGRAMS_PER_CLASS, class_name


def list_instruments(as_json: bool) -> None:
    """Prints a class a paragraph, or a list of objects with program, name and class; the drums come last."""
    if as_json:
        rows = [
            {"program": program, "name": name, "class": class_name(program)}
            for program, name in enumerate(INSTRUMENT_NAMES)
        ]
        print(json.dumps([*rows, {"program": None, "name": "Drums", "class": "Drums"}], indent=1))
        return
    for number, title in enumerate(CLASS_NAMES):
        print(title)
        for program in range(number * PROGRAMS_PER_CLASS, (number + 1) * PROGRAMS_PER_CLASS):
            print(f"  {program:3}  {INSTRUMENT_NAMES[program]}")
    print("Drums")
    print("\nName classes, instruments, words of their names, or numbers: --instruments piano,violin,33,drums")
