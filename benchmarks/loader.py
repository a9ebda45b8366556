"""Images per second that the training loader serves: CIFAR's size, in one process, crop and flip included.

python benchmarks/loader.py [--repeats 7] [--threads 1] [--workers 0]

Each figure is the best epoch of several, since other programs only ever slow an epoch down; the figure by seconds on a
core tells what an idle machine would give. The floor is 50 000.
"""

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path

import numpy as np
import torch

from lightning_perturb.data import Arrays, Augmentation, CropFlip, Symmetric

FLOOR = 50_000
RESULTS = Path(__file__).parent / "results" / "loader.json"
AUGMENTATIONS: dict[str, Augmentation | bool] = {
    "crop and flip, zeros": CropFlip(),
    "crop and flip, reflect": CropFlip(mode="reflect"),
    "none": False,
}


def seconds_of_an_epoch(data: Arrays) -> tuple[float, float]:
    """Seconds by the clock, and seconds of this process on a core (workers not counted)."""
    start, cpu = time.perf_counter(), time.process_time()
    served = sum(len(batch) for batch in data.train_dataloader())
    seconds = time.perf_counter() - start, time.process_time() - cpu
    if served != len(data.train_index):
        raise RuntimeError(f"The loader served {served} of {len(data.train_index)} images.")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description="Images per second of the training loader.")
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--batch_size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    generator = np.random.default_rng(0)
    # the speed does not depend on what the pixels show
    x = generator.integers(0, 256, (options.images, 3, 32, 32), dtype=np.uint8)
    y = generator.integers(0, 10, options.images)
    rows = []
    for name, augment in AUGMENTATIONS.items():
        loading = {"batch_size": options.batch_size, "num_workers": options.workers}
        data = Arrays(x, y, augment=augment, label_noise=Symmetric(0.4), **loading)
        data.setup("fit")
        epochs = sorted(seconds_of_an_epoch(data) for _ in range(options.repeats))
        seconds = [clock for clock, _ in epochs]
        row = {
            "augmentation": name,
            "images_per_second_best": round(options.images / seconds[0]),
            "images_per_second_median": round(options.images / seconds[len(seconds) // 2]),
            "images_per_core_second_best": round(options.images / min(cpu for _, cpu in epochs)),
            "seconds_of_each_epoch": [round(value, 3) for value in seconds],
        }
        rows.append(row)
        print(f"{name:24s} {row['images_per_second_best']:>9,} images/s, best of {options.repeats}")
    report = {
        "command": " ".join(["python", *sys.argv]),
        **vars(options),
        "floor": FLOOR,
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "rows": rows,
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
