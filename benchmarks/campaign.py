"""Reads mutated files by the thousand, kills commands and fills disks, and counts what should never happen.

    python benchmarks/campaign.py [--kinds audio,midi,...] [--seed 0] [--seconds 600] [--count 2000]
                                  [--json FILE] [--findings FOLDER] [--processes 2]
    python benchmarks/campaign.py --replay FINDING.json
    python benchmarks/campaign.py --list

A kind is a sort of file, or of accident (`--list`). Every case follows from the seed and its number, so that
`--replay` repeats a finding; the bytes are stored beside it. `--seconds` is shared by the kinds; each ends when its
share is used up or `--count` cases are done. docs/reliability.md says what counts as a finding, and the last results.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from reliability.findings import Tally, stored, table
from reliability.registry import KINDS, SOURCES_OF, kind_of
from reliability.running import Work, run_kind
from reliability.worker import Worker, captured_output, random_of

from mt3core.files import atomic_output
from mt3core.processors import num_processors


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a campaign; returns 1 if something was found, otherwise 0."""
    options = _parse(arguments)
    if options.list:
        for name, about in KINDS.items():
            print(f"{name:12} {about}")
        return 0
    if options.build:
        kind_of(options.build[0]).build(Path(options.build[1]))
        return 0
    if options.worker:
        return _work(Work(**json.loads(options.worker)))
    if options.replay:
        return _replay(options.replay)
    return _campaign(options)


def _campaign(options: argparse.Namespace) -> int:
    names = [name for name in KINDS if name in options.kinds]
    ends, tallies = time.time() + options.seconds, []
    with tempfile.TemporaryDirectory(prefix="campaign.") as folder:
        os.chmod(folder, 0o755)  # some cases give up the superuser's rights
        for number, name in enumerate(names):
            share = max(1.0, (ends - time.time()) / (len(names) - number))
            sources = Path(folder) / SOURCES_OF.get(name, name)
            tally = run_kind(name, sources, options.seed, options.count, share, options.processes, options.findings)
            tallies.append(tally)
            _report(tally)
            if options.json:
                with atomic_output(options.json) as temporary:
                    temporary.write_text(json.dumps(_as_json(options, tallies), indent=1) + "\n", encoding="utf-8")
    print(table(tallies))
    return 1 if any(tally.sorts for tally in tallies) else 0


def _report(tally: Tally) -> None:
    """What was found in a kind, on standard error."""
    print(f"{tally.kind}: {tally.files:,} cases in {tally.seconds:.0f} s, {dict(tally.sorts)}", file=sys.stderr)
    for name in tally.unreadable:
        print(f"  not read whole: {name}", file=sys.stderr)
    for note, count in tally.notes.most_common():
        print(f"  {count} times: {note}", file=sys.stderr)
    for signature, count in tally.signatures.most_common(40):
        example = tally.examples[signature]
        print(f"  {count} x {example.sort}: {example.message} [{example.where}; {example.number}]", file=sys.stderr)
    sys.stderr.flush()


def _as_json(options: argparse.Namespace, tallies: list[Tally]) -> dict:
    return {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "seed": options.seed,
        "count": options.count,
        "seconds": options.seconds,
        "kinds": {tally.kind: tally.as_json() for tally in tallies},
    }


def _work(work: Work) -> int:
    """The scratch folder is removed by the process that reads what is said here, which may still need it."""
    kind = kind_of(work.kind)(Path(work.folder))
    with captured_output(kind.scratch) as (say, captured):
        worker = Worker(kind, work.seed, say, captured)
        worker.open()
        worker.work(work.first, work.step, work.last, work.seconds)
    return 0


def _replay(path: Path) -> int:
    """Reads a stored case again, and prints what happens; 1 if it is still a finding."""
    finding, data = stored(path)
    print(f"{finding.kind}, seed {finding.seed}, number {finding.number}: {finding.sort}: {finding.message}")
    with tempfile.TemporaryDirectory(prefix="campaign.") as folder:
        kind_of(finding.kind).build(Path(folder))
        kind = kind_of(finding.kind)(Path(folder))
        try:
            with open(os.devnull, "w") as nowhere, tempfile.TemporaryFile() as captured:
                worker = Worker(kind, finding.seed, nowhere, captured)
                worker.open()
                case = kind.case(random_of(kind.name, finding.seed, finding.number))
                if data is not None and case.mutated.data != data:
                    print("The sources have changed since: the stored bytes are read, as those of this case.")
                    case = replace(case, mutated=replace(case.mutated, data=data))
                print(case.description)
                try:
                    print(f"Read: {kind.read(case.source, case.mutated.data)}")
                except Exception:
                    traceback.print_exc()
                found = worker.read(finding.number, case)
        finally:
            shutil.rmtree(kind.scratch, ignore_errors=True)
    for one in found:
        print(f"{one.sort}: {one.message}")
    return 1 if found else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Mutates what comes in, disturbs what goes out, and counts.")
    parser.add_argument("--kinds", type=lambda text: text.split(","), default=list(KINDS), help="separated by commas")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=600.0, help="for all kinds together")
    parser.add_argument("--count", type=int, default=2_000, help="cases of each kind, at most")
    parser.add_argument("--processes", type=int, default=num_processors())
    parser.add_argument("--json", type=Path, help="write the figures here")
    parser.add_argument("--findings", type=Path, default=Path("campaign_findings"), help="folder of stored findings")
    parser.add_argument("--replay", type=Path, metavar="FINDING", help="read a stored finding again")
    parser.add_argument("--list", action="store_true", help="list the kinds")
    parser.add_argument("--build", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if unknown := set(options.kinds) - set(KINDS):
        parser.error(f"unknown kinds {', '.join(sorted(unknown))}; choose from {', '.join(KINDS)}")
    return options


if __name__ == "__main__":
    sys.exit(main())
