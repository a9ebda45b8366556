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
import multiprocessing
import resource
import statistics
import sys
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accuracy_run import facts
from readme import write_section
from rich.console import Console
from rich.progress import track
from speed_contenders import PLAIN, Contender, Options, contenders, make_batches
from speed_probes import Passes, Probes, counted, timed
from speed_tables import Row, store, stored, table

from lightning_perturb import methods, nets
from lightning_perturb.core import PerturbationModule

RESULTS = Path(__file__).parent / "results"


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
        probes.times(batch)
    times = Times({name: [] for name in steppers})
    names = list(steppers)
    for number in track(range(rounds), "measuring", console=console):
        batch = batches[number % len(batches)]
        times.probes.append(probes.times(batch))
        # another one begins each round: being the first after the probes is no advantage
        for place in range(len(names)):
            name = names[(place + number) % len(names)]
            times.steps[name].append(timed(options, partial(steppers[name].step, batch)))
    return [_row(name, steppers[name].module, passes[name], times) for name in names]


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
