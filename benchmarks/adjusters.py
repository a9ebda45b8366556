"""The adjusters that the package ships: how they are made, and what they do on data that they have not seen.

    python benchmarks/adjusters.py make [--losses gce sl js polysoft]
    python benchmarks/adjusters.py test [--jobs 2]

``make`` meta-trains one adjuster for each loss on the nine digits tasks of configs/data/digits_tasks.yaml and writes
its three snapshots into the package. ``test`` runs grids/parts/transfer.yaml, on images that none of them was made on,
beside cross-entropy and the same losses with fixed hyperparameters, and writes results/adjusters.csv; it needs the
images in ${LIGHTNING_PERTURB_CIFAR10_JPEG}. All settings are fixed beforehand; nothing is chosen by test labels.
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
import sys
import tempfile
from pathlib import Path

from accuracy_grid import read_grid
from accuracy_pool import RESULTS, Job, done_runs, run_grid

from lightning_perturb import adjusters
from lightning_perturb.cli import build

HERE = Path(__file__).parent
SHIPPED = Path(adjusters.__file__).parent / "shipped"
GRID = HERE / "grids" / "parts" / "transfer.yaml"
TABLE = RESULTS / "adjusters.csv"


def make(losses: list[str]) -> None:
    """Meta-trains and writes the snapshots."""
    for loss in losses:
        folder = SHIPPED / f"digits-{loss}"
        with tempfile.TemporaryDirectory() as scratch:
            _learn(loss, folder, scratch)
        print(f"{loss}: {[path.name for path in sorted(folder.iterdir())]}", flush=True)


def _learn(loss: str, folder: Path, scratch: str) -> None:
    cli = build(
        [
            # where the command line's copy of the configuration goes
            f"--trainer.default_root_dir={scratch}",
            *("-c", str(HERE.parent / "configs/data/digits_tasks.yaml")),
            f"--model.init_args.robust_loss={loss}",
            f"--model.init_args.snapshots={folder}",
            *("--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.logger=false"),
            *("--trainer.enable_checkpointing=false", "--trainer.enable_progress_bar=false"),
        ]
    )
    cli.trainer.fit(cli.model, datamodule=cli.datamodule)


def test(jobs: int, only: str) -> None:
    """Runs what is not done of the grid, and writes the table of what is."""
    run_grid(Job(GRID, only=only), jobs)
    grid, done = read_grid(GRID), done_runs(RESULTS)
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for run in grid.runs:
        if run.key in done:
            curve = json.loads(done[run.key].read_text(encoding="utf-8"))["curve"]
            found.setdefault((run.column, run.row), []).append((curve["test/acc"][-1], curve["train/memorised"][-1]))
    with open(TABLE, "w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["scale", "noise", "method", "seeds", "last test accuracy", "standard deviation", "memorised"])
        for (column, row), values in found.items():
            accuracies, memorised = zip(*values, strict=True)
            spread = statistics.stdev(accuracies) if len(accuracies) > 1 else 0.0
            numbers = [statistics.mean(accuracies), spread, statistics.mean(memorised)]
            out.writerow([grid.title, column, row, len(values), *(f"{number:.4f}" for number in numbers)])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    making = verbs.add_parser("make", help="meta-train the adjusters and write them into the package")
    making.add_argument("--losses", nargs="+", default=["gce", "sl", "js", "polysoft"])
    testing = verbs.add_parser("test", help="what they do on unseen images")
    testing.add_argument("--jobs", type=int, default=1, help="worker processes")
    testing.add_argument("--only", default="", metavar="REGEX", help="only runs like this ('method / column / seed 0')")
    options = parser.parse_args()
    if options.verb == "make":
        make(options.losses)
    else:
        test(options.jobs, options.only)
    return 0


if __name__ == "__main__":
    sys.exit(main())
