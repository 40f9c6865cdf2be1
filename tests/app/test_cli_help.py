"""The help of `mt3` and its commands, what a mistyped command gets, and completion by the shell."""

import os
import re
import shlex
import subprocess
import sys

import pytest
import typer

from mt3app.cli import app, run

pytestmark = pytest.mark.integration

ROOT = typer.main.get_command(app)
COMMANDS = {
    " ".join(words): command
    for name, top in ROOT.commands.items()
    for words, command in ([([name], top)] if not hasattr(top, "commands") else
                           [([name, inner], one) for inner, one in top.commands.items()])
}  # fmt: skip


@pytest.fixture
def help_of(capsys):
    def read(*words: str) -> str:
        assert run([*words, "--help"]) == 0
        return capsys.readouterr().out

    return read


def test_all_commands_are_here():
    assert len(COMMANDS) == 17
    assert {"transcribe", "evaluate", "data show"} <= COMMANDS.keys()


@pytest.mark.parametrize("name", ["", "data", *COMMANDS])
def test_help_is_in_words_for_people(help_of, name):
    text = help_of(*name.split())
    assert not re.search(r"[<>{}]|\.\.\.\n|…|list\[|x>=", text.replace("[ARGS]...", "").replace("INPUT...", "")), text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_has_an_example_that_can_be_typed(help_of, name):
    text = help_of(*name.split())
    examples = re.findall(r"^  Example: (.*)$", text, re.MULTILINE)
    assert len(examples) == 1
    program, *words = shlex.split(examples[0])
    assert [program, *words[: len(name.split())]] == ["mt3", *name.split()]
    context = COMMANDS[name].make_context(name, words[len(name.split()) :])
    assert any(context.params.values())


def test_usage_names_the_arguments(help_of):
    for name, usage in {
        "transcribe": "[OPTIONS] INPUT...",
        "convert": "[OPTIONS] SOURCE DESTINATION",
        "parity": "[OPTIONS] MODEL [RECORDING]",
        "prepare": "[OPTIONS] KIND [DIR]",
        "evaluate": "[OPTIONS] (REFERENCE ESTIMATE | --config NAME)",
    }.items():
        assert help_of(name).startswith(f"Usage: mt3 {name} {usage}\n")


def test_no_sentence_is_cut_in_the_list_of_commands(help_of):
    for words in ([], ["data"]):
        text = " ".join(help_of(*words).split())
        commands = ROOT.commands if not words else ROOT.commands["data"].commands
        for name, command in commands.items():
            first = " ".join((command.help or "").split("\n\n")[0].split())
            assert first.endswith(".")
            assert f"{name} {first}" in text


def test_the_many_options_of_evaluate_are_in_groups(help_of):
    text = help_of("evaluate")
    headings = re.findall(r"^(\S.*):$", text, re.MULTILINE)
    assert headings == ["Files of notes", "A model on data sets", "Scoring", "Options"]
    places = [text.index(f"\n{heading}:\n") for heading in headings]
    options = [text.index(f"\n  {option} ") for option in ("--report FILE", "--limit N", "--list", "-q, --quiet")]
    assert sorted([*places, *options]) == [place for pair in zip(places, options, strict=True) for place in pair]


def test_bounds_and_defaults_are_in_one_pair_of_brackets(help_of):
    text = " ".join(help_of("render").split())
    assert "--rate N Sample rate in Hz. [default: 44100; 8000 to 192000]" in text
    assert "--processes N Worker processes. [default: all cores; at least 1]" in text
    assert "--layout NAME slakh, maestro or folder. [required]" in text
    assert "--sound-font PATH " in text


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("transcribe", "mt3: Missing argument 'INPUT'. See mt3 transcribe -h."),
        (
            "transcribe a --processes 0",
            "mt3: Invalid value for '--workers' / '--processes': use at least 1. See mt3 transcribe -h.",
        ),
        ("data show x y", "mt3: Invalid value for 'N': use a whole number. See mt3 data show -h."),
        ("parity x --seconds y", "mt3: Invalid value for '--seconds': use a number. See mt3 parity -h."),
        ("trancsribe", "mt3: No such command 'trancsribe'. Did you mean 'transcribe'? See mt3 -h."),
        ("transcribe a --foo", "mt3: No such option: --foo. Similar ones: --format. See mt3 transcribe -h."),
        ("train --config", "mt3: Option '--config' requires an argument. See mt3 -h."),
        ("evaluate a", "mt3: A reference and an estimate are needed. For example: mt3 evaluate truth/ transcribed/"),
    ],
)
def test_a_mistyped_command_gets_a_sentence_and_the_next_step(capsys, words, sentence):
    assert run(words.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1] == sentence


def complete(folder, **environment):
    program = "from mt3app.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "HOME": str(folder), **environment}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout


def test_shells_complete_commands_and_options(tmp_path):
    found = complete(tmp_path, _MT3_COMPLETE="complete_bash", COMP_WORDS="mt3 tr", COMP_CWORD="1")
    assert found.split() == ["transcribe", "train"]
    found = complete(tmp_path, _MT3_COMPLETE="complete_bash", COMP_WORDS="mt3 evaluate --re", COMP_CWORD="2")
    assert found.split() == ["--report", "--reference-suffix"]
    found = complete(tmp_path, _MT3_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS="mt3 ev")
    assert "Score notes against a reference, by the rules of any published evaluation." in found


def test_completion_is_shown_and_installed_for_the_shell_in_use(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("shellingham.detect_shell", lambda: ("bash", "/bin/bash"))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(SystemExit) as ended:
        run(["--show-completion"])
    assert ended.value.code == 0
    assert "complete -o default -F _mt3_completion mt3" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run(["--install-completion"])
    assert "bash completion installed" in capsys.readouterr().out
    assert "mt3" in (tmp_path / ".bashrc").read_text()


def test_help_imports_neither_rich_nor_numbers():
    """Rich alone takes as long as everything else that help needs."""
    program = (
        "import sys\nfrom mt3app.cli import run\nrun(['--help'])\nrun(['evaluate', '-h'])\n"
        "print(sorted({'rich', 'numpy', 'torch', 'jax', 'scipy'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "word", ["song.mp3", "new/song", "my.FLAC", "*.wav", "there", "-", "https://example.org/a.mp3", "here.mid"]
)
def test_a_recording_in_the_place_of_a_command_is_transcribed(monkeypatch, tmp_path, word):
    taken = []
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    (tmp_path / "here.mid").touch()
    monkeypatch.setattr("mt3app.commands.transcribe.transcribe_files", lambda options, _: taken.append(options) or 0)
    assert run([word, "--format", "json"]) == 0
    assert [(options.inputs, options.formats) for options in taken] == [((word,), "json")]


def test_a_recording_whose_name_begins_like_an_option(monkeypatch):
    taken = []
    monkeypatch.setattr("mt3app.commands.transcribe.transcribe_files", lambda options, _: taken.append(options) or 0)
    assert run(["--", "-rf.wav"]) == 0
    assert [options.inputs for options in taken] == [("-rf.wav",)]


def test_commands_come_before_files_of_their_names(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "instruments").touch()
    assert run(["instruments"]) == 0
    assert "Violin" in capsys.readouterr().out


def test_without_anything_there_is_help(capsys):
    run([])
    out, err = capsys.readouterr()
    assert (out + err).startswith("Usage: mt3 ")
    assert "transcribe" in out + err
