"""Commands that are killed, that find the disk full, or that are given places they cannot use.

After each accident: no output under its final name that is not whole, no process left running, one sentence if the
command could say one. Then the same command again, undisturbed: it must end well, with the same outputs as if nothing
had happened, and with no temporary names left.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from reliability.commands import (
    COMMANDS,
    OUT,
    Command,
    build_inputs,
    check_sentence,
    contents,
    import_everything,
    learn,
    learnt,
    leftovers,
    limit_file_size,
    run_command,
    stable,
)
from reliability.findings import Found
from reliability.kinds import Case, Kind, Reading, Source, scratch_folder
from reliability.mutations import Mutated

_MOST_SECONDS = 60.0  # for a command whose usual time is a second or two
_SPARE_BYTES = 64 << 20


class Interrupted(Kind):
    """A case is JSON: which command, and what happens to it."""

    limits_memory = False
    command_every = 0
    usual_reads = 1
    shares: ClassVar[Mapping[str, float]] = {command.name: command.share for command in COMMANDS}

    @classmethod
    def build(cls, folder: Path) -> None:
        build_inputs(folder)
        learn(folder, scratch_folder())

    def open(self) -> None:
        import_everything(self.folder, self.scratch)
        self._learnt = learnt(self.folder, self.scratch)
        self._commands = {command.name: command for command in COMMANDS if self.shares.get(command.name)}
        self.sources = [Source(name, json.dumps({"undisturbed": True}).encode()) for name in self._commands]
        self._mounted = self.scratch / "mounted"

    def _fresh(self) -> Path:
        out = self.scratch / OUT
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        return out

    def limit_seconds(self, usual_seconds: float) -> float:
        return 20 * _MOST_SECONDS  # `run_command` has a limit for each command

    def case(self, rng: np.random.Generator) -> Case:
        names = list(self._commands)
        shares = np.array([self.shares[name] for name in names])
        name = str(rng.choice(names, p=shares / shares.sum()))
        values = self.draw(rng, self._commands[name])
        source = next(source for source in self.sources if source.name == name)
        return Case(source, Mutated(json.dumps(values).encode(), json.dumps(values), "accident", 0, True))

    def draw(self, rng: np.random.Generator, command: Command) -> dict[str, Any]:
        """What happens, in JSON-ready values."""
        raise NotImplementedError

    def happen(self, command: Command, values: Mapping[str, Any]) -> Reading:
        """Lets it happen and checks what is left."""
        raise NotImplementedError

    def read(self, source: Source, data: bytes) -> Reading:
        values = json.loads(data)
        command = self._commands[source.name]
        if values.get("undisturbed"):
            return Reading(0, "")
        return self.happen(command, values)

    def judge(self, case: Case, reading: Reading, whole: Reading) -> str:
        return ""

    # ---- What must hold after an accident

    def check_outputs(self, command: Command, out: Path, earlier: Mapping[str, bytes]) -> None:
        """Raises `Found` for a file under a final name that is neither the earlier nor the new one."""
        found = contents(out)
        if command.name == "train":
            _check_run(out / "run")
            return
        expected = self._learnt[command.name].expected
        for name, data in found.items():
            if data not in (expected.get(name), earlier.get(name)):
                raise Found("half-written", f"mt3 {command.name}: {name} has {len(data)} bytes that are not a result")
        for pattern in command.atomic:
            for place in out.glob(pattern):
                below = place.relative_to(out).as_posix() + "/"
                for whole in (expected, earlier):
                    names = {name for name in whole if name.startswith(below)}
                    if names and names == {name for name in found if name.startswith(below)}:
                        break
                else:
                    raise Found("half-written", f"mt3 {command.name}: {below} is not complete")

    def run_again(self, command: Command, out: Path, overwrite: bool = False) -> list[str]:
        """The same command undisturbed. Raises `Found` unless everything is there; returns the names left over."""
        line = command.line(self.folder / "inputs", out, overwrite)
        ended = run_command(line, self.scratch, self.most_seconds(command))
        expected = self._learnt[command.name].expected
        if ended.code and not ("already exists" in ended.said and stable(contents(out)) == expected):
            check_sentence(line, ended)
            raise Found("half-written", f"mt3 {command.name} cannot go on: {ended.said[-600:]}")
        found = stable(contents(out))
        if differing := sorted(name for name in {*found, *expected} if found.get(name) != expected.get(name)):
            raise Found("half-written", f"mt3 {command.name}, run again, gives other results: {differing[:5]}")
        return leftovers(out)

    def most_seconds(self, command: Command) -> float:
        return max(_MOST_SECONDS, 10 * self._learnt[command.name].seconds)


class Kills(Interrupted):
    """kill -9 after a random share of the usual time; sometimes over earlier outputs, with --overwrite."""

    name = "kills"

    def draw(self, rng: np.random.Generator, command: Command) -> dict[str, Any]:
        return {
            "kill_after": round(float(rng.uniform(0.0, 1.05)), 4),
            "overwrite": bool(command.overwrites and rng.random() < 0.4),
        }

    def happen(self, command: Command, values: Mapping[str, Any]) -> Reading:
        out, overwrite = self._fresh(), bool(values["overwrite"])
        earlier = self._earlier_outputs(command, out) if overwrite else {}
        line = command.line(self.folder / "inputs", out, overwrite)
        kill_after = values["kill_after"] * self._learnt[command.name].seconds
        ended = run_command(line, self.scratch, self.most_seconds(command), kill_after)
        notes = [f"{command.name}: {'killed' if ended.was_killed else 'had ended'}"]
        if not ended.was_killed:
            check_sentence(line, ended)
        self.check_outputs(command, out, earlier)
        left = leftovers(out)
        if left:
            notes.append(f"{command.name}: temporary names after the kill")
            for name in left:  # as if some time had passed: the next run leaves what may still be in use
                os.utime(out / name, (0, 0))
        remaining = self.run_again(command, out, overwrite)
        if left and remaining:
            notes.append(f"{command.name}: temporary names after the next run, such as {_pattern(remaining[0])}")
        elif remaining:
            raise Found("half-written", f"mt3 {command.name} leaves {remaining[0]} although it ended well")
        return Reading(len(left), "", notes=tuple(notes))

    def _earlier_outputs(self, command: Command, out: Path) -> dict[str, bytes]:
        """Writes other results under the names of this command's, of half the length."""
        earlier = {
            name: data if name.endswith("rendering.json") else data[: len(data) // 2] + b"earlier"
            for name, data in self._learnt[command.name].expected.items()
        }
        for name, data in earlier.items():
            path = out / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return earlier


class Disks(Interrupted):
    """A disk that becomes full while the command writes: a small tmpfs, or a limit on the size of files."""

    name = "disks"

    def draw(self, rng: np.random.Generator, command: Command) -> dict[str, Any]:
        share = float(rng.choice([rng.uniform(0.0, 0.2), rng.uniform(0.0, 1.3)]))
        return {"bytes": int(share * self._learnt[command.name].num_bytes) + 4096}

    def happen(self, command: Command, values: Mapping[str, Any]) -> Reading:
        with self._disk(values["bytes"]) as (out, is_mounted):
            line = command.line(self.folder / "inputs", out)
            limit = (lambda: None) if is_mounted else limit_file_size(values["bytes"] // 4)
            ended = run_command(line, self.scratch, self.most_seconds(command), before=limit)
            check_sentence(line, ended)
            self.check_outputs(command, out, {})
            if left := leftovers(out):
                raise Found("half-written", f"mt3 {command.name} leaves {left[0]} on a full disk")
            if ended.code == 0 and stable(contents(out)) != self._learnt[command.name].expected:
                raise Found("half-written", f"mt3 {command.name} says nothing of the full disk")
            if is_mounted:
                size = values["bytes"] + 4 * self._learnt[command.name].num_bytes + _SPARE_BYTES
                _mount("-o", f"remount,size={size}", str(self._mounted))
            self.run_again(command, out)
        how = "tmpfs" if is_mounted else "limited files"
        return Reading(0, "", notes=(f"{command.name}: {'fits' if ended.code == 0 else 'full'} ({how})",))

    @contextmanager
    def _disk(self, num_bytes: int) -> Iterator[tuple[Path, bool]]:
        self._mounted.mkdir(exist_ok=True)
        if _mount("-t", "tmpfs", "-o", f"size={num_bytes}", "tmpfs", str(self._mounted)):
            try:
                yield self._mounted / OUT, True
            finally:
                subprocess.run(["umount", "--lazy", str(self._mounted)], check=False, capture_output=True)
        else:
            yield self._fresh(), False


class Places(Interrupted):
    """Places that cannot be written, and inputs that are not what their names say."""

    name = "places"
    odd: ClassVar[tuple[str, ...]] = (
        *("read-only", "out is a file", "out below a file", "output is a folder", "no permission"),
        *("input is missing", "input is a folder", "input is a broken link", "input is empty"),
        *("input cannot be read", "input behind a closed folder", "long name"),
    )

    def draw(self, rng: np.random.Generator, command: Command) -> dict[str, Any]:
        return {"odd": str(rng.choice(self.odd)), "which": int(rng.integers(0, 100))}

    def happen(self, command: Command, values: Mapping[str, Any]) -> Reading:
        odd, inputs, out = values["odd"], self.folder / "inputs", self._fresh()
        if odd.startswith("input"):
            inputs = self._other_inputs(command, odd, values["which"])
        with self._odd_out(odd, out, command) as place:
            line = command.line(inputs, place)
            ended = run_command(line, self.scratch, self.most_seconds(command), before=self._become(odd))
        check_sentence(line, ended)
        if ended.code == 0 and not odd.startswith("input") and odd not in ("long name", "output is a folder"):
            raise Found("message", f"mt3 {command.name} ends well although: {odd}")
        if left := leftovers(out):
            raise Found("half-written", f"mt3 {command.name} leaves {left[0]}: {odd}")
        return Reading(0, "", notes=(f"{odd}: {'refused' if ended.code else 'done'}",))

    def _become(self, odd: str):
        """Without the rights of the superuser, whom no permission stops."""
        needs = odd in ("no permission", "input cannot be read", "input behind a closed folder")
        needs = needs and os.geteuid() == 0

        def drop() -> None:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)

        return drop if needs else lambda: None

    @contextmanager
    def _odd_out(self, odd: str, out: Path, command: Command) -> Iterator[Path]:
        if odd == "read-only":
            with _read_only(self._mounted, out) as place:
                yield place
        elif odd == "no permission":
            os.chmod(self.scratch, 0o755)
            os.chmod(out, 0o555)
            yield out
        elif odd in ("out is a file", "out below a file"):
            out.rmdir()
            out.write_text("a file")
            yield out if odd == "out is a file" else out / "below"
            out.unlink()
        elif odd == "output is a folder":
            name = (
                sorted(self._learnt[command.name].expected)[0]
                if self._learnt[command.name].expected
                else "run/run.json"
            )
            (out / name / "inside").mkdir(parents=True)
            yield out
        elif odd == "long name":
            yield out / ("n" * 200) / ("ö" * 127)
        else:
            yield out

    def _other_inputs(self, command: Command, odd: str, which: int) -> Path:
        """A copy of the inputs in which one file that the command reads is odd."""
        inputs = self.scratch / "other_inputs"
        shutil.rmtree(inputs, ignore_errors=True)
        os.chmod(self.scratch, 0o755)  # for whoever has no rights
        shutil.copytree(self.folder / "inputs", inputs)
        read = [part.split("/")[1] for part in command.arguments if part.startswith("INPUTS/")]
        paths = sorted(path for name in read for path in [inputs / name, *(inputs / name).rglob("*")] if path.is_file())
        path = paths[which % len(paths)]
        path.unlink()
        if odd == "input is a folder":
            path.mkdir()
        elif odd == "input is a broken link":
            path.symlink_to("nowhere")
        elif odd == "input is empty":
            path.touch()
        elif odd == "input cannot be read":
            path.write_bytes(b"secret")
            os.chmod(path, 0)
        elif odd == "input behind a closed folder":
            path.touch()
            os.chmod(path.parent, 0)
        return inputs


@contextmanager
def _read_only(mounted: Path, out: Path) -> Iterator[Path]:
    mounted.mkdir(exist_ok=True)
    if _mount("-t", "tmpfs", "-o", "size=1m,ro", "tmpfs", str(mounted)):
        try:
            yield mounted / OUT
        finally:
            subprocess.run(["umount", "--lazy", str(mounted)], check=False, capture_output=True)
    else:
        os.chmod(out, 0o555)
        yield out


def _mount(*arguments: str) -> bool:
    """Whether it could be mounted; that needs the superuser's rights."""
    return (
        shutil.which("mount") is not None
        and not subprocess.run(["mount", *arguments], check=False, capture_output=True).returncode
    )


def _check_run(run: Path) -> None:
    """Raises `Found` for a checkpoint under its final name that is not whole, or a record that is not JSON."""
    from mt3jax.training.run.checksums import RECORD_FILE, find_damage

    if not run.is_dir():
        return
    for step in (path for path in run.iterdir() if path.name.isdigit()):
        problem = find_damage(step) or ("" if (step / RECORD_FILE).is_file() else "it has no checksums")
        if problem:
            raise Found("half-written", f"checkpoint {step.name}: {problem}")
    record = run / "run.json"
    if record.exists():
        try:
            json.loads(record.read_text())
        except ValueError as error:
            raise Found("half-written", f"run.json: {error}") from None


def _pattern(name: str) -> str:
    """A temporary name without its random part."""
    return "/".join(part.rsplit(".", 1)[0] + ".*" if part.startswith(".") else part for part in name.split("/"))
