"""Sound fonts of one preset and one sample, written chunk by chunk after the SoundFont 2.04 specification."""

import struct
from itertools import starmap

import numpy as np

_END_OF_SAMPLE = bytes(2 * 46)  # the specification wants 46 empty sample points after each sample
_SAMPLE_ID, _KEY_RANGE, _INSTRUMENT, _SAMPLE_MODES = 53, 43, 41, 54


def sound_font(samples, rate_hz, root_key=60, keys=(0, 127), bank=0, preset=0, odd=None, loop=None):
    """The bytes of a sound font that plays int16 samples on some keys.

    `odd` makes the list of samples one byte longer, and `"padded"` or `"unpadded"` ends it as RIFF asks or not.
    `loop` are the first sample point of the loop and the one behind it.
    """
    samples = np.asarray(samples, "<i2")
    begin, end = loop or (0, len(samples))
    data = _chunk(b"smpl", samples.tobytes() + _END_OF_SAMPLE)
    sample_list = _list(b"sdta", data)
    if odd is not None:
        sample_list = _list(b"sdta", data + b"\0") + (b"\0" if odd == "padded" else b"")
    header = struct.pack("<20s5IBbHH", b"sample", 0, len(samples), begin, end, rate_hz, root_key, 0, 0, 1)
    presets = [(b"preset", preset, bank, 0), (b"EOP", 0, 0, 1)]
    key_range = keys[0] | keys[1] << 8
    instrument = [(_KEY_RANGE, key_range), (_SAMPLE_MODES, 1 if loop else 0), (_SAMPLE_ID, 0), (0, 0)]
    tables = {
        b"phdr": b"".join(struct.pack("<20sHHHIII", *one, 0, 0, 0) for one in presets),
        b"pbag": struct.pack("<HHHH", 0, 0, 1, 0),
        b"pmod": bytes(10),
        b"pgen": struct.pack("<HHHH", _INSTRUMENT, 0, 0, 0),
        b"inst": struct.pack("<20sH", b"instrument", 0) + struct.pack("<20sH", b"EOI", 1),
        b"ibag": struct.pack("<HHHH", 0, 0, len(instrument) - 1, 0),
        b"imod": bytes(10),
        b"igen": b"".join(struct.pack("<HH", *one) for one in instrument),
        b"shdr": header + struct.pack("<20s26x", b"EOS"),
    }
    information = _list(b"INFO", _chunk(b"ifil", struct.pack("<HH", 2, 4)) + _chunk(b"INAM", b"test\0\0"))
    body = b"sfbk" + information + sample_list + _list(b"pdta", b"".join(starmap(_chunk, tables.items())))
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _list(kind, data):
    return _chunk(b"LIST", kind + data)


def _chunk(name, data):
    return name + struct.pack("<I", len(data)) + data
