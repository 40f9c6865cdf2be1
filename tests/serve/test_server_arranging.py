"""Other notes of a finished recording: bars, a grid, fewer of them; the quality of decoding; sheets as PDF."""

import json
import time
from pathlib import Path

import pytest
from page_server import PageServer, StandIn

pytest.importorskip("starlette", reason="needs the extra web")
pytest.importorskip("uvicorn", reason="needs the extra web")

from mt3app.formats import FORMATS_OF_PAGE, formats_of_page
from mt3music import musescore

pytestmark = pytest.mark.integration


def arrange(server, job, query):
    status, _, content = server.ask("POST", f"/api/jobs/{job['id']}/arrange?{query}")
    return status, json.loads(content) if status == 200 else content.decode()


def test_notes_are_arranged_and_what_was_found_stays(server, recording):
    job = server.send(recording)
    found = server.wait_for(job["id"], "done")
    assert (found["version"], found["tempo"], found["asked"]) == (0, None, {})
    status, state = arrange(server, job, "tempo=97&signature=3/4&grid=1/8&least=0.5&merge=class")
    assert status == 200
    assert state["asked"] == {"tempo": "97", "signature": "3/4", "grid": "1/8", "least": "0.5", "merge": "class"}
    assert (state["version"], state["first"], state["tempo"]["perBar"]) == (1, 0, 3)
    assert 0 < len(state["notes"]) < len(found["notes"])
    assert "8 left out" in state["remark"]
    assert "no notes of a confidence below" in server.state(job["id"])["remark"]
    # Who knows the old notes gets all of the new ones; who knows the new ones, none.
    known = len(found["notes"])
    assert json.loads(server.ask("GET", f"/api/jobs?since={job['id']}:{known}:0")[2])[job["id"]]["first"] == 0
    count = len(state["notes"])
    assert json.loads(server.ask("GET", f"/api/jobs?since={job['id']}:{count}:1")[2])[job["id"]]["notes"] == []
    written = json.loads(server.ask("GET", f"/api/jobs/{job['id']}/result.json")[2])
    assert (len(written["notes"]), written["tempo"]["time_signature"], written["grid"]) == (count, "3/4", "1/8")
    assert written["audio"] == "song.wav"
    status, state = arrange(server, job, "")
    assert (status, state["version"], state["notes"]) == (200, 2, found["notes"])


def test_the_sound_is_that_of_the_notes_that_are_shown(server, recording):
    job = server.send(recording)
    server.wait_for(job["id"], "done")
    address = f"/api/jobs/{job['id']}/sound.wav"
    whole = server.ask("GET", address)[2]
    assert arrange(server, job, "least=0.5")[0] == 200
    assert server.ask("GET", address)[2] != whole
    assert arrange(server, job, "")[0] == 200
    assert server.ask("GET", address)[2] == whole
    kept = [path.name for path in (Path(server.folder) / job["id"]).iterdir() if path.is_dir()]
    assert kept == ["sounds2"]


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("tempo=/etc/passwd", "'/etc/passwd' is not a tempo. Give beats a minute, as in 97, or auto."),
        ("tempo=1000", "--tempo 1000 is not a tempo. Give 20 to 400"),
        ("tempo=nan", "'nan' is not a tempo."),
        ("signature=4/5", "4/5 is not a time signature that can be written."),
        ("grid=1/3", "--quantise 1/3 is not a note value."),
        ("least=2", "A confidence cannot be 2.0."),
        ("least=-1", "'-1' is not a confidence."),
        ("merge=all", "Instruments cannot be merged by 'all'."),
    ],
)
def test_what_cannot_be_arranged_is_said(server, recording, query, sentence):
    job = server.send(recording)
    server.wait_for(job["id"], "done")
    status, said = arrange(server, job, query)
    assert (status, server.state(job["id"])["version"]) == (422, 0)
    assert said.startswith(sentence)


def test_only_what_is_done_is_arranged(slow, recording):
    job = slow.send(recording)
    assert arrange(slow, job, "tempo=100")[0] == 409
    assert slow.ask("POST", "/api/jobs/nobody/arrange?tempo=100")[0] == 404


def test_quality_goes_to_the_decoder(server, recording):
    job = server.send(recording, "name=song.wav&quality=best")
    assert server.wait_for(job["id"], "done")["quality"] == "best"
    status, _, said = server.ask("POST", "/api/jobs?name=a.wav&quality=finest", recording.read_bytes())
    assert (status, said) == (422, b"There is no such quality. Choose fast or best.")
    server.ask("POST", f"/api/jobs/{job['id']}/again")
    deadline = time.monotonic() + 20
    while len(server.decoder.qualities) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert server.decoder.qualities == ["best", "fast"]


def test_what_is_usual_is_what_the_decoder_says(tmp_path, recording):
    decoder = StandIn()
    decoder.usual_quality = "best"
    with PageServer(tmp_path, decoder) as server:
        job = server.send(recording)
        assert server.wait_for(job["id"], "done")["quality"] == "best"
        assert b'"quality":"best"' in server.ask("GET", "/")[2]
    assert decoder.qualities == ["best"]


def test_pdf_is_offered_where_its_program_is(monkeypatch):
    monkeypatch.setattr(musescore.shutil, "which", lambda name: None)
    assert list(formats_of_page()) == list(FORMATS_OF_PAGE)
    monkeypatch.setattr(musescore.shutil, "which", lambda name: "/usr/bin/mscore")
    assert list(formats_of_page()) == [*FORMATS_OF_PAGE, "pdf"]
