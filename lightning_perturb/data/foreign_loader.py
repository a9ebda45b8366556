"""The training loader of a foreign data module: taken apart, and put together with an order of our own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.utilities import CombinedLoader
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
)

from lightning_perturb.data.datasets import ResumableLoader, as_is
from lightning_perturb.data.samplers import EpochSampler, EvaluationSampler

_REMEDY = (
    "Return DataLoader(dataset, batch_size=..., shuffle=True) from train_dataloader(): Wrap draws the order itself, so "
    "that any rank and any resume sees the same."
)


def check_loader(loader: Any, owner: str) -> DataLoader[Any]:
    """Returns the loader if its order can be replaced.

    Args:
        loader: What ``train_dataloader()`` of a foreign data module returned.
        owner: Name of that data module's class, for the messages.

    Raises:
        ValueError: If there are several loaders, or the loader has an iterable data set, a sampler or batch sampler of
            its own, no batch size, or an iteration of its own.
    """
    source = f"{owner}.train_dataloader() returned"
    if isinstance(loader, (list, tuple, Mapping, CombinedLoader)):
        raise ValueError(
            f"{source} several loaders ({type(loader).__name__}). Return one loader, over a ConcatDataset if all of "
            "them are training data."
        )
    # torch has DataLoader.__iter__ alone decide what is served
    if not isinstance(loader, DataLoader) or type(loader).__iter__ is not DataLoader.__iter__:
        raise ValueError(f"{source} a {type(loader).__name__}, which is not a plain torch DataLoader. {_REMEDY}")
    if isinstance(loader.dataset, IterableDataset):
        raise ValueError(
            f"{source} a loader of the IterableDataset {type(loader.dataset).__name__}, whose samples have no index to "
            "give a label to. Make it a map-style data set, with __len__ and __getitem__(index)."
        )
    batches = loader.batch_sampler
    if batches is None:
        raise ValueError(f"{source} a loader with batch_size=None, which has no samples to collate. {_REMEDY}")
    if type(batches) is not BatchSampler:
        raise ValueError(f"{source} a loader with the batch sampler {type(batches).__name__}. {_REMEDY}")
    _check_sampler(batches.sampler, len(loader.dataset), source)  # type: ignore[arg-type]
    return loader


def _check_sampler(sampler: Any, size: int, source: str) -> None:
    if type(sampler) not in (RandomSampler, SequentialSampler, DistributedSampler):
        raise ValueError(
            f"{source} a loader with the sampler {type(sampler).__name__}. {_REMEDY} Weighting and balancing "
            "classes is left to the method."
        )
    replacement = isinstance(sampler, RandomSampler) and sampler.replacement
    if replacement or (not isinstance(sampler, DistributedSampler) and len(sampler) != size):
        raise ValueError(
            f"{source} a loader with a {type(sampler).__name__} that draws {len(sampler)} of {size} samples"
            f"{' with replacement' if replacement else ''}. {_REMEDY}"
        )


def batch_size(loader: DataLoader[Any]) -> int:
    """Samples in a batch of a checked loader."""
    return int(_batches(loader).batch_size)


def drop_last(loader: DataLoader[Any]) -> bool:
    """Whether a checked loader leaves out a last batch that is not full."""
    return bool(_batches(loader).drop_last)


def shuffles(loader: DataLoader[Any]) -> bool:
    """Whether a checked loader draws a new order every epoch."""
    sampler: Any = _batches(loader).sampler
    return bool(sampler.shuffle) if isinstance(sampler, DistributedSampler) else isinstance(sampler, RandomSampler)


def _batches(loader: DataLoader[Any]) -> BatchSampler:
    batches = loader.batch_sampler
    assert isinstance(batches, BatchSampler)
    return batches


def rebuilt(
    loader: DataLoader[Any], dataset: Dataset[Any], sampler: EpochSampler | EvaluationSampler, generator: Any
) -> ResumableLoader:
    """Returns a loader of whole batches with the workers and memory settings of another.

    Args:
        loader: The foreign loader.
        dataset: Fetches a whole batch.
        sampler: Says which.
        generator: What the loader draws its workers' seeds from, so that it draws from no other stream.
    """
    return ResumableLoader(
        dataset,
        batch_size=None,
        sampler=sampler,
        collate_fn=as_is,
        num_workers=loader.num_workers,
        pin_memory=loader.pin_memory,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        persistent_workers=loader.persistent_workers,
        prefetch_factor=loader.prefetch_factor,
        timeout=loader.timeout,
        generator=generator,
    )
