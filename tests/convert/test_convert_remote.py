"""Checkpoints over the network, from a server on this machine that can also break off, lie and be down."""

import hashlib
import http.server
import json
import threading
import urllib.parse

import numpy as np
import pytest

from mt3convert import remote
from mt3convert.sources import load
from mt3convert.t5x import write_t5x
from mt3core.errors import ModelError
from mt3core.model.directory import save_model_directory
from mt3core.model.search import is_address

pytestmark = pytest.mark.unit

WO = "target.decoder.layers_1.mlp.wo.kernel/0.0"
QUERY = "target.encoder.layers_0.attention.query.kernel/0.0"


class Server(http.server.ThreadingHTTPServer):
    """Serves a folder; `requests` counts by path, `trouble` maps paths to what goes wrong how often."""

    daemon_threads = True
    request_queue_size = 64  # with the default of 5, connections made side by side wait a second

    def __init__(self, folder):
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.requests = []
        self.trouble = {}
        self.url = f"http://127.0.0.1:{self.server_port}/models/mt3"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        name = urllib.parse.unquote(self.path).removeprefix("/models/mt3/")
        self.server.requests.append(name)
        path = self.server.folder / name
        if not path.is_file():
            self.send_error(404)
            return
        content = path.read_bytes()
        kind, times = self.server.trouble.get(name, ("", 0))
        if times:
            self.server.trouble[name] = (kind, times - 1)
        if times and kind == "refuse":
            self.send_error(503)
            return
        sent = content
        if times and kind == "damage":
            sent = content[:-9] + bytes(255 - byte for byte in content[-9:])
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(sent[: len(sent) // 2] if times and kind == "cut" else sent)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(tmp_path, tiny_model, monkeypatch):
    monkeypatch.setenv("MT3_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MT3_OFFLINE", raising=False)
    monkeypatch.setattr(remote, "_RETRIES", {"max_retries": 1, "initial_delay": "1ms", "max_delay": "1ms"})
    write_t5x(tmp_path / "served", *tiny_model)
    with Server(tmp_path / "served") as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def assert_loads(server, tiny_model):
    loaded = load(server.url)
    assert (loaded.config, loaded.kind) == (tiny_model[0], "remote")
    for name, array in tiny_model[1].items():
        np.testing.assert_array_equal(loaded.arrays[name], array)


def test_every_file_is_fetched_once(server, tiny_model, tmp_path):
    seen = []
    assert not remote.is_complete(server.url)
    directory = remote.fetch(server.url, lambda done, of: seen.append((done, of)))
    assert directory.is_relative_to(tmp_path / "cache" / "checkpoints")
    fetched = {str(p.relative_to(directory)) for p in directory.rglob("*") if p.is_file()}
    served = {str(p.relative_to(server.folder)) for p in server.folder.rglob("*") if p.is_file()}
    assert fetched == served | {"manifest.json"}
    assert sorted(server.requests) == sorted(served)
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1] == len(served) - 2
    assert_loads(server, tiny_model)
    assert len(server.requests) == len(served)
    assert remote.is_complete(server.url)


def test_without_a_configuration_nothing_is_asked_again(server):
    (server.folder / "config.json").unlink()
    remote.fetch(server.url)
    requests = len(server.requests)
    remote.fetch(server.url)
    assert len(server.requests) == requests


def test_the_cached_model_needs_no_network(server, tiny_model):
    remote.fetch(server.url)
    server.trouble = dict.fromkeys(server.requests, ("refuse", 99))
    assert_loads(server, tiny_model)


@pytest.mark.parametrize("kind", ["refuse", "cut", "damage"])
def test_a_passing_trouble_is_overcome(server, tiny_model, kind):
    server.trouble = {WO: (kind, 1), QUERY: (kind, 1), "checkpoint": (kind, 1)}
    assert_loads(server, tiny_model)


def test_a_broken_off_transfer_is_resumed(server, tiny_model):
    server.trouble = {WO: ("cut", 99)}
    with pytest.raises(ModelError) as caught:
        remote.fetch(server.url)
    assert f"{server.url} cannot be downloaded" in caught.value.problem
    assert "run the command again to resume" in caught.value.next_step
    directory = remote.cache_directory(server.url)
    assert not (directory / WO).exists()
    assert not remote.is_complete(server.url)
    kept = {str(p.relative_to(directory)) for p in directory.rglob("*") if p.is_file()}
    assert len(kept) > 10
    server.trouble = {}
    server.requests.clear()
    assert_loads(server, tiny_model)
    assert not kept & set(server.requests)
    assert WO in server.requests


def test_what_arrives_damaged_is_never_kept(server):
    server.trouble = {WO: ("damage", 99)}
    with pytest.raises(ModelError, match="arrived damaged") as caught:
        remote.fetch(server.url)
    assert WO in caught.value.problem
    assert not (remote.cache_directory(server.url) / WO).exists()


@pytest.mark.parametrize("name", [WO, "checkpoint", "config.json"])
@pytest.mark.parametrize("damage", ["remove", "cut", "change"])
def test_a_damaged_cache_is_repaired(server, tiny_model, damage, name):
    path = remote.fetch(server.url) / name
    content = path.read_bytes()
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(content[:-1] + (b"" if damage == "cut" else bytes([content[-1] ^ 1])))
    server.requests.clear()
    assert_loads(server, tiny_model)
    assert server.requests == [name]
    assert path.read_bytes() == content


def test_without_its_manifest_the_cache_is_judged_by_content(server, tiny_model):
    directory = remote.fetch(server.url)
    (directory / "manifest.json").write_text("{")
    (directory / WO).write_bytes((directory / WO).read_bytes()[:-1])
    server.requests.clear()
    assert_loads(server, tiny_model)
    assert server.requests == [WO]
    manifest = json.loads((directory / "manifest.json").read_text())
    assert manifest["complete"]
    assert manifest["files"][WO]["size"] == (server.folder / WO).stat().st_size


def test_an_incomplete_checkpoint(server):
    (server.folder / WO).unlink()
    with pytest.raises(ModelError, match=f"{WO} is missing: the checkpoint there is incomplete"):
        remote.fetch(server.url)


def test_nothing_there(server):
    for path in ("checkpoint", "config.json"):
        (server.folder / path).unlink()
    with pytest.raises(ModelError, match="There is no checkpoint at"):
        remote.fetch(server.url)


def test_offline(monkeypatch, tmp_path):
    monkeypatch.setenv("MT3_CACHE", str(tmp_path))
    monkeypatch.delenv("MT3_OFFLINE", raising=False)
    monkeypatch.setattr(remote, "_RETRIES", {"max_retries": 1, "initial_delay": "1ms", "max_delay": "1ms"})
    with pytest.raises(ModelError) as caught:
        remote.fetch("http://127.0.0.1:9/checkpoints/mt3")
    assert "http://127.0.0.1:9/checkpoints/mt3 cannot be downloaded: " in caught.value.problem
    assert "Check the connection" in caught.value.next_step


def test_a_model_directory(server, tiny_model, tmp_path):
    save_model_directory(tmp_path / "model", *tiny_model)
    server.folder = tmp_path / "model"
    assert_loads(server, tiny_model)


@pytest.mark.parametrize("missing_bytes", [1, 4000])
def test_shorter_safetensors_than_their_header_says_are_never_complete(server, tiny_model, tmp_path, missing_bytes):
    save_model_directory(tmp_path / "model", *tiny_model)
    server.folder = tmp_path / "model"
    weights = server.folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-missing_bytes])
    with pytest.raises(ModelError, match="arrived damaged") as caught:
        load(server.url)
    said = (
        f"model.safetensors (by its header it has {len(whole):,} bytes, but there are {len(whole) - missing_bytes:,})"
    )
    assert said in caught.value.problem
    assert not remote.is_complete(server.url)
    assert not (remote.cache_directory(server.url) / "model.safetensors").exists()
    weights.write_bytes(whole)
    assert_loads(server, tiny_model)


def test_cut_safetensors_that_were_recorded_as_complete_are_fetched_again(server, tiny_model, tmp_path):
    """Earlier releases marked them so."""
    save_model_directory(tmp_path / "model", *tiny_model)
    server.folder = tmp_path / "model"
    directory = remote.fetch(server.url)
    content = (directory / "model.safetensors").read_bytes()[:-100]
    (directory / "model.safetensors").write_bytes(content)
    manifest = json.loads((directory / "manifest.json").read_text())
    manifest["files"]["model.safetensors"] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (directory / "manifest.json").write_text(json.dumps(manifest))
    assert remote.is_complete(server.url)
    server.requests.clear()
    assert_loads(server, tiny_model)
    assert server.requests == ["model.safetensors"]


def test_addresses():
    assert is_address("gs://mt3/checkpoints/mt3")
    assert is_address("https://example.org/mt3")
    assert not is_address("models/mt3")
    assert not is_address("gs")
    published = remote.cache_directory("gs://mt3/checkpoints/mt3/")
    assert published.parts[-4:] == ("storage.googleapis.com", "mt3", "checkpoints", "mt3")
    assert ".." not in remote.cache_directory("https://example.org/../../x").parts
