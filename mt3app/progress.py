"""What the user sees during the work: lines and progress bars on standard error, never on standard output."""

from __future__ import annotations

import contextlib
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from mt3core.errors import MT3Error, OutputError

if TYPE_CHECKING:
    from rich.progress import Progress

# Seconds of audio done and of all of it, and what is being worked on.
ShowAudio = Callable[[float, float, str], None]


class Reporter:
    """Writes to standard error. Bars show on a terminal only, and lines are written above them."""

    def __init__(self, quiet: bool = False, verbose: bool = False) -> None:
        self.quiet = quiet
        self.verbose = verbose
        self._bar: Progress | None = None

    def line(self, text: str) -> None:
        """A result worth a line; silent with `--quiet`."""
        if not self.quiet:
            self._write(text)

    def failure(self, text: str) -> None:
        """A line on what went wrong in a run that continues; also with `--quiet`."""
        self._write(text)

    def detail(self, text: str) -> None:
        """Only with `--verbose`."""
        if self.verbose:
            self._write(text)

    def problem(self, error: BaseException) -> None:
        """One sentence and the next step, whatever happened; the traceback only with `--verbose`."""
        if self.verbose:
            self._write("".join(traceback.format_exception(error)).rstrip())
        hint = "" if self.verbose or is_expected(error) else " Run again with --verbose to see where."
        self._write(f"mt3: {describe(error)}{hint}")

    @contextlib.contextmanager
    def audio_bar(self) -> Iterator[ShowAudio]:
        """A bar over seconds of audio, with the time left and the factor of real time since its first call."""
        if not self._shows_bars():
            yield lambda done_seconds, total_seconds, name: None
            return
        started: list[float] = []
        with self._open_bar("{task.fields[factor]}") as bar:
            task = bar.add_task("", total=None, factor="")

            def show(done_seconds: float, total_seconds: float, name: str) -> None:
                started.append(time.perf_counter())
                elapsed = started[-1] - started[0]
                factor = f"{done_seconds / elapsed:.1f}x real time" if elapsed > 1 and done_seconds else ""
                bar.update(task, description=name, completed=done_seconds, total=total_seconds, factor=factor)
                del started[1:]

            yield show

    @contextlib.contextmanager
    def file_bar(self, name: str) -> Iterator[Callable[[int, int], None]]:
        """A bar over files being downloaded; it appears with the first call."""
        if not self._shows_bars():
            yield lambda done, total: None
            return
        with self._open_bar("{task.completed:.0f}/{task.total:.0f} files") as bar:
            task = bar.add_task(name, total=1, visible=False)
            yield lambda done, total: bar.update(task, completed=done, total=total, visible=True)

    def _shows_bars(self) -> bool:
        return not self.quiet and sys.stderr.isatty()

    @contextlib.contextmanager
    def _open_bar(self, last_column: str) -> Iterator[Progress]:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TimeRemainingColumn(),
            TextColumn(last_column, markup=False),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            self._bar = bar
            try:
                yield bar
            finally:
                self._bar = None

    def _write(self, text: str) -> None:
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def writing_stdout() -> Iterator[None]:
    """Around writing results to standard output: a full disk behind it is an `OutputError`."""
    try:
        yield
    except BrokenPipeError:  # nobody reads any more, which is no error of ours
        raise
    except OSError as error:
        raise OutputError(
            f"Cannot write to standard output: {error.strerror or error}.",
            "Free some space, or write to a file with -o.",
        ) from error


def is_expected(error: BaseException) -> bool:
    """Whether the error's sentence says all that a user needs."""
    return isinstance(error, MT3Error | MemoryError | PermissionError)


def describe(error: BaseException) -> str:
    """One sentence for any error; for expected ones, also the next step."""
    if isinstance(error, MT3Error):
        return str(error)
    if isinstance(error, MemoryError):
        return "There is not enough memory. Use a smaller --batch-size or shorter recordings."
    if isinstance(error, PermissionError):  # of a folder, any look at what is in it raises this
        where = f"{os.fsdecode(error.filename)} cannot be opened" if error.filename is not None else "A file is closed"
        return f"{where}: permission denied. Check the permissions of the file and of its folders."
    text = " ".join(str(error).split()).rstrip(".")
    return f"Unexpected {type(error).__name__}{': ' if text else ''}{text}."
