"""`mt3 evaluate REFERENCE ESTIMATE`: files of notes scored, shown and stored."""

from __future__ import annotations

import fnmatch
import json
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from mt3app.outputs import STDOUT, check_writable
from mt3app.progress import Reporter
from mt3app.remarks import tell_remarks
from mt3core.audio import AUDIO_SUFFIXES
from mt3core.errors import UsageError
from mt3core.extras import SCORE_PACKAGES, require
from mt3core.files import files_below
from mt3eval.headline import DEFAULT_PROTOCOLS
from mt3eval.protocol import all_protocols, protocol
from mt3eval.reading.pairing import Pair, Pairing, counted, pair_files, shorten
from mt3eval.reading.reading import Reading
from mt3eval.result import Result, scores_json, summarise
from mt3eval.runner import ScoredPair, ScoringTask, score_pairs

if TYPE_CHECKING:
    from mt3app.cli_evaluate import FileOptions


def print_protocols() -> None:
    """Every protocol on one line."""
    width = max(map(len, all_protocols()))
    for one in all_protocols().values():
        mark = "*" if one.name in DEFAULT_PROTOCOLS else " "
        print(f"{mark} {one.name:{width}}  {one.summary.rstrip('.')}")
    print("* shown if no protocol is named")


def evaluate_files(options: FileOptions, reporter: Reporter) -> int:
    """Scores, prints a table, writes the requested files; returns the exit code."""
    if options.reference is None or options.estimate is None:
        raise UsageError("A reference and an estimate are needed.", "For example: mt3 evaluate truth/ transcribed/")
    protocols = choose_protocols(options.protocols)
    drawing = () if options.rolls is None else ("matplotlib",)
    require("evaluate", "mt3 evaluate", (*SCORE_PACKAGES, *drawing))
    outputs = _check_outputs(options)
    pairing = pair_files(options.reference, options.estimate, options.reference_suffix, options.estimate_suffix)
    others = _pair_others(options)
    recordings = _recordings(options.audio)
    audio = find_audio(options.audio, recordings, [pair.name for pair in pairing.pairs])
    _refuse_inputs(outputs, options, pairing, others, recordings)
    _tell_without_audio(audio, pairing, options.audio, reporter)
    _tell_alone(pairing, options.estimate, reporter)
    if others is not None and options.against is not None:
        _tell_alone(others, options.against, reporter)
    _tell_passed_over([*pairing.passed_over, *(others.passed_over if others else ())], reporter)

    pieces, other_pieces = _score(pairing, others, protocols, options, reporter)
    against = None if options.against is None else (str(options.against), other_pieces)
    result = summarise(protocols, pieces, against, pairing, others or Pairing(), _settings(options))
    try:
        show_result(result, reporter, plain=not options.protocols, to_stdout=options.json_output != STDOUT)
    finally:  # the reader of the table, such as `head`, may have gone
        _write(result, options, audio, reporter)
    has_failed = any(piece.failure for piece in (*pieces, *other_pieces))
    return 1 if has_failed or pairing.references_alone or (others and others.references_alone) else 0


def choose_protocols(asked: tuple[str, ...]) -> tuple[str, ...]:
    """The protocols of these names and patterns; the default ones if none is given. Raises `UsageError`."""
    if not asked:
        return DEFAULT_PROTOCOLS
    names = list(all_protocols())
    chosen: list[str] = []
    for one in asked:
        matching = names if one == "all" else fnmatch.filter(names, one)
        chosen += matching or [protocol(one).name]
    return tuple(dict.fromkeys(chosen))


def show_result(result: Result, reporter: Reporter, plain: bool, to_stdout: bool = True) -> None:
    """The table on standard output, and on standard error what a reader needs to know about it."""
    pieces = [*result.pieces, *(result.against.pieces if result.against else ())]
    for failure in dict.fromkeys(piece.failure for piece in pieces if piece.failure):
        reporter.failure(f"Not scored: {failure}")
    _tell_remarks(pieces, reporter)
    _tell_undefined(result, reporter)
    _tell_one_sided(result, reporter)
    if to_stdout and not reporter.quiet and any(not piece.failure for piece in result.pieces):
        from mt3app.commands.evaluate.table import print_result

        print_result(result, plain, reporter.verbose)


def find_audio(given: Path | None, recordings: list[Path], names: list[str]) -> dict[str, Path] | None:
    """The recording of each piece by name: below a folder with the piece's name, or one file for one piece."""
    if given is None:
        return None
    if given.is_file() and len(names) == 1:
        return {names[0]: given}
    if not given.is_dir():
        raise UsageError(f"{given} is not a folder.", "Use the folder of the recordings.")
    found: dict[str, Path] = {}
    for path in recordings:
        inside = path.relative_to(given).with_suffix("").as_posix()
        found.setdefault(inside, path)
        found.setdefault(path.stem, path)
    paths = {name: found.get(name) or found.get(name.rsplit("/", 1)[-1]) for name in names}
    return {name: path for name, path in paths.items() if path is not None}


def _recordings(given: Path | None) -> list[Path]:
    if given is None:
        return []
    if given.is_file():
        return [given]
    return sorted(path for path in files_below(given) if path.suffix.lower() in AUDIO_SUFFIXES)


def _check_outputs(options: FileOptions) -> dict[str, Path]:
    """The files to write, by option. Raises `UsageError` or `OutputError` for files that could not be written."""
    needing = {"--audio": options.audio, "--embed-audio": options.embed_audio}
    if options.report is None and (idle := [name for name, value in needing.items() if value]):
        raise UsageError(f"{idle[0]} is for the report, but no report is written.", "Add --report report.html.")
    if options.embed_audio and options.audio is None:
        raise UsageError("--embed-audio puts recordings into the report, but there are none.", "Use --audio FOLDER.")
    given = {"--json": options.json_output, "--report": options.report}
    outputs = {name: Path(path) for name, path in given.items() if path is not None and str(path) != STDOUT}
    pictures = [] if options.rolls is None else [options.rolls / "piece.png"]
    for name, path in outputs.items():
        if path.is_dir():
            raise UsageError(f"{name} {path} is a folder.", "Use the name of a file.")
    check_writable([*outputs.values(), *pictures], "Choose another path.")
    if len({path.resolve() for path in outputs.values()}) < len(outputs):
        raise UsageError(f"{' and '.join(outputs)} name the same file.", "Use two names.")
    return outputs


def _refuse_inputs(
    outputs: dict[str, Path], options: FileOptions, pairing: Pairing, others: Pairing | None, recordings: list[Path]
) -> None:
    """Raises `UsageError` if a file that is read, or is one of a folder's files, would be overwritten."""
    inputs = list(recordings)
    for one, estimate in ((pairing, options.estimate), (others, options.against)):
        if one is None or options.reference is None or estimate is None:
            continue
        inputs += [path for pair in one.pairs for path in (pair.reference, pair.estimate)]
        inputs += one.passed_over
        inputs += [options.reference / name for name in (*one.references_alone, *one.references_aside)]
        inputs += [estimate / name for name in (*one.estimates_alone, *one.estimates_aside)]
    # Not by name: a link, or capitals on some file systems, may name the same file.
    files = {_identity(path) for path in inputs}
    for name, path in outputs.items():
        if path.exists() and _identity(path) in files:
            raise UsageError(f"{name} {path} would overwrite one of the input files.", "Choose another name.")


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def _pair_others(options: FileOptions) -> Pairing | None:
    if options.against is None or options.reference is None:
        return None
    return pair_files(options.reference, options.against, options.reference_suffix, options.estimate_suffix)


def _score(
    pairing: Pairing, others: Pairing | None, protocols: tuple[str, ...], options: FileOptions, reporter: Reporter
) -> tuple[list[ScoredPair], list[ScoredPair]]:
    """The pieces of the system, and of the second one."""
    wants_notes = options.report is not None or options.rolls is not None
    task = ScoringTask(
        protocols,
        Reading(options.sustain, options.drop_empty),
        analyse=options.report is not None or options.json_output is not None,
        keep_notes=wants_notes,
    )
    pairs: list[Pair] = [*pairing.pairs, *(others.pairs if others else ())]
    with reporter.file_bar("Scoring") as show:
        pieces = score_pairs(pairs, task, options.processes, lambda done, total, _: show(done, total))
    return pieces[: len(pairing.pairs)], pieces[len(pairing.pairs) :]


def _settings(options: FileOptions) -> dict[str, object]:
    return {
        "reference": str(options.reference),
        "estimate": str(options.estimate),
        "against": None if options.against is None else str(options.against),
        "sustain": options.sustain,
        "drop_empty": options.drop_empty,
        "versions": {name: version(name) for name in ("mt3kit", "mir_eval", "numpy", "scipy")},
    }


def _write(result: Result, options: FileOptions, audio: dict[str, Path] | None, reporter: Reporter) -> None:
    if options.json_output == STDOUT:
        json.dump(result.to_json(), sys.stdout, indent=1, allow_nan=False)
        print()
    elif options.json_output is not None:
        result.save(Path(options.json_output))
        reporter.line(f"Written: {options.json_output}")
    if options.report is not None:
        write_html(
            result, options.report, f"{options.estimate} against {options.reference}", audio, options.embed_audio
        )
        reporter.line(f"Written: {options.report}")
    if options.rolls is not None:
        _draw(result, options.rolls)
        reporter.line(f"Written: {options.rolls}")


def _draw(result: Result, folder: Path) -> None:
    """A picture of both sides of each piece that was read."""
    from mt3eval.piano_roll_picture import draw_piano_rolls

    for piece in result.pieces:
        if piece.performances is not None:
            reference, estimate = piece.performances
            draw_piano_rolls(folder / f"{piece.name}.png", reference.notes, estimate.notes, piece.name)


def write_html(
    result: Result, path: Path, title: str, audio: dict[str, Path] | None = None, embed_audio: bool = False
) -> None:
    """The report of the pieces that were read, which must have kept their notes; it also lists the others."""
    from mt3eval.report import PieceReport, write_report

    pieces = [
        PieceReport(piece.name, *piece.performances, scores_json(piece), piece.analysis)
        for piece in result.pieces
        if piece.performances is not None
    ]
    write_report(path, title, pieces, result.to_json(), audio, embed_audio)


def _tell_alone(pairing: Pairing, estimate: Path, reporter: Reporter) -> None:
    if pairing.references_alone:
        names = shorten(pairing.references_alone)
        have = f"{counted(len(pairing.references_alone), 'reference')} {_have(pairing.references_alone)}"
        reporter.failure(f"{have} no estimate in {estimate}: {names}")
    if pairing.estimates_alone:
        names = shorten(pairing.estimates_alone)
        estimates = counted(len(pairing.estimates_alone), "estimate")
        reporter.line(f"{estimates} in {estimate} {_have(pairing.estimates_alone)} no reference: {names}")
    aside = [*pairing.references_aside, *pairing.estimates_aside]
    if aside:
        verbs = ("contains", "is") if len(aside) == 1 else ("contain", "are")
        reporter.line(f"{counted(len(aside), 'file')} {verbs[0]} no notes and {verbs[1]} skipped: {shorten(aside)}")


def _have(names: tuple[str, ...]) -> str:
    return "has" if len(names) == 1 else "have"


def _tell_passed_over(passed_over: list[Path], reporter: Reporter) -> None:
    if names := list(dict.fromkeys(map(str, passed_over))):
        reporter.line(
            f"{counted(len(names), 'file')} next to a .json of the same name, which is exact and is read instead: "
            f"{shorten(names)}"
        )


def _tell_without_audio(
    audio: dict[str, Path] | None, pairing: Pairing, given: Path | None, reporter: Reporter
) -> None:
    if audio is not None and (silent := [pair.name for pair in pairing.pairs if pair.name not in audio]):
        reporter.line(f"{len(silent)} of {len(pairing.pairs)} pieces have no recording in {given}: {shorten(silent)}")


def _tell_remarks(pieces: list[ScoredPair], reporter: Reporter) -> None:
    found = []
    for piece in pieces:
        for remark in piece.remarks:
            file = next((one for one in (piece.reference, piece.estimate) if remark.startswith(f"{one}: ")), "")
            found.append((file, remark.removeprefix(f"{file}: ")))
    tell_remarks(found, reporter)


def _tell_undefined(result: Result, reporter: Reporter) -> None:
    for name in result.protocols:
        undefined = [(piece.name, piece.scores[name]) for piece in result.pieces if name in piece.scores]
        undefined = [(piece, why) for piece, why in undefined if isinstance(why, str)]
        if not undefined:
            continue
        pieces = shorten([piece for piece, _ in undefined])
        reporter.line(
            f"{name} is not defined for {len(undefined)} of {len(result.pieces)} pieces and leaves them out: {pieces}. "
            f"{undefined[0][0]}: {undefined[0][1]}"
        )
        if not reporter.quiet and any("without length" in str(why) for _, why in undefined):
            reporter.line("--drop-empty leaves out notes without length.")


def _tell_one_sided(result: Result, reporter: Reporter) -> None:
    """The metrics whose difference leaves out pieces, because one of the two systems has no value for them."""
    for name, paired in (result.against.paired if result.against else {}).items():
        if paired.one_sided:
            metrics = shorten([f"{metric} ({count})" for metric, count in paired.one_sided.items()])
            reporter.line(f"{name}: pieces for which one system has no value are left out of the difference: {metrics}")
