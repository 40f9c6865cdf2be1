"""Receiving a recording: its size is known or counted, and it is stored under a name of our own."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import unicodedata
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

_BLOCK_BYTES = 1 << 20
_MOST_NAME = 120
_KEPT_FREE_BYTES = 200_000_000  # of the disk
_LONGEST_PAUSE_SECONDS = 60


def megabytes(number: int) -> str:
    """A size in words: "1 GB", "250 MB"."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number / 1e3:.3g} kB"


def display_name(given: str) -> str:
    """A name that only people read: the last part of a path, in one line, without signs that turn text around."""
    last = re.split(r"[/\\]", given)[-1]
    plain = "".join(sign if unicodedata.category(sign)[0] != "C" else " " for sign in last)
    return " ".join(plain.split())[:_MOST_NAME] or "recording"


def check_size(request: Request, most_bytes: int) -> None:
    """Refuses a recording by what its header says, before any of it is read."""
    text = request.headers.get("content-length")
    if text is not None and not text.isdecimal():
        raise HTTPException(400, "The length of the recording is not a number.")
    if text is not None and int(text) > most_bytes:
        raise _too_large(most_bytes)


async def receive(request: Request, path: Path, most_bytes: int, most_seconds: float) -> None:
    """Writes the body to a file. Raises `HTTPException` if it is too large, too slow, empty or broken off."""
    check_size(request, most_bytes)
    try:
        async with asyncio.timeout(most_seconds):
            total = await _store(request, path, most_bytes)
    except TimeoutError as error:
        raise HTTPException(408, "The recording came too slowly. Try again, or a shorter one.") from error
    except ClientDisconnect as error:
        raise HTTPException(400, "The recording was broken off.") from error
    except OSError as error:
        raise HTTPException(507, f"The recording cannot be stored: {os.strerror(error.errno or 0)}.") from error
    if not total:
        raise HTTPException(400, "The recording is empty.")


async def _store(request: Request, path: Path, most_bytes: int) -> int:
    total, block = 0, bytearray()
    chunks = request.stream()
    with path.open("wb") as file:
        while True:
            async with asyncio.timeout(_LONGEST_PAUSE_SECONDS):
                chunk = await anext(chunks, None)
            if chunk:
                total += len(chunk)
                if total > most_bytes:
                    raise _too_large(most_bytes)
                block += chunk
            if block and (chunk is None or len(block) >= _BLOCK_BYTES):
                await run_in_threadpool(_append, file, bytes(block), path)
                block.clear()
            if chunk is None:
                return total


def _append(file, block: bytes, path: Path) -> None:
    if shutil.disk_usage(path.parent).free < _KEPT_FREE_BYTES + len(block):
        raise HTTPException(507, "The disk of the server is full. Remove some files, or use a shorter recording.")
    file.write(block)


def _too_large(most_bytes: int) -> HTTPException:
    return HTTPException(
        413, f"The recording is larger than {megabytes(most_bytes)}. Use a shorter or compressed one, or --max-upload."
    )
