"""`mt3 serve`: loads the model, opens the address, and serves the page until it is stopped."""

from __future__ import annotations

import logging
import os
import re
import shutil
import socket
import sys
import tempfile
import webbrowser
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from mt3app.backend import choose_backend, choose_decoding, load_transcriber
from mt3app.formats import formats_of_page
from mt3app.progress import Reporter
from mt3core import extras
from mt3core.errors import UsageError

if TYPE_CHECKING:
    from types import FrameType

    from mt3app.cli_page import ServeOptions
    from mt3serve.jobs import Decoder

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9}
_GOODBYE_SECONDS = 1  # for answers under way
_BACKLOG = 100
AT_ONCE = 3  # recordings
# Segments that a worker decodes at a time; windows that overlap, so many times as many. With as many as are fastest for
# a whole recording, the first notes of `small` take twice as long (docs/page.md).
LANES = 16


def serve(options: ServeOptions, reporter: Reporter) -> int:
    """Serves until interrupted. Raises `MissingExtraError`, `UsageError`, `ModelError`."""
    extras.require("web", "mt3 serve")
    from mt3serve.decoder import TranscriberDecoder

    most_bytes = parse_size(options.max_upload)
    backend = choose_backend(options.backend)
    decoding = choose_decoding(None, None, grammar=True, quality="auto")
    with closing(open_socket(options.host, options.port)) as opened:
        transcriber = load_transcriber(options.model, backend, options.device, decoding, reporter)
        with closing(transcriber):
            network: Any = transcriber
            if backend == "torch" and next(network.model.parameters()).device.type == "cpu":
                network.batch_size = LANES * network.decoding.overlap
            # One engine takes turns between them.
            decoder = TranscriberDecoder(transcriber, at_once=AT_ONCE if backend == "torch" else 1)
            decoder.warm_up()
            _serve(options, decoder, opened, most_bytes, reporter)
    return 0


def _serve(options: ServeOptions, decoder: Decoder, opened: socket.socket, most_bytes: int, reporter: Reporter) -> None:
    import uvicorn

    from mt3serve.app import Settings, build_app
    from mt3serve.jobs import own_folder

    folder = own_folder(Path(tempfile.gettempdir()))
    settings = Settings(options.host, most_bytes, most_decoding_seconds=60 * options.time_limit)
    app = build_app(decoder, formats_of_page(), folder, settings)
    config = uvicorn.Config(
        app,
        log_level=logging.WARNING,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GOODBYE_SECONDS,
    )
    address = _address(options.host, opened.getsockname()[1])
    reporter.line(f"Open {address} in a browser. Ctrl-C stops it.")
    if remark := remark_on_host(options.host):
        reporter.line(remark)
    if options.open:
        webbrowser.open(address)
    server = uvicorn.Server(config)
    leave = server.handle_exit
    asked: list[int] = []  # the signals by which it was asked to end

    def handle_exit(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        if len(asked) > 1:
            _leave(folder, number)
        leave(number, frame)

    server.handle_exit = handle_exit  # type: ignore[assignment, method-assign]
    try:
        server.run(sockets=[opened])
    finally:
        if asked:
            _leave(folder, asked[0])
        shutil.rmtree(folder, ignore_errors=True)


def _leave(folder: Path, number: int) -> NoReturn:
    """Ends the process without Python's tidying up.

    That takes seconds after decoding, on a busy machine half a minute, and crashes if a thread is in the network still.
    """
    shutil.rmtree(folder, ignore_errors=True)
    print("mt3: Interrupted.", file=sys.stderr, flush=True)
    os._exit(128 + number)  # as shells report it


def open_socket(host: str, port: int) -> socket.socket:
    """A socket that is bound. Raises `UsageError` if the port is taken or the host is none of this machine."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((host, port))
        opened.listen(_BACKLOG)
    except socket.gaierror as error:
        opened.close()
        raise UsageError(
            f"--host {host} is not known: {error.strerror or error}.", "Use 127.0.0.1, or 0.0.0.0 for all who reach it."
        ) from error
    except OSError as error:
        opened.close()
        raise UsageError(
            f"{host}:{port} cannot be opened: {error.strerror or error}.",
            "Choose another --port; 0 takes any that is free.",
        ) from error
    return opened


def parse_size(text: str) -> int:
    """Bytes of "1 GB", "500MB" or "1000000". Raises `UsageError`."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]?B?)\s*", text.upper())
    unit = "" if found is None else found[2] + ("B" if found[2] in ("K", "M", "G") else "")
    number = 0 if found is None else round(float(found[1]) * _UNITS[unit])
    if number < 1:
        raise UsageError(f"--max-upload {text} is not a size.", "Use a number with a unit, such as 500 MB or 1 GB.")
    return number


def remark_on_host(host: str) -> str:
    """What it means to be reachable from elsewhere; empty for this machine only."""
    from mt3serve.guard import is_loopback

    if is_loopback(host):
        return ""
    return (
        f"With --host {host}, everybody who reaches this machine can send recordings and use its processors. There is "
        "no password, and nothing is encrypted. Use it in a network that you trust, or behind a proxy with a login."
    )


def _address(host: str, port: int) -> str:
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1"
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
