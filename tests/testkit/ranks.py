"""Two processes with a gloo group between them, started once and used by every distributed test.

Run as a script, this file is one of the two. Functions are sent by file and name, so a test module's own top-level
functions work too; arguments and results are pickled, and may be of the test module's own classes.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection, Pipe
from types import ModuleType
from typing import Any

# a rank that lost its partner in a collective is given this long to say so
_GRACE = 3.0
_STARTUP = 120.0
# only against ranks that wait for each other for ever: on a loaded machine a fit of a second takes a minute
_PATIENCE = 300.0


class RankError(RuntimeError):
    """A function failed on a rank; the message holds the ranks' tracebacks."""


class Ranks:
    """The pool."""

    def __init__(self, size: int = 2) -> None:
        self.size = size
        self._processes: list[subprocess.Popen[bytes]] = []
        self._pipes: list[Connection] = []
        self._logs: list[Any] = []
        self._folder = ""

    def __call__(
        self, function: Callable[..., Any], *args: Any, timeout: float = _PATIENCE, **kwargs: Any
    ) -> list[Any]:
        """Runs ``function(*args, **kwargs)`` on every rank at once and returns the results in rank order.

        Raises:
            RankError: If a rank raises, dies or does not answer in time.
        """
        if any(process.poll() is not None for process in self._processes):
            # died since the last answer
            self.close()
        fresh = not self._processes
        if fresh:
            self._start()
        module = function.__module__
        # arguments by themselves: a rank must know the module before it can read those of its classes
        order = (str(sys.modules[module].__file__), module, function.__qualname__, pickle.dumps((args, kwargs)))
        for pipe in self._pipes:
            pipe.send_bytes(pickle.dumps(order))
        answers = self._collect(time.monotonic() + timeout + (_STARTUP if fresh else 0.0))
        failed = {rank: text for rank, (ok, text) in enumerate(answers) if not ok}
        if failed:
            raise RankError("\n".join(f"rank {rank}:\n{text}" for rank, text in failed.items()))
        return [value for _, value in answers]

    def _collect(self, deadline: float) -> list[tuple[bool, Any]]:
        answers: list[tuple[bool, Any] | None] = [None] * self.size
        while None in answers:
            for rank, pipe in enumerate(self._pipes):
                if answers[rank] is not None:
                    continue
                try:
                    if pipe.poll(0.02):
                        answers[rank] = pickle.loads(pipe.recv_bytes())
                except (EOFError, ConnectionError):
                    answers[rank] = (False, f"died.\n{self._log(rank)}")
                answer = answers[rank]
                if answer is not None and not answer[0]:
                    deadline = min(deadline, time.monotonic() + _GRACE)
            if time.monotonic() > deadline:
                break
        if None in answers or any(process.poll() is not None for process in self._processes):
            # a silent rank may sit in a collective for ever: the next call starts afresh
            logs = [self._log(rank) for rank in range(self.size)]
            self.close()
            answers = [a or (False, f"did not answer in time.\n{logs[r]}") for r, a in enumerate(answers)]
        return [a for a in answers if a is not None]

    def _start(self) -> None:
        # they meet in a file: a free port may be taken by another pool before they bind it
        self._folder = tempfile.mkdtemp()
        for rank in range(self.size):
            ours, theirs = Pipe()
            log = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the pool is
            environment = os.environ | {
                # LOCAL_RANK tells Lightning that processes are there already
                "LOCAL_RANK": str(rank),
                "NODE_RANK": "0",
                "RANK": str(rank),
                "WORLD_SIZE": str(self.size),
                "GLOO_SOCKET_IFNAME": "lo",
                "OMP_NUM_THREADS": "1",
                "CUDA_VISIBLE_DEVICES": "",
                "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
            }
            command = [sys.executable, __file__, str(theirs.fileno()), f"{self._folder}/store"]
            self._processes.append(
                subprocess.Popen(command, env=environment, pass_fds=(theirs.fileno(),), stdout=log, stderr=log)
            )
            theirs.close()
            self._pipes.append(ours)
            self._logs.append(log)

    def _log(self, rank: int) -> str:
        self._logs[rank].seek(0)
        return self._logs[rank].read().decode(errors="replace")[-4000:]  # type: ignore[no-any-return]

    def close(self) -> None:
        """Ends both processes."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            try:
                # the closed pipe is their sign to leave
                process.wait(timeout=2.0)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for log in self._logs:
            log.close()
        self._processes, self._pipes, self._logs = [], [], []
        shutil.rmtree(self._folder, ignore_errors=True)


def _function(path: str, module: str, name: str) -> Callable[..., Any]:
    for known in [m for m in list(sys.modules.values()) if getattr(m, "__file__", None) == path]:
        if known.__name__ != "__main__":
            return getattr(known, name)  # type: ignore[no-any-return]
    # under the name that it has in the tests, by which its classes are pickled; that asks for the packages above it
    above = module.split(".")[:-1]
    for depth in range(len(above)):
        package = ".".join(above[: depth + 1])
        sys.modules.setdefault(package, ModuleType(package))
    spec = importlib.util.spec_from_file_location(module, path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[module] = loaded
    spec.loader.exec_module(loaded)
    return getattr(loaded, name)  # type: ignore[no-any-return]


def look_up_plugins_once() -> None:
    """Every Trainer looks through all installed packages for callbacks, which takes a twentieth of a tiny training."""
    from lightning.fabric.utilities import registry

    registry.entry_points = functools.cache(registry.entry_points)


def _serve(pipe: Connection, store: str) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    look_up_plugins_once()
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=size, timeout=timedelta(seconds=_PATIENCE)
    )
    while True:
        try:
            path, module, name, given = pickle.loads(pipe.recv_bytes())
        except EOFError:
            # the pool was closed; taking the group down in order would wait for the partner
            os._exit(0)
        try:
            function = _function(path, module, name)
            args, kwargs = pickle.loads(given)
            answer = (True, function(*args, **kwargs))
        except BaseException:
            answer = (False, traceback.format_exc())
        pipe.send_bytes(pickle.dumps(answer))


if __name__ == "__main__":
    _serve(Connection(int(sys.argv[1])), sys.argv[2])
