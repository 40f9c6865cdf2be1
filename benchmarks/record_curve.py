"""Stores the loss curve of a run next to its config, as a reference for later runs.

    mt3 train --config multitrack_test
    python benchmarks/record_curve.py checkpoint/multitrack_test --band 0.25

    mt3 train --config small        stopped in the first of its runs, `onsets`, after 400 steps
    python benchmarks/record_curve.py checkpoint/small-onsets --config small --steps 400 --band 0.1

The run must be of the current config (`--config`, if it is a run before another), and complete unless `--steps` says
how much of its beginning is stored. Choose the band from runs with other seeds (`--set seed=1 -o checkpoint/other`);
their largest deviations are printed for every further folder.
"""

from __future__ import annotations

import argparse
import json
import platform
from pathlib import Path

from mt3app.commands.train_finish import loss_reports
from mt3core.config.files import find_config, load_config
from mt3data.prepare.composed import engine_of
from mt3jax.training.loss_curve import compare_curve, record_curve, write_curve


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("others", type=Path, nargs="*", help="runs to compare with it")
    parser.add_argument("--config", help="whose run it is, if not of the config of that name")
    parser.add_argument("--steps", type=int, help="how many of the first steps [all]")
    parser.add_argument("--band", type=float, required=True, help="how far a later run may deviate, such as 0.25")
    options = parser.parse_args()
    recorded = json.loads((options.run / "run.json").read_text(encoding="utf-8"))["config"]
    name = recorded["name"]
    config = load_config(options.config or name)
    path = find_config(options.config or name)
    while config.name != name and config.before is not None:
        config = config.before
    about = f"jax {_version('jax')}, {platform.machine()}, {platform.system()}"
    engine = engine_of(recorded["data"]["manifest"]) if config.data.composed_pieces else ""
    num_steps = options.steps or config.num_steps
    curve = record_curve(name, num_steps, loss_reports(options.run), options.band, engine, about)
    path = path.with_name(config.finish.curve)
    write_curve(path, curve)
    print(f"{path}: {' '.join(f'{loss:.3f}' for loss in curve.losses)}")
    for other in options.others:
        compared = compare_curve(curve, loss_reports(other))
        print(f"{other}: {f'{compared.deviation:+.1%} before step {compared.worst_step}' if compared else 'nothing'}")


def _version(package: str) -> str:
    from importlib.metadata import version

    return version(package)


if __name__ == "__main__":
    main()
