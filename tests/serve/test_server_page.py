"""The server's page in a real browser: drop, watch, listen, cancel, download, reload, two tabs, another server."""

import json
import time
from dataclasses import replace

import pytest
from chromium import Page, chromium_path
from page_server import PageServer, StandIn, known_notes, song

from mt3app.formats import FORMATS
from mt3core.errors import MT3Error

pytest.importorskip("starlette", reason="needs the extra web")
pytest.importorskip("uvicorn", reason="needs the extra web")

pytestmark = pytest.mark.integration

JOBS = "[...queue.jobs.values()]"
LINES = "[...document.querySelectorAll('#jobs .name')].map((each) => each.textContent)"


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    chromium_path()
    return song(tmp_path_factory.mktemp("audio") / "song.wav")


@pytest.fixture
def page(slow, tmp_path):
    with Page(tmp_path / "browser", is_online=True) as opened:
        opened.open(slow.address)
        yield opened
        assert opened.problems == []
        outside = [url for url in opened.requests if not url.startswith((slow.address, "data:", "blob:"))]
        assert outside == []


def state(page):
    return page.run("document.querySelector('#jobs .state').textContent")


def button(page, does, line="#jobs li"):
    page.click(f"{line} [data-does={json.dumps(does)}]")


def test_drop_a_file_and_watch_listen_and_download(page, slow, recording):
    page.drop(recording)
    page.wait_for("current")
    slow.decoder.step(4)
    page.wait_for("current.notes.length === 4")
    assert page.run("[current.state, panel.roll.view.notes.notes.count]") == ["decoding", 4]
    assert page.run("element('downloads').querySelectorAll('a').length") == 0
    # The original can be heard while it is decoded, and what comes meanwhile as well.
    page.click("#play")
    page.wait_for("panel.player.isPlaying && panel.player.audio.currentTime > 0.2")
    slow.decoder.step(4)
    page.wait_for("panel.notes.notes.count === 8")
    assert page.run("panel.player.isPlaying")
    slow.decoder.step(8)
    page.wait_for("current.state === 'done'")
    assert state(page) == "16 notes, 8 s"
    assert page.run("panel.player.isPlaying")
    page.click("#play")
    links = page.run("[...element('downloads').querySelectorAll('a')].map((each) => each.href)")
    assert len(links) == len(slow.formats) + 2
    for link in links:
        path = "/" + link.removeprefix(slow.address)
        assert slow.ask("GET", path)[0] == 200


def test_the_sound_font_plays_what_is_to_be_heard(page, slow, tmp_path):
    page.drop(song(tmp_path / "long.wav", 60))  # long enough for a busy machine
    slow.decoder.notes = known_notes(16, 60)
    slow.decoder.step(20)
    page.wait_for("current?.state === 'done'")
    page.run("element('sound').value = 'rendered'; element('sound').dispatchEvent(new Event('change'))")
    page.click("#play")
    page.wait_for("panel.player.isPlaying && panel.player.rendered.currentTime > 0.3")
    assert page.run("panel.player.voices.length") == 0
    apart = "Math.abs(panel.player.rendered.currentTime - panel.player.audio.currentTime)"
    page.wait_for(f"panel.player.isPlaying && {apart} < 0.1")
    assert page.run("element('sound-state').textContent") == ""
    page.click("#part-128 button:nth-of-type(2)")
    page.wait_for(
        "panel.player.isPlaying && panel.player.rendered.src.includes('only=') && !panel.player.rendered.paused"
    )
    assert sorted(page.run("new URL(panel.player.rendered.src).searchParams.get('only').split(',')")) == ["0", "33"]
    page.click("#hear-recording")
    assert page.run("[panel.player.rendered.volume, panel.player.audio.volume]") == pytest.approx([0, 0.7])
    page.click("#play")
    assert page.run("[panel.player.rendered.paused, panel.player.audio.paused]") == [True, True]


def test_cancel_remove_and_decode_again(page, slow, recording):
    page.drop(recording)
    page.wait_for("current?.state === 'decoding'")
    slow.decoder.step(2)
    page.wait_for("current.notes.length === 2")
    button(page, "Cancel")
    page.wait_for("current.state === 'cancelled'")
    assert state(page) == "Cancelled, 2 notes"
    page.run("element('choice').open = true")
    page.click("#classes input[value='Bass']")
    page.click("#classes input[value='Drums']")
    button(page, "Decode again")
    page.wait_for(f"{JOBS}.length === 2")
    slow.decoder.step(20)
    page.wait_for("current.state === 'done'")
    assert slow.decoder.asked == [None, "Bass,Drums"]
    assert state(page) == "16 notes, 8 s, only Bass,Drums"
    button(page, "Remove")
    page.wait_for(f"{JOBS}.length === 1 && element('roll-section').hidden")
    button(page, "Remove")
    page.wait_for("element('recordings-section').hidden")
    deadline = time.monotonic() + 5
    while slow.queue.jobs and time.monotonic() < deadline:
        time.sleep(0.02)
    assert slow.queue.jobs == {}


def choose(page, **values):
    for name, value in values.items():
        page.run(f"element('{name.replace('_', '-')}').value = {json.dumps(value)}")
        page.run(f"element('{name.replace('_', '-')}').dispatchEvent(new Event('change'))")


def apply(page):
    version = page.run("current.version")
    page.click("#apply")
    page.wait_for(f"current.version === {version + 1} && !element('apply').disabled")


def test_bars_a_grid_and_fewer_notes_and_back(page, slow, recording):
    """What the command line can do after decoding, with the mouse; another tab follows."""
    page.drop(recording)
    slow.decoder.step(20)
    page.wait_for("current?.state === 'done'")
    other = page.another()
    other.open(slow.address)
    other.wait_for(f"{JOBS}[0]?.state === 'done'")
    other.run(f"openPiece({JOBS}[0])")
    assert page.run("[panel.notes.bars, element('tempo-number').hidden]") == [None, True]
    page.run("element('arrange').open = true")
    choose(page, tempo="number", tempo_number="120", signature="3/4", grid="1/4")
    assert page.run("element('tempo-number').hidden") is False
    apply(page)
    assert page.run("[panel.notes.bars.perBar, panel.notes.notes.count]") == [3, 16]
    assert "120 beats a minute, 3/4" in page.run("element('remark').textContent")
    assert page.run("[...panel.notes.notes.onset].every((seconds) => Math.abs(seconds * 2 % 1) < 1e-3)")
    assert page.run("document.querySelector('#stretches button').textContent").startswith(("Bar ", "The pick-up"))
    sheet = slow.ask("GET", page.run("`/api/jobs/${current.id}/result.musicxml`"))[2]
    assert b"<beats>3</beats>" in sheet
    # The other page sees it at its next question, and its form says what was chosen.
    other.run("queue.ask()")
    other.wait_for("current.version === 1")
    other.run("openPiece(current)")
    assert other.run("['tempo', 'tempo-number', 'signature', 'grid'].map((id) => element(id).value)") == [
        "number", "120", "3/4", "1/4",
    ]  # fmt: skip
    choose(page, tempo="", signature="", grid="", least="0.5")
    apply(page)
    assert page.run("[panel.notes.bars, panel.notes.notes.count]") == [None, 8]
    assert page.run("element('part-33')") is None or page.run("element('part-33').querySelector('.count').textContent")
    midi = slow.ask("GET", page.run("`/api/jobs/${current.id}/result.csv`"))[2].decode().strip().splitlines()
    assert len(midi) == 1 + 8
    choose(page, least="")
    apply(page)
    assert page.run("panel.notes.notes.count") == 16
    page.open(slow.address)
    page.wait_for(f"{JOBS}[0]?.notes.length === 16 && {JOBS}[0].version === 3")


def test_a_tempo_that_is_none_is_said(page, slow, recording):
    page.drop(recording)
    slow.decoder.step(20)
    page.wait_for("current?.state === 'done'")
    page.run("element('arrange').open = true")
    choose(page, tempo="number")
    page.run("element('arrangement').noValidate = true")
    choose(page, tempo_number="1000")
    page.click("#apply")
    page.wait_for("!element('trouble').hidden")
    assert "1000 is not a tempo. Give 20 to 400" in page.run("element('trouble').textContent")
    assert page.run("[current.version, element('apply').disabled]") == [0, False]
    page.problems.clear()  # the browser logs the refusal


def test_quality_is_chosen_and_shown(page, slow, recording):
    choose(page, quality="best")
    page.drop(recording)
    slow.decoder.step(20)
    page.wait_for("current?.state === 'done'")
    assert state(page) == "16 notes, 8 s, best quality"
    choose(page, quality="fast")
    button(page, "Decode again")
    page.wait_for(f"{JOBS}.length === 2")
    slow.decoder.step(20)
    page.wait_for("current.state === 'done' && current.quality === 'fast'")
    assert slow.decoder.qualities == ["best", "fast"]


def test_the_usual_quality_is_chosen_at_first_and_not_named(tmp_path, recording):
    decoder = StandIn()
    decoder.usual_quality = "best"
    with PageServer(tmp_path, decoder) as server, Page(tmp_path / "browser", is_online=True) as page:
        page.open(server.address)
        assert page.run("element('quality').value") == "best"
        page.drop(recording)
        page.wait_for("current?.state === 'done'")
        assert state(page) == "16 notes, 8 s"
        choose(page, quality="fast")
        button(page, "Decode again")
        page.wait_for(f"{JOBS}.length === 2 && current.state === 'done' && current.quality === 'fast'")
        assert state(page) == "16 notes, 8 s, decoded fast"
        assert decoder.qualities == ["best", "fast"]


def test_downloads_have_names_in_words(page, slow, recording):
    page.drop(recording)
    slow.decoder.step(20)
    page.wait_for("current?.state === 'done'")
    names = page.run("[...element('downloads').querySelectorAll('a')].map((each) => each.textContent)")
    assert names[:3] == ["MIDI", "Everything (JSON)", "Notes as lines (JSONL)"]
    assert names[-2:] == ["Sound (WAV)", "Sound with the original (WAV)"]
    assert "Sheet (MusicXML)" in names


def test_many_instruments_bring_a_hint(page, slow, recording):
    slow.decoder.notes = [replace(note, program=8 * index, is_drum=False) for index, note in enumerate(known_notes())]
    page.drop(recording)
    slow.decoder.step(20)
    page.wait_for("current?.state === 'done'")
    assert page.run("element('sheet-hint').hidden") is False
    page.run("element('arrange').open = true")
    choose(page, least="0.7")
    apply(page)
    page.wait_for("element('sheet-hint').hidden === (panel.look.numPlaying <= MOST_READABLE_PARTS)")


def test_reload_during_work_and_two_tabs(page, slow, recording):
    page.drop(recording)
    slow.decoder.step(3)
    page.wait_for("current?.notes.length === 3")
    page.open(slow.address)
    page.wait_for("current?.notes.length === 3")
    other = page.another()
    other.open(slow.address)
    other.wait_for("current?.notes.length === 3")
    other.drop(recording)
    page.wait_for(f"{JOBS}.length === 2")
    slow.decoder.step(40)
    for tab in (page, other):
        tab.wait_for(f"{JOBS}.length === 2 && {JOBS}.every((job) => job.state === 'done' && job.notes.length === 16)")
    assert len(slow.queue.jobs) == 2
    button(page, "Remove")
    other.wait_for(f"{JOBS}.length === 1")


def test_three_browsers_at_once(tmp_path, recording):
    decoder = StandIn(is_slow=True, at_once=3)
    with (
        PageServer(tmp_path, decoder) as server,
        Page(tmp_path / "a", is_online=True) as a,
        Page(tmp_path / "b", is_online=True) as b,
        Page(tmp_path / "c", is_online=True) as c,
    ):
        for page in (a, b, c):
            page.open(server.address)
            page.drop(recording)
        for page in (a, b, c):
            page.wait_for("current?.state === 'decoding'")
        decoder.step(100)
        for page in (a, b, c):
            page.wait_for("current.state === 'done'")
            assert page.run(f"{JOBS}.length") == 1  # of others nothing is seen
            assert page.problems == []
        assert decoder.most_open == 3


def test_several_files_wait_their_turn(page, slow, recording, tmp_path):
    files = [song(tmp_path / f"{name}.wav", 1) for name in "abc"]
    observed = f"window.orders = new Set(); new MutationObserver(() => orders.add({LINES}.join()))"
    page.run(f"{observed}.observe(element('jobs'), {{ childList: true }})")
    # The answers wait until the keyboard is on the last one's button.
    page.run("window.take = queue.take.bind(queue); window.taken = []; queue.take = (...one) => taken.push(one)")
    page.run("window.forget = queue.forget.bind(queue); queue.forget = (one) => taken.push([one])")
    page.drop(*files)
    page.wait_for(f"{LINES}.length === 3 && taken.length === 6")
    button_of_c = "document.querySelector('#jobs li [data-does=Cancel]')"
    page.run(f"{button_of_c}.focus()")
    assert page.run("document.activeElement.closest('li').id.startsWith('job-upload-')")
    page.run("queue.forget = forget; for (const one of taken) one.length === 2 ? take(...one) : forget(...one)")
    page.wait_for(f"{JOBS}.map((job) => job.state).sort().join() === 'decoding,waiting,waiting'")
    # The latest first, also while some are still being sent; and the keyboard stays where it is.
    assert page.run("[...orders].filter((order) => order.split(',').length === 3)") == ["c.wav,b.wav,a.wav"]
    assert page.run(f"document.activeElement === {button_of_c}")
    assert not page.run("document.activeElement.closest('li').id.startsWith('job-upload-')")
    states = "[...document.querySelectorAll('#jobs .state')].map((each) => each.textContent).sort().join()"
    page.wait_for(f"{states} === '0 %, 0 notes,Waiting, 1 before it,Waiting, 2 before it'")
    slow.decoder.step(48)
    page.wait_for(f"{JOBS}.every((job) => job.state === 'done')")


def test_too_large_and_not_audio_are_said(tmp_path, recording):
    with (
        PageServer(tmp_path, StandIn(), most_upload_bytes=1000) as server,
        Page(tmp_path / "browser", is_online=True) as page,
    ):
        page.open(server.address)
        page.drop(recording)
        text = page.wait_for("!element('trouble').hidden && element('trouble').textContent")
        assert text.startswith("song.wav is larger than 1 kB.")
        assert list(server.folder.iterdir()) == []
        (tmp_path / "no.mp3").write_bytes(b"no audio at all\n" * 20)
        page.drop(tmp_path / "no.mp3")
        page.wait_for(f"{JOBS}[0]?.state === 'failed'")
        assert "no.mp3" in state(page)
        assert page.run("element('trouble').hidden")
        assert all("422" in problem for problem in page.problems)  # the browser notes the answer itself


HOSTILE = '"><img src=x onerror="window.ran=1"><script>window.ran=1</script>.wav'


def test_downloads_are_saved_by_name_or_refused_in_words(tmp_path, recording):
    def refuse(*_):
        raise MT3Error("Sheets need a package.", "Install it.")

    formats = {"mid": FORMATS["mid"], "sheet": replace(FORMATS["csv"], name="sheet", write=refuse)}
    (tmp_path / "saved").mkdir()
    with (
        PageServer(tmp_path, StandIn(), formats) as server,
        Page(tmp_path / "browser", is_online=True) as page,
    ):
        page.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path / "saved"))
        page.open(server.address)
        page.drop(recording)
        page.wait_for("current?.state === 'done' && document.querySelectorAll('#downloads a').length === 4")
        page.click("#downloads a:nth-of-type(1)")
        deadline = time.monotonic() + 30
        while not (tmp_path / "saved" / "song.mid").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        page.click("#downloads a:nth-of-type(2)")
        page.wait_for("element('trouble').textContent === 'Sheets need a package. Install it.'")


def test_what_is_odd_about_a_recording_is_said(page, slow, recording):
    slow.decoder.remark = "The recording is very quiet: its peak is -52 dBFS."
    page.drop(recording)
    slow.decoder.step(20)
    page.wait_for("current?.state === 'done'")
    assert page.run("element('remark').textContent") == slow.decoder.remark
    assert not page.run("element('remark').hidden")


def test_a_hostile_name_is_only_text(page, slow, recording):
    page.run(f"queue.send(new Blob([new Uint8Array({list(recording.read_bytes()[:4000])})]), {json.dumps(HOSTILE)})")
    page.wait_for(f"{JOBS}.some((job) => job.state === 'decoding' || job.state === 'failed')")
    slow.decoder.step(20)
    page.wait_for("current?.state === 'done'")
    assert page.run("window.ran") is None
    assert page.run("document.querySelectorAll('#jobs img, #jobs script').length") == 0
    assert page.run("element('piece-title').textContent").startswith("script>.wav")  # what is after the last slash


def test_the_server_is_stopped_and_started(tmp_path, recording):
    server = PageServer(tmp_path, StandIn(is_slow=True)).start()
    try:
        with Page(tmp_path / "browser", is_online=True) as page:
            page.open(server.address)
            page.drop(recording)
            server.decoder.step(2)
            page.wait_for("current?.notes.length === 2")
            server.stop()
            page.wait_for("element('trouble').textContent.startsWith('The server does not answer')", 20)
            server.start()
            page.wait_for("element('trouble').hidden", 20)
            page.wait_for(f"{JOBS}[0].state === 'lost'")
            assert "no longer has this recording" in state(page)
            page.drop(recording)
            server.decoder.step(40)
            page.wait_for(f"{JOBS}.some((job) => job.state === 'done')")
            assert all("ERR_" in problem for problem in page.problems)  # the browser's own words on a lost connection
    finally:
        server.stop()


def test_recording_from_the_microphone(page, slow):
    page.click("#record")
    page.wait_for("recorder && element('record').getAttribute('aria-pressed') === 'true'")
    time.sleep(1.5)
    page.click("#record")
    page.wait_for("current?.state === 'decoding'")
    assert page.run("current.name").startswith("Recording ")
    assert page.run("current.seconds") > 1
    slow.decoder.step(20)
    page.wait_for("current.state === 'done'")
    page.click("#play")
    page.wait_for("panel.player.audio.currentTime > 0.2")


def test_by_keyboard_and_with_a_screen_reader(page, slow, recording):
    page.drop(recording)
    slow.decoder.step(20)
    page.wait_for("current?.state === 'done'")
    nameless = page.run("""[...document.querySelectorAll('button, input, select, a, progress, canvas')]
        .filter((each) => !each.hasAttribute('aria-hidden'))
        .filter((each) => !(each.textContent.trim() || each.labels?.length || each.getAttribute('aria-label')))
        .map((each) => each.outerHTML)""")
    assert nameless == []
    assert "song.wav: 16 notes" in page.run("element('said').textContent")
    page.run("document.querySelector('#files').focus()")
    reached = set()
    for _ in range(60):
        for kind in ("keyDown", "keyUp"):
            page.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
        reached.add(page.run("document.activeElement.id || document.activeElement.dataset.does || ''"))
    assert {"record", "Open", "Remove", "play", "balance", "sound", "roll-notes", "shade"} <= reached


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [360, 800])
def test_it_fits_each_width_in_either_scheme(slow, recording, tmp_path, width, dark):
    with Page(tmp_path / "browser", width=width, dark=dark, is_online=True) as page:
        page.open(slow.address)
        page.drop(recording)
        slow.decoder.step(20)
        page.wait_for("current?.state === 'done'")
        page.run("element('choice').open = true; element('table').open = true")
        assert page.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        assert page.problems == []
