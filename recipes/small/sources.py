"""The sources of the small model's training data: public addresses, versions, digests and licences.

A corpus of music is checked by its contents (`content_sha256`), so any archive with the same files is accepted, however
it was packed; a sound font is checked by the SHA-256 of its file.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """An archive: its address, the files used from it, and its terms."""

    name: str
    title: str
    address: str
    version: str  # a commit or a version
    names: tuple[str, ...]  # patterns of the archive's name in a folder given with --sources
    wanted: str  # searched in the paths within the archive: the files that are used
    content_sha256: str  # of the sorted SHA-256 of the files used, each once; or of a sound font's one file
    licence: str
    attribution: str
    without_programs: tuple[int, ...] = ()  # of a sound font: programs that TinySoundFont plays wrongly


def _github(repository: str, commit: str) -> str:
    return f"https://github.com/{repository}/archive/{commit}.tar.gz"


def _debian(folder: str, package: str) -> str:
    return f"https://deb.debian.org/debian/pool/main/{folder}/{package}"


_GIANTMIDI = "930d535a3882f301f7dd8b4c1389072e04989037"
_POP909 = "d83e6edba6872a704f5d3b8b32f5cb540088dae6"
_FREEDOOM = "d14dbbee3b6fbfb2c11cdb65eb61216e86d4ee85"
_GROOVE = "476adbc938a600eaca26bbb02648e6127b5eca64"
_LIEDER = "bca122458de6da362abe62dd6aec62e25d7759b1"
_QUARTETS = "2c723a5b7b4ea5420826116dfa912956c6a022c2"

MUSIC = (
    Source(
        "giantmidi", "GiantMIDI-Piano (the pieces in the repository)", _github("bytedance/GiantMIDI-Piano", _GIANTMIDI),
        _GIANTMIDI, ("piano_giantmidi*", "GiantMIDI-Piano*", f"{_GIANTMIDI}*"),
        r"(giantmidi-piano/[^/]*|,[^/]*)\.mid$",
        "b51175d6838de5db84b92e3c967142b1ad22492b0e094c38186821534aae6c69",
        "CC BY 4.0", "Qiuqiang Kong and others (ByteDance), GiantMIDI-Piano",
    ),
    Source(
        "pop909", "POP909", _github("music-x-lab/POP909-Dataset", _POP909), _POP909,
        ("pop909*", "POP909-Dataset*", f"{_POP909}*"), r"(^|/)\d{3}\.mid$",
        "37faefe96b2818ab9ac0b6b4b18d7d1c1771eb0be481b0b659d58deb24d85ab1",
        "MIT", "Ziyu Wang and others (Music X Lab), POP909; the songs themselves are commercial pop",
    ),
    Source(
        "freedoom", "Freedoom, musics", _github("freedoom/freedoom", _FREEDOOM), _FREEDOOM,
        ("gm_multitrack_freedoom*", "freedoom*", f"{_FREEDOOM}*"), r"(^|/)musics/[^/]*\.mid$",
        "7b86722759fbe9c96ac0cfcedb58ae1bc12339afb4e9d87b41e497b224e29ff0",
        "BSD 3-Clause", "Contributors to the Freedoom project (CREDITS-MUSIC)",
    ),
    Source(
        "groove", "Groove MIDI Dataset", _github("zharry29/drums-with-llm", _GROOVE), _GROOVE,
        ("groove_drums*", "drums-with-llm*", f"{_GROOVE}*"), r"(^|/)groove/.*\.(mid|csv)$",
        "7ebfdb399ae29d2f62615cfee8483e0992b6397d41811ca6d7c114a9747d74f9",
        "CC BY 4.0", "Jon Gillick and others (Google), Groove MIDI Dataset",
    ),
    Source(
        "lieder", "OpenScore Lieder", _github("OpenScore/Lieder", _LIEDER), _LIEDER,
        ("Lieder*", "OpenScore-Lieder*", f"{_LIEDER}*"), r"\.mxl$",
        "7950ed88d67072436835992bc0b96b08efa5d2615be78d146a04b135aca865fc",
        "CC0", "OpenScore and its transcribers",
    ),
    Source(
        "quartets", "OpenScore String Quartets", _github("OpenScore/StringQuartets", _QUARTETS), _QUARTETS,
        ("StringQuartets*", "OpenScore-StringQuartets*", f"{_QUARTETS}*"), r"\.mxl$",
        "0a80e5879cafc29f6f4c8e58b69192843de489e3b87ae5f34d3c0f99fe2de8f7",
        "CC0", "OpenScore and its transcribers",
    ),
)  # fmt: skip

# Sound fonts that `data.py` uses with the sampled instruments (sample_sources.py) if none is given.
SOUND_FONTS = (
    Source(
        "fluidr3", "FluidR3 GM", _debian("f/fluid-soundfont", "fluid-soundfont-gm_3.1-5.3_all.deb"), "3.1-5.3",
        ("fluid-soundfont-gm_*.deb",), r"FluidR3_GM\.sf2$",
        "74594e8f4250680adf590507a306655a299935343583256f3b722c48a1bc1cb0",
        "MIT", "Frank Wen, Toby Smithe and others",
    ),
    Source(
        "musescore_general", "MuseScore General",
        _debian("m/musescore-general-soundfont", "musescore-general-soundfont-lossless_0.2.1-1_all.deb"), "0.2.1-1",
        ("musescore-general-soundfont-lossless_*.deb",), r"MuseScore_General_Full\.sf2$",
        "59287cbb0f424ec76d1bc269eee40dfe0b02252588d72eb016b5d2382e710a8f",
        "MIT", "S. Christian Collins, Frank Wen and others", without_programs=(0, 1, 3, 5, 39),
    ),
)  # fmt: skip
# Never trained on: validation and test are played with it.
UNSEEN_SOUND_FONTS = (
    Source(
        "timgm6mb", "TimGM6mb", _debian("t/timgm6mb-soundfont", "timgm6mb-soundfont_1.3-5_all.deb"), "1.3-5",
        ("timgm6mb-soundfont_*.deb",), r"TimGM6mb\.sf2$",
        "c5378b62028c920cb11e4803327983fee2f2cdff5dc89c708e39da417e51c854",
        "GPL 2", "Tim Brechbill; used for testing only",
    ),
)  # fmt: skip
