"""YourMT3's instrument classes and drum groups: which programs, and which drum pitches, count as the same.

Facts from YourMT3's `config/vocabulary.py` (the files of the PyPI package `yourmt3` 0.1.4). A class is a name and
the General MIDI programs (0 to 127) in it; a note whose program is in no class is not counted by class at all.
A drum group is a list of pitches; each is counted as the first one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Classes = Mapping[str, Sequence[int]]


def _single_programs(names: str) -> dict[str, Sequence[int]]:
    """One class per program, from a comma-separated list that starts at program 0."""
    return {name.strip(): [program] for program, name in enumerate(names.split(","))}


PIANO: Classes = {"Piano": range(8)}
GUITAR: Classes = {"Guitar": range(24, 32)}
MUSICNET: Classes = {"Piano": range(8), "Strings": range(40, 52), "Winds": range(64, 80)}

# Families of eight, except that strings and ensemble are one; effects and the rest are in none.
GENERAL_MIDI: Classes = {
    "Piano": range(8),
    "Chromatic Percussion": range(8, 16),
    "Organ": range(16, 24),
    "Guitar": range(24, 32),
    "Bass": range(32, 40),
    "Strings": range(40, 56),
    "Brass": range(56, 64),
    "Reed": range(64, 72),
    "Pipe": range(72, 80),
    "Synth Lead": range(80, 88),
    "Synth Pad": range(88, 96),
}
# YourMT3 writes singing as program 100 (melody) and 101 (chorus).
GENERAL_MIDI_AND_SINGING: Classes = {**GENERAL_MIDI, "Singing Voice": [100, 101]}

# Programs 0 to 95 by the names of General MIDI, level 1.
EVERY_PROGRAM: Classes = _single_programs(
    "Acoustic Grand Piano, Bright Acoustic Piano, Electric Grand Piano, Honky-tonk Piano,"
    "Electric Piano 1, Electric Piano 2, Harpsichord, Clavinet,"
    "Celesta, Glockenspiel, Music Box, Vibraphone, Marimba, Xylophone, Tubular Bells, Dulcimer,"
    "Drawbar Organ, Percussive Organ, Rock Organ, Church Organ, Reed Organ, Accordion, Harmonica, Tango Accordion,"
    "Acoustic Guitar (nylon), Acoustic Guitar (steel), Electric Guitar (jazz), Electric Guitar (clean),"
    "Electric Guitar (muted), Overdriven Guitar, Distortion Guitar, Guitar Harmonics,"
    "Acoustic Bass, Electric Bass (finger), Electric Bass (pick), Fretless Bass,"
    "Slap Bass 1, Slap Bass 2, Synth Bass 1, Synth Bass 2,"
    "Violin, Viola, Cello, Contrabass, Tremolo Strings, Pizzicato Strings, Orchestral Harp, Timpani,"
    "String Ensemble 1, String Ensemble 2, Synth Strings 1, Synth Strings 2,"
    "Choir Aahs, Voice Oohs, Synth Choir, Orchestra Hit,"
    "Trumpet, Trombone, Tuba, Muted Trumpet, French Horn, Brass Section, Synth Brass 1, Synth Brass 2,"
    "Soprano Sax, Alto Sax, Tenor Sax, Baritone Sax, Oboe, English Horn, Bassoon, Clarinet,"
    "Piccolo, Flute, Recorder, Pan Flute, Bottle Blow, Shakuhachi, Whistle, Ocarina,"
    "Lead 1 (square), Lead 2 (sawtooth), Lead 3 (calliope), Lead 4 (chiff),"
    "Lead 5 (charang), Lead 6 (voice), Lead 7 (fifths), Lead 8 (bass + lead),"
    "Pad 1 (new age), Pad 2 (warm), Pad 3 (polysynth), Pad 4 (choir),"
    "Pad 5 (bowed), Pad 6 (metallic), Pad 7 (halo), Pad 8 (sweep)"
)

# The instruments of table 3 of the MT3 paper (Gardner et al. 2022).
MT3_TABLE: Classes = {
    "Acoustic Piano": [0, 1, 3, 6, 7],
    "Electric Piano": [2, 4, 5],
    "Chromatic Percussion": range(8, 16),
    "Organ": range(16, 24),
    "Acoustic Guitar": [24, 25],
    "Clean Electric Guitar": [26, 27, 28],
    "Distorted Electric Guitar": [29, 30, 31],
    "Acoustic Bass": [32, 35],
    "Electric Bass": [33, 34, 36, 37, 38, 39],
    "Violin": [40],
    "Viola": [41],
    "Cello": [42],
    "Contrabass": [43],
    "Orchestral Harp": [46],
    "Timpani": [47],
    "String Ensemble": [44, 45, 48, 49],
    "Synth Strings": [50, 51],
    "Choir and Voice": [52, 53, 54],
    "Orchestra Hit": [55],
    "Trumpet": [56, 59],
    "Trombone": [57],
    "Tuba": [58],
    "French Horn": [60],
    "Brass Section": [61, 62, 63],
    "Soprano/Alto Sax": [64, 65],
    "Tenor Sax": [66],
    "Baritone Sax": [67],
    "Oboe": [68],
    "English Horn": [69],
    "Bassoon": [70],
    "Clarinet": [71],
    "Pipe": range(72, 80),
    "Synth Lead": range(80, 88),
    "Synth Pad": range(88, 96),
}

GENERAL_MIDI_DRUMS: Classes = {
    "Kick Drum": [36, 35],
    "Snare X-stick": [37, 2],
    "Snare Drum": [38, 40],
    "Closed Hi-Hat": [42, 44, 22],
    "Open Hi-Hat": [46, 26],
    "Cowbell": [56],
    "High Floor Tom": [43],
    "Low Floor Tom": [41],
    "Low Tom": [45],
    "Low-Mid Tom": [47],
    "Mid Tom": [48],
    "Low Tom (Rim)": [50],
    "Mid Tom (Rim)": [58],
    "Ride": [51],
    "Ride (Bell)": [53],
    "Ride (Edge)": [59],
    "Chinese Cymbal": [52],
    "Crash Cymbal": [49, 57],
    "Splash Cymbal": [55],
}
KICK_SNARE_HIHAT: Classes = {"Kick Drum": [36, 35], "Snare Drum": [38, 40], "Hi-Hat": [42, 44, 46, 22, 26]}
