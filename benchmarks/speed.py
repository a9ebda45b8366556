"""Step time and peak memory of every method, beside cross-entropy and beside the floor that its passes set.

    python benchmarks/speed.py                                        # ResNet-20, batch 128, float32, all cores
    python benchmarks/speed.py --precision bf16 --channels-last
    python benchmarks/speed.py --device cuda --precision bf16 --channels-last
    python benchmarks/speed.py --only-table --write                   # the stored numbers, into README.md

A step is what Lightning's loop does for a batch, without the loop: training_step, zero_grad, backward, optimizer step.
All methods and the probes take their steps in turn, so that a round's times share the state of the machine; reported is
the median over rounds of the ratio to cross-entropy's step in the same round.

The floor counts passes over the network. They are not declared but counted, by hooks on the network during one step:
forward passes, backward passes to the input (an attack), backward passes to the weights; a pass over a part of the
batch counts as that part. Four probes in bare PyTorch run in every round and turn passes into seconds:

    forward     one forward pass without gradient, evaluation mode
    attack      one forward pass in evaluation mode and the gradient of its loss in the input
    training    one forward pass in training mode and the gradient of its loss in the weights
    optimizer   one optimizer step

    floor = attacks x attack + trainings x training + (other forwards) x forward + optimizer

In units where a forward pass is 1, a gradient in the input 1 and one in the weights 2 (it is a gradient in the
activations and one in the weights), a plain step is 3 and an attack of k steps adds 2 k.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from accuracy_run import facts
from readme import write_section
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_perturb import methods, nets
from lightning_perturb.core import Batch, DataFacts, PerturbationModule
from lightning_perturb.core.load import subclasses
from lightning_perturb.core.modes import evaluating

RESULTS = Path(__file__).parent / "results"
CLASSES, SAMPLES = 10, 50_000
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
PLAIN, AGAIN = "CrossEntropy", "CrossEntropy (again)"
LIMIT = 1.05
_PROBES = ("forward", "attack", "training", "optimizer")

# further settings of methods that do other work than at their defaults; every method is measured without being named
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "LogPert alternating": ("LogPert", {"update": "alternating"}),
    "LogPert joint": ("LogPert", {"update": "joint"}),
    "LPL 10 steps": ("LPL", {"split": "frequency", "delta_eps": 1.5, "alpha": 0.15}),
    "LPL 40 steps": ("LPL", {"eps": 0.4, "delta_eps": 0.0, "alpha": 0.01}),
    "MixPert epoch_quantile": ("MixPert", {"threshold": "epoch_quantile"}),
    "MixPert eps2=8/255": ("MixPert", {"eps2": 8 / 255}),
}


# they start from another run: a teacher, an adjuster
_FROM_A_RUN = ("KnowledgeDistillation", "TransferredRobustLoss")


@dataclass(frozen=True)
class Options:
    """What is measured how."""

    net: str = "ResNet20"
    batch: int = 128
    precision: str = "32"
    device: str = "cpu"
    channels_last: bool = False
    threads: int = 1

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision of a step."""
        return torch.autocast(self.device, torch.bfloat16) if self.precision == "bf16" else nullcontext()

    def wait(self) -> None:
        """Waits until the device has done what it was told."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def build_net(self) -> nn.Module:
        """The network, the same for everyone."""
        torch.manual_seed(0)
        net: nn.Module = getattr(nets, self.net)(num_classes=CLASSES).to(self.device)
        if self.channels_last:
            net.to(memory_format=torch.channels_last)
        return net


def contenders() -> dict[str, Callable[..., PerturbationModule]]:
    """Every method, found and not listed, cross-entropy first; bilevel.py has those that learn from a meta stream."""
    found: dict[str, Callable[..., PerturbationModule]] = {PLAIN: methods.CrossEntropy, AGAIN: methods.CrossEntropy}
    for cls in subclasses():
        ours = cls.__module__.startswith(f"{methods.__name__}.") and not cls.__name__.startswith("_")
        if ours and not (cls.needs.meta or cls.needs.truth or cls.__name__ in _FROM_A_RUN):
            found.setdefault(cls.__name__, cls)
    for name, (base, arguments) in SETTINGS.items():
        found[name] = partial(found[base], **arguments)
    return found


# the batch ------------------------------------------------------------------------------------------------------------


def make_batches(options: Options, count: int = 4) -> list[Batch]:
    """Batches with two views of images that have the pixel statistics of CIFAR-10: mean, deviation and smoothness."""
    generator = torch.Generator().manual_seed(0)
    mean, std = (torch.tensor(values).reshape(1, 3, 1, 1) for values in (MEAN, STD))
    batches = []
    for _ in range(count):
        views = []
        for _ in range(2):
            coarse = torch.randn(options.batch, 3, 8, 8, generator=generator)
            smooth = F.interpolate(coarse, size=32, mode="bicubic")
            x = smooth / smooth.std() + 0.2 * torch.randn(smooth.shape, generator=generator)
            pixels = ((x / x.std() * std + mean).clamp(0, 1) * 255).round() / 255
            views.append(((pixels - mean) / std).to(options.device))
        if options.channels_last:
            views = [view.contiguous(memory_format=torch.channels_last) for view in views]
        y = torch.randint(CLASSES, (options.batch,), generator=generator).to(options.device)
        index = torch.randperm(SAMPLES, generator=generator)[: options.batch].to(options.device)
        batches.append(Batch((views[0], views[1]), y, index))
    return batches


# contenders and probes ------------------------------------------------------------------------------------------------


class Contender:
    """A method with its network, optimizer and a stand-in for the trainer.

    Args:
        make: The method's class, with arguments where it has other settings.
        options: What is measured how.
    """

    def __init__(self, make: Callable[..., PerturbationModule], options: Options) -> None:
        self.options = options
        self.module = make(net=options.build_net(), num_classes=CLASSES, channels_last=options.channels_last)
        self.module.to(options.device).train()
        self.optimizer = torch.optim.SGD(self.module.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
        counts = np.full(CLASSES, SAMPLES // CLASSES)
        facts = DataFacts(SAMPLES, CLASSES, counts, MEAN, STD, self.module.multi_label, SAMPLES)
        self.trainer = SimpleNamespace(
            current_epoch=1,
            global_step=0,
            max_epochs=100,
            estimated_stepping_batches=100_000,
            world_size=1,
            precision="32-true",
            log_every_n_steps=50,
            optimizers=[self.optimizer],
            callbacks=[],
            datamodule=SimpleNamespace(facts=facts),
        )
        self.module._trainer = self.trainer  # type: ignore[assignment]
        setattr(self.module, "log", _ignore)  # noqa: B010 - logging belongs to the loop
        self.module.setup("fit")
        if isinstance(self.module, methods.PGDTraining):
            # not the first epoch of attacks, in which inputs are checked
            self.module._pixels_checked = 0
        self.module.to(options.device)

    def step(self, batch: Batch) -> None:
        """One training step."""
        views = batch.x if self.module.needs.views > 1 else batch.view
        # a batch of its own: methods write into it
        y = F.one_hot(batch.y, CLASSES).float() if self.module.multi_label else batch.y
        fresh = Batch(views, y, batch.index)
        with self.options.autocast():
            loss = self.module.training_step(fresh, self.trainer.global_step)["loss"]
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.trainer.global_step += 1


def _ignore(*args: Any, **kwargs: Any) -> None:
    """Takes the place of logging."""


class Probes:
    """The passes of which floors are made, in bare PyTorch."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.net = options.build_net()
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)

    def forward(self, batch: Batch) -> None:
        """A forward pass without gradient."""
        with torch.no_grad(), evaluating(self.net), self.options.autocast():
            self.net(batch.view)

    def attack(self, batch: Batch) -> None:
        """A forward pass and the gradient of its loss in the input."""
        assert isinstance(batch.view, Tensor)
        with evaluating(self.net), self.options.autocast():
            x = batch.view.detach().requires_grad_()
            torch.autograd.grad(F.cross_entropy(self.net(x), batch.y, reduction="sum"), x)

    def training(self, batch: Batch) -> None:
        """A forward pass and the gradient of its loss in the weights."""
        self.optimizer.zero_grad()
        with self.options.autocast():
            loss = F.cross_entropy(self.net(batch.view), batch.y)
        loss.backward()  # type: ignore[no-untyped-call]

    def update(self, batch: Batch) -> None:
        """An optimizer step on the gradients of the last training pass."""
        self.optimizer.step()


# passes ---------------------------------------------------------------------------------------------------------------


@dataclass
class Passes:
    """Passes over the network in one step, in parts of the batch.

    Attributes:
        forward: Forward passes.
        attack: Backward passes to the input.
        training: Backward passes to the weights.
    """

    forward: float = 0.0
    attack: float = 0.0
    training: float = 0.0

    @property
    def units(self) -> float:
        """Forward 1, gradient in the input 1, gradient in the weights 2."""
        return self.forward + self.attack + 2 * self.training

    @property
    def plain(self) -> bool:
        """Whether these are the passes of cross-entropy."""
        return self == Passes(1.0, 0.0, 1.0)

    def floor(self, times: dict[str, float]) -> float:
        """Seconds of these passes and one optimizer step, from the times of the probes."""
        rest = self.forward - self.attack - self.training
        passes = self.attack * times["attack"] + self.training * times["training"] + rest * times["forward"]
        return passes + times["optimizer"]


@contextmanager
def counted(net: nn.Module, batch_size: int) -> Iterator[Passes]:
    """Counts the passes over a network; a pass to an input that wants a gradient is an attack."""
    passes = Passes()

    def on_forward(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        x: Tensor = args[0]
        part = len(x) / batch_size
        kind = "attack" if x.requires_grad else "training"
        passes.forward += part
        if output.requires_grad:
            output.register_hook(  # type: ignore[no-untyped-call]
                lambda _: setattr(passes, kind, getattr(passes, kind) + part)
            )

    handle = net.register_forward_hook(on_forward)
    try:
        yield passes
    finally:
        handle.remove()


# measuring ------------------------------------------------------------------------------------------------------------


@dataclass
class Row:
    """What is told of a method.

    Attributes:
        name: Method and setting.
        target: What it perturbs.
        passes: Its passes in one step.
        step_ms: Median step.
        ratio: Median ratio to cross-entropy's step in the same round, with quartiles.
        floor_ms: Median floor.
        of_floor: Median ratio to the floor in the same round.
        memory_mib: Peak memory of the first steps over what was held before.
    """

    name: str
    target: str
    passes: Passes
    step_ms: float
    ratio: float
    ratio_low: float
    ratio_high: float
    floor_ms: float
    of_floor: float
    memory_mib: float | None = None

    @property
    def limited(self) -> float:
        """The ratio that the limit is about: to cross-entropy at equal passes, else to the floor."""
        return self.ratio if self.passes.plain else self.of_floor

    @property
    def flat(self) -> dict[str, Any]:
        """One line of a CSV file."""
        row = asdict(self)
        passes = row.pop("passes")
        return {**row, **{f"passes_{name}": value for name, value in passes.items()}, "limited": self.limited}


@dataclass
class Times:
    """Seconds of each round."""

    steps: dict[str, list[float]] = field(default_factory=dict)
    probes: list[dict[str, float]] = field(default_factory=list)


def measure(options: Options, rounds: int, warmup: int = 3) -> list[Row]:
    """Measures all contenders in turn."""
    torch.set_num_threads(options.threads)
    console = Console(stderr=True)
    batches = make_batches(options)
    steppers = {name: Contender(make, options) for name, make in contenders().items()}
    passes = {}
    for name, stepper in track(steppers.items(), "warming up", console=console, total=len(steppers)):
        for number in range(warmup):
            # the last one: some methods do more from the second step on
            with counted(stepper.module.net, options.batch) as passes[name]:
                stepper.step(batches[number % len(batches)])
    probes = Probes(options)
    for batch in batches[:warmup]:
        _probe(probes, batch)
    times = Times({name: [] for name in steppers})
    names = list(steppers)
    for number in track(range(rounds), "measuring", console=console):
        batch = batches[number % len(batches)]
        times.probes.append(_probe(probes, batch))
        # another one begins each round: being the first after the probes is no advantage
        for place in range(len(names)):
            name = names[(place + number) % len(names)]
            times.steps[name].append(_timed(options, partial(steppers[name].step, batch)))
    return [_row(name, steppers[name].module, passes[name], times) for name in names]


def _probe(probes: Probes, batch: Batch) -> dict[str, float]:
    passes = (probes.forward, probes.attack, probes.training, probes.update)
    return {name: _timed(probes.options, partial(run, batch)) for name, run in zip(_PROBES, passes, strict=True)}


def _timed(options: Options, run: Callable[[], None]) -> float:
    options.wait()
    start = time.perf_counter()
    run()
    options.wait()
    return time.perf_counter() - start


def _row(name: str, module: PerturbationModule, passes: Passes, times: Times) -> Row:
    steps = times.steps[name]
    ratios = [step / plain for step, plain in zip(steps, times.steps[PLAIN], strict=True)]
    floors = [passes.floor(probes) for probes in times.probes]
    low, _, high = statistics.quantiles(ratios, n=4) if len(ratios) > 1 else [ratios[0]] * 3
    return Row(
        name=name,
        target="+".join(module.coordinates.target) or "none",
        passes=passes,
        step_ms=1e3 * statistics.median(steps),
        ratio=statistics.median(ratios),
        ratio_low=low,
        ratio_high=high,
        floor_ms=1e3 * statistics.median(floors),
        of_floor=statistics.median(step / floor for step, floor in zip(steps, floors, strict=True)),
    )


# memory ---------------------------------------------------------------------------------------------------------------


def peak_memory(options: Options, steps: int = 3) -> dict[str, float]:
    """MiB that the first steps of each contender take over what was held before them, each in a fresh process."""
    # a server that has imported everything and computed nothing: its children are fresh and start at once
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([methods.__name__, nets.__name__, "lightning_perturb.callbacks"])
    peaks = {}
    for name in track(contenders(), "peak memory", console=Console(stderr=True)):
        receive, send = context.Pipe(duplex=False)
        process = context.Process(target=_peak, args=(name, options, steps, send))
        process.start()
        send.close()
        try:
            peaks[name] = receive.recv()
        except EOFError:
            raise RuntimeError(f"The process that measures the memory of {name} died.") from None
        finally:
            process.join()
    return peaks


def _peak(name: str, options: Options, steps: int, send: Any) -> None:
    torch.set_num_threads(options.threads)
    batches = make_batches(options, count=1)
    stepper = Contender(contenders()[name], options)
    before = _held(options)
    for _ in range(steps):
        stepper.step(batches[0])
    options.wait()
    send.send(_held(options, peak=True) - before)


def _held(options: Options, peak: bool = False) -> float:
    """MiB held now, or at most so far."""
    if options.device == "cuda":
        if not peak:
            torch.cuda.reset_peak_memory_stats()
        return (torch.cuda.max_memory_allocated() if peak else torch.cuda.memory_allocated()) / 2**20
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


# reporting ------------------------------------------------------------------------------------------------------------


def table(about: dict[str, Any], rows: list[Row]) -> str:
    """The Markdown of a measurement."""
    layout = ", channels_last" if about["channels_last"] else ""
    titles = (
        "method",
        "perturbs",
        "passes",
        "step ms",
        "x CE",
        "quartiles",
        "floor ms",
        "x floor",
        "limit",
        "peak MiB",
    )
    lines = [
        f"{about['net']}, batch {about['batch']}, precision {about['precision']}{layout}, on {about['device']}; "
        f"median of {about['rounds']} rounds; torch {about['versions']['torch']}, commit {about['commit']}.",
        "",
        f"| {' | '.join(titles)} |",
        "|---|---|---|---:|---:|---:|---:|---:|---|---:|",
    ]
    for row in rows:
        passes = row.passes
        counted_passes = f"{passes.forward:g} F + {passes.training:g} W"
        if passes.attack:
            counted_passes = f"{passes.forward:.3g} F + {passes.attack:.3g} X + {passes.training:g} W"
        of = "CE" if passes.plain else "floor"
        verdict = "met" if row.limited <= LIMIT else "MISSED"
        limit = "–" if row.name in (PLAIN, AGAIN) else f"{LIMIT} of {of}: {verdict}"
        cells = (
            row.name,
            row.target,
            f"{counted_passes} = {passes.units:.3g}",
            f"{row.step_ms:.1f}",
            f"{row.ratio:.3f}",
            f"{row.ratio_low:.3f}–{row.ratio_high:.3f}",
            f"{row.floor_ms:.1f}",
            f"{row.of_floor:.3f}",
            limit,
            "–" if row.memory_mib is None else f"{row.memory_mib:.0f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def store(path: Path, about: dict[str, Any], rows: list[Row]) -> None:
    """Writes ``.json`` (everything) and ``.csv`` (the rows)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = {"about": about, "rows": [asdict(row) for row in rows]}
    path.with_suffix(".json").write_text(json.dumps(stored, indent=1) + "\n", encoding="utf-8")
    with path.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0].flat))
        writer.writeheader()
        writer.writerows(row.flat for row in rows)


def stored(path: Path) -> tuple[dict[str, Any], list[Row]]:
    """Reads what :func:`store` wrote."""
    path = path.with_suffix(".json")
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing. Measure first, without --only-table.")
    read = json.loads(path.read_text(encoding="utf-8"))
    return read["about"], [Row(**{**row, "passes": Passes(**row["passes"])}) for row in read["rows"]]


def main(args: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--net", default="ResNet20", help="a class of lightning_perturb.nets")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--precision", choices=("32", "bf16"), default="32")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--no-memory", action="store_true", help="leave out the peak memory")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--only-table", action="store_true", help="measure nothing, print the stored numbers")
    parser.add_argument("--write", action="store_true", help="also write the table into README.md")
    given = parser.parse_args(args)
    options = Options(given.net, given.batch, given.precision, given.device, given.channels_last, given.threads)
    name = "speed" + "".join(f"-{part}" for part in (given.device, given.precision) if part not in ("cpu", "32"))
    if not given.only_table:
        # first, as long as this process has no threads of its own
        peaks = {} if given.no_memory else peak_memory(options)
        rows = measure(options, given.rounds)
        for row in rows:
            row.memory_mib = peaks.get(row.name)
        about = {**asdict(options), "rounds": given.rounds, **facts(given.device, given.threads)}
        store(given.results / name, about, rows)
    text = table(*stored(given.results / name))
    print(text)
    if given.write:
        write_section(name, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
