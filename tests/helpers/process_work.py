"""Work for other processes, which find a test's functions only outside the test's own module."""

import os
import time

from mt3core.errors import OutputError


def waits(seconds):
    time.sleep(seconds)
    return seconds, os.getpid()


def ends(number):
    if number == 1:
        os._exit(9)
    return number


def refuses(number):
    raise OutputError(f"{number} cannot be written.")


def waits_and_writes(item):
    seconds, path = item
    time.sleep(seconds)
    path.write_text("finished")
