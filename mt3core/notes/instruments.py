"""The names of General MIDI's 128 instruments (General MIDI Level 1, sound set), in pretty_midi's spelling.

The text formats name instruments too, and must not need pretty_midi.
"""

from __future__ import annotations

DRUMS = "Drums"
PITCHED_CHANNELS = 15  # for pitched instruments, of the 16 of a MIDI cable
# Four programs a line, in the order of their numbers.
_NAMES = (
    "Acoustic Grand Piano|Bright Acoustic Piano|Electric Grand Piano|Honky-tonk Piano",
    "Electric Piano 1|Electric Piano 2|Harpsichord|Clavinet",
    "Celesta|Glockenspiel|Music Box|Vibraphone",
    "Marimba|Xylophone|Tubular Bells|Dulcimer",
    "Drawbar Organ|Percussive Organ|Rock Organ|Church Organ",
    "Reed Organ|Accordion|Harmonica|Tango Accordion",
    "Acoustic Guitar (nylon)|Acoustic Guitar (steel)|Electric Guitar (jazz)|Electric Guitar (clean)",
    "Electric Guitar (muted)|Overdriven Guitar|Distortion Guitar|Guitar Harmonics",
    "Acoustic Bass|Electric Bass (finger)|Electric Bass (pick)|Fretless Bass",
    "Slap Bass 1|Slap Bass 2|Synth Bass 1|Synth Bass 2",
    "Violin|Viola|Cello|Contrabass",
    "Tremolo Strings|Pizzicato Strings|Orchestral Harp|Timpani",
    "String Ensemble 1|String Ensemble 2|Synth Strings 1|Synth Strings 2",
    "Choir Aahs|Voice Oohs|Synth Choir|Orchestra Hit",
    "Trumpet|Trombone|Tuba|Muted Trumpet",
    "French Horn|Brass Section|Synth Brass 1|Synth Brass 2",
    "Soprano Sax|Alto Sax|Tenor Sax|Baritone Sax",
    "Oboe|English Horn|Bassoon|Clarinet",
    "Piccolo|Flute|Recorder|Pan Flute",
    "Blown bottle|Shakuhachi|Whistle|Ocarina",
    "Lead 1 (square)|Lead 2 (sawtooth)|Lead 3 (calliope)|Lead 4 chiff",
    "Lead 5 (charang)|Lead 6 (voice)|Lead 7 (fifths)|Lead 8 (bass + lead)",
    "Pad 1 (new age)|Pad 2 (warm)|Pad 3 (polysynth)|Pad 4 (choir)",
    "Pad 5 (bowed)|Pad 6 (metallic)|Pad 7 (halo)|Pad 8 (sweep)",
    "FX 1 (rain)|FX 2 (soundtrack)|FX 3 (crystal)|FX 4 (atmosphere)",
    "FX 5 (brightness)|FX 6 (goblins)|FX 7 (echoes)|FX 8 (sci-fi)",
    "Sitar|Banjo|Shamisen|Koto",
    "Kalimba|Bagpipe|Fiddle|Shanai",
    "Tinkle Bell|Agogo|Steel Drums|Woodblock",
    "Taiko Drum|Melodic Tom|Synth Drum|Reverse Cymbal",
    "Guitar Fret Noise|Breath Noise|Seashore|Bird Tweet",
    "Telephone Ring|Helicopter|Applause|Gunshot",
)
INSTRUMENT_NAMES = tuple(name for line in _NAMES for name in line.split("|"))

PROGRAMS_PER_CLASS = 8
CLASS_NAMES = (
    *("Piano", "Chromatic Percussion", "Organ", "Guitar", "Bass", "Strings", "Ensemble", "Brass"),
    *("Reed", "Pipe", "Synth Lead", "Synth Pad", "Synth Effects", "Ethnic", "Percussive", "Sound Effects"),
)


def class_name(program: int) -> str:
    """The name of the class of a program from 0 to 127."""
    return CLASS_NAMES[program // PROGRAMS_PER_CLASS]


def instrument_name(program: int, is_drum: bool = False) -> str:
    """The name of a program (0 to 127), or "Drums"; "Program 200" for a number that General MIDI does not have."""
    if is_drum:
        return DRUMS
    is_known = isinstance(program, int) and 0 <= program < len(INSTRUMENT_NAMES)
    return INSTRUMENT_NAMES[program] if is_known else f"Program {program}"
