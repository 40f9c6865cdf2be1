"""The styles: metre, tempo, keys, harmony, and layers of instruments with the textures they may play."""

from __future__ import annotations

from dataclasses import dataclass

from composer import instruments as i
from composer.instruments import ROLES, Instrument


@dataclass(frozen=True)
class Layer:
    """An instrument, or one drawn from several, that plays one of some textures; `low` and `high` narrow its range."""

    textures: tuple[str, ...]
    instruments: tuple[Instrument, ...]
    low: int = 0
    high: int = 127
    chance: float = 1.0  # of playing in a section
    velocity: int = 80


@dataclass(frozen=True)
class Style:
    """One style. Tempi in quarters per minute; `drums` are names of `drums.PATTERNS`; `swing` of 0.5 is straight."""

    name: str
    layers: tuple[Layer, ...]
    tempo: tuple[float, float] = (80.0, 130.0)
    metres: tuple[str, ...] = ("4/4",)
    modes: tuple[str, ...] = ("major", "minor")
    families: tuple[str, ...] = ("pop",)
    vocabularies: tuple[str, ...] = ("triads",)
    drums: tuple[str, ...] = ()
    swing: tuple[float, float] = (0.5, 0.5)
    triplets: float = 0.0  # share of sections that divide beats by three
    shortest_seconds: tuple[float, float] = (0.09, 0.18)  # between two notes of one line
    densest: tuple[float, float] = (10.0, 34.0)  # most notes per second of a piece


_LEAD, _CHORDS, _BASS = ROLES["lead"], ROLES["chords"], ROLES["bass"]
_CLASSICAL = ("classical", "fifths", "pop")
_OLD_MODES = ("major", "harmonic_minor", "minor", "major")
_ALL_MODES = ("major", "minor", "dorian", "mixolydian", "lydian", "phrygian", "harmonic_minor")


def _right(*textures: str, low: int = 58, high: int = 100, velocity: int = 84) -> Layer:
    return Layer(textures, (i.PIANO,), low, high, 1.0, velocity)


def _left(*textures: str, low: int = 30, high: int = 62, velocity: int = 72) -> Layer:
    return Layer(textures, (i.PIANO,), low, high, 1.0, velocity)


def _piano(name: str, right: Layer, left: Layer, *more: Layer, **options: object) -> Style:
    """A style for the piano alone: both hands are one instrument."""
    given = {
        "shortest_seconds": (0.055, 0.13),
        "densest": (8.0, 26.0),
        "modes": _OLD_MODES,
        "families": _CLASSICAL,
        "vocabularies": ("triads", "sevenths"),
        **options,
    }
    return Style(name, (right, left, *more), **given)  # type: ignore[arg-type]


_KEYS = (
    _piano("sonatina", _right("melody", "runs", "thirds"), _left("alberti", "block", low=43, high=68), tempo=(100,
          160)),
    _piano("etude_octaves", _right("octaves", "figuration", low=65), _left("broken_octaves"), tempo=(100, 150)),
    _piano("etude_scales", _right("runs", "parallel_runs", "contrary_runs"), _left("block", "runs", "root_bass"),
           tempo=(90, 150), triplets=0.3),
    _piano("toccata", _right("repeated_chords", "figuration", "repeated_notes"), _left("repeated_chords", "figuration",
           "broken_octaves"), tempo=(100, 150), metres=("4/4", "6/8")),
    _piano("nocturne", _right("melody", "thirds", "octaves"), _left("arpeggio", low=33, high=70), tempo=(56, 96),
           metres=("4/4", "6/8", "3/4"), triplets=0.4, vocabularies=("triads", "sevenths")),
    _piano("invention", _right("voice", "figuration", low=60, high=86), _left("voice", "figuration", low=38, high=65),
           tempo=(66, 110), metres=("4/4", "3/4")),
    _piano("fugue", _right("voice", low=67, high=88), _left("voice", low=36, high=57),
           Layer(("voice",), (i.PIANO,), 57, 76, 0.9), Layer(("voice",), (i.PIANO,), 48, 67, 0.8), tempo=(56, 96)),
    _piano("tremolo_drama", _right("chord_melody", "octaves", "tremolo"), _left("tremolo", "broken_octaves"),
           tempo=(70, 120), modes=("minor", "harmonic_minor", "phrygian")),
    _piano("piano_waltz", _right("melody", "thirds", "octaves", "runs"), _left("stride", low=31, high=67),
           tempo=(120, 190), metres=("3/4",)),
    _piano("ragtime", _right("octaves", "chord_melody", "melody"), _left("stride", low=31, high=66), tempo=(90, 140),
           families=("pop", "fifths"), modes=("major",)),
    _piano("boogie", _right("riff", "chord_melody", "repeated_chords"), _left("driving_bass", "walking_bass", low=28),
           tempo=(130, 190), families=("blues",), vocabularies=("dominants",), modes=("mixolydian",),
           swing=(0.58, 0.67)),
    _piano("arpeggio_prelude", _right("arpeggio", low=50), _left("arpeggio", "root_bass", "pedal_point"),
           tempo=(66, 120), metres=("4/4", "6/8", "3/4"), modes=_ALL_MODES),
    _piano("virtuoso", _right("octaves", "parallel_runs", "chord_melody", "arpeggio", "repeated_notes"),
           _left("arpeggio", "tremolo", "repeated_chords", "octaves"), tempo=(90, 150), triplets=0.3),
    _piano("impressionist", _right("planing", "arpeggio", "bells"), _left("arpeggio", "pad", "pedal_point"),
           tempo=(60, 110), modes=("lydian", "dorian", "mixolydian"), families=("modal",),
           vocabularies=("ninths", "sevenths", "suspended")),
    _piano("chorale", _right("block", low=55, high=79), _left("root_bass", "voice", low=36, high=60), tempo=(60, 100)),
    _piano("minimalist", _right("arpeggio", "riff", "figuration"), _left("arpeggio", "pedal_point", "riff"),
           tempo=(100, 150), metres=("4/4", "6/8", "3/4"), modes=_ALL_MODES, families=("modal", "drone")),
    _piano("piano_ballad", _right("chord_melody", "melody"), _left("arpeggio", "block", "root_bass"), tempo=(60, 100),
           families=("pop",), vocabularies=("triads", "suspended", "sevenths", "ninths")),
    _piano("jazz_piano", _right("melody", "figuration", "chord_melody", "block"), _left("comping", "walking_bass",
           low=36, high=66), tempo=(90, 200), families=("jazz",), vocabularies=("sevenths", "ninths"),
           swing=(0.56, 0.67)),
    Style("baroque_solo", (
        Layer(("figuration", "voice", "runs"), (i.CLAVIER, i.ORGAN, i.ACOUSTIC_GUITAR), 58, 88),
        Layer(("voice", "walking_bass"), (i.CLAVIER, i.ORGAN), 36, 62),
    ), (70, 120), ("4/4", "3/4", "6/8"), _OLD_MODES, _CLASSICAL),
    Style("organ_toccata", (
        Layer(("figuration", "arpeggio", "runs"), (i.ORGAN,), 55, 91), Layer(("pad", "block"), (i.ORGAN,), 43, 72),
        Layer(("pedal_point", "root_bass"), (i.ORGAN,), 36, 55),
    ), (70, 120), ("4/4", "3/4"), _OLD_MODES, _CLASSICAL),
)  # fmt: skip

_ENSEMBLES = (
    Style("string_quartet", (
        Layer(("melody", "voice", "figuration"), (i.VIOLIN,), 60, 93), Layer(("voice", "thirds"), (i.VIOLIN,), 55, 81),
        Layer(("voice", "repeated_notes", "alberti"), (i.VIOLA,), chance=0.9), Layer(("root_bass", "voice"),
          (i.CELLO,)),
    ), (66, 140), ("4/4", "3/4", "6/8"), _OLD_MODES, _CLASSICAL),
    Style("wind_quintet", (
        Layer(("melody", "runs"), (i.FLUTE,)), Layer(("voice", "melody"), (i.OBOE,), chance=0.8),
        Layer(("voice", "arpeggio"), (i.CLARINET,), chance=0.8), Layer(("pad", "voice"), (i.HORN,), 45, 72, 0.8),
        Layer(("root_bass", "voice", "stride"), (i.BASSOON,)),
    ), (70, 140), ("4/4", "3/4", "6/8"), _ALL_MODES, _CLASSICAL),
    Style("brass_choir", (
        Layer(("melody", "voice"), (i.TRUMPET,)), Layer(("voice", "block"), (i.HORN, i.BRASS), 50, 74),
        Layer(("voice", "thirds"), (i.TROMBONE,)), Layer(("root_bass", "walking_bass"), (i.TUBA,)),
    ), (60, 130), ("4/4", "3/4"), _OLD_MODES, _CLASSICAL),
    Style("orchestra", (
        Layer(("melody", "octaves", "runs"), (i.STRINGS, i.VIOLIN), 60, 96), Layer(("pad", "repeated_chords",
              "tremolo"), (i.STRINGS, i.TREMOLO_STRINGS), 48, 79), Layer(("root_bass", "voice"), (i.CELLO,
              i.CONTRABASS)),
        Layer(("melody", "voice"), (i.FLUTE, i.OBOE, i.CLARINET), chance=0.6), Layer(("arpeggio",), (i.HARP,),
          chance=0.4),
        Layer(("pad", "block"), (i.HORN, i.BRASS, i.TROMBONE), chance=0.5), Layer(("bells",), (i.BELLS,), chance=0.3),
        Layer(("timpani",), (i.TIMPANI,), chance=0.5), Layer(("pad",), (i.CHOIR,), chance=0.25),
    ), (60, 140), ("4/4", "3/4", "6/8"), _ALL_MODES, (*_CLASSICAL, "modal"), ("triads", "sevenths"), ("orchestral",)),
    Style("full_orchestra", (
        Layer(("melody", "octaves", "figuration"), (i.VIOLIN, i.STRINGS), 60, 96), Layer(("thirds", "melody"), (i.FLUTE,
              i.PIPES), chance=0.8), Layer(("voice", "melody"), (i.OBOE, i.CLARINET), chance=0.8),
        Layer(("repeated_chords", "tremolo", "pad"), (i.STRINGS, i.TREMOLO_STRINGS), 48, 79), Layer(("pad", "block"),
              (i.HORN, i.TROMBONE), chance=0.8), Layer(("block", "riff"), (i.TRUMPET, i.BRASS), chance=0.6),
        Layer(("root_bass", "walking_bass"), (i.CELLO, i.CONTRABASS)), Layer(("root_bass",), (i.TUBA, i.BASSOON),
              chance=0.7), Layer(("arpeggio",), (i.HARP, i.PIANO), chance=0.5), Layer(("bells", "riff"), (i.BELLS,
              i.MALLETS), chance=0.5), Layer(("timpani",), (i.TIMPANI,), chance=0.6), Layer(("pad",), (i.CHOIR,),
              chance=0.3), Layer(("stride",), (i.PLUCKED_STRINGS,), chance=0.3),
    ), (80, 150), ("4/4", "3/4", "6/8"), _ALL_MODES, (*_CLASSICAL, "modal"), ("triads", "sevenths"),
        ("orchestral", "march", "waltz"), densest=(18.0, 40.0)),
    Style("baroque_trio", (
        Layer(("voice", "melody", "figuration"), (i.FLUTE, i.OBOE, i.VIOLIN)), Layer(("walking_bass", "root_bass"),
              (i.CELLO, i.BASSOON)), Layer(("block", "arpeggio"), (i.CLAVIER, i.ORGAN, i.PLUCKED_STRINGS), 48, 79),
    ), (66, 130), ("4/4", "3/4", "6/8"), _OLD_MODES, _CLASSICAL),
    Style("choir_and_organ", (
        Layer(("melody", "block"), (i.CHOIR,), 55, 79), Layer(("pad", "block"), (i.ORGAN, i.STRINGS)),
        Layer(("root_bass", "pedal_point"), (i.ORGAN, i.CONTRABASS), 36, 55),
    ), (56, 100), ("4/4", "3/4"), _OLD_MODES, (*_CLASSICAL, "modal")),
    Style("guitar_fingers", (
        Layer(("arpeggio", "alberti"), (i.ACOUSTIC_GUITAR,), 50, 76), Layer(("root_bass", "pedal_point"),
              (i.ACOUSTIC_GUITAR,), 40, 55), Layer(("melody", "thirds"), (i.ACOUSTIC_GUITAR,), 60, 84, 0.7),
    ), (70, 130), ("4/4", "3/4", "6/8"), _ALL_MODES, ("pop", "modal", "classical"), ("triads", "suspended")),
    Style("mallets", (
        Layer(("figuration", "arpeggio", "riff"), (i.MALLETS,)), Layer(("riff", "arpeggio"), (i.MALLETS, i.BELLS)),
        Layer(("bells", "tremolo"), (i.BELLS, i.MALLETS), chance=0.6),
    ), (90, 150), ("4/4", "6/8"), _ALL_MODES, ("modal", "drone", "pop")),
    Style("film_score", (
        Layer(("pad",), (i.STRINGS, i.SYNTH_PAD)), Layer(("riff", "repeated_notes"), (i.STRINGS, i.CELLO)),
        Layer(("melody", "bells"), (i.HORN, i.PIANO, i.CHOIR, i.WORLD_LEAD)), Layer(("pedal_point",), (i.CONTRABASS,)),
        Layer(("root_bass",), (i.TUNED_PERCUSSION,), 48, 60, 0.4),
    ), (60, 130), ("4/4", "3/4", "6/8"), ("minor", "dorian", "phrygian", "harmonic_minor"), ("modal", "pop"),
        ("triads", "suspended", "open"), ("orchestral", "afro")),
    Style("world_plucked", (
        Layer(("melody", "figuration"), (i.WORLD_PLUCKED, i.WORLD_LEAD, i.PIPES)), Layer(("strum", "arpeggio"),
              (i.WORLD_PLUCKED, i.KALIMBA)), Layer(("pedal_point",), (i.WORLD_LEAD, i.CONTRABASS)),
    ), (70, 130), ("4/4", "6/8"), ("dorian", "phrygian", "mixolydian", "harmonic_minor"), ("drone", "modal"),
        drums=("afro", "calypso")),
)  # fmt: skip


def _band(
    name: str, tempo: tuple[float, float], drums: tuple[str, ...], bass: Layer, chords: Layer, lead: Layer,
    *more: Layer, **options: object,
) -> Style:  # fmt: skip
    return Style(name, (bass, chords, lead, *more), tempo, drums=drums, **options)  # type: ignore[arg-type]


def _bass(*textures: str, of: tuple[Instrument, ...] = (i.BASS,)) -> Layer:
    return Layer(textures, of, velocity=88)


_SOFT = ("triads", "sevenths", "suspended")
_BANDS = (
    _band("pop_ballad", (60, 96), ("ballad", "pop", "six_eight"), _bass("root_bass"), Layer(("arpeggio", "block"),
          _CHORDS), Layer(("melody",), _LEAD), Layer(("pad",), (i.STRINGS, i.SYNTH_PAD, i.CHOIR), chance=0.6),
          metres=("4/4", "6/8"), vocabularies=_SOFT),
    _band("pop_rock", (90, 140), ("rock", "pop"), _bass("root_bass", "driving_bass"), Layer(("strum", "block"),
          (i.ACOUSTIC_GUITAR, i.ELECTRIC_GUITAR, i.PIANO)), Layer(("melody", "riff"), _LEAD), Layer(("power_riff",
          "pad"),
          (i.ROCK_GUITAR, i.ORGAN), chance=0.5), vocabularies=_SOFT),
    _band("hard_rock", (90, 150), ("rock", "break"), _bass("driving_bass", "root_bass"), Layer(("power_riff",),
          (i.ROCK_GUITAR,)), Layer(("melody", "riff", "figuration"), (i.ROCK_GUITAR,), 55), Layer(("riff",),
          (i.ROCK_GUITAR, i.ORGAN), chance=0.4), modes=("minor", "dorian", "mixolydian"), families=("modal", "pop"),
          vocabularies=("power",)),
    _band("metal", (110, 190), ("metal", "punk"), _bass("driving_bass"), Layer(("power_riff", "repeated_chords"),
          (i.ROCK_GUITAR,), 40, 67), Layer(("figuration", "runs", "riff"), (i.ROCK_GUITAR,), 57), modes=("minor",
          "phrygian", "harmonic_minor"), families=("modal",), vocabularies=("power",)),
    _band("punk", (150, 200), ("punk",), _bass("driving_bass"), Layer(("power_riff", "repeated_chords"),
          (i.ROCK_GUITAR,)), Layer(("melody",), _LEAD, chance=0.7), vocabularies=("power",)),
    _band("funk", (86, 124), ("funk",), _bass("riff", "root_bass"), Layer(("comping", "riff"), (i.ELECTRIC_GUITAR,
          i.CLAVIER, i.ELECTRIC_PIANO)), Layer(("riff", "melody"), (i.SAX, i.BRASS, i.TRUMPET, i.ORGAN)),
          Layer(("comping",
          "block"), (i.BRASS, i.ELECTRIC_PIANO), chance=0.5), modes=("dorian", "mixolydian"), families=("modal",
          "drone"),
          vocabularies=("sevenths", "ninths")),
    _band("disco", (108, 128), ("disco",), _bass("driving_bass", "root_bass"), Layer(("comping", "strum"),
          (i.ELECTRIC_GUITAR, i.ELECTRIC_PIANO)), Layer(("melody", "riff"), (i.STRINGS, i.BRASS, i.SYNTH_LEAD)),
          Layer(("pad", "octaves"), (i.STRINGS,), chance=0.6), modes=("minor", "dorian"), vocabularies=("sevenths",)),
    _band("house", (118, 130), ("house",), _bass("riff", "driving_bass", of=(i.SYNTH_BASS,)), Layer(("comping",
          "block"), (i.PIANO, i.SYNTH_PAD, i.ORGAN)), Layer(("riff", "arpeggio"), (i.SYNTH_LEAD, i.SYNTH_EFFECT)),
          families=("pop", "modal"), modes=("minor", "dorian"), vocabularies=("sevenths", "ninths")),
    _band("electro", (110, 140), ("electro",), _bass("driving_bass", "riff", of=(i.SYNTH_BASS,)), Layer(("pad",
          "repeated_chords"), (i.SYNTH_PAD, i.SYNTH_EFFECT)), Layer(("riff", "arpeggio", "figuration"),
          (i.SYNTH_LEAD,)),
          modes=("minor", "phrygian"), families=("modal", "pop")),
    _band("trance", (128, 142), ("house",), _bass("driving_bass", of=(i.SYNTH_BASS,)), Layer(("pad",), (i.SYNTH_PAD,)),
          Layer(("arpeggio", "figuration"), (i.SYNTH_LEAD,)), Layer(("melody",), (i.SYNTH_LEAD, i.PIANO), chance=0.5)),
    _band("hip_hop", (76, 104), ("hip_hop", "trap"), _bass("root_bass", of=(i.SYNTH_BASS, i.BASS)), Layer(("block",
          "arpeggio"), (i.ELECTRIC_PIANO, i.PIANO, i.STRINGS, i.HARP)), Layer(("riff", "bells"), _LEAD),
          modes=("minor", "dorian"), vocabularies=("sevenths", "ninths"), swing=(0.5, 0.58)),
    _band("drum_and_bass", (160, 176), ("break",), _bass("root_bass", of=(i.SYNTH_BASS,)), Layer(("pad",),
          (i.SYNTH_PAD, i.STRINGS)), Layer(("melody", "arpeggio"), (i.SYNTH_LEAD, i.ELECTRIC_PIANO)), modes=("minor",)),
    _band("synthwave", (80, 120), ("electro", "pop"), _bass("driving_bass", of=(i.SYNTH_BASS,)), Layer(("pad",),
          (i.SYNTH_PAD,)), Layer(("melody", "arpeggio"), (i.SYNTH_LEAD,)), modes=("minor", "dorian")),
    _band("reggae", (66, 92), ("reggae",), _bass("root_bass", "riff"), Layer(("comping",), (i.ORGAN, i.ELECTRIC_GUITAR,
          i.PIANO)), Layer(("melody",), _LEAD), modes=("minor", "major", "dorian")),
    _band("blues", (70, 130), ("shuffle", "six_eight"), _bass("walking_bass", "root_bass"), Layer(("comping", "block"),
          (i.PIANO, i.ORGAN, i.ELECTRIC_GUITAR)), Layer(("melody", "riff", "figuration"), (i.ELECTRIC_GUITAR, i.REEDS,
          i.SAX, i.ROCK_GUITAR)), metres=("4/4", "6/8"), modes=("mixolydian",), families=("blues",),
          vocabularies=("dominants",), swing=(0.6, 0.67), triplets=0.5),
    _band("swing_combo", (110, 220), ("swing",), _bass("walking_bass"), Layer(("comping",), (i.PIANO,
          i.ELECTRIC_GUITAR)), Layer(("melody", "figuration"), (i.SAX, i.TRUMPET, i.CLARINET, i.MALLETS, i.LOW_SAX)),
          families=("jazz",), vocabularies=("sevenths", "ninths"), swing=(0.6, 0.67)),
    _band("big_band", (110, 180), ("swing", "shuffle"), _bass("walking_bass"), Layer(("comping", "block"), (i.BRASS,
          i.TROMBONE)), Layer(("octaves", "thirds", "melody"), (i.SAX, i.TRUMPET)), Layer(("comping",), (i.PIANO,)),
          families=("jazz", "blues"), vocabularies=("sevenths", "ninths"), swing=(0.6, 0.67)),
    _band("bossa", (100, 140), ("bossa",), _bass("root_bass"), Layer(("comping", "strum"), (i.ACOUSTIC_GUITAR,)),
          Layer(("melody",), (i.FLUTE, i.SAX, i.ACOUSTIC_GUITAR, i.PIANO)), families=("jazz",),
          vocabularies=("sevenths", "ninths")),
    _band("samba", (90, 120), ("samba",), _bass("root_bass"), Layer(("strum", "comping"), (i.ACOUSTIC_GUITAR,)),
          Layer(("melody", "thirds"), (i.TRUMPET, i.FLUTE, i.PIPES)), families=("jazz", "pop"),
          vocabularies=("sevenths",)),
    _band("salsa", (90, 120), ("salsa",), _bass("root_bass"), Layer(("montuno",), (i.PIANO,)), Layer(("melody", "riff"),
          (i.TRUMPET, i.BRASS, i.TROMBONE)), families=("modal", "pop"), modes=("minor", "dorian", "mixolydian")),
    _band("calypso", (100, 130), ("calypso",), _bass("root_bass"), Layer(("strum", "comping"), (i.ACOUSTIC_GUITAR,
          i.MALLETS)), Layer(("melody", "thirds", "tremolo"), (i.STEEL_DRUMS,)), modes=("major",)),
    _band("country", (90, 150), ("train", "waltz", "waltz_rock"), _bass("root_bass"), Layer(("strum", "stride"),
          (i.ACOUSTIC_GUITAR,)), Layer(("melody", "thirds", "figuration"), (i.WORLD_LEAD, i.ELECTRIC_GUITAR, i.REEDS,
          i.VIOLIN)), Layer(("arpeggio", "figuration"), (i.WORLD_PLUCKED, i.PIANO), chance=0.6), metres=("4/4", "3/4"),
          modes=("major", "mixolydian")),
    _band("latin_rock", (90, 130), ("latin_rock",), _bass("riff", "root_bass"), Layer(("montuno", "comping"), (i.PIANO,
          i.ORGAN)), Layer(("melody", "figuration"), (i.ROCK_GUITAR, i.ELECTRIC_GUITAR)), modes=("dorian", "minor"),
          families=("modal",)),
    _band("ambient", (60, 90), ("ballad",), Layer(("pedal_point", "pad"), (i.SYNTH_BASS, i.STRINGS), 28, 55),
          Layer(("pad",), (i.SYNTH_PAD, i.CHOIR, i.SYNTH_EFFECT)), Layer(("bells", "melody"), (i.BELLS, i.PIANO,
          i.SYNTH_EFFECT)), modes=_ALL_MODES, families=("modal", "drone"), vocabularies=("ninths", "suspended",
          "open")),
    _band("march", (100, 126), ("march",), _bass("stride", of=(i.TUBA, i.BASSOON)), Layer(("repeated_chords",
          "comping"),
          (i.HORN, i.BRASS, i.TROMBONE)), Layer(("melody", "octaves"), (i.TRUMPET, i.CLARINET, i.FLUTE)),
          Layer(("thirds", "runs"), (i.FLUTE, i.CLARINET), chance=0.6), modes=("major",), families=_CLASSICAL),
    _band("full_band", (80, 140), ("rock", "funk", "disco", "pop", "latin_rock"), _bass("root_bass", "driving_bass",
          "riff", of=(i.BASS, i.SYNTH_BASS)), Layer(("strum", "comping", "block"),
          (i.ACOUSTIC_GUITAR, i.ELECTRIC_GUITAR)),
          Layer(("melody", "thirds"), _LEAD), Layer(("comping", "repeated_chords", "arpeggio"), (i.PIANO,
          i.ELECTRIC_PIANO, i.ORGAN, i.CLAVIER)), Layer(("riff", "voice"), (i.BRASS, i.SAX, i.TRUMPET), chance=0.7),
          Layer(("pad", "octaves"), (i.STRINGS, i.SYNTH_PAD, i.CHOIR), chance=0.7), Layer(("bells", "riff"), (i.BELLS,
          i.MALLETS, i.SYNTH_LEAD), chance=0.5), modes=_ALL_MODES, families=("pop", "modal"),
          vocabularies=("triads", "sevenths", "suspended"), densest=(16.0, 40.0)),
    _band("any_band", (70, 160), ("rock", "pop", "funk", "disco", "waltz", "six_eight", "afro", "bossa"),
          _bass("root_bass", "driving_bass", "walking_bass", "riff", of=_BASS), Layer(("block", "arpeggio", "comping",
          "strum", "repeated_chords", "pad"), _CHORDS), Layer(("melody", "riff", "thirds", "figuration"), _LEAD),
          Layer(("voice", "melody"), _LEAD, chance=0.5), Layer(("pad", "bells", "arpeggio"), _CHORDS, chance=0.5),
          metres=("4/4", "3/4", "6/8"), modes=_ALL_MODES, families=("pop", "jazz", "modal", "fifths"),
          vocabularies=("triads", "sevenths", "ninths", "suspended"), triplets=0.15),
)  # fmt: skip

STYLES: dict[str, Style] = {style.name: style for style in (*_KEYS, *_ENSEMBLES, *_BANDS)}
PIANO_STYLES = tuple(style.name for style in _KEYS if all(layer.instruments == (i.PIANO,) for layer in style.layers))
BAND_STYLES = tuple(name for name in STYLES if name not in PIANO_STYLES)
DRUM_STYLES = tuple(style.name for style in _BANDS)
