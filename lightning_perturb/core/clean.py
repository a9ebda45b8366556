"""The base of every method that reads a stream of clean samples beside its training batches."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lightning_perturb.core.batch import Batch
from lightning_perturb.core.module import PerturbationModule
from lightning_perturb.core.needs import Needs


class CleanSamplesModule(PerturbationModule):
    """A method whose batches are ``{"train": Batch, "meta": Batch}``, the second of clean samples.

    A subclass says by :meth:`reads_clean` when it reads the second, and in its ``needs`` when the data must serve it.

    Args:
        **kwargs: Arguments of :class:`~lightning_perturb.core.PerturbationModule`.
    """

    needs = Needs(meta=True)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.needs = replace(self.needs, meta=True, meta_from=self.warmup_epochs)

    def reads_clean(self, batch_idx: int) -> bool:
        """Whether a batch of the current epoch comes with clean samples: all do but those of the warm-up."""
        return self.phase != "warmup"

    def _streams(self, batch: Any, batch_idx: int) -> tuple[Any, Batch | None]:
        """The training batch, and the clean one where it is read in this step."""
        if not isinstance(batch, Mapping) or not {"train", "meta"} <= batch.keys():
            raise ValueError(
                f"{type(self).__name__} learns from clean meta samples, but its batches have none. Use a "
                "lightning_perturb data module or Wrap(datamodule=...) with meta_size, or give the Trainer "
                "{'train': loader, 'meta': loader_of_clean_samples}."
            )
        if not self.reads_clean(batch_idx):
            return batch["train"], None
        if batch["meta"] is None:
            raise ValueError(
                f"{type(self).__name__} learns in epoch {self.current_epoch}, batch {batch_idx}, where its needs ask "
                f"for no meta batch: meta_from={self.needs.meta_from}, meta_every={self.needs.meta_every}. Say in them "
                "when it learns."
            )
        meta = Batch.of(batch["meta"]).copy()
        meta.y = self._as_target(meta.y)
        if meta.y.device.type == "cpu" or self.current_epoch <= self.needs.meta_from:
            self._check_labels(meta.y, "A meta label")
        return batch["train"], meta
