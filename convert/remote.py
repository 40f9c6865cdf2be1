"""Checkpoints at `gs://` and `https://` addresses: downloaded once into the user's cache, file by file.

A file is written only when it is complete and its content has been checked (by gzip's checksum, or its structure), and
gets its name in one step, so a partial file never passes for a complete one. `manifest.json` records size and SHA-256
of every file; later starts verify all of them and download again only what is missing or has changed. If all is in
order, the network is not used. To download a newer version, delete the folder.

Public buckets are read at their https address: no credentials are looked for.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import os
import urllib.parse
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mt3convert.t5x import TREE_FILE, import_tensorstore, unpack_tree, zarr_files
from mt3core.errors import ModelError, listed
from mt3core.files import atomic_output, cache_folder
from mt3core.model.directory import CONFIG_FILE, WEIGHTS_FILE
from mt3core.model.search import PUBLISHED, PUBLISHED_NAME, Progress
from mt3core.model.weights_file import read_header

MANIFEST_FILE = "manifest.json"
OFFLINE_VARIABLE = "MT3_OFFLINE"  # set to anything: never use the network
_FILES_AT_ONCE = 16
_RETRIES = {"max_retries": 4, "initial_delay": "500ms", "max_delay": "4s"}


class _BrokenFile(Exception):
    """A file arrived, but its content is damaged."""


def cache_directory(url: str) -> Path:
    """The folder for the files of an address: below `MT3_CACHE` or the user's cache, by host and path."""
    parts = urllib.parse.urlsplit(_https(url))
    place = [part for part in parts.path.split("/") if part not in ("", ".", "..")]
    return Path(cache_folder(), "checkpoints", parts.netloc.replace(":", "_"), *place)


def fetch(url: str, progress: Progress | None = None) -> Path:
    """The local copy of a remote T5X or model directory, downloaded or repaired if needed.

    If interrupted, it resumes when called again. Raises `ModelError` if the address cannot be
    reached or has no model, if a file arrives damaged twice, or if it would have to be downloaded offline.
    """
    directory = cache_directory(url)
    if os.environ.get(OFFLINE_VARIABLE) and not is_complete(url):
        raise ModelError(
            f"{url} has not been downloaded yet, and {OFFLINE_VARIABLE} is set.",
            f"Unset it, or use a local model with --model (this one would be stored in {directory}).",
        )
    download = _Download(url, directory)
    first = download.first_file()
    if first == TREE_FILE:
        tree = (directory / TREE_FILE).read_bytes()
        needed = zarr_files(tree, f"{url}/{TREE_FILE}")
    else:
        needed = [WEIGHTS_FILE]
    download.fetch_all(needed, progress)
    return directory


def is_complete(url: str) -> bool:
    """Whether an address has been downloaded before and every file still exists, by name and size only."""
    directory = cache_directory(url)
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        manifest = json.loads((directory / MANIFEST_FILE).read_text(encoding="utf-8"))
        sizes = {name: entry["size"] for name, entry in manifest["files"].items()}
        return bool(manifest["complete"]) and all((directory / n).stat().st_size == size for n, size in sizes.items())
    return False


class _Download:
    """One address and its folder, with the content of its manifest."""

    def __init__(self, url: str, directory: Path) -> None:
        self.url, self.directory = url.rstrip("/"), directory
        self.files: dict[str, dict[str, Any]] = {}
        self.complete = False
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            manifest = json.loads((directory / MANIFEST_FILE).read_text(encoding="utf-8"))
            self.files, self.complete = dict(manifest["files"]), bool(manifest["complete"])
        self._store: Any = None  # TensorStore's, opened for the first download

    def first_file(self) -> str:
        """Makes sure that the file which describes the content of the address exists; returns its name."""
        # A T5X directory can have both. If neither is recorded, the tree is requested first.
        recorded = [name for name in (TREE_FILE, CONFIG_FILE) if name in self.files]
        for name in recorded[:1] or (TREE_FILE, CONFIG_FILE):
            if self._is_whole(name):
                return name
            if self._fetch([name], optional=True):
                self._save_manifest()
                return name
        raise ModelError(
            f"There is no checkpoint at {self.url}: neither {TREE_FILE!r} nor {CONFIG_FILE!r} was found.",
            f"Check the address; for the published model it is {PUBLISHED[PUBLISHED_NAME]}.",
        )

    def fetch_all(self, names: list[str], progress: Progress | None) -> None:
        """Downloads missing and changed files, some at a time; the manifest grows with each group."""
        lacking = [name for name in names if not self._is_whole(name)]
        done = len(names) - len(lacking)
        for start in range(0, len(lacking), _FILES_AT_ONCE):
            lot = lacking[start : start + _FILES_AT_ONCE]
            if progress is not None:
                progress(done, len(names))
            self._fetch(lot)
            done += len(lot)
            self._save_manifest()
        # The configuration of a T5X directory written by mt3; Magenta's have none, which is checked only once.
        known_absent = self.complete and CONFIG_FILE not in self.files
        if not known_absent and not self._is_whole(CONFIG_FILE):
            self._fetch([CONFIG_FILE], optional=True)
        if lacking or not is_complete(self.url):
            self.complete = True
            self._save_manifest()
        if progress is not None:
            progress(len(names), len(names))

    def _fetch(self, names: list[str], optional: bool = False) -> bool:
        """Downloads files in parallel; False if one is missing and not required."""
        for attempt in ("first", "second"):
            broken: dict[str, str] = {}
            for name, content in self._read(names):
                if content is None and optional:
                    return False
                if content is None:
                    raise ModelError(
                        f"{self.url}/{name} is missing: the checkpoint there is incomplete.", "Report it to the host."
                    )
                try:
                    self._keep(name, content)
                except _BrokenFile as error:
                    broken[name] = str(error)
            if not broken:
                return True
            names = list(broken)
            if attempt == "second":
                reasons = listed([f"{name} ({reason})" for name, reason in broken.items()])
                raise ModelError(f"Files of {self.url} arrived damaged: {reasons}.", "Try again later.")
        return True

    def _read(self, names: list[str]) -> Iterator[tuple[str, bytes | None]]:
        try:
            if self._store is None:
                tensorstore = import_tensorstore()
                context = tensorstore.Context({"http_request_retries": _RETRIES})
                self._store = tensorstore.KvStore.open(f"{_https(self.url)}/", context=context).result()
            futures = [(name, self._store.read(name)) for name in names]
            for name, future in futures:
                found = future.result()
                yield name, None if found.state == "missing" else found.value
        except (ValueError, OSError) as error:
            raise ModelError(
                f"{self.url} cannot be downloaded: {_reason(error)}.",
                "Check the connection and run the command again to resume; or copy the checkpoint here "
                "and use its folder.",
            ) from error

    def _keep(self, name: str, content: bytes) -> None:
        _check_content(name, content)
        path = self.directory / name
        with atomic_output(path) as temporary:
            temporary.write_bytes(content)
        self.files[name] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}

    def _is_whole(self, name: str) -> bool:
        """Checks against the manifest; a file not yet listed (an interrupted group) is judged by its content."""
        path = self.directory / name
        recorded = self.files.get(name)
        try:
            if recorded is not None and path.stat().st_size != recorded.get("size"):
                return False
            content = path.read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            if recorded is not None and digest != recorded.get("sha256"):
                return False
            # What is recorded was checked when it arrived, but the weights not by earlier releases.
            if recorded is None or name == WEIGHTS_FILE:
                _check_content(name, content)
        except (OSError, _BrokenFile):
            return False
        self.files[name] = {"size": len(content), "sha256": digest}
        return True

    def _save_manifest(self) -> None:
        manifest = {"url": self.url, "complete": self.complete, "files": dict(sorted(self.files.items()))}
        with atomic_output(self.directory / MANIFEST_FILE) as temporary:
            temporary.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")


def _https(url: str) -> str:
    """`gs://bucket/path` as the public address of the same files; others unchanged, without a final slash."""
    url = url.rstrip("/")
    return f"https://storage.googleapis.com/{url.removeprefix('gs://')}" if url.startswith("gs://") else url


def _check_content(name: str, content: bytes) -> None:
    """Raises `_BrokenFile` for content that cannot be right; gzip has a checksum, safetensors a length, JSON and
    msgpack a structure."""
    try:
        if name == TREE_FILE:
            unpack_tree(content, name)
        elif name == WEIGHTS_FILE:
            read_header(io.BytesIO(content), len(content))
        elif name.endswith((".zarray", ".json")):
            json.loads(content)
        elif content[:2] == b"\x1f\x8b":
            gzip.decompress(content)
        elif not content:
            raise ValueError("empty")
    except (ModelError, ValueError, OSError, EOFError, zlib.error) as error:
        raise _BrokenFile(str(error)) from error


def _reason(error: Exception) -> str:
    """The gist of TensorStore's message, which starts with its retries and ends with source positions."""
    message = str(error).splitlines()[0].split(" [")[0]
    return message.split("attempts failed: ")[-1]
