"""The mean of the weights of several models, of which each was trained further from the one before.

    python recipes/small/average.py models/one models/other --out models/small

Such weights lie in one valley, and their mean is often better than either (Wortsman et al. 2022, arXiv 2203.05482). All
must have the same config; it is stored in bfloat16.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mt3core.errors import MT3Error
from mt3core.model.directory import check_fit, save_model_directory
from mt3core.model.search import load_weights


def average(models: Sequence[Path], out: Path, overwrite: bool = False) -> None:
    """Writes the mean as a model directory. Raises `ModelError` for models that do not fit together."""
    loaded = [load_weights(model) for model in models]
    for one, name in zip(loaded[1:], models[1:], strict=True):
        check_fit(one.config, loaded[0].config, str(name))
    arrays = {
        name: np.mean([np.asarray(one.arrays[name], np.float32) for one in loaded], axis=0) for name in loaded[0].arrays
    }
    source = "the mean of " + ", ".join(model.name for model in models)
    save_model_directory(out, loaded[0].config, arrays, source, overwrite=overwrite, stored_type="bfloat16")


def main() -> int:
    parser = argparse.ArgumentParser(description="Average the weights of models.")
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--overwrite", action="store_true")
    options = parser.parse_args()
    try:
        average(options.models, options.out, options.overwrite)
    except MT3Error as error:
        print(f"average: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
