"""Figures of a training run: on disk, added up, and on the terminal."""

import io
import json
import math
import struct
import time
import zlib

import numpy as np
import pytest
from training_runs import training_config

pytest.importorskip("jax")

from mt3core.config.training import ReportConfig
from mt3core.errors import MissingExtraError, OutputError
from mt3jax.training.run import estimate
from mt3jax.training.run.console import Console, duration_text, progress_line
from mt3jax.training.run.meter import Meter
from mt3jax.training.run.run_log import METRICS_NAME, RunLog, read_metrics
from mt3jax.training.step.loss import EVENT_TYPES
from mt3jax.training.step.step_input import StepBatch

pytestmark = pytest.mark.unit


def open_log(folder, messages=None, first_step=0, is_writer=True, **report):
    config = ReportConfig(**{"tensorboard": False, **report})
    say = (messages if messages is not None else []).append
    return RunLog(folder, config, is_writer, say, {"name": "tiny", "seed": 3}, first_step)


def losses(folder):
    return [(line["step"], line["train/loss"]) for line in read_metrics(folder / METRICS_NAME)]


def write_png(path, width=3, height=2):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + bytes(3 * width) for _ in range(height)))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    return path


def test_a_resumed_run_reads_like_an_uninterrupted_one(tmp_path):
    with open_log(tmp_path) as log:
        for step in range(10, 60, 10):
            log.scalars(step, {"train/loss": 1 / step})
    with open_log(tmp_path, first_step=30) as log:
        for step in range(40, 70, 10):
            log.scalars(step, {"train/loss": 1 / step})
    assert losses(tmp_path) == [(step, 1 / step) for step in range(10, 70, 10)]
    assert [path.name for path in tmp_path.iterdir()] == [METRICS_NAME]


@pytest.mark.parametrize("tail", ['{"step": 20, "train/lo', '{"step": 20, "train/loss": 0.5}', "\0\0\0\0\n", '"x"\n'])
def test_a_line_that_a_kill_has_cut_is_mended(tmp_path, tail):
    whole = '{"step": 10, "train/loss": 0.25}\n'
    (tmp_path / METRICS_NAME).write_text(whole + tail)
    assert losses(tmp_path) == [(10, 0.25)]
    with open_log(tmp_path, first_step=20) as log:
        log.scalars(30, {"train/loss": 0.125})
    assert losses(tmp_path) == [(10, 0.25), (30, 0.125)]
    assert (tmp_path / METRICS_NAME).read_text().startswith(whole + '{"step": 30')


def test_a_whole_file_is_not_touched(tmp_path):
    with open_log(tmp_path) as log:
        log.scalars(10, {"train/loss": 1})
    before = (tmp_path / METRICS_NAME).stat()
    open_log(tmp_path, first_step=10).close()
    after = (tmp_path / METRICS_NAME).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_lines_are_there_at_once_and_are_json(tmp_path):
    with open_log(tmp_path) as log:
        log.scalars(1, {"train/loss": math.nan, "a": math.inf, "b": np.float32(0.5)})
        line = json.loads((tmp_path / METRICS_NAME).read_text(), parse_constant=pytest.fail)
    assert (line["step"], line["train/loss"], line["a"], line["b"]) == (1, None, None, 0.5)


def test_other_hosts_write_nothing(tmp_path):
    with open_log(tmp_path / "run", is_writer=False, tensorboard=True, wandb=True) as log:
        log.scalars(1, {"train/loss": 1})
        log.picture(1, "picture", tmp_path / "missing.png")
    assert not (tmp_path / "run").exists()


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="jsonl cannot be written"):
        open_log(tmp_path / "file")


def test_tensorboard_has_figures_and_pictures(tmp_path):
    pytest.importorskip("tensorboardX")
    picture = write_png(tmp_path / "roll.png")
    with open_log(tmp_path, tensorboard=True) as log:
        log.scalars(10, {"train/loss": 0.5, "speed/mfu": 0.25})
        log.scalars(20, {"train/loss": math.nan})
        log.picture(20, "val/pieces", picture)
    with open_log(tmp_path, tensorboard=True, first_step=10) as log:
        log.scalars(20, {"train/loss": 0.25})
    first, second = (event_values(path) for path in sorted((tmp_path / "tensorboard").iterdir()))
    assert first[:2] == [(10, "train/loss", 0.5), (10, "speed/mfu", 0.25)]
    assert first[2:] == [(20, "val/pieces", (3, 2, picture.read_bytes()))]
    assert second == [(11, "session", 1), (20, "train/loss", 0.25)]  # from step 11 on it replaces the first


def event_values(path):
    """(step, name, value) of a TFRecord file of events: length, its CRC, the event, its CRC."""
    from tensorboardX.proto.event_pb2 import Event

    file, values = io.BytesIO(path.read_bytes()), []
    while header := file.read(12):
        event = Event.FromString(file.read(struct.unpack("<Q", header[:8])[0]))
        file.read(4)
        if event.HasField("session_log"):
            values.append((event.step, "session", event.session_log.status))
        for value in event.summary.value:
            image = value.image
            is_image = value.HasField("image")
            shown = (image.width, image.height, image.encoded_image_string) if is_image else value.simple_value
            values.append((event.step, value.tag, shown))
    return values


@pytest.fixture
def without(monkeypatch):
    """Makes packages look as if they were not installed."""
    return lambda name: monkeypatch.setitem(__import__("sys").modules, name, None)


def test_without_tensorboard_a_sentence_says_so(tmp_path, without):
    without("tensorboardX")
    messages = []
    with open_log(tmp_path, messages, tensorboard=True) as log:
        log.scalars(1, {"train/loss": 1})
    assert losses(tmp_path) == [(1, 1.0)]
    assert len(messages) == 1
    assert "report.tensorboard=true needs tensorboardX, which is not installed. Run: pip install" in messages[0]


def test_without_wandb_nothing_begins(tmp_path, without):
    without("wandb")
    with pytest.raises(MissingExtraError, match=r"report\.wandb=true needs wandb, .* Run: pip install wandb "):
        open_log(tmp_path, wandb=True)
    assert not list(tmp_path.iterdir())


def test_wandb_goes_on_with_the_same_run_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="Weights & Biases is not installed")
    for name, value in {"MODE": "offline", "CACHE_DIR": tmp_path / "c", "CONFIG_DIR": tmp_path / "d"}.items():
        monkeypatch.setenv(f"WANDB_{name}", str(value))
    run = tmp_path / "run"
    with open_log(run, wandb=True) as log:
        log.scalars(10, {"train/loss": 0.5})
        log.picture(10, "val/pieces", write_png(tmp_path / "roll.png"))
    identity = (run / "wandb_id.txt").read_text().strip()
    with open_log(run, wandb=True, first_step=10) as log:
        log.scalars(20, {"train/loss": 0.25})
    stored = list((run / "wandb").rglob("*.wandb"))
    assert len(stored) == 2
    assert all(identity in path.name for path in stored)
    deadline = time.monotonic() + 10  # its own process writes on for some milliseconds after the run is finished
    while not all(b"train/loss" in path.read_bytes() for path in stored):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert list((run / "wandb").rglob("media/images/val/*.png"))
    assert losses(run) == [(10, 0.5), (20, 0.25)]


def step_metrics(loss=2.0, tokens=100, bad=0, norm=1.5, correct=None, count=None):
    zeros = np.zeros(len(EVENT_TYPES), np.float32)
    return {
        "loss": np.float32(loss),
        "cross_entropy": np.float32(loss) - np.float32(0.25),
        "z_loss": np.float32(0.25),
        "gradient_norm": np.float32(norm),
        "learning_rate": np.float32(1e-3),
        "num_tokens": np.float32(tokens),
        "rejection": np.int32(bad),
        "correct": zeros if correct is None else np.asarray(correct, np.float32),
        "count": zeros if count is None else np.asarray(count, np.float32),
    }


def step_batch(places=400, wait_seconds=0.0, num_left_out=0):
    host = {
        "index": np.array([0, 1, 2, -1]),
        "num_tokens": np.array([5, 21, 20, 0]),
        "num_rejected": np.array([0, 2, 1, 0]),
    }
    return StepBatch({"targets": np.zeros((2, places // 2))}, host, {}, num_left_out, wait_seconds)


def test_meter_adds_steps_up(monkeypatch):
    now = [100.0]
    config = training_config(batch={"examples": 4})
    monkeypatch.setattr(estimate, "peak_flops", lambda kind=None: 1e6)
    meter = Meter(config, num_devices=2, clock=lambda: now[0])
    now[0] = 150.0
    meter.start()
    first = {"correct": [10, 20, 0, 0, 0, 0, 4], "count": [20, 40, 0, 0, 0, 0, 4]}
    second = {"correct": [5, 0, 0, 1, 0, 0, 0], "count": [20, 0, 0, 10, 0, 0, 0]}
    meter.add(step_metrics(2.0, 100, norm=1.0, **first), step_batch(wait_seconds=0.5))
    with meter.paused():
        now[0] += 70.0
    meter.add(step_metrics(5.0, 300, norm=3.0, **second), step_batch(num_left_out=1))
    meter.add(step_metrics(math.nan, 100, bad=1, norm=math.inf), step_batch())
    now[0] += 4.0
    figures = meter.take()
    assert figures == pytest.approx(
        {
            "train/loss": (2.0 * 100 + 5.0 * 300) / 400,
            "train/cross_entropy": (1.75 * 100 + 4.75 * 300) / 400,
            "train/z_loss": 0.25,
            "train/accuracy": 40 / 94,
            "train/accuracy_shift": 15 / 40,
            "train/accuracy_pitch": 20 / 40,
            "train/accuracy_tie": 1 / 10,
            "train/accuracy_end": 1.0,
            "train/gradient_norm": 2.0,
            "train/learning_rate": 1e-3,
            "train/skipped_updates": 1,
            "speed/steps_per_second": 3 / 4,
            "speed/examples_per_second": 12 / 4,
            "speed/tokens_per_second": 500 / 4,
            "speed/input_wait": 0.125,
            "speed/mfu": 3 * estimate.example_flops(config.model, 500 / 12) / 2e6,
            "data/tokens_per_example": 500 / 12,
            "data/padding": 1 - 500 / 1200,
            "data/rejected": 9 / 9,
            "data/cut": (3 + 1) / 9,
        }
    )
    assert meter.take() == {}
    meter.add(step_metrics(math.nan, 100, bad=1), step_batch())
    now[0] += 2.0
    monkeypatch.setattr(estimate, "peak_flops", lambda kind=None: None)
    figures = meter.take()
    assert figures["speed/steps_per_second"] == 0.5
    assert figures["train/skipped_updates"] == 1
    assert not {"train/loss", "train/accuracy", "speed/mfu"} & set(figures)


FIGURES = {
    "train/loss": 1.2341,
    "train/accuracy": 0.562,
    "speed/examples_per_second": 1980.4,
    "speed/mfu": 0.41,
    "speed/input_wait": 0.011,
    "train/skipped_updates": 0,
    "speed/steps_per_second": 0.5,
}


def test_progress_line():
    line = "step 1,200/1,000,000  loss 1.234  accuracy 56 %  1,980 ex/s  MFU 41 %  waiting 1 %"
    assert progress_line(1200, 1_000_000, FIGURES, 11_520.0) == line + "  left 3 h 12 min"
    assert progress_line(1200, 1_000_000, FIGURES) == line
    assert progress_line(3, 9, {"train/skipped_updates": 2, "speed/examples_per_second": 0.512}) == (
        "step 3/9  0.51 ex/s  2 skipped"
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (61, "1 min"), (3599, "1 h 00 min"), (86_399, "1 d 0 h"), (190_000, "2 d 4 h")],
)
def test_duration_text(seconds, text):
    assert duration_text(seconds) == text


def test_console_says_a_line_each_report_without_a_terminal():
    lines, now = [], [0.0]
    with Console(100, 20, True, lines.append, is_terminal=False, clock=lambda: now[0]) as console:
        console.step(21)
        console.say("hello")
        console.report(40, FIGURES)
        now[0] = 10.0
        console.report(60, {})
    assert lines[0] == "hello"
    assert lines[1].startswith("step 40/100  loss 1.234")
    assert lines[1].endswith("left 2 min")  # 60 steps at 0.5 a second
    assert lines[2:] == ["step 60/100  left 20 s"]  # 20 steps took 10 seconds


@pytest.mark.parametrize(("is_shown", "is_terminal"), [(True, False), (True, True), (False, False)])
def test_compiling_is_announced_where_there_is_no_terminal(is_shown, is_terminal):
    """On a terminal the live line says it."""
    lines = []
    with Console(100, 0, is_shown, lines.append, is_terminal) as console:
        console.compiling("the training step")
    line = "Compiling the training step; this can take minutes, less if it is in the cache ..."
    assert (line in lines) is (is_shown and not is_terminal)


def test_console_shows_one_live_line_on_a_terminal(capsys):
    lines = []
    with Console(100, 0, True, lines.append, is_terminal=True) as console:
        console.report(50, FIGURES)
        console.note("validating")
        console.say("[hello]")
        console.step(51)
    assert lines == [progress_line(51, 100, FIGURES)]  # what stays
    assert "[hello]" in capsys.readouterr().err


def test_quiet_console_says_messages_only():
    lines = []
    with Console(100, 0, False, lines.append, is_terminal=True) as console:
        console.report(50, FIGURES)
        console.say("hello")
    assert lines == ["hello"]
