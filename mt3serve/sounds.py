"""What can be listened to: the recording, the transcription by the sounds of this machine, both side by side."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Collection
from pathlib import Path

from mt3page.recordings import as_flac, playable_type
from mt3render.listening import sonify, write_comparison, write_mix
from mt3serve.jobs import Job, transcription_of

# The synthesizers are no matter of several threads, and each takes a processor.
_RENDERING = threading.Lock()


def recording(job: Job) -> tuple[Path, str]:
    """The recording and its media type; as FLAC if browsers may not play it."""
    with job.recording.open("rb") as file:
        kind = playable_type(file.read(16))
    if kind is not None:
        return job.recording, kind
    flac = job.folder / "recording.flac"
    with _RENDERING:
        if not flac.exists():
            flac.write_bytes(as_flac(job.recording))
    return flac, "audio/flac"


def transcription(job: Job, instruments: Collection[int] | None = None) -> Path:
    """The notes of a job as a WAV file: of these instruments only (programs, -1 for drums), or of all."""
    folder = _sound_folder(job)
    whole, stems = folder / "transcribed.wav", folder / "stems"
    with _RENDERING:
        if not whole.exists():
            stems.mkdir(parents=True, exist_ok=True)
            sonify(transcription_of(job, "").notes, whole, stems)
        if instruments is None:
            return whole
        chosen = sorted(number for number in set(instruments) if (stems / f"{number}.wav").exists())
        path = folder / "mixes" / f"{'_'.join(map(str, chosen)) or 'none'}.wav"
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            for old in path.parent.iterdir():  # they are large and quickly made
                old.unlink()
            write_mix([stems / f"{number}.wav" for number in chosen], path)
        return path


def _sound_folder(job: Job) -> Path:
    """A folder for the notes that are shown now; the sounds of others are removed."""
    folder = job.folder / f"sounds{job.version}"
    for old in job.folder.glob("sounds*"):
        if old != folder:
            shutil.rmtree(old, ignore_errors=True)
    return folder


def comparison(job: Job) -> Path:
    """The recording on the left, the transcription on the right."""
    played = transcription(job)
    path = played.with_name("compared.wav")
    with _RENDERING:
        if not path.exists():
            write_comparison(job.recording, played, path, damaged="keep")
    return path
