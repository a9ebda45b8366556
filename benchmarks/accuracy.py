"""Accuracy under bad labels: a grid of data x network x method x seed from one YAML file.

    python benchmarks/accuracy.py run GRID.yaml [--jobs 2] [--only REGEX] [--device cuda]
    python benchmarks/accuracy.py table GRID.yaml [--write]
    python benchmarks/accuracy.py select GRID.yaml [--by val/acc]

A grid is resumed by running it again: runs that are done are skipped, and a run that was killed is done anew. Several
processes, also on machines that share the folder, may work on one grid.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from accuracy_figures import draw
from accuracy_grid import read_grid
from accuracy_pool import RESULTS, Job, run_grid
from accuracy_tables import pending, read_results, select, table
from readme import FRONT, README, has_section, write_section


def main(args: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("grid", type=Path, help="the grid file")
    common.add_argument("--results", type=Path, default=RESULTS, help="folder of all results")
    run = verbs.add_parser("run", parents=[common], help="run what is not done yet")
    run.add_argument("--jobs", type=int, default=1, help="worker processes")
    run.add_argument("--threads", type=int, default=1, help="threads of each worker")
    run.add_argument("--only", default="", metavar="REGEX", help="only runs like this ('method / column / seed 0')")
    run.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    show = verbs.add_parser("table", parents=[common], help="print the table and draw the plot")
    show.add_argument("--write", action="store_true", help="also write the table into README.md")
    choose = verbs.add_parser("select", parents=[common], help="the best setting of each method on noisy validation")
    choose.add_argument("--by", default="val/acc", help="the validation number to choose by")
    options = parser.parse_args(args)
    try:
        return _do(options)
    except (ValueError, FileNotFoundError) as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2


def _do(options: argparse.Namespace) -> int:
    if options.verb == "run":
        if options.jobs < 1 or options.threads < 1:
            raise ValueError(f"--jobs {options.jobs} and --threads {options.threads} must be at least 1.")
        job = Job(options.grid, options.results, options.only, options.device, options.threads)
        return 0 if run_grid(job, options.jobs) else 1
    read = read_results(read_grid(options.grid), options.results)
    if options.verb == "select":
        print(select(read, options.by))
        return 0
    files = draw(read, options.results / read.grid.name) if read.done else {}
    text = table(read, {shown: os.path.relpath(file, README.parent) for shown, file in files.items()})
    print(text)
    if options.write:
        write_section(read.grid.name, text if read.done else pending(read.grid))
        if has_section(read.grid.name, FRONT):
            write_section(read.grid.name, table(read, {}), FRONT)
    return 0


if __name__ == "__main__":
    sys.exit(main())
