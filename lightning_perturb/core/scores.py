"""A pass over the training set beside training: in order, in evaluation mode, each sample once over all ranks."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, Subset

from lightning_perturb.core import resume
from lightning_perturb.core.batch import Batch
from lightning_perturb.core.distributed import gather_rows, rank, world_size
from lightning_perturb.core.modes import evaluating
from lightning_perturb.core.module import PerturbationModule


@torch.no_grad()
def visit_training(module: PerturbationModule, visit: Callable[[Batch], None]) -> None:
    """Shows the training set to a function: every rank its own part, with the network in evaluation mode.

    The data module serves it in index order and not augmented; of a loader of one's own, its data set is gone through
    as it is. Neither the random state nor the network's statistics move.

    Args:
        module: A method that is being fitted.
        visit: Reads a batch; calls of the network need not pair up over ranks, and collectives have no place in it.

    Raises:
        ValueError: If the training set cannot be gone through a second time.
    """
    kept = resume.random_state()
    with evaluating(module.net):
        for batch in _batches(module):
            visit(batch)
    resume.restore_random_state(kept)


def training_predictions(module: PerturbationModule) -> Tensor:
    """The network's present probabilities for all training samples ``[N, C]``, the same on every rank.

    Args:
        module: A method that is being fitted; see :func:`visit_training`.

    Raises:
        ValueError: If the training set cannot be gone through a second time.
    """
    found = [torch.empty(0, module.num_classes, device=module.device)]

    def visit(batch: Batch) -> None:
        logits = module.run(module.net, batch.view)
        found.append((logits if logits.dtype == torch.float64 else logits.float()).softmax(1))

    visit_training(module, visit)
    (probabilities,) = gather_rows(torch.cat([part.to(found[-1].dtype) for part in found]))
    return probabilities


def _batches(module: PerturbationModule) -> Iterator[Batch]:
    trainer: Any = module.trainer
    for item in _loader(module):
        # as Lightning brings a training batch to the device
        batch = trainer.precision_plugin.convert_input(item)
        batch = module._on_before_batch_transfer(batch, dataloader_idx=0)
        found = Batch.of(trainer.strategy.batch_to_device(batch, dataloader_idx=0)).copy()
        found.y = module._as_target(found.y)
        module._check_labels(found.y, "A label")
        yield found


def _loader(module: PerturbationModule) -> Any:
    trainer: Any = module.trainer
    serve = getattr(trainer.datamodule, "score_dataloader", None)
    if serve is not None:
        return serve()
    own = trainer.train_dataloader
    if not isinstance(own, DataLoader) or isinstance(own.dataset, IterableDataset):
        kind = type(own.dataset if isinstance(own, DataLoader) else own).__name__
        raise ValueError(
            f"{type(module).__name__} goes through the training set a second time, which {kind} does not allow. Use a "
            "lightning_perturb data module, or one DataLoader over a data set with __getitem__ and __len__."
        )
    mine = range(rank(), len(own.dataset), world_size())  # type: ignore[arg-type]
    # the ranks' calls of the network need not pair up: it is not the wrapped one
    return DataLoader(Subset(own.dataset, mine), batch_size=own.batch_size or 128, collate_fn=own.collate_fn)
