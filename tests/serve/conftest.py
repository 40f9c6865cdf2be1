"""A recording, and servers of stand-ins that answer at once or one note at a time."""

import pytest
from page_server import PageServer, StandIn, song


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    return song(tmp_path_factory.mktemp("audio") / "song.wav")


@pytest.fixture
def server(tmp_path):
    with PageServer(tmp_path, StandIn()) as running:
        yield running


@pytest.fixture
def slow(tmp_path):
    with PageServer(tmp_path, StandIn(is_slow=True)) as running:
        yield running
