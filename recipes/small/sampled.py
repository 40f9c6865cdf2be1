"""Makes the sampled instruments of the small model's training data from published archives, as `data.py` also does.

    python recipes/small/sampled.py --out small-data/sounds --sources FOLDER

Finished instruments are skipped. An instrument whose archive is missing is reported and left out, and the exit code is
1. For the archives of the Salamander, the message gives the command that downloads them; the others are downloaded if
they are not in FOLDER.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from archives import unpacked
from sample_sources import SAMPLED, SAMPLES, Sampled
from sources import Source

from mt3app.progress import Reporter
from mt3core.errors import MT3Error
from mt3render.instrument_folders import write_instrument
from mt3render.instrument_sources import Card, read_source

SAMPLE_RATE_HZ = 16_000  # the network's sample rate
TRAINED_ON, UNSEEN = "train", "unseen"


def make_sampled(out: Path, sources: Path | None, reporter: Reporter) -> int:
    """Makes the missing instruments; returns 1 if one could not be made, otherwise 0."""
    failed = 0
    for wanted in SAMPLED:
        target = out / (TRAINED_ON if wanted.trained_on else UNSEEN) / wanted.folder
        if target.is_dir():
            continue
        try:
            found = [source for source in SAMPLES if source.name.split("/")[0] == wanted.source]
            for source in found:
                unpacked(source, sources, out / "unpacked", reporter.line)
            _make(wanted, found[0], out / "unpacked" / wanted.source, target, reporter)
        except MT3Error as error:
            reporter.problem(error)
            failed = 1
    return failed


def _make(wanted: Sampled, source: Source, folder: Path, target: Path, reporter: Reporter) -> None:
    place = folder / wanted.path
    if not place.exists():  # archives have one or more folders around the wanted files
        place = next(iter(sorted(folder.rglob(wanted.path))), place)
    if wanted.prelude:
        settled = place.with_name(f"settled {place.name}")
        settled.write_text(f'{wanted.prelude}\n#include "{place.name}"\n', encoding="utf-8")
        place = settled
    said = {"licence": source.licence, "attribution": source.attribution, "source": source.address}
    name = wanted.folder.replace("-", " ").capitalize()
    keys = wanted.card.get("keys")
    card = Card(**{"name": name, **said, **wanted.card, "keys": None if keys is None else tuple(keys)})
    instrument, takes = read_source(place, card)
    made = write_instrument(target, instrument, takes, SAMPLE_RATE_HZ, mono=True, mend=wanted.mend)
    reporter.line(f"{target}: {len(made.samples)} samples; {made.licence}, {made.attribution}")


def attributions() -> list[str]:
    """A line for each training source: title, licence and makers."""
    used = {wanted.source for wanted in SAMPLED if wanted.trained_on}
    lines = [
        f"{source.title.split(', layer')[0]}: {source.licence}, {source.attribution}"
        for source in SAMPLES
        if source.name.split("/")[0] in used
    ]
    return list(dict.fromkeys(lines))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("small-data/sounds"), help="folder for the instruments")
    parser.add_argument("--sources", type=Path, help="folder with the archives; missing ones are downloaded")
    given = parser.parse_args(arguments)
    return make_sampled(given.out, given.sources, Reporter())


if __name__ == "__main__":
    sys.exit(main())
