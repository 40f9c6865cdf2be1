"""The addresses of the server. Every answer of `/api` is JSON, a file, or one sentence with the next step."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from mt3core.errors import MT3Error
from mt3core.notes.instrument_choice import choose_instruments
from mt3core.notes.instruments import CLASS_NAMES
from mt3core.notes.table import Note
from mt3core.transcription import Transcription
from mt3page.assembly import ROLL_SCRIPTS, asset, embedded_json, escaped, filled, general_midi_names
from mt3page.piece_page import PIECE_SCRIPTS, PIECE_STYLES, tempo_of
from mt3serve import sounds
from mt3serve.arranging import Arrangement
from mt3serve.guard import Guard
from mt3serve.jobs import DONE, Decoder, Job, Queue, transcription_of
from mt3serve.uploads import check_size, display_name, megabytes, receive

SCRIPTS = (*PIECE_SCRIPTS, "server_queue.js", "server.js")
assert set(ROLL_SCRIPTS) <= set(SCRIPTS)
STYLES = (*PIECE_STYLES, "serve.css")
_CLEANING_SECONDS = 30
_MOST_UPLOAD_SECONDS = 1800
_MOST_ASKED = 200  # jobs in one request


class ResultFormat(Protocol):
    """A form in which a result is written; those of `mt3app/formats.py` are."""

    @property
    def name(self) -> str: ...
    @property
    def media_type(self) -> str: ...
    @property
    def label(self) -> str: ...
    @property
    def about(self) -> str: ...
    @property
    def write(self) -> Callable[[Transcription, Path | None], bytes]: ...


@dataclass(frozen=True)
class Settings:
    """How the server is set. `host` is what it is bound to."""

    host: str = "127.0.0.1"
    most_upload_bytes: int = 1_000_000_000
    most_waiting: int = 50
    keep_seconds: float = 3600.0
    most_decoding_seconds: float = 3600.0


def build_app(decoder: Decoder, formats: Mapping[str, ResultFormat], folder: Path, settings: Settings) -> Starlette:
    """The application. It keeps its files in `folder`, and removes them when it ends."""
    queue = Queue(decoder, folder, settings.keep_seconds, settings.most_decoding_seconds)
    server = _Server(queue, formats, settings)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        cleaning = asyncio.create_task(_clean(queue))
        yield
        cleaning.cancel()
        await run_in_threadpool(queue.close)
        shutil.rmtree(folder, ignore_errors=True)

    routes = [
        Route("/", server.page),
        Route("/page.js", server.script),
        Route("/page.css", server.style),
        Route("/api/jobs", server.states, methods=["GET"]),
        Route("/api/jobs", server.upload, methods=["POST"]),
        Route("/api/jobs/{id}", server.remove, methods=["DELETE"]),
        Route("/api/jobs/{id}/cancel", server.cancel, methods=["POST"]),
        Route("/api/jobs/{id}/again", server.again, methods=["POST"]),
        Route("/api/jobs/{id}/arrange", server.arrange, methods=["POST"]),
        Route("/api/jobs/{id}/recording", server.recording),
        Route("/api/jobs/{id}/sound.wav", server.sound),
        Route("/api/jobs/{id}/compared.wav", server.compared),
        Route("/api/jobs/{id}/result.{format}", server.result),
    ]
    handlers: dict[Any, Any] = {HTTPException: _say, MT3Error: _say_error}
    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        middleware=[Middleware(Guard, host=settings.host)],
        exception_handlers=handlers,
    )
    app.state.queue = queue
    return app


async def _clean(queue: Queue) -> None:
    while True:
        await asyncio.sleep(_CLEANING_SECONDS)
        await run_in_threadpool(queue.remove_old)


async def _say(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return PlainTextResponse(error.detail, error.status_code, error.headers)


async def _say_error(_: Request, error: Exception) -> Response:
    return PlainTextResponse(str(error), 422)


class _Server:
    """The answers."""

    def __init__(self, queue: Queue, formats: Mapping[str, ResultFormat], settings: Settings) -> None:
        self.queue, self.formats, self.settings = queue, formats, settings
        # Both are the same for everybody, so they are put together once.
        self._script = '"use strict";\n' + "\n".join(map(asset, SCRIPTS))
        self._style = "".join(map(asset, STYLES))
        about = {
            "model": queue.decoder.model,
            "quality": queue.decoder.usual_quality,
            "formats": [{"name": one.name, "label": one.label, "about": one.about} for one in formats.values()],
            "classes": [*CLASS_NAMES, "Drums"],
            "maxUpload": settings.most_upload_bytes,
            "maxUploadText": megabytes(settings.most_upload_bytes),
            "keepMinutes": round(settings.keep_seconds / 60),
            "names": general_midi_names(),
        }
        parts = {
            "panel": filled(asset("piece.html"), {"sound": asset("serve_sound.html")}),
            "data": embedded_json(about),
            "model": escaped(queue.decoder.model),
            "keep": str(round(settings.keep_seconds / 60)),
            "limit": megabytes(settings.most_upload_bytes),
        }
        self._page = filled(asset("serve.html"), parts)

    async def page(self, _: Request) -> Response:
        return Response(self._page, media_type="text/html")

    async def script(self, _: Request) -> Response:
        return Response(self._script, media_type="text/javascript", headers={"Cache-Control": "no-cache"})

    async def style(self, _: Request) -> Response:
        return Response(self._style, media_type="text/css", headers={"Cache-Control": "no-cache"})

    async def upload(self, request: Request) -> Response:
        """The recording is the body; its name, the choice of instruments and the quality are in the query."""
        check_size(request, self.settings.most_upload_bytes)
        if self.queue.num_waiting >= self.settings.most_waiting:
            raise HTTPException(503, "Too many recordings are waiting. Try again later.", {"Retry-After": "60"})
        name = display_name(request.query_params.get("name", ""))
        job = self.queue.new(name, _instruments(request), self._quality(request))
        try:
            await receive(request, job.recording, self.settings.most_upload_bytes, _MOST_UPLOAD_SECONDS)
            await run_in_threadpool(self.queue.add, job)
        except BaseException as error:
            shutil.rmtree(job.folder, ignore_errors=True)
            if isinstance(error, MT3Error):  # it names our file
                raise HTTPException(422, str(error).replace(str(job.recording), job.name)) from error
            raise
        return JSONResponse(self._state(job), 201)

    async def states(self, request: Request) -> Response:
        """What became of jobs: `since` has "id:number of notes known:their version" of each, separated by commas."""
        states = {}
        for asked in request.query_params.get("since", "").split(",")[:_MOST_ASKED]:
            identity, known, version = (*asked.split(":", 2), "", "")[:3]
            job = self.queue.jobs.get(identity)
            first = int(known) if known.isdecimal() and len(known) < 10 else 0
            if identity:
                states[identity] = None if job is None else self._state(job, first, version or "0")
        return JSONResponse(states, headers={"Cache-Control": "no-store"})

    async def cancel(self, request: Request) -> Response:
        job = self._job(request)
        await run_in_threadpool(self.queue.cancel, job)
        return JSONResponse(self._state(job, len(job.notes)))

    async def arrange(self, request: Request) -> Response:
        """Other notes of a finished job: the query has what is asked for."""
        job, arrangement = self._done(request), Arrangement.parse(request.query_params)
        await run_in_threadpool(self.queue.arrange, job, arrangement)
        return JSONResponse(self._state(job))

    async def remove(self, request: Request) -> Response:
        await run_in_threadpool(self.queue.remove, self._job(request))
        return Response(status_code=204)

    async def again(self, request: Request) -> Response:
        job = await run_in_threadpool(
            self.queue.again, self._job(request), _instruments(request), self._quality(request)
        )
        return JSONResponse(self._state(job), 201)

    async def recording(self, request: Request) -> Response:
        path, kind = await run_in_threadpool(sounds.recording, self._job(request))
        return FileResponse(path, media_type=kind)

    async def sound(self, request: Request) -> Response:
        """The transcription; `only` has the instruments to be heard, as programs and -1 for drums."""
        only = request.query_params.get("only")
        numbers = None if only is None else {int(one) for one in re.findall(r"-?\d{1,3}", only)}
        path = await run_in_threadpool(sounds.transcription, self._done(request), numbers)
        return FileResponse(path, media_type="audio/wav", headers=self._download(request, "transcribed.wav"))

    async def compared(self, request: Request) -> Response:
        path = await run_in_threadpool(sounds.comparison, self._done(request))
        return FileResponse(path, media_type="audio/wav", headers=self._download(request, "compared.wav"))

    async def result(self, request: Request) -> Response:
        job = self._done(request)
        if (chosen := self.formats.get(request.path_params["format"])) is None:
            raise HTTPException(404, f"There is no such format. Choose from {', '.join(self.formats)}.")
        made = transcription_of(job, self.queue.decoder.model)
        content = await run_in_threadpool(chosen.write, made, job.recording)
        headers = self._download(request, chosen.name)
        if chosen.name == "html":  # it has scripts of its own, and is to be kept, not opened here
            headers["Content-Security-Policy"] = "sandbox"
        return Response(content, media_type=chosen.media_type, headers=headers)

    def _quality(self, request: Request) -> str:
        """The choice in the query, checked. Raises `HTTPException`."""
        quality = request.query_params.get("quality") or self.queue.decoder.usual_quality
        if quality not in ("fast", "best"):
            raise HTTPException(422, "There is no such quality. Choose fast or best.")
        return quality

    def _job(self, request: Request) -> Job:
        job = self.queue.jobs.get(request.path_params["id"])
        if job is None:
            raise HTTPException(404, "This recording is not here any more. Send it again.")
        return job

    def _done(self, request: Request) -> Job:
        job = self._job(request)
        if job.state != DONE:
            raise HTTPException(409, "This recording is not transcribed yet. Wait until it is done.")
        return job

    def _state(self, job: Job, first: int = 0, known_version: str = "0") -> dict[str, Any]:
        """All about a job; of its notes those from `first` on, or all if they are others than those that are known."""
        shown = job.shown
        version = 0 if shown is None else shown.version
        result = job.result if shown is None else shown.result
        if str(version) != known_version:
            first = 0
        notes = (job.notes if shown is None else shown.result.notes)[first:]  # a list that only grows
        left = job.seconds_left()
        return {
            "id": job.id,
            "name": job.name,
            "state": job.state,
            "place": self.queue.place(job),
            "instruments": job.instruments,
            "seconds": job.seconds,
            "finalSeconds": job.heard_seconds,
            "secondsLeft": None if left is None else round(left, 1),
            "error": job.error,
            "quality": job.quality,
            "remark": "" if result is None else result.remark.replace(str(job.recording), job.name),
            "version": version,
            "asked": {} if shown is None else dict(shown.asked),
            "tempo": None if result is None or first else tempo_of(result.tempo),
            "first": first,
            "notes": [_row(note) for note in notes],
            "minutesKept": round((self.settings.keep_seconds - (time.monotonic() - job.settled_at)) / 60)
            if job.is_settled
            else None,
        }

    def _download(self, request: Request, suffix: str) -> dict[str, str]:
        job = self._job(request)
        name = f"{Path(job.name).stem}{'_' if suffix.endswith('.wav') else '.'}{suffix}"
        kind = "attachment" if "download" in request.query_params or not suffix.endswith(".wav") else "inline"
        return {"Content-Disposition": f"{kind}; filename*=UTF-8''{quote(name, safe='')}", "Cache-Control": "no-store"}


def _instruments(request: Request) -> str | None:
    """The choice in the query, checked. Raises `HTTPException`."""
    text = request.query_params.get("instruments") or None
    if text is not None:
        choose_instruments(text)
    return text


def _row(note: Note) -> list[float | None]:
    """Onset, offset, pitch, velocity, program, whether it is a drum, confidence or None."""
    sureness = None if note.confidence is None else round(note.confidence.note, 3)
    return [
        *(round(note.onset, 4), round(note.offset, 4), note.pitch, note.velocity, note.program),
        *(int(note.is_drum), sureness),
    ]
