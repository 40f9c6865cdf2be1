"""The server without a browser: uploads, the queue, results, and who is refused."""

import io
import json
import os
import socket
import threading
import time
import wave
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
import soundfile
from page_server import SECONDS, PageServer, StandIn, known_notes

pytest.importorskip("starlette", reason="needs the extra web")
pytest.importorskip("uvicorn", reason="needs the extra web")

from mt3app.cli_page import ServeOptions
from mt3app.commands.serve import open_socket, parse_size, remark_on_host
from mt3app.formats import FORMATS_OF_PAGE
from mt3core.errors import AudioError, UsageError
from mt3core.notes.midi_reading import read_midi
from mt3core.transcription import SegmentTokens, Transcription
from mt3serve.app import Settings
from mt3serve.guard import is_own_name
from mt3serve.jobs import own_folder
from mt3serve.uploads import display_name, megabytes

pytestmark = pytest.mark.integration


def stored(server):
    """Every file that the server keeps, below its folder."""
    return sorted(str(path.relative_to(server.folder)) for path in server.folder.rglob("*") if path.is_file())


def test_a_recording_becomes_notes_in_every_form(server, recording, tmp_path):
    job = server.send(recording)
    done = server.wait_for(job["id"], "done")
    assert done["seconds"] == pytest.approx(SECONDS)
    assert [row[0] for row in done["notes"]] == [note.onset for note in known_notes()]
    assert done["notes"][0] == [0.0, 0.2, 50, 90, 33, 0, 0.25]
    for name, form in FORMATS_OF_PAGE.items():
        status, headers, content = server.ask("GET", f"/api/jobs/{job['id']}/result.{name}")
        assert (status, headers["content-type"].split(";")[0]) == (200, form.media_type)
        assert headers["content-disposition"] == f"attachment; filename*=UTF-8''song.{name}"
        assert content
        (tmp_path / f"r.{name}").write_bytes(content)
    assert len(read_midi(tmp_path / "r.mid")) == 16
    result = Transcription.load(tmp_path / "r.json")
    assert result.notes == known_notes()
    assert (result.audio, result.model, result.duration_seconds) == ("song.wav", "stand-in", pytest.approx(SECONDS))
    assert result.segments == [SegmentTokens(0.0, [1, 2])]
    page = (tmp_path / "r.html").read_text()
    assert "<h1>song.wav</h1>" in page
    assert "data:audio/wav;base64," in page
    assert server.ask("GET", f"/api/jobs/{job['id']}/result.exe")[0] == 404


def test_what_is_known_is_not_sent_again(server, recording):
    job = server.send(recording)
    server.wait_for(job["id"], "done")
    assert len(server.state(job["id"], 10)["notes"]) == 6
    assert server.state(job["id"], 10)["first"] == 10
    assert server.state(job["id"], 99)["notes"] == []
    assert json.loads(server.ask("GET", "/api/jobs?since=unknown:0,")[2]) == {"unknown": None}


def test_sounds_can_be_heard_and_skipped_in(server, recording):
    job = server.send(recording)
    server.wait_for(job["id"], "done")
    base = f"/api/jobs/{job['id']}"
    status, headers, content = server.ask("GET", f"{base}/recording", headers={"Range": "bytes=0-99"})
    assert (status, headers["content-type"], len(content)) == (206, "audio/wav", 100)
    whole, piano, nothing = (
        soundfile.read(io.BytesIO(server.ask("GET", f"{base}/sound.wav{query}")[2]))[0]
        for query in ("", "?only=0", "?only=")
    )
    assert whole.shape[1] == 2
    assert 0 < np.abs(piano).mean() < np.abs(whole).mean()
    assert not nothing.any()
    again = soundfile.read(io.BytesIO(server.ask("GET", f"{base}/sound.wav?only=0,33,-1")[2]))[0]
    assert (again == whole).all()
    both = server.ask("GET", f"{base}/compared.wav?download")
    assert both[1]["content-disposition"] == "attachment; filename*=UTF-8''song_compared.wav"
    assert soundfile.info(io.BytesIO(both[2])).channels == 2


def test_what_browsers_cannot_play_is_flac(server, tmp_path):
    soundfile.write(tmp_path / "a.aiff", np.zeros(8000), 8000)
    job = server.send(tmp_path / "a.aiff", "name=a.aiff")
    status, headers, content = server.ask("GET", f"/api/jobs/{job['id']}/recording")
    assert (status, headers["content-type"], content[:4]) == (200, "audio/flac", b"fLaC")


def test_a_page_of_another_kind_is_never_served_as_one(server, recording, tmp_path):
    """A WAV file with markup behind it keeps its type, and no answer may be sniffed."""
    data = recording.read_bytes() + b"<script>alert(1)</script>"
    (tmp_path / "x.wav").write_bytes(data)
    job = server.send(tmp_path / "x.wav", "name=x.html")
    headers = server.ask("GET", f"/api/jobs/{job['id']}/recording")[1]
    assert headers["content-type"] == "audio/wav"
    assert headers["x-content-type-options"] == "nosniff"


# Uploads.


def test_too_large_is_refused_before_it_is_read(tmp_path, recording):
    with PageServer(tmp_path, StandIn(), most_upload_bytes=1000) as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as opened:
            opened.sendall(b"POST /api/jobs?name=a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1001\r\n\r\n")
            answer = opened.recv(10_000)  # without a byte of the body
        assert answer.startswith(b"HTTP/1.1 413")
        assert stored(server) == []
        assert list(server.folder.iterdir()) == []
        assert server.ask("POST", "/api/jobs?name=a", b"x" * 1000)[0] == 422  # no audio, but read


def test_what_does_not_say_its_size_is_counted(tmp_path):
    with PageServer(tmp_path, StandIn(), most_upload_bytes=100_000) as server:
        chunks = (b"x" * 30_000 for _ in range(5))
        connection_error = None
        try:
            status, _, content = server.ask("POST", "/api/jobs?name=a", chunks)
        except (BrokenPipeError, ConnectionResetError) as error:  # refused while it was still sending
            connection_error = error
        assert connection_error or (status == 413 and b"larger than" in content)
        deadline = time.monotonic() + 5
        while list(server.folder.iterdir()) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert list(server.folder.iterdir()) == []


@pytest.mark.parametrize("length", ["-1", "x", "1e3"])
def test_a_length_that_is_no_number(server, length):
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as opened:
        opened.sendall(f"POST /api/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n".encode())
        assert opened.recv(1000).startswith(b"HTTP/1.1 400")


def test_an_upload_that_breaks_off_leaves_nothing(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as opened:
        opened.sendall(b"POST /api/jobs?name=a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n\r\nRIFF")
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and list(server.folder.iterdir()):
        time.sleep(0.02)
    assert list(server.folder.iterdir()) == []


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        (b"", 400, "The recording is empty."),
        (b"no audio at all\n" * 50, 422, "my <song>.mp3"),
        (b"MThd\0\0\0\6\0\0\0\1\1\xe0", 422, "MIDI"),
    ],
)
def test_what_is_no_recording_is_said(server, body, status, sentence):
    found, _, content = server.ask("POST", f"/api/jobs?name={quote('my <song>.mp3')}", body)
    assert (found, sentence in content.decode()) == (status, True)
    assert str(server.folder) not in content.decode()
    assert list(server.folder.iterdir()) == []
    assert server.queue.jobs == {}


HOSTILE = [
    "../../../etc/passwd",
    "..\\..\\boot.ini",
    "/etc/shadow",
    "a\0b\r\nSet-Cookie: x",
    "\u202egpj.mp3",
    "",
    ".",
    "x" * 900,
]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_never_paths(server, recording, name):
    job = server.send(recording, f"name={quote(name)}")
    assert server.wait_for(job["id"], "done")["name"] == display_name(name)
    assert stored(server) == [f"{job['id']}/recording"]
    _, headers, _ = server.ask("GET", f"/api/jobs/{job['id']}/result.mid")
    assert "set-cookie" not in headers
    assert "/" not in headers["content-disposition"].replace("UTF-8''", "")


def test_names_as_people_see_them():
    assert display_name("../../etc/passwd") == "passwd"
    assert display_name("C:\\music\\my  song.mp3") == "my song.mp3"
    assert display_name("a\u202eb\nc") == "a b c"
    assert display_name("") == display_name("/") == "recording"
    assert len(display_name("x" * 900)) == 120
    assert [megabytes(size) for size in (10**9, 25 * 10**8, 5 * 10**8, 1000)] == ["1 GB", "2.5 GB", "500 MB", "1 kB"]


@pytest.mark.parametrize("path", ["/api/jobs/..%2f..%2fetc/recording", "/api/jobs/x/result.mid", "/../pyproject.toml"])
def test_addresses_are_never_paths(server, path):
    assert server.ask("GET", path)[0] == 404


# Who may ask.


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:1"}, 200),
        ({"Host": "[::1]:8765"}, 200),
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": "localhost@evil.example"}, 403),
        ({"Host": "192.168.1.2"}, 403),
        ({"Host": ""}, 403),
        ({"Host": "["}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
    ],
)
def test_only_our_own_names_and_pages_are_answered(server, headers, status):
    for path in ("/", "/api/jobs"):
        found, answered, _ = server.ask("GET", path, headers=headers)
        assert found == status
        assert "access-control-allow-origin" not in answered
        assert answered["x-frame-options"] == "DENY"
        assert "script-src 'self'" in answered["content-security-policy"]


def test_a_second_host_is_refused(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as opened:
        opened.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")
        assert opened.recv(1000).startswith((b"HTTP/1.1 403", b"HTTP/1.1 400"))


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://localhost.evil.example"]
)
def test_nothing_is_changed_from_another_origin(server, recording, origin):
    job = server.send(recording)
    server.wait_for(job["id"], "done")
    for method, path in (
        ("POST", "/api/jobs?name=a"),
        ("POST", f"/api/jobs/{job['id']}/again"),
        ("POST", f"/api/jobs/{job['id']}/cancel"),
        ("DELETE", f"/api/jobs/{job['id']}"),
    ):
        assert server.ask(method, path, b"x", {"Origin": origin})[0] == 403
    assert len(server.queue.jobs) == 1
    own = {"Origin": f"http://127.0.0.1:{server.port}"}
    assert server.ask("DELETE", f"/api/jobs/{job['id']}", headers=own)[0] == 204


@pytest.mark.parametrize(
    ("given", "host", "is_own"),
    [
        ("192.168.1.2:8765", "0.0.0.0", True),
        ("[fe80::1]:8765", "::", True),
        (socket.gethostname(), "0.0.0.0", True),
        (f"{socket.gethostname().split('.')[0]}.local", "0.0.0.0", True),
        ("music.example", "music.example", True),
        ("evil.example", "0.0.0.0", False),
        ("192.168.1.2", "127.0.0.1", False),
        ("localhost", "0.0.0.0", True),
    ],
)
def test_a_server_for_others_has_more_names(given, host, is_own):
    assert is_own_name(given, host) == is_own


# The queue.


def test_notes_come_while_it_decodes_and_the_rest_is_foreseen(slow, recording):
    job = slow.send(recording)
    slow.decoder.step(8)
    while len(slow.state(job["id"])["notes"]) < 8:
        time.sleep(0.02)
    time.sleep(0.6)
    state = slow.state(job["id"])
    assert state["state"] == "decoding"
    assert state["finalSeconds"] == known_notes()[7].onset
    assert state["secondsLeft"] > 0
    assert slow.ask("GET", f"/api/jobs/{job['id']}/result.mid")[0] == 409
    slow.decoder.step(8)
    assert slow.wait_for(job["id"], "done")["finalSeconds"] == pytest.approx(SECONDS)


def test_one_after_another_with_places_and_cancelling(slow, recording):
    first, second, third = (slow.send(recording, f"name={name}") for name in "abc")
    slow.wait_for(first["id"], "decoding")
    assert [slow.state(job["id"])["place"] for job in (first, second, third)] == [0, 1, 2]
    assert slow.ask("POST", f"/api/jobs/{second['id']}/cancel")[0] == 200
    assert slow.state(second["id"])["state"] == "cancelled"
    slow.decoder.step(3)
    while len(slow.state(first["id"])["notes"]) < 3:
        time.sleep(0.02)
    slow.ask("POST", f"/api/jobs/{first['id']}/cancel")
    assert slow.state(first["id"])["state"] == "cancelled"
    slow.wait_for(third["id"], "decoding")
    slow.decoder.step(50)
    assert len(slow.wait_for(third["id"], "done")["notes"]) == 16
    assert len(slow.state(first["id"])["notes"]) == 3
    assert slow.decoder.most_open == 1


def test_several_at_once_where_the_decoder_can(tmp_path, recording):
    with PageServer(tmp_path, StandIn(is_slow=True, at_once=3)) as server:
        jobs = [server.send(recording) for _ in range(4)]
        for job in jobs[:3]:
            server.wait_for(job["id"], "decoding")
        assert server.state(jobs[3]["id"])["state"] == "waiting"
        server.decoder.step(100)
        for job in jobs:
            server.wait_for(job["id"], "done")
        assert server.decoder.most_open == 3


def test_a_failure_is_said_and_the_next_goes_on(tmp_path, recording):
    decoder = StandIn(error=AudioError("This recording is odd.", "Use another."))
    with PageServer(tmp_path, decoder) as server:
        job = server.send(recording)
        assert server.wait_for(job["id"], "failed")["error"] == "This recording is odd. Use another."
        decoder.error = ValueError("melted")
        assert "Unexpected ValueError: melted." in server.wait_for(server.send(recording)["id"], "failed")["error"]
        decoder.error = None
        server.wait_for(server.send(recording)["id"], "done")


def test_decoding_has_a_limit(tmp_path, recording):
    with PageServer(tmp_path, StandIn(is_slow=True), most_decoding_seconds=0.3) as server:
        job = server.send(recording)
        assert "Decoding took longer than" in server.wait_for(job["id"], "failed")["error"]


def test_decode_again_with_other_instruments(server, recording):
    job = server.send(recording, "name=a&instruments=piano")
    server.wait_for(job["id"], "done")
    status, _, content = server.ask("POST", f"/api/jobs/{job['id']}/again?instruments=Bass,Drums")
    again = json.loads(content)
    assert (status, again["instruments"]) == (201, "Bass,Drums")
    server.ask("DELETE", f"/api/jobs/{job['id']}")
    server.wait_for(again["id"], "done")
    assert server.decoder.asked == ["piano", "Bass,Drums"]
    assert stored(server) == [f"{again['id']}/recording"]
    status, _, content = server.ask("POST", f"/api/jobs/{again['id']}/again?instruments=banjoo")
    assert (status, b"There is no instrument 'banjoo'." in content) == (422, True)
    assert server.ask("POST", "/api/jobs?name=a&instruments=banjoo", b"x")[0] == 422


def test_every_class_of_the_page_can_be_chosen(server):
    from mt3core.notes.instrument_choice import choose_instruments

    page = server.ask("GET", "/")[2].decode()
    about = json.loads(page.split('id="server-data">')[1].split("</script>")[0])
    assert len(about["classes"]) == 17
    for name in about["classes"]:
        assert choose_instruments(name)


def test_files_are_removed_after_a_while_and_at_the_end(tmp_path, recording):
    with PageServer(tmp_path, StandIn(), keep_seconds=0.2) as server:
        job = server.send(recording)
        server.wait_for(job["id"], "done")
        server.queue.remove_old()
        assert server.state(job["id"]) is not None
        time.sleep(0.3)
        server.queue.remove_old()
        assert server.state(job["id"]) is None
        assert list(server.folder.iterdir()) == []
        server.send(recording)
    assert not server.folder.exists()


def test_what_is_under_way_is_not_old(tmp_path, recording):
    with PageServer(tmp_path, StandIn(is_slow=True), keep_seconds=0.0) as server:
        job = server.send(recording)
        server.wait_for(job["id"], "decoding")
        server.queue.remove_old()
        assert server.state(job["id"])["state"] == "decoding"


def test_a_full_queue_is_said(tmp_path, recording):
    with PageServer(tmp_path, StandIn(is_slow=True), most_waiting=1) as server:
        first = server.send(recording)
        server.wait_for(first["id"], "decoding")
        server.send(recording)
        status, headers, _ = server.ask("POST", "/api/jobs?name=a", recording.read_bytes())
        assert (status, headers["retry-after"]) == (503, "60")


def test_slow_work_keeps_nobody_waiting(slow, recording):
    job = slow.send(recording)
    slow.wait_for(job["id"], "decoding")
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(slow.ask("GET", "/")[0])) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert answers == [200] * 8
    assert slow.state(job["id"])["state"] == "decoding"


def test_the_server_can_stop_while_it_works(tmp_path, recording):
    with PageServer(tmp_path, StandIn(is_slow=True)) as server:
        server.wait_for(server.send(recording)["id"], "decoding")
    assert not server.folder.exists()


# The command.


@pytest.mark.parametrize(
    ("text", "size"), [("1 GB", 10**9), ("500MB", 5 * 10**8), ("1.5g", 15 * 10**8), ("20 kb", 20_000), ("1000", 1000)]
)
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "big", "-1 GB", "0", "1 TB", "1 GB MB"])
def test_what_is_no_size(text):
    with pytest.raises(UsageError, match="--max-upload"):
        parse_size(text)


def test_without_options_it_is_for_this_machine_and_for_an_hour():
    options, settings = ServeOptions(), Settings()
    assert options.host == settings.host == "127.0.0.1"
    assert parse_size(options.max_upload) == settings.most_upload_bytes == 10**9
    assert settings.keep_seconds == 3600
    with open_socket(options.host, 0) as opened:
        assert opened.getsockname()[0] == "127.0.0.1"


def test_other_hosts_are_explained():
    assert remark_on_host("127.0.0.1") == remark_on_host("localhost") == remark_on_host("::1") == ""
    for host in ("0.0.0.0", "::", "192.168.1.2", "music.example"):
        assert "no password, and nothing is encrypted" in remark_on_host(host)


def test_a_taken_port_and_an_unknown_host_are_said():
    with open_socket("127.0.0.1", 0) as taken:
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"127.0.0.1:{port} cannot be opened"):
            open_socket("127.0.0.1", port)
    with pytest.raises(UsageError, match="--host a b is not known"):
        open_socket("a b", 0)


def test_the_files_of_dead_servers_are_removed(tmp_path):
    dead = tmp_path / "mt3-serve-999999999-abc"
    alive = tmp_path / f"mt3-serve-{os.getpid()}-abc"
    linked = tmp_path / "mt3-serve-999999998-abc"
    other = tmp_path / "other"
    for folder in (dead, alive, other):
        folder.mkdir()
        (folder / "recording").write_text("x")
    linked.symlink_to(other)
    folder = own_folder(tmp_path)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert not dead.exists()
    assert (alive / "recording").exists()
    assert (other / "recording").exists()


def test_silence_and_wave_files_of_a_browser(server, tmp_path):
    with wave.open(str(tmp_path / "s.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(bytes(16_000))
    server.decoder.notes = []
    job = server.send(tmp_path / "s.wav")
    assert server.wait_for(job["id"], "done")["notes"] == []
    assert server.ask("GET", f"/api/jobs/{job['id']}/sound.wav")[0] == 200
    assert Path(server.folder / job["id"] / "sounds0" / "transcribed.wav").exists()
