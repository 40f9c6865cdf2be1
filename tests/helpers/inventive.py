"""A transcriber without a network: it writes notes at random, but the same ones for the same sound."""

import zlib

import numpy as np

from mt3core.config.model import MT3
from mt3core.decoding import END_TOKEN, Generated
from mt3core.notes.vocabulary import NUM_SPECIAL_TOKENS, Vocabulary
from mt3decode.transcriber import BaseTranscriber

FIRST = {kind: span[0] + NUM_SPECIAL_TOKENS for kind, span in Vocabulary(MT3.vocabulary).event_ranges.items()}
PITCHES = {0: range(60, 63), 5: range(60, 62)}  # of each program


class Inventive(BaseTranscriber):
    """Writes the same notes for the same sound, at random. Every note is tied until it is ended."""

    def __init__(self):
        super().__init__(MT3, None)
        self.num_decoded = 0

    def generate_stream(self, log_mels, *unused):
        for index, log_mel in enumerate(log_mels):
            self.num_decoded += 1
            random = np.random.default_rng(zlib.crc32(log_mel.tobytes()))
            tokens = self.tokens(random)
            yield index, Generated(tokens, 0.0, np.log(random.uniform(0.2, 1, len(tokens))).astype(np.float32))

    def tokens(self, random):
        tokens = []
        for program, pitches in PITCHES.items():
            tokens += [FIRST["program"] + program, *(FIRST["pitch"] + pitch for pitch in pitches)]
        tokens.append(FIRST["tie"])
        for step in sorted(random.integers(0, 215, 12)):  # also beyond the segment's end
            program = random.choice(list(PITCHES))
            tokens += [FIRST["shift"] + step, FIRST["velocity"] + random.integers(2)]
            tokens += [FIRST["program"] + program, FIRST["pitch"] + random.choice(PITCHES[program])]
        return np.array([*tokens, END_TOKEN], np.int32)
