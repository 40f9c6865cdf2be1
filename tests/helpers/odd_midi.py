"""MIDI files with one oddity each, written byte by byte: their notes and what is remarked on.

All have the four piano notes of `shared/hard_inputs/midi/00_plain.mid`, unless their entry says otherwise.
"""

import struct
from dataclasses import dataclass

TICKS = 480  # per quarter; at 120 quarters a minute a note is a quarter of 0.5 s
END = b"\x00\xff\x2f\x00"
TEMPO = b"\x00\xff\x51\x03\x07\xa1\x20"
PITCHES = (60, 64, 67, 72)
PLAIN_SPANS = ((0.25, 0.75, 60), (0.75, 1.25, 64), (1.25, 1.75, 67), (1.75, 2.25, 72))
NOTES = b"\x81\x70" + b"\x00".join(b"\x90%c\x5a\x83\x60\x80%c\x00" % (pitch, pitch) for pitch in PITCHES)


@dataclass(frozen=True)
class Odd:
    """A file, the (onset, offset, pitch) of its notes, and a part of what is remarked on; empty: nothing is."""

    data: bytes
    remark: str = ""
    spans: tuple[tuple[float, float, int], ...] = PLAIN_SPANS


def header(tracks=2, kind=1, division=TICKS):
    return b"MThd" + struct.pack(">IHHH", 6, kind, tracks, division)


def track(events, length=None):
    return b"MTrk" + struct.pack(">I", len(events) if length is None else length) + events


def riff(content, length=None):
    """An RMID file, with a chunk of information of odd length in front."""
    chunks = b"INFO" + struct.pack("<I", 3) + b"abc\0"
    chunks += b"data" + struct.pack("<I", len(content) if length is None else length) + content
    return b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"RMID" + chunks


def _resolution(ticks):
    """Four notes and a fifth at 160 s and later, at another number of ticks per quarter."""

    def number(value):
        digits = [value & 0x7F]
        while value := value >> 7:
            digits.insert(0, 0x80 | value & 0x7F)
        return bytes(digits)

    events, wait = b"", ticks // 2
    for pitch in (*PITCHES, 60):
        wait += 320 * ticks if events.count(b"\x90") == len(PITCHES) else 0
        events += number(wait) + b"\x90%c\x5a" % pitch + number(ticks) + b"\x80%c\x00" % pitch
        wait = 0
    half = ticks // 2 / ticks / 2
    spans = [(half + place / 2, half + place / 2 + 0.5, pitch) for place, pitch in enumerate(PITCHES)]
    spans.append((half + 2 + 160, half + 2 + 160.5, 60))
    return Odd(header(division=ticks) + track(TEMPO + END) + track(events + END), spans=tuple(spans))


CONDUCTOR, MUSIC = track(TEMPO + END), track(NOTES + END)
PLAIN = header() + CONDUCTOR + MUSIC
_LENGTH = len(NOTES + END)


def _with_event(event):
    return header() + track(TEMPO + event + END) + MUSIC


def _with_notes(events):
    return header() + CONDUCTOR + track(events)


_LOUD = NOTES.replace(b"\x90\x43\x5a", b"\x90\x43\xc8")
_RUNNING = NOTES.replace(b"\x83\x60\x80\x40\x00", b"\x83\x60\x40\x00").replace(  # 64 ends by the status before
    b"\x00\x90\x40\x5a", b"\x00\x90\x40\x5a\x00\xff\x01\x01a"
)

ODD = {
    "plain": Odd(PLAIN),
    # The header.
    "header_counts_too_few": Odd(header(1) + CONDUCTOR + MUSIC, "its header counts 1 track, it has 2; all are read"),
    "header_counts_none": Odd(header(0) + CONDUCTOR + MUSIC, "its header counts 0 tracks, it has 2; all are read"),
    "header_counts_too_many": Odd(
        header(5) + CONDUCTOR + MUSIC, "its header counts 5 tracks, it has 2; perhaps its end is missing"
    ),
    "type_0_of_two_tracks": Odd(header(kind=0) + CONDUCTOR + MUSIC, "of type 0, but it has 2 tracks; all are read"),
    "type_2": Odd(header(kind=2) + CONDUCTOR + MUSIC, "of type 2, whose tracks are separate patterns"),
    "type_2_of_one_track": Odd(header(1, kind=2) + track(TEMPO + NOTES + END)),
    "type_7": Odd(header(kind=7) + CONDUCTOR + MUSIC, "of type 7, but it has 2 tracks"),
    "longer_header": Odd(PLAIN[:7] + b"\x08" + PLAIN[8:14] + b"\0\0" + PLAIN[14:]),
    "header_of_no_length": Odd(PLAIN[:4] + bytes(4) + PLAIN[8:], "its header says that it has 0 bytes instead of 6"),
    "header_of_any_length": Odd(
        PLAIN[:4] + b"\0\0\1\0" + PLAIN[8:], "its header says that it has 256 bytes instead of 6"
    ),
    # What is around it.
    "riff": Odd(riff(PLAIN)),
    "riff_of_no_length": Odd(riff(PLAIN, 0), "its RIFF chunk says that it has 0 bytes"),
    "riff_too_long": Odd(riff(PLAIN, 1000), f"its RIFF chunk says that it has 1000 bytes; {len(PLAIN)} are there"),
    "mac_binary": Odd(b"\0\x08song.mid" + bytes(118) + PLAIN + bytes(46), "128 bytes before its header"),
    "byte_order_mark": Odd(b"\xff\xfe" + PLAIN, "2 bytes before its header are passed over"),
    "utf_16": Odd(b"\xff\xfe" + PLAIN.decode("latin-1").encode("utf-16-le"), "saved as UTF-16 text"),
    "utf_16_big": Odd(PLAIN.decode("latin-1").encode("utf-16-be"), "saved as UTF-16 text"),
    "bytes_after_the_end": Odd(PLAIN + b"something\r\n", "11 bytes that belong to no track are passed over"),
    "zeros_after_the_end": Odd(PLAIN + bytes(100)),
    "another_file_after_it": Odd(PLAIN + PLAIN, f"another MIDI file begins {len(PLAIN)} bytes before its end"),
    # Chunks.
    "foreign_chunk": Odd(
        header() + CONDUCTOR + b"XFIH\0\0\0\x04abcd" + MUSIC, "1 chunk of another kind (XFIH) passed over"
    ),
    "foreign_chunks_around": Odd(
        header() + b"XFIH\0\0\0\0" + CONDUCTOR + MUSIC + b"XFKM\0\0\0\1a", "2 chunks of another kind (XFIH, XFKM)"
    ),
    "junk_between_tracks": Odd(
        header(1) + CONDUCTOR + b"\x01\x02\x03" + MUSIC, "3 bytes that belong to no track are passed over"
    ),
    "track_without_its_letters": Odd(
        header() + CONDUCTOR + b"\0\0\0\0" + MUSIC[4:], "track 2 does not begin like one; its events are read"
    ),
    "track_with_other_letters": Odd(
        header() + CONDUCTOR + b"MTsk" + MUSIC[4:], "track 2 does not begin like one; its events are read"
    ),
    "track_without_header": Odd(header() + CONDUCTOR + NOTES + END, "track 2 does not begin like one"),
    # Tracks.
    "track_length_too_long": Odd(
        header() + CONDUCTOR + track(NOTES + END, _LENGTH + 7),
        f"track 2 says that it has {_LENGTH + 7} bytes; it has {_LENGTH}",
    ),
    "track_length_over_the_next": Odd(header() + track(TEMPO + END, 1000) + MUSIC, "track 1 says that it has 1000"),
    "track_length_of_both": Odd(
        header() + track(TEMPO + END, len(TEMPO + END) + len(MUSIC)) + MUSIC, "track 1 says that it has"
    ),
    "track_length_too_short": Odd(
        header() + CONDUCTOR + track(NOTES + END, 20), f"track 2 says that it has 20 bytes; it has {_LENGTH}"
    ),
    "track_lengths_too_short": Odd(
        header() + track(TEMPO + END, 3) + track(NOTES + END, 20), "track 1 says that it has 3 bytes; it has 11 (1 more"
    ),
    "track_length_0": Odd(header() + CONDUCTOR + track(NOTES + END, 0), "track 2 says that it has 0 bytes"),
    "track_never_finished": Odd(
        header() + CONDUCTOR + track(NOTES, 0), "the length of track 2 was never written, and it has no end"
    ),
    "no_end_of_track": Odd(header() + CONDUCTOR + track(NOTES), "track 2 has no end-of-track event"),
    "no_end_of_first_track": Odd(header() + track(TEMPO) + MUSIC, "track 1 has no end-of-track event"),
    "empty_track": Odd(header(3) + CONDUCTOR + track(b"") + MUSIC),
    "last_event_incomplete": Odd(
        header() + CONDUCTOR + track(NOTES + b"\x00\x90\x4c"), "track 2 ends within an event; what comes before is used"
    ),
    "more_after_end_of_track": Odd(
        _with_notes(NOTES[:19] + END + NOTES[19:] + END), "track 2 has events after its end-of-track event"
    ),
    "junk_after_end_of_track": Odd(
        _with_notes(NOTES + END + b"\xfe\xca\xfe\xca"), "4 bytes after the end-of-track event of track 2"
    ),
    "zeros_after_end_of_track": Odd(_with_notes(NOTES + END + bytes(5))),
    # Events.
    "key_18_flats": Odd(_with_event(b"\x00\xff\x59\x02\xee\x01"), "1 key signature makes no sense"),
    "key_mode_255": Odd(_with_event(b"\x00\xff\x59\x02\xfe\xff" * 2), "2 key signatures make no sense"),
    "key_7_flats": Odd(_with_event(b"\x00\xff\x59\x02\xf9\x01")),
    "time_0_quarters": Odd(_with_event(b"\x00\xff\x58\x04\x00\x02\x18\x08"), "1 time signature makes no sense"),
    "time_too_short": Odd(_with_event(b"\x00\xff\x58\x01\x04"), "1 time signature makes no sense"),
    "time_12_8": Odd(_with_event(b"\x00\xff\x58\x04\x0c\x03\x24\x08")),
    "tempo_0": Odd(_with_event(b"\x00\xff\x51\x03\x00\x00\x00"), "1 tempo of no length is passed over"),
    "tempo_of_two_bytes": Odd(_with_event(b"\x00\xff\x51\x02\x07\xa1"), "1 tempo of no length is passed over"),
    "velocity_200": Odd(_with_notes(_LOUD + END), "1 value over 127 is read as 127"),
    "pitch_200": Odd(
        _with_notes(NOTES + b"\x00\x90\xc8\x40\x83\x60\x80\xc8\x00" + END),
        "2 values over 127 are read as 127",
        (*PLAIN_SPANS, (2.25, 2.75, 127)),
    ),
    "program_and_control_200": Odd(
        _with_notes(b"\x00\xc1\xc8\x00\xb1\x07\xc8" + NOTES + END), "2 values over 127 are read as 127"
    ),
    "never_released": Odd(
        _with_notes(NOTES + b"\x00\x90\x4c\x50\x83\x60\xff\x01\x03end" + END),
        "1 note is never released; it is left out",
    ),
    "running_status_after_meta": Odd(_with_notes(_RUNNING + END), "1 event after a meta event has no status"),
    "sysex": Odd(_with_notes(b"\x00\xf0\x05\x7e\x7f\x09\x01\xf7" + NOTES + END)),
    "sysex_in_two_parts": Odd(_with_notes(b"\x00\xf0\x02\x7e\x7f\x00\xf7\x03\x09\x01\xf7" + NOTES + END)),
    "sysex_not_ended": Odd(
        _with_notes(b"\x00\xf0\x04\x7e\x7f\x09\x01" + NOTES + END), "1 system exclusive message has no end"
    ),
    "sysex_without_length": Odd(
        _with_notes(b"\x00\xf0\x7e\x7f\x09\x01\xf7" + NOTES + END), "1 system exclusive message has no end"
    ),
    "real_time_message": Odd(_with_notes(b"\x00\xf8" + NOTES + END)),
    # Time.
    "32767_ticks": _resolution(32_767),
    "1_tick": Odd(
        header(division=1) + CONDUCTOR + track(b"\x01\x90\x3c\x5a\x01\x80\x3c\x00" + END), spans=((0.5, 1.0, 60),)
    ),
    "twenty_million_ticks": Odd(
        header(division=32_767) + CONDUCTOR + track(b"\x89\xc4\xda\x00\x90\x3c\x5a\x81\xff\x7f\x80\x3c\x00" + END),
        spans=((20_000_000 / 65_534, 20_000_000 / 65_534 + 0.5, 60),),
    ),
    "film_frames": Odd(  # 25 frames of 40 ticks: a millisecond each, whatever the tempo
        header(division=(256 - 25) << 8 | 40) + CONDUCTOR + MUSIC,
        spans=tuple((0.24 + 0.48 * place, 0.72 + 0.48 * place, pitch) for place, pitch in enumerate(PITCHES)),
    ),
}

# Files that cannot be read, and why.
REFUSED = {
    "empty": (b"", "it is empty"),
    "zeros": (bytes(200), "it has no MIDI header"),
    "web_page": (b"<!DOCTYPE html><html>404 Not Found</html>", "it is a web page or XML"),
    "recording": (b"RIFF\x24\0\0\0WAVEfmt " + bytes(100), "it is a WAV recording"),
    "mp3": (b"ID3\x03" + bytes(100), "it is an MP3 recording"),
    "header_only": (header(), "it has no tracks"),
    "no_tracks": (header(0), "it has no tracks"),
    "half_a_header": (PLAIN[:10], "it ends within its header"),
    "no_ticks": (PLAIN[:12] + b"\0\0" + PLAIN[14:], "its header says 0 ticks per quarter note"),
    "no_ticks_per_frame": (PLAIN[:12] + b"\xe7\0" + PLAIN[14:], "its header says 0 ticks per film frame"),
    "film_frames_at_32": (PLAIN[:12] + b"\xe0\x28" + PLAIN[14:], "film frames at 32 per second"),
    "cut_in_a_track": (PLAIN[:-9], "it is cut short within track 2"),
    "cut_before_a_track": (PLAIN[: -len(MUSIC) + 3], "it has 1 of 2 tracks and ends within the next"),
    "riff_cut": (riff(PLAIN)[:-9], "it is cut short within track 2"),
    "no_events": (header(1) + track(b"\x00\x01\x02\x03" + END), "track 1 has data outside any event"),
    "days": (_with_notes(b"\xff\xff\xff\x7f\x90\x3c\x5a\x01\x80\x3c\0" + END), "which is more than a day"),
    "time_of_six_bytes": (_with_notes(b"\xff\xff\xff\xff\xff\x7f" + NOTES + END), "track 2 has a time out of range"),
}
