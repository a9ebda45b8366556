"""Time, memory and error of one full MW-Net step (virtual, meta, real) by engine, in units of one plain step.

All contenders step in turn within one process, so that each round's times share the machine's state; reported is the
median over rounds of (time of the contender) / (time of the plain step in the same round). Peak memory is measured in a
process of its own for each contender. The error is that of the first meta gradient against two nested backward passes
in float64.

    python benchmarks/bilevel.py --write                                    # ResNet-32, 100 + 100, float32
    python benchmarks/bilevel.py --precision bf16 --name bilevel-bf16       # with channels_last
    python benchmarks/bilevel.py --batch 32 100 --depth 20 32 56 --contenders forward higher --name bilevel-growth

``--write`` puts the table into benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import higher
import torch
import torch.nn.functional as F
from accuracy_run import facts
from readme import write_section
from torch import Tensor, nn
from torch.func import functional_call

from lightning_perturb.bilevel import Bilevel
from lightning_perturb.nets.resnet_cifar import CifarResNet

CLASSES, LR = 10, 0.1
RESULTS = Path(__file__).parent / "results"


class Problem:
    """Network, weight network, their optimizers and one batch of each kind; the same for every contender."""

    def __init__(self, depth: int, batch: int, precision: str, device: str) -> None:
        torch.manual_seed(0)
        self.dtype = torch.float64 if precision == "float64" else torch.float32
        self.autocast = torch.bfloat16 if precision == "bf16" else None
        layout = torch.channels_last if precision == "bf16" else torch.contiguous_format
        self.device = torch.device(device)
        self.net = CifarResNet(depth, CLASSES).to(self.device, self.dtype).to(memory_format=layout)
        weights = nn.Sequential(nn.Linear(1, 100), nn.ReLU(), nn.Linear(100, 1), nn.Sigmoid())
        self.weights = weights.to(self.device, self.dtype)
        self.theta = list(self.weights.parameters())
        self.optimizer = torch.optim.SGD(self.net.parameters(), LR, momentum=0.9, weight_decay=5e-4)
        self.meta_optimizer = torch.optim.Adam(self.theta, 1e-3, weight_decay=1e-4)
        self.train, self.meta = (
            (
                torch.randn(batch, 3, 32, 32).to(self.device, self.dtype, memory_format=layout),
                torch.randint(CLASSES, (batch,)).to(self.device),
            )
            for _ in range(2)
        )

    def precision(self) -> AbstractContextManager[Any]:
        """Autocast, where the precision is bf16."""
        return torch.autocast(self.device.type, self.autocast) if self.autocast else nullcontext()

    def loss(self, outputs: dict[str, Tensor], batch: tuple[Tensor, Tensor]) -> Tensor:
        """The weighted loss; weights from the detached loss of each sample."""
        losses = F.cross_entropy(outputs["logits"].to(self.dtype), batch[1], reduction="none")
        weights: Tensor = self.weights(losses.detach()[:, None])[:, 0]
        return (weights * losses).mean()

    def meta_loss(self, call: Callable[[Tensor], Tensor], batch: tuple[Tensor, Tensor]) -> Tensor:
        """Cross-entropy on the meta batch."""
        return F.cross_entropy(call(batch[0]).to(self.dtype), batch[1])

    def inner(self, call: Callable[[Tensor], Tensor]) -> Tensor:
        """The inner loss with the network run by ``call``."""
        return self.loss({"logits": call(self.train[0])}, self.train)

    def meta_step(self, gradients: list[Tensor]) -> None:
        """One step of the weight network."""
        for parameter, gradient in zip(self.theta, gradients, strict=True):
            parameter.grad = gradient
        self.meta_optimizer.step()

    def real_step(self, loss: Tensor) -> None:
        """One step of the network; the weights of the samples are constants in it."""
        self.optimizer.zero_grad()
        torch.autograd.backward(loss, inputs=list(self.net.parameters()))
        self.optimizer.step()


# A contender makes one full step and returns the meta gradient that it used.
Contender = Callable[[], list[Tensor]]


def plain(problem: Problem) -> Contender:
    def step() -> list[Tensor]:
        problem.real_step(F.cross_entropy(problem.net(problem.train[0]).to(problem.dtype), problem.train[1]))
        return []

    return step


def forward(problem: Problem, every: int = 1, look_ahead: list[str] | None = None) -> Contender:
    """This package; with every > 1, one call is that many steps of which one has a meta step."""
    bilevel = Bilevel(
        problem.net,
        lambda call, batch: {"logits": call(batch[0])},
        problem.loss,
        problem.meta_loss,
        engine="forward",
        look_ahead=look_ahead,
    )

    def step() -> list[Tensor]:
        result = bilevel.hypergradient(problem.train, problem.meta, problem.theta, LR)
        problem.meta_step(result.gradients)
        problem.real_step(problem.loss(result.training_outputs(), problem.train))
        for _ in range(every - 1):
            problem.real_step(problem.inner(problem.net))
        return result.gradients

    return step


def every_10(problem: Problem) -> Contender:
    return forward(problem, every=10)


def last_block(problem: Problem) -> Contender:
    blocks = dict(problem.net.named_children())["backbone"].get_submodule("stage3")
    return forward(problem, look_ahead=[f"backbone.stage3.{len(list(blocks.children())) - 1}", "classifier"])


def double_backward(problem: Problem) -> Contender:
    def hypergradient() -> list[Tensor]:
        named = dict(problem.net.named_parameters())
        buffers = {name: buffer.clone() for name, buffer in problem.net.named_buffers()}
        inner = problem.inner(lambda x: functional_call(problem.net, {**named, **buffers}, (x,)))
        slopes = torch.autograd.grad(inner, list(named.values()), create_graph=True)
        ahead = {name: p - LR * slope for (name, p), slope in zip(named.items(), slopes, strict=True)}
        outer = problem.meta_loss(lambda x: functional_call(problem.net, {**ahead, **buffers}, (x,)), problem.meta)
        return list(torch.autograd.grad(outer, problem.theta))

    def step() -> list[Tensor]:
        gradients = hypergradient()
        problem.meta_step(gradients)
        problem.real_step(problem.inner(problem.net))
        return gradients

    return step


def by_higher(problem: Problem) -> Contender:
    def step() -> list[Tensor]:
        fresh = torch.optim.SGD(problem.net.parameters(), LR)
        with higher.innerloop_ctx(problem.net, fresh, copy_initial_weights=True) as (net, inner):
            inner.step(problem.inner(net))
            gradients = list(torch.autograd.grad(problem.meta_loss(net, problem.meta), problem.theta))
        del net, inner
        problem.meta_step(gradients)
        problem.real_step(problem.inner(problem.net))
        return gradients

    return step


def by_torchopt(problem: Problem) -> Contender:
    torchopt: Any = importlib.import_module("torchopt")

    def step() -> list[Tensor]:
        state = torchopt.extract_state_dict(problem.net, by="reference", detach_buffers=True)
        try:
            torchopt.MetaSGD(problem.net, lr=LR).step(problem.inner(problem.net))
            gradients = list(torch.autograd.grad(problem.meta_loss(problem.net, problem.meta), problem.theta))
        finally:
            torchopt.recover_state_dict(problem.net, state)  # until then its parameters are no leaves
        problem.meta_step(gradients)
        problem.real_step(problem.inner(problem.net))
        return gradients

    return step


CONTENDERS: dict[str, Callable[[Problem], Contender]] = {
    "forward": forward,
    "higher": by_higher,
    "torchopt": by_torchopt,
    "double-backward": double_backward,
    "every-10": every_10,
    "last-block": last_block,
}
STEPS_IN_A_CALL = {"every-10": 10}


def run(problem: Problem, contender: Contender) -> list[Tensor]:
    """One call, to its end."""
    with problem.precision():
        gradients = contender()
    if problem.device.type == "cuda":
        torch.cuda.synchronize()
    return gradients


def time_of(problem: Problem, contender: Contender) -> float:
    start = time.perf_counter()
    run(problem, contender)
    return time.perf_counter() - start


def measure(names: list[str], depth: int, batch: int, precision: str, device: str, rounds: int) -> list[dict[str, Any]]:
    """Interleaved times of the contenders, and the error of their first meta gradient."""
    size = (depth, batch, precision, device)
    true = run(exact := Problem(depth, batch, "float64", device), double_backward(exact))
    problems = {name: Problem(*size) for name in ("plain", *names)}
    contenders = {name: CONTENDERS.get(name, plain)(problem) for name, problem in problems.items()}
    errors = {}
    for name, contender in contenders.items():  # warms up, too
        found = run(problems[name], contender)
        pairs = list(zip(found, true, strict=False))
        off = sum(float((f.double() - t).square().sum()) for f, t in pairs)
        errors[name] = (off / max(sum(float(t.square().sum()) for _, t in pairs), 1e-300)) ** 0.5
    times: dict[str, list[float]] = {name: [] for name in contenders}
    order = list(contenders)
    for turn in range(rounds):
        for name in order[turn % len(order) :] + order[: turn % len(order)]:
            times[name].append(time_of(problems[name], contenders[name]) / STEPS_IN_A_CALL.get(name, 1))
    return [
        {
            "contender": name,
            "depth": depth,
            "batch": batch,
            "precision": precision,
            "plain_steps": round(statistics.median(t / p for t, p in zip(taken, times["plain"], strict=True)), 3),
            "median_ms": round(1e3 * statistics.median(taken), 2),
            "min_ms": round(1e3 * min(taken), 2),
            "relative_error": f"{errors[name]:.1e}" if name != "plain" else "",
        }
        for name, taken in times.items()
    ]


def resident(field: str) -> float:
    """Resident memory of this process in MiB: ``VmRSS`` now, ``VmHWM`` at most since the mark was last reset."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[field].split()[0]) / 2**10


def peak(name: str, depth: int, batch: int, precision: str, device: str) -> float:
    """Peak memory of this process over what it holds before its first step of this size, in MiB."""
    small = Problem(depth, 4, precision, device)
    run(small, CONTENDERS.get(name, plain)(small))  # the libraries' own memory is not counted
    problem = Problem(depth, batch, precision, device)
    contender = CONTENDERS.get(name, plain)(problem)
    if problem.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        for _ in range(2):
            run(problem, contender)
        return (torch.cuda.max_memory_allocated() - held) / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # resets the mark
    before = resident("VmRSS")
    for _ in range(2):
        run(problem, contender)
    return resident("VmHWM") - before


def peak_of(row: dict[str, Any], device: str, threads: int) -> float:
    """The peak of one row's contender, in a process of its own; on a CPU this needs Linux."""
    size = [str(row[key]) for key in ("contender", "depth", "batch", "precision")]
    command = [sys.executable, __file__, "--peak", *size, "--device", device, "--threads", str(threads)]
    # Freed memory goes back to the system at once: what counts is what the step needs, not what the allocator keeps.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072"}
    return float(subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout)


def table(about: dict[str, Any]) -> str:
    """The rows as Markdown, beside those of ``higher`` at the same size."""
    rows = about["rows"]
    reference = {_size(row): row for row in rows if row["contender"] == "higher"}
    lines = [
        f"One full step on {about['device']}; median of {about['rounds']} rounds; torch {about['versions']['torch']}, "
        f"commit {about['commit']}; `{about['command']}`.",
        "",
        "| contender | depth | batch | precision | plain steps | of higher | best ms | peak MiB | of higher | error |",
        "|---|---:|---:|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in rows:
        beside = reference.get(_size(row))
        parts = [
            row["contender"],
            row["depth"],
            f"{row['batch']} + {row['batch']}",
            row["precision"],
            f"{row['plain_steps']:.2f}",
            f"{row['plain_steps'] / beside['plain_steps']:.2f}" if beside else "",
            row["min_ms"],
            row.get("peak_mib", ""),
            f"{row['peak_mib'] / beside['peak_mib']:.2f}" if beside and "peak_mib" in row else "",
            row["relative_error"],
        ]
        lines.append(f"| {' | '.join(str(part) for part in parts)} |")
    return "\n".join(lines)


def _size(row: dict[str, Any]) -> tuple[Any, ...]:
    return row["depth"], row["batch"], row["precision"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contenders", nargs="+", choices=list(CONTENDERS), help="default: all that are installed")
    parser.add_argument("--depth", nargs="+", type=int, default=[32], help="6n + 2")
    parser.add_argument("--batch", nargs="+", type=int, default=[100], help="size of the training and the meta batch")
    parser.add_argument("--precision", nargs="+", choices=["float32", "bf16", "float64"], default=["float32"])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--no-memory", action="store_true", help="leave out the peak memory")
    parser.add_argument("--name", default="bilevel", help="of the files in benchmarks/results")
    parser.add_argument("--write", action="store_true", help="put the table into benchmarks/README.md")
    parser.add_argument("--peak", nargs=4, metavar=("CONTENDER", "DEPTH", "BATCH", "PRECISION"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.peak:
        print(peak(args.peak[0], int(args.peak[1]), int(args.peak[2]), args.peak[3], args.device))
        return

    names = args.contenders or [n for n in CONTENDERS if n != "torchopt" or importlib.util.find_spec("torchopt")]
    rows = []
    for precision in args.precision:
        for depth in args.depth:
            for batch in args.batch:
                for row in measure(names, depth, batch, precision, args.device, args.rounds):
                    if not args.no_memory:
                        row["peak_mib"] = round(peak_of(row, args.device, args.threads), 1)
                    rows.append(row)
                    print("  ".join(f"{key}={value}" for key, value in row.items()), flush=True)
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"{args.name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    about = {
        "command": " ".join(["python", "benchmarks/bilevel.py", *sys.argv[1:]]),
        "python": platform.python_version(),
        **facts(args.device, args.threads),
        "rounds": args.rounds,
        "rows": rows,
    }
    (RESULTS / f"{args.name}.json").write_text(json.dumps(about, indent=2) + "\n")
    if args.write:
        write_section(args.name, table(about))


if __name__ == "__main__":
    main()
