"""Outputs are whole or absent."""

import contextlib
import errno
import os
import shutil
import time
from pathlib import Path

import pytest

from mt3core import files
from mt3core.errors import OutputError
from mt3core.files import (
    atomic_directory,
    atomic_output,
    check_output,
    expanded,
    files_below,
    folder_bytes,
    folders_below,
    remove_at_once,
    size_in_words,
)

pytestmark = pytest.mark.unit


def test_a_file_appears_only_at_the_end(tmp_path):
    path = tmp_path / "deep" / "er" / "out.txt"
    with atomic_output(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.parent.parent == path.parent  # the same file system, so that renaming is one step
        assert temporary.suffix == ".txt"
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_an_existing_file_is_replaced(tmp_path):
    path = tmp_path / "out.txt"
    path.write_text("old")
    with atomic_output(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_is_left_after_a_failure(tmp_path, error):
    path = tmp_path / "out.txt"
    path.write_text("old")

    def write_half():
        with atomic_output(path) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        write_half()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_writer_that_wrote_nothing_is_an_error(tmp_path):
    with pytest.raises(OutputError, match="Cannot write"), atomic_output(tmp_path / "out.txt"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_folder_in_the_place_of_the_file(tmp_path):
    (tmp_path / "out.txt").mkdir()
    with (
        pytest.raises(OutputError, match=r"Cannot write .*out\.txt: it is a folder"),
        atomic_output(tmp_path / "out.txt"),
    ):
        pytest.fail("the block must not run")
    with pytest.raises(OutputError, match=r"Cannot write .*out\.txt: it is a folder"):
        check_output(tmp_path / "out.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["out.txt"]


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    for make in (atomic_output, atomic_directory):
        with (
            pytest.raises(OutputError, match=r"Cannot write .*out: a folder of its path is a file\. Choose another"),
            make(tmp_path / "file" / "out"),
        ):
            pytest.fail("the block must not run")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="Permission denied"), atomic_output(tmp_path / "out.txt"):
        pytest.fail("the block must not run")


def test_long_names_are_no_problem(tmp_path):
    path = tmp_path / ("a" * 250 + ".mid")
    with atomic_output(path) as temporary:
        temporary.write_text("x")
    assert path.read_text() == "x"


def test_a_relative_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with atomic_output("out.txt") as temporary:
        temporary.write_text("x")
    assert (tmp_path / "out.txt").read_text() == "x"


def test_a_directory_appears_only_at_the_end(tmp_path):
    with atomic_directory(tmp_path / "model") as temporary:
        (temporary / "a").write_text("1")
        assert not (tmp_path / "model").exists()
    assert (tmp_path / "model" / "a").read_text() == "1"
    assert list(tmp_path.iterdir()) == [tmp_path / "model"]


def test_a_directory_is_replaced_only_when_asked(tmp_path):
    place = tmp_path / "model"
    place.mkdir()
    with atomic_directory(place) as temporary:  # empty: nothing is lost
        (temporary / "old").write_text("1")
    with pytest.raises(OutputError, match=r"already exists\. .*--overwrite"), atomic_directory(place):
        pytest.fail("the block must not run")
    with atomic_directory(place, overwrite=True) as temporary:
        (temporary / "new").write_text("2")
    assert [path.name for path in place.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [place]


def test_a_file_in_the_place_of_the_directory(tmp_path):
    (tmp_path / "model").write_text("x")
    with pytest.raises(OutputError, match="already exists"), atomic_directory(tmp_path / "model"):
        pytest.fail("the block must not run")


def test_a_directory_stays_when_its_replacement_fails(tmp_path):
    place = tmp_path / "model"
    with atomic_directory(place) as temporary:
        (temporary / "old").write_text("1")

    def write_half():
        with atomic_directory(place, overwrite=True) as temporary:
            (temporary / "new").write_text("2")
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        write_half()
    assert [path.name for path in place.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [place]


def test_a_directory_stays_when_the_last_step_fails(tmp_path):
    place = tmp_path / "model"
    with atomic_directory(place) as temporary:
        (temporary / "old").write_text("1")
    with pytest.raises(OutputError), atomic_directory(place, overwrite=True) as temporary:
        temporary.rmdir()  # so that there is nothing to put in its place
    assert [path.name for path in place.iterdir()] == ["old"]


def test_a_pipe_is_not_replaced_by_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="device or pipe"), atomic_output(tmp_path / "pipe"):
        pytest.fail("the block must not run")
    assert (tmp_path / "pipe").is_fifo()


def _touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def _below(root):
    return [path.relative_to(root).as_posix() for path in files_below(root)]


def test_linked_folders_are_entered_once_each(tmp_path):
    elsewhere = _touch(tmp_path / "elsewhere", "one.mid", "deep/two.mid")
    root = _touch(tmp_path / "root", "z/three.mid", "z/.hidden.mid", ".hidden/four.mid", "five.mid")
    (root / "a").symlink_to(root / "z")  # a real folder keeps its own name
    (root / "b").symlink_to(elsewhere)
    (root / "c").symlink_to(elsewhere)
    (root / "z/deep").symlink_to(elsewhere / "deep")
    (root / "z/lost").symlink_to(root / "nowhere")
    assert _below(root) == ["five.mid", "z/three.mid", "b/one.mid", "b/deep/two.mid"]


def test_links_in_circles_end(tmp_path):
    root = _touch(tmp_path / "root", "x/one.mid")
    _touch(tmp_path, "beside.mid")
    (root / "x/again").symlink_to(root)
    (root / "x/above").symlink_to(tmp_path)  # it would enter everything beside the root
    (root / "x/itself").symlink_to(root / "x")
    (root / "x/loop").symlink_to(root / "x/loop")
    (root / "y").symlink_to(tmp_path / "other")
    _touch(tmp_path / "other", "two.mid")
    (tmp_path / "other/back").symlink_to(root / "x")
    assert _below(root) == ["x/one.mid", "y/two.mid"]


def test_a_link_as_the_root_and_a_linked_file(tmp_path):
    _touch(tmp_path / "real", "one.mid")
    (tmp_path / "real/same.mid").symlink_to(tmp_path / "real/one.mid")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert list(files_below(tmp_path / "link")) == [tmp_path / "link/one.mid", tmp_path / "link/same.mid"]
    assert list(folders_below(tmp_path / "none")) == []


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1 kB"),
        (1234, "1.23 kB"),
        (999_499, "999 kB"),
        (999_999, "1 MB"),
        (12_345_678, "12.3 MB"),
        (500e6, "500 MB"),
        (1.5e9, "1.5 GB"),
        (79.6e9, "79.6 GB"),
        (2.5e15, "2500 TB"),
    ],
)
def test_sizes_mean_something(size, words):
    assert size_in_words(size) == words


def test_bytes_of_files_and_folders(tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "one").write_bytes(bytes(10))
    (tmp_path / "a" / "b" / "two").write_bytes(bytes(200))
    (tmp_path / "a" / "link").symlink_to(tmp_path / "a" / "b" / "two")
    assert folder_bytes(tmp_path / "a" / "one") == 10
    assert folder_bytes(tmp_path / "a") == 210 + (tmp_path / "a" / "link").lstat().st_size
    assert folder_bytes(tmp_path / "nowhere") == 0


# What can be known before, and what only shows while writing


@contextlib.contextmanager
def files_of_at_most(num_bytes):
    """The operating system's own refusal to write more, which comes in the middle of a file as with a full disk."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_fills_up_names_the_file(tmp_path):
    path = tmp_path / "out.bin"
    path.write_bytes(b"before")

    def write():
        with atomic_output(path) as temporary, files_of_at_most(1000):
            temporary.write_bytes(bytes(5000))

    with pytest.raises(OutputError, match=r"Cannot write .*out\.bin: File too large\. Free some space, or choose"):
        write()
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_what_a_disk_answers_in_the_block_is_an_output_error(tmp_path, number):
    for make in (atomic_output, atomic_directory):
        with pytest.raises(OutputError, match=r"Cannot write .*out"), make(tmp_path / "out"):
            raise OSError(number, os.strerror(number))
        assert not list(tmp_path.iterdir())


def test_other_failures_in_the_block_are_those_of_the_block(tmp_path):
    """A missing input is not a problem of the output."""
    with pytest.raises(FileNotFoundError), atomic_output(tmp_path / "out"):
        (tmp_path / "input").read_text()
    with pytest.raises(OutputError, match="Cannot write"), atomic_output(tmp_path / "out") as temporary:
        (temporary / "below").write_text("the folder of the output is not a folder")


def test_a_full_disk_is_seen_before_anything_is_written(tmp_path, monkeypatch):
    check_output(tmp_path / "deep/out.mid")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 100))
    with pytest.raises(
        OutputError, match=r"Cannot write .*out\.mid: No space left on device\. Free some space, or choose another path"
    ):
        check_output(tmp_path / "deep/out.mid")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name", ["a" * 252 + ".mid", "ä" * 126 + ".mid", "new/" + "a" * 300 + "/x.mid", "new/er/" * 700 + "x.mid"]
)
def test_names_that_are_too_long_are_known_before(tmp_path, name):
    for attempt in (check_output, lambda path: atomic_output(path).__enter__()):
        with pytest.raises(OutputError, match=r"Cannot write .*\.mid: File name too long\. Choose a shorter name"):
            attempt(tmp_path / name)
    check_output(tmp_path / "new" / ("a" * 251 + ".mid"))


def test_pipes_and_files_in_the_way_are_known_before(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="device or pipe"):
        check_output(tmp_path / "pipe")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"Cannot write .*x\.mid: .*file is a file\. Choose another path with -o\."):
        check_output(tmp_path / "file/below/x.mid")


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    with atomic_output("~/notes/out.txt") as temporary:
        temporary.write_text("x")
    with atomic_directory("~/model") as temporary:
        (temporary / "a").touch()
    assert sorted(path.name for path in (tmp_path / "home").iterdir()) == ["model", "notes"]
    assert expanded("~") == tmp_path / "home"
    assert expanded("a/~/b") == Path("a/~/b")
    assert expanded("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")
    (tmp_path / "~").mkdir()  # a folder that really has this name
    assert expanded("~/x") == Path("~/x")


def left_by_a_killed_process(folder: Path, name: str, *contents: str, seconds_ago: float = 120.0) -> Path:
    """A temporary folder of a target as a killed process leaves it."""
    left = folder / f".{name}.ab_4efgh"
    left.mkdir()
    for content in contents:
        (left / content).write_text("part")
    os.utime(left, (time.time() - seconds_ago,) * 2)
    return left


needs_locks = pytest.mark.skipif(os.name == "nt", reason="folders cannot be locked there")


@needs_locks
def test_what_a_killed_process_left_is_removed_when_its_target_is_written(tmp_path):
    lefts = [left_by_a_killed_process(tmp_path, "song.mid", "song.mid"), left_by_a_killed_process(tmp_path, "model")]
    (lefts[1] / "old").mkdir()
    os.utime(lefts[1], (0, 0))
    with atomic_output(tmp_path / "song.mid") as temporary:
        temporary.write_text("whole")
        assert lefts[0].exists(), "only when all has gone well"
    assert not lefts[0].exists()
    assert lefts[1].exists(), "it belongs to another target"
    with atomic_directory(tmp_path / "model"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "song.mid"]


@needs_locks
def test_temporary_folders_that_are_young_or_in_use_or_not_ours_stay(tmp_path):
    young = left_by_a_killed_process(tmp_path, "out", "out", seconds_ago=1)
    for name in (".out.settings", ".out.nine_long", ".out.OTHERone"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine").write_text("a person's")
        os.utime(tmp_path / name, (0, 0))
    with atomic_output(tmp_path / "out") as first:
        os.utime(first.parent, (0, 0))
        with atomic_output(tmp_path / "out") as second:
            second.write_text("second")
        first.write_text("first")
    assert (tmp_path / "out").read_text() == "first"
    assert young.exists()
    assert len(list(tmp_path.iterdir())) == 5


@needs_locks
def test_a_failure_removes_nothing_of_others(tmp_path):
    left = left_by_a_killed_process(tmp_path, "out", "out")
    with pytest.raises(KeyError), atomic_output(tmp_path / "out"):
        raise KeyError("x")
    assert left.exists()


@pytest.mark.parametrize(
    ("error", "free"),
    [
        (
            ValueError('RESOURCE_EXHAUSTED: Failed to write 1954 bytes: No space left on device [os_error_code="28"]'),
            1e9,
        ),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 14912 vs 14832"), 0),
    ],
)
def test_a_full_disk_is_known_by_what_native_code_says_or_by_the_disk(tmp_path, monkeypatch, error, free):
    """TensorStore and PyTorch raise neither OSError nor MemoryError."""
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1 << 40, 0, int(free)))
    for writer in (atomic_output, atomic_directory):
        said = r"Cannot write .*out: No space left on device\. Free some space, or "
        with pytest.raises(OutputError, match=said), writer(tmp_path / "out"):
            raise error
    assert list(tmp_path.iterdir()) == []


def test_other_errors_of_native_code_stay_what_they_are(tmp_path):
    with pytest.raises(RuntimeError, match="unexpected pos"), atomic_output(tmp_path / "out"):
        raise RuntimeError("unexpected pos")


def test_a_folder_is_removed_at_once(tmp_path, monkeypatch):
    """Killed half-way, it leaves nothing under the folder's name, and the next output of that name clears the rest."""
    folder = tmp_path / "Track00001"
    (folder / "stems").mkdir(parents=True)
    (folder / "stems" / "S00.flac").write_text("sound")
    (tmp_path / "link").symlink_to(folder)
    remove_at_once(tmp_path / "link")
    assert folder.exists()

    def die(path, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", die)
        with pytest.raises(KeyboardInterrupt):
            remove_at_once(folder)
    assert not folder.exists()
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".Track00001.")
    os.utime(left, (0, 0))
    with atomic_directory(folder) as temporary:
        (temporary / "new").write_text("sound")
    assert [path.name for path in tmp_path.iterdir()] == ["Track00001"]
    remove_at_once(folder)
    (tmp_path / "file").write_text("")
    remove_at_once(tmp_path / "file")
    remove_at_once(tmp_path / "nothing")
    assert list(tmp_path.iterdir()) == []


def test_a_large_folder_is_not_looked_through_for_every_file(tmp_path, monkeypatch):
    looks = []
    monkeypatch.setattr(os, "listdir", lambda path=".", real=os.listdir: looks.append(path) or real(path))
    for number in range(5):
        with atomic_output(tmp_path / f"{number}.txt") as temporary:
            temporary.write_text("few")
    assert looks.count(tmp_path) == 5
    monkeypatch.setattr(files, "_MANY_NAMES", 3)
    for number in range(5):
        with atomic_output(tmp_path / f"{number}.txt") as temporary:
            temporary.write_text("many")
    assert looks.count(tmp_path) == 6
