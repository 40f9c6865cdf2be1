"""What each augmentation effect costs: median processor time for an example of 2.048 s.

python benchmarks/augmentation.py [--rounds 100]
"""

import argparse
import time
from dataclasses import fields

import numpy as np

from mt3core.config.data import AugmentationConfig
from mt3data.examples.augmentation import augment

NUM_SAMPLES = 32768
EFFECTS = [field.name for field in fields(AugmentationConfig) if field.name.endswith("_probability")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    rounds = parser.parse_args().rounds
    samples = (0.1 * np.random.default_rng(0).standard_normal(NUM_SAMPLES)).astype(np.float32)
    for name in EFFECTS:
        print(f"{name.removesuffix('_probability'):<12} {milliseconds({name: 1.0}, samples, rounds):6.2f} ms")
    print(f"{'all':<12} {milliseconds(dict.fromkeys(EFFECTS, 1.0), samples, rounds):6.2f} ms")


def milliseconds(probabilities: dict[str, float], samples: np.ndarray, rounds: int) -> float:
    config, rng = AugmentationConfig(**probabilities), np.random.default_rng(0)
    times = []
    for _ in range(rounds + 1):  # the first makes what is made once
        started = time.process_time()
        augment(samples, config, rng)
        times.append(time.process_time() - started)
    return 1e3 * float(np.median(times[1:]))


if __name__ == "__main__":
    main()
