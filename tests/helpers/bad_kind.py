"""A kind of file for the campaign whose reader does everything that a reader must not do."""

import os
import signal

from reliability.kinds import Case, Kind, Reading, Source
from reliability.mutations import Mutated

from mt3core.errors import MT3Error

HABITS = (
    *("accepts", "accepts", "refuses", "refuses", "raises", "says two lines", "writes to the terminal"),
    *("needs memory", "computes for ever", "dies", "takes a part for the whole"),
)


class Bad(Kind):
    name = "bad"
    command_every = 0
    most_megabytes = 100.0

    @classmethod
    def build(cls, folder):
        (folder / "file").write_bytes(b"whole")

    def open(self):
        self.sources = [Source("file", (self.folder / "file").read_bytes(), states_end=True)]

    def case(self, rng):
        habit = HABITS[int(rng.integers(0, len(HABITS)))]
        kind = "truncation" if "part" in habit else "noise"
        return Case(self.sources[0], Mutated(habit.encode(), habit, kind, 0, "part" in habit))

    def read(self, source, data):
        habit = data.decode()
        if habit == "refuses":
            raise MT3Error("The file is damaged.", "Use another.")
        if habit == "raises":
            raise KeyError(habit)
        if habit == "says two lines":
            raise MT3Error("The file\nis damaged.", "Use another.")
        if habit == "writes to the terminal":
            os.write(2, b"libbad: warning 17\n")
        if habit == "needs memory":
            return Reading(len(bytearray(os.urandom(1000)) * 200_000), "")
        if habit == "computes for ever":
            while True:
                pass
        if habit == "dies":
            os.kill(os.getpid(), signal.SIGABRT)
        return Reading(2 if "part" in habit else 5, "")
