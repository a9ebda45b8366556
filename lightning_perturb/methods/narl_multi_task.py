"""NARL-Adjuster over several data sets at once: one adjuster, a network for each."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightning_perturb.bilevel import Hypergradient
from lightning_perturb.checks import check_positive
from lightning_perturb.core import Batch
from lightning_perturb.core.distributed import broadcast_from_first
from lightning_perturb.methods.narl_adjuster import NARLAdjuster, described


class NARLMultiTask(NARLAdjuster):
    """One adjuster for several tasks, each with a network of its own: the meta-training for transfer [narl 4.4].

    A step takes a batch of every task. The adjuster moves by the sum of the tasks' meta losses, each after a virtual
    step of that task's network; then every network makes its own real step. The data are
    :class:`~lightning_perturb.data.Tasks`; with one task, any data of NARLAdjuster. Validation and test count the
    samples of all tasks, each with its own network; ``net`` is the first one's.

    Args:
        tasks: Number of tasks. Their networks are copies of ``net`` and start from its weights.
        **kwargs: Arguments of :class:`~lightning_perturb.methods.NARLAdjuster`.

    Raises:
        ValueError: In training, if the data do not serve as many tasks.
    """

    def __init__(self, *args: Any, tasks: int = 1, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_positive("tasks", tasks)
        self.tasks = tasks
        self.other_nets = nn.ModuleList(copy.deepcopy(self.net) for _ in range(tasks - 1))
        self._task = 0

    @property
    def nets(self) -> list[nn.Module]:
        """The network of each task."""
        return [self.net, *self.other_nets]

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        """Virtual step of every task, one meta step, real step of every task."""
        streams = [self._streams(part, batch_idx) for part in self._parts(batch)]
        trains = [self._start_step(train, batch_idx) for train, _ in streams]
        metas = [meta for _, meta in streams if meta is not None]
        both: Any = self.optimizers()
        optimizer, meta_optimizer = both
        if metas:
            found = [
                self.hypergradient(train, meta, optimizer.optimizer, net)
                for train, meta, net in zip(trains, metas, self.nets, strict=True)
            ]
            summed = _summed(found)
            self._meta_step(summed, [meta_optimizer.optimizer], batch_idx)
            outputs = [one.training_outputs() for one in found]
            self.log("train/meta_loss", summed.meta_loss / self.tasks, on_step=False, on_epoch=True,
                     batch_size=sum(map(len, metas)), sync_dist=True)  # fmt: skip
        else:
            outputs = [self.outputs(net, train) for net, train in zip(self.nets, trains, strict=True)]
        losses = [self.loss(out, train) for out, train in zip(outputs, trains, strict=True)]
        # the networks share nothing: the gradient of the sum is each one's own
        loss = torch.stack(losses).sum()
        self._check_finite(loss, batch_idx)
        with torch.no_grad():
            for out, train in zip(outputs, trains, strict=True):
                self.update_state(out, train)
        self._real_step(loss, optimizer)
        # manual optimization switches DDP's own broadcast of batch-norm statistics off
        broadcast_from_first(b for net in self.nets for b in net.buffers() if b.is_floating_point())
        self._move_schedulers(at_epoch_end=bool(self.trainer.is_last_batch))
        self._take_if_due()
        together = {"logits": torch.cat([out["logits"] for out in outputs])}
        return self._finish_step(loss.detach() / self.tasks, together, _joined(trains))

    def _parts(self, batch: Any) -> list[Any]:
        named = isinstance(batch, Mapping) and all(str(name).isdigit() for name in batch)
        parts = [batch[name] for name in sorted(batch, key=int)] if named else [batch]
        if len(parts) != self.tasks:
            raise ValueError(
                f"tasks={self.tasks}, but the data serve {len(parts)} task(s). Set tasks of {type(self).__name__} to "
                f"{len(parts)}, or give Tasks(datamodules=...) with {self.tasks} data modules."
            )
        return parts

    def clipped_together(self, moved: list[nn.Parameter]) -> list[list[nn.Parameter]]:
        """Each network has a gradient norm of its own."""
        own = [{id(p) for p in net.parameters()} for net in self.nets]
        return [[p for p in moved if id(p) in ids] for ids in own]

    def provenance(self) -> dict[str, Any]:
        """How the adjuster is made, task by task."""
        inner = list(getattr(self.trainer.datamodule, "datamodules", []))  # type: ignore[attr-defined]
        told = super().provenance()
        if inner:
            told["data"] = ", ".join(sorted({type(data).__name__ for data in inner}))
            told["label_noise"] = ", ".join(described(getattr(data, "label_noise", None)) for data in inner)
            told["meta_size"] = ", ".join(sorted({str(getattr(data, "meta_size", None)) for data in inner}))
        return {**told, "tasks": self.tasks}

    # evaluation ---------------------------------------------------------------------------------------------------

    def evaluation_logits(self, x: Any) -> Tensor:
        """Logits by the network of the task whose samples are evaluated."""
        return self.run(self.nets[self._task], x)

    # set before the step, and kept after it for callbacks that ask for logits of the same samples
    def on_validation_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Takes the network of the loader's task."""
        self._task = dataloader_idx

    def on_test_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Takes the network of the loader's task."""
        self._task = dataloader_idx

    def on_validation_epoch_end(self) -> None:
        """As in the base; what follows is the first network's again."""
        super().on_validation_epoch_end()
        self._task = 0

    def on_test_epoch_end(self) -> None:
        """As in the base; what follows is the first network's again."""
        super().on_test_epoch_end()
        self._task = 0


def _summed(found: list[Hypergradient]) -> Hypergradient:
    gradients = [torch.stack(parts).sum(0) for parts in zip(*(one.gradients for one in found), strict=True)]
    meta_loss = torch.stack([one.meta_loss for one in found]).sum()
    return Hypergradient(gradients, meta_loss, torch.stack([one.loss for one in found]).sum(), dict)


def _joined(batches: list[Batch]) -> Batch:
    """The samples of all tasks as recorders read them: their positions are of several sets, and so are left away."""
    if len(batches) == 1:
        return batches[0]
    shared = set.intersection(*(set(batch.extra) for batch in batches))
    extra = {name: torch.cat([batch.extra[name] for batch in batches]) for name in shared}
    return Batch(batches[0].x, torch.cat([batch.y for batch in batches]), None, extra)
