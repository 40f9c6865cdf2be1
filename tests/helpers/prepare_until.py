"""Prepares a folder in two processes, and stops for ever in the middle of one shard.

    python prepare_until.py DIR OUT MARKER

`MARKER` then holds the number of the process that stopped, for a test that kills the other one.
"""

import os
import sys
import time
from pathlib import Path

from mt3app.cli_data import PrepareOptions
from mt3app.commands.prepare import prepare_dataset
from mt3app.progress import Reporter
from mt3data.prepare import shards

write = shards._ShardWriter.write


def write_and_stop(self, chunk, flac):
    if self.num_records == 2:
        partial = Path(sys.argv[3] + ".partial")
        partial.write_text(str(os.getpid()))
        partial.rename(sys.argv[3])
        time.sleep(600)
    return write(self, chunk, flac)


# The processes of the pool import this file again, so they get it too.
shards._ShardWriter.write = write_and_stop

if __name__ == "__main__":
    prepare_dataset(PrepareOptions("folder", Path(sys.argv[1]), out=Path(sys.argv[2]), processes=2), Reporter())
