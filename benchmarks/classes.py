"""What class-level perturbations cost as the number of classes grows: time and memory of the perturbation alone.

LPL's steps on a batch, forward and backward of cross-entropy on the perturbed logits, beside plain cross-entropy, up to
iNaturalist 2018's 8 142 classes; and ISDA's term by class pairs beside the published form, which expands it to
[B, C, A] for every sample. Within a round the contenders take turns; reported is the best of the rounds. Peak memory is
that of the tensors which autograd and the operators hold at once, over what exists before.

    python benchmarks/classes.py --write
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accuracy_run import facts
from readme import write_section
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lightning_perturb.functional import isda_logits, lpl

RESULTS = Path(__file__).parent / "results" / "classes.json"
Step = Callable[[], object]


class Held(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The most bytes that tensors made inside hold at one time."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.most = 0
        self._storages: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs an operator and notes what it allocates."""
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._note(tensor.untyped_storage())
        return out

    def _note(self, storage: Any) -> None:
        key = storage._cdata
        if key in self._storages:
            return
        self._storages[key] = storage.nbytes()
        self.now += storage.nbytes()
        self.most = max(self.most, self.now)
        weakref.finalize(storage, self._forget, key)

    def _forget(self, key: int) -> None:
        self.now -= self._storages.pop(key, 0)


def lpl_steps(classes: int, batch: int) -> dict[str, Step]:
    """Cross-entropy, and LPL with 10 and 40 steps in front of it."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(batch, classes, generator=generator).requires_grad_()
    target = torch.randint(classes, (batch,), generator=generator)

    def step(steps: int) -> object:
        perturbed = logits + lpl(logits, target, steps=steps) if steps else logits
        return torch.autograd.grad(F.cross_entropy(perturbed, target), logits)

    return {"cross-entropy": lambda: step(0), "LPL, 10 steps": lambda: step(10), "LPL, 40 steps": lambda: step(40)}


def isda_steps(classes: int, width: int, batch: int) -> dict[str, Step]:
    """ISDA by class pairs and as published."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(classes, width, generator=generator).requires_grad_()
    root = torch.randn(classes, width, 8, generator=generator)
    covariance = root @ root.mT / 8
    logits = torch.randn(batch, classes, generator=generator).requires_grad_()
    target = torch.randint(classes, (batch,), generator=generator)

    def by_pairs() -> object:
        loss = F.cross_entropy(isda_logits(logits, weight, covariance, target), target)
        return torch.autograd.grad(loss, (logits, weight))

    def by_samples() -> object:
        # differences [B, C, A], a covariance for each sample [B, A, A], and the diagonal of [B, C, C]
        difference = weight.expand(batch, classes, width) - weight[target].unsqueeze(1).expand(batch, classes, width)
        forms = torch.bmm(torch.bmm(difference, covariance[target]), difference.mT)
        raised = 0.5 * (forms * torch.eye(classes)).sum(2)
        return torch.autograd.grad(F.cross_entropy(logits + 0.5 * raised, target), (logits, weight))

    return {"by class pairs": by_pairs, "by samples, as published": by_samples}


def measure(steps: dict[str, Step], rounds: int, **size: int) -> list[dict[str, Any]]:
    """Best time and peak memory of each step."""
    best = dict.fromkeys(steps, float("inf"))
    for turn in range(rounds + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if turn:  # the first warms up
                best[name] = min(best[name], time.perf_counter() - start)
    rows = []
    for name, step in steps.items():
        with Held() as held:
            found = step()
        del found
        rows.append(
            {"contender": name, **size, "ms": round(1e3 * best[name], 3), "peak_mib": round(held.most / 2**20, 2)}
        )
        print(rows[-1], flush=True)
    return rows


def table(report: dict[str, Any]) -> str:
    """The report as Markdown."""
    lines = [
        f"On {report['device']}; best of {report['rounds']} rounds; torch {report['versions']['torch']}, commit "
        f"{report['commit']}; `{report['command']}`.",
        "",
        "| | batch | C | A | ms | peak MiB |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row['contender']} | {row['batch']} | {row['classes']} | {row.get('width', '')} | {row['ms']:.2f} "
        f"| {row['peak_mib']:.1f} |"
        for row in report["lpl"] + report["isda"]
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--classes", nargs="+", type=int, default=[10, 100, 1000, 8142])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--isda", nargs=2, type=int, default=[100, 640], metavar=("C", "A"))
    parser.add_argument("--isda-batch", nargs="+", type=int, default=[128, 512])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--write", action="store_true", help="put the table into benchmarks/README.md")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    report = {
        "command": " ".join(["python", "benchmarks/classes.py", *sys.argv[1:]]),
        "python": platform.python_version(),
        **facts("cpu", options.threads),
        "rounds": options.rounds,
        "lpl": [
            row
            for classes in options.classes
            for row in measure(lpl_steps(classes, options.batch), options.rounds, classes=classes, batch=options.batch)
        ],
        "isda": [
            row
            for classes, width in [options.isda]
            for batch in options.isda_batch
            for row in measure(
                isda_steps(classes, width, batch),
                options.rounds,
                classes=classes,
                width=width,
                batch=batch,
            )
        ],
    }
    RESULTS.write_text(json.dumps(report, indent=2) + "\n")
    if options.write:
        write_section("classes", table(report))


if __name__ == "__main__":
    main()
