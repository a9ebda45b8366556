"""The adjusters that the package ships: how they are made, and what they do on data that they have not seen.

    python benchmarks/adjusters.py make [--tasks digits cifar10] [--losses gce sl js polysoft]
    python benchmarks/adjusters.py test [--jobs 2]

``make`` meta-trains one adjuster for each loss and writes its three snapshots into the package: ``digits`` on the nine
tasks of configs/data/digits_tasks.yaml, ``cifar10`` on tasks with the same noise over 1 000 noisy and 100 clean images
of CIFAR-10 each, with a small network. ``test`` runs grids/parts/transfer.yaml, the adjusters of digits on CIFAR-10,
beside cross-entropy and the same losses with fixed hyperparameters, and writes results/adjusters.csv; those of CIFAR-10
on digits are rows of grids/digits_meta.yaml. The images are in ${LIGHTNING_PERTURB_CIFAR10_JPEG}. All settings are
fixed beforehand; nothing is chosen by test labels.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

import yaml
from accuracy_grid import read_grid
from accuracy_pool import RESULTS, Job, done_runs, run_grid

from lightning_perturb import adjusters
from lightning_perturb.cli import build

HERE = Path(__file__).parent
SHIPPED = Path(adjusters.__file__).parent / "shipped"
CONFIGS = HERE.parent / "configs" / "data"
GRID = HERE / "grids" / "parts" / "transfer.yaml"
TABLE = RESULTS / "adjusters.csv"
_IMAGES = "LIGHTNING_PERTURB_CIFAR10_JPEG"


def make(tasks: list[str], losses: list[str]) -> None:
    """Meta-trains and writes the snapshots."""
    for name in tasks:
        for loss in losses:
            folder = SHIPPED / f"{name}-{loss}"
            with tempfile.TemporaryDirectory() as scratch:
                config = CONFIGS / "digits_tasks.yaml" if name == "digits" else _small_cifar10(Path(scratch))
                _learn(loss, config, folder, scratch)
            print(f"{folder.name}: {[path.name for path in sorted(folder.iterdir())]}", flush=True)


def _small_cifar10(scratch: Path) -> Path:
    """The paper's nine tasks at a size for a CPU, and with images from a folder."""
    config = yaml.safe_load((CONFIGS / "cifar10_tasks.yaml").read_text(encoding="utf-8"))
    config["model"]["init_args"].update(
        net={"class_path": "lightning_perturb.nets.ConvNet", "init_args": {"width": 8}},
        optimizer={"class_path": "torch.optim.SGD", "init_args": {"lr": 0.05, "momentum": 0.9}},
        # these and the rates of the noise as for digits, and for the same reasons: an epoch has 16 batches
        meta_every=1,
        soft_range=True,
        warmup_epochs=10,
    )
    rates = [0.2, 0.4, 0.6, *2 * [0.2, 0.3, 0.4]]
    for rate, task in zip(rates, config["data"]["init_args"]["datamodules"], strict=True):
        task["init_args"]["label_noise"]["init_args"]["rate"] = rate
        task["class_path"] = "ImageFolder"
        task["init_args"].update(
            root=os.environ[_IMAGES],
            mean=[0.4914, 0.4822, 0.4465],
            std=[0.2470, 0.2435, 0.2616],
            train_size=1100,
            meta_size=100,
            batch_size=64,
        )
    path = scratch / "tasks.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def _learn(loss: str, config: Path, folder: Path, scratch: str) -> None:
    cli = build(
        [
            # where the command line's copy of the configuration goes
            f"--trainer.default_root_dir={scratch}",
            *("-c", str(config)),
            f"--model.init_args.robust_loss={loss}",
            f"--model.init_args.snapshots={folder}",
            *("--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.logger=false"),
            *("--trainer.enable_checkpointing=false", "--trainer.enable_progress_bar=false"),
            *("--trainer.limit_val_batches=0", "--trainer.num_sanity_val_steps=0"),
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
    making.add_argument("--tasks", nargs="+", default=["digits", "cifar10"], choices=["digits", "cifar10"])
    making.add_argument("--losses", nargs="+", default=["gce", "sl", "js", "polysoft"])
    testing = verbs.add_parser("test", help="what they do on unseen images")
    testing.add_argument("--jobs", type=int, default=1, help="worker processes")
    testing.add_argument("--only", default="", metavar="REGEX", help="only runs like this ('method / column / seed 0')")
    options = parser.parse_args()
    if options.verb == "make":
        if "cifar10" in options.tasks and _IMAGES not in os.environ:
            parser.error(f"--tasks cifar10 reads ${{{_IMAGES}}}, which is not set. Set it, or take --tasks digits.")
        make(options.tasks, options.losses)
    else:
        test(options.jobs, options.only)
    return 0


if __name__ == "__main__":
    sys.exit(main())
