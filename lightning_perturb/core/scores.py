"""A pass over a set beside training: in order, in evaluation mode, each sample once over all ranks."""

from collections.abc import Callable, Iterator, Mapping, Sized
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, Subset

from lightning_perturb.core import resume
from lightning_perturb.core.batch import Batch
from lightning_perturb.core.distributed import gather_rows, rank, world_size
from lightning_perturb.core.modes import evaluating
from lightning_perturb.core.module import PerturbationModule


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
    _visit(module, _loader(module, "score_dataloader", _own(module, "train"), "the training set"), visit)


def training_predictions(module: PerturbationModule) -> Tensor:
    """The network's present probabilities for all training samples ``[N, C]``, the same on every rank.

    Args:
        module: A method that is being fitted; see :func:`visit_training`.

    Raises:
        ValueError: If the training set cannot be gone through a second time.
    """
    own = _own(module, "train")
    return _predictions(module, _loader(module, "score_dataloader", own, "the training set"))[0]


def clean_predictions(module: PerturbationModule) -> tuple[Tensor, Tensor]:
    """The present probabilities for all clean samples ``[M, C]`` and their labels ``[M]``, as training_predictions.

    Args:
        module: A method with a second stream of clean samples that is being fitted.

    Raises:
        ValueError: If the clean set cannot be gone through a second time.
    """
    own = _own(module, "meta")
    return _predictions(module, _loader(module, "clean_dataloader", own, "the clean samples"))


def training_size(module: PerturbationModule) -> int:
    """The number of training samples; 0 where nobody tells.

    Args:
        module: A method that is being fitted.
    """
    if module.facts is not None and module.facts.train_samples:
        return module.facts.train_samples
    served = getattr(_own(module, "train"), "dataset", None)
    return len(served) if isinstance(served, Sized) else 0


def _predictions(module: PerturbationModule, loader: Any) -> tuple[Tensor, Tensor]:
    found = [torch.empty(0, module.num_classes, device=module.device)]
    labels = [torch.empty(0, dtype=torch.int64, device=module.device)]

    def visit(batch: Batch) -> None:
        logits = module.run(module.net, batch.view)
        found.append((logits if logits.dtype == torch.float64 else logits.float()).softmax(1))
        labels.append(batch.y)

    _visit(module, loader, visit)
    together = torch.cat([part.to(found[-1].dtype) for part in found])
    probabilities, y = gather_rows(together, torch.cat(labels))
    return probabilities, y


@torch.no_grad()
def _visit(module: PerturbationModule, loader: Any, visit: Callable[[Batch], None]) -> None:
    kept = resume.random_state()
    with evaluating(module.net):
        for batch in _batches(module, loader):
            visit(batch)
    # older versions of PyTorch reuse the weights that autocast cast here, which carry no history
    torch.clear_autocast_cache()
    resume.restore_random_state(kept)


def _batches(module: PerturbationModule, loader: Any) -> Iterator[Batch]:
    trainer: Any = module.trainer
    for item in loader:
        # as Lightning brings a training batch to the device
        batch = trainer.precision_plugin.convert_input(item)
        batch = module._on_before_batch_transfer(batch, dataloader_idx=0)
        found = Batch.of(trainer.strategy.batch_to_device(batch, dataloader_idx=0)).copy()
        if not len(found):
            # a rank with fewer samples than another
            continue
        # where a rank has fewer samples than another
        if not len(found):
            continue
        found.y = module._as_target(found.y)
        module._check_labels(found.y, "A label")
        yield found


def _own(module: PerturbationModule, stream: str) -> Any:
    """What serves training without a data module: a loader, or one for each stream."""
    own: Any = module.trainer.train_dataloader
    return own[stream] if isinstance(own, Mapping) else own


def _loader(module: PerturbationModule, served: str, own: Any, samples: str) -> Any:
    trainer: Any = module.trainer
    serve = getattr(trainer.datamodule, served, None)
    if serve is not None:
        return serve()
    if not isinstance(own, DataLoader) or isinstance(own.dataset, IterableDataset):
        kind = type(own.dataset if isinstance(own, DataLoader) else own).__name__
        raise ValueError(
            f"{type(module).__name__} goes through {samples} a second time, which {kind} does not allow. Use a "
            "lightning_perturb data module, or one DataLoader over a data set with __getitem__ and __len__."
        )
    mine = range(rank(), len(own.dataset), world_size())  # type: ignore[arg-type]
    # the ranks' calls of the network need not pair up: it is not the wrapped one
    return DataLoader(Subset(own.dataset, mine), batch_size=own.batch_size or 128, collate_fn=own.collate_fn)
