"""Runs of a grid in one or several processes, with their progress; what is done is skipped."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import os
import queue
import re
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accuracy_grid import Run, Spec, read_grid, with_environment
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

RESULTS = Path(__file__).parent / "results"

Message = tuple[str, int, str, int]


@dataclass(frozen=True)
class Job:
    """What a worker process is told.

    Attributes:
        grid: The grid file.
        results: Folder of all results.
        only: Runs whose name does not match this regular expression are left out.
        device: ``cpu`` or ``cuda``.
        threads: Threads of each worker.
    """

    grid: Path
    results: Path = RESULTS
    only: str = ""
    device: str = "cpu"
    threads: int = 1

    def runs(self) -> list[Run]:
        """The runs that were asked for, done or not, each once."""
        runs = [run for run in read_grid(self.grid).runs if re.search(self.only, run.name)]
        return list({run.key: run for run in runs}.values())

    @property
    def folder(self) -> Path:
        """Where the results of this grid go."""
        return self.results / self.grid.stem / "runs"


def done_runs(results: Path) -> dict[str, Path]:
    """Result files of all grids by the key of their run: grids that share runs share results."""
    return {path.stem.rpartition("-")[2]: path for path in sorted(results.glob("*/runs/*.json"))}


def run_grid(job: Job, jobs: int, console: Console | None = None) -> bool:
    """Runs what is missing.

    Args:
        job: What to run.
        jobs: Worker processes.
        console: Where progress is shown.

    Returns:
        Whether every run that was asked for is done, here or by another process.
    """
    console = console or Console(stderr=True)
    runs = job.runs()
    if not runs:
        raise ValueError(
            f"--only {job.only!r} matches no run of {job.grid}. Names look like: method / column / seed 0."
        )
    for run in runs:
        # a missing folder is said before anything starts
        with_environment(run.config)
    done = done_runs(job.results)
    open_runs = [run for run in runs if run.key not in done]
    console.print(f"{job.grid.stem}: {len(runs)} runs, {len(runs) - len(open_runs)} of them done before")
    if not open_runs:
        return True
    with Display(console, len(runs), len(runs) - len(open_runs)) as display:
        if jobs == 1:
            work(job, 0, display.show)
        else:
            _work_in_processes(job, min(jobs, len(open_runs)), display)
    missing = [run for run in runs if run.key not in done_runs(job.results)]
    if missing:
        console.print(f"{len(missing)} runs are not done (failed, or in the hands of another process); run again.")
    return not missing


def work(job: Job, worker: int, tell: Callable[[Message], None]) -> None:
    """Takes one open run after the other, until none is left that no other process has."""
    from accuracy_run import train

    for run in job.runs():
        if run.key in done_runs(job.results):
            continue
        with claimed(job.folder, run.key) as mine:
            if not mine or run.key in done_runs(job.results):
                continue
            epochs = int(run.config["trainer"]["max_epochs"])
            tell(("start", worker, run.name, epochs))
            result = train(run, job.device, job.threads, lambda done: tell(("epoch", worker, "", done)))
            write_result(job.folder / run.file_name, result)
            tell(("end", worker, f"{run.name}: {_summary(result)}", 0))


def write_result(path: Path, result: Spec) -> None:
    """Writes a result file that is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(result, separators=(",", ":")) + "\n", encoding="utf-8")
    os.replace(draft, path)


@contextmanager
def claimed(folder: Path, key: str) -> Iterator[bool]:
    """Holds a run for this process; False where another one holds it. A process that dies lets go of it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f".{key}.claim"
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        try:
            yield True
        finally:
            path.unlink(missing_ok=True)


def _work_in_processes(job: Job, jobs: int, display: Display) -> None:
    # spawned: a forked child would share the parent's thread pools
    context = multiprocessing.get_context("spawn")
    messages: Any = context.Queue()
    workers = [context.Process(target=_worker, args=(job, number, messages), daemon=True) for number in range(jobs)]
    for worker in workers:
        worker.start()
    try:
        while any(worker.is_alive() for worker in workers):
            _show(messages, display, wait=0.5)
        _show(messages, display, wait=0.1)
    finally:
        for worker in workers:
            worker.terminate()
    killed = sum(worker.exitcode not in (0, 1) for worker in workers)
    if killed:
        display.progress.console.print(f"{killed} worker processes were killed; their runs are open again.")


def _show(messages: Any, display: Display, wait: float) -> None:
    try:
        while True:
            display.show(messages.get(timeout=wait))
    except queue.Empty:
        pass


def _worker(job: Job, number: int, messages: Any) -> None:
    os.environ.setdefault("OMP_NUM_THREADS", str(job.threads))
    try:
        work(job, number, messages.put)
    except Exception:
        messages.put(("failed", number, traceback.format_exc(), 0))
        raise SystemExit(1) from None


class Display:
    """Progress of all workers; a line for each finished run also where there is no terminal."""

    def __init__(self, console: Console, runs: int, done: int) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.progress = Progress(*columns, console=console)
        self.total = self.progress.add_task("runs", total=runs, completed=done)
        self.tasks: dict[int, Any] = {}

    def __enter__(self) -> Display:
        self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.progress.stop()

    def show(self, message: Message) -> None:
        """Shows a worker's message."""
        kind, worker, text, number = message
        if kind == "start":
            if worker in self.tasks:
                self.progress.remove_task(self.tasks[worker])
            self.tasks[worker] = self.progress.add_task(text, total=number)
        elif kind == "epoch":
            self.progress.update(self.tasks[worker], completed=number)
        elif kind == "end":
            self.progress.advance(self.total)
            self.progress.console.print(text, highlight=False, soft_wrap=True)
        else:
            text = f"worker {worker} failed:\n{text}"
            self.progress.console.print(text, highlight=False, markup=False, soft_wrap=True)


def _summary(result: Spec) -> str:
    if result["error"]:
        return str(result["error"])
    curve = result["curve"]
    memorised = curve.get("train/memorised", [None])[-1]
    noise = "" if memorised is None else f", memorised {memorised:.2f}"
    # who chooses by validation need not see the test
    shown = next(name for name in ("val/acc", "val/mAP", "test/acc", "test/mAP") if name in curve)
    return f"{shown} {curve[shown][-1]:.4f}{noise}, {result['seconds']:.0f} s"
