"""Texts: the same splits, label noise and loaders as for images, over ids of a tokenizer."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from lightning.pytorch.trainer.states import TrainerFn
from torch import Tensor

from lightning_perturb.core.batch import Batch, _map_input
from lightning_perturb.core.needs import DataFacts
from lightning_perturb.core.plain import as_plain, from_plain
from lightning_perturb.data.augment import Augmentation
from lightning_perturb.data.base import PerturbationDataModule, Samples
from lightning_perturb.data.datasets import Inputs
from lightning_perturb.data.labels import Labels
from lightning_perturb.data.texts import Texts
from lightning_perturb.data.tokenizers import Tokenizer, WordTokenizer


class TextDataModule(PerturbationDataModule):
    """Splits, imbalance and label noise over texts.

    A subclass names its classes and reads its texts (:meth:`read_texts`). The vocabulary is that of the training split
    alone, without validation, meta and test samples. It is in every checkpoint: a run that goes on, a test and
    :func:`~lightning_perturb.data.load_tokenizer` use the ids that the network was trained with. A test that is given
    no checkpoint uses those of the data, and a network that knows its vocabulary refuses another. Batches are as long
    as their longest text, ids ``[B, L]`` with padding at the end.

    Args:
        tokenizer: Turns texts into ids; None takes a :class:`~lightning_perturb.data.WordTokenizer`.
        batch_size: Training samples in a batch, on each device.
        **kwargs: Arguments of :class:`~lightning_perturb.data.PerturbationDataModule`.
    """

    def __init__(self, tokenizer: Tokenizer | None = None, batch_size: int = 64, **kwargs: Any) -> None:
        super().__init__(batch_size=batch_size, **kwargs)
        self._given_tokenizer = tokenizer or WordTokenizer()
        self._fitted: Tokenizer | None = None

    # what a subclass says -----------------------------------------------------------------------------------------

    def read_texts(self, split: Literal["train", "val", "test"]) -> tuple[Sequence[str], Labels] | None:
        """Reads a split: texts ``[N]`` and class ids ``[N]``; None where the source has no such split."""
        raise NotImplementedError(f"{type(self).__name__} must read its texts.")

    # texts and ids ------------------------------------------------------------------------------------------------

    def read(self, split: Literal["train", "val", "test"]) -> tuple[Inputs, Labels] | None:
        """Texts, which become ids when they are served, and true labels."""
        found = self.read_texts(split)
        if found is None:
            return None
        texts, labels = found
        for number, text in enumerate(texts):
            if not text.strip():
                raise ValueError(f"Text {number} of the {split} split is empty. Remove it from the data.")
        return Texts(texts), labels

    def setup(self, stage: str | None = None) -> None:
        """Reads what the stage needs and draws splits and labels, once."""
        if self._trains:
            # a checkpoint that was tested in between has its own vocabulary
            self._fitted = None
        super().setup(stage)
        self._train, self._val, self._test = map(self._mine, (self._train, self._val, self._test))

    def _mine(self, samples: tuple[Inputs, Labels] | None) -> tuple[Inputs, Labels] | None:
        # what was read may be kept and served by several modules, each of which has its own vocabulary
        if samples is None or not isinstance(samples[0], Texts) or samples[0].served:
            return samples
        return samples[0].served_by(lambda: self.tokenizer), samples[1]

    @property
    def _trains(self) -> bool:
        return self.trainer is not None and self.trainer.state.fn == TrainerFn.FITTING

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer with its vocabulary; reads and splits the training set where that was not done."""
        if self._fitted is None:
            if not self._drawn:
                self.setup("fit")
            # not train_index: methods that learn from meta samples and others shall have the same vocabulary
            self._fitted = self._given_tokenizer.fitted(self.raw_texts(self._splits[0]))
        return self._fitted

    @property
    def vocabulary(self) -> tuple[str, ...] | None:
        """The words by id, where ids are words."""
        return self.tokenizer.vocabulary

    @property
    def facts(self) -> DataFacts:
        """What a method learns of the data before training, the vocabulary included."""
        return replace(super().facts, vocabulary=self.vocabulary)

    def raw_texts(self, positions: npt.ArrayLike) -> list[str]:
        """Training texts as read, at positions of the full training set.

        Args:
            positions: Positions ``[n]``.
        """
        self._need_setup()
        assert self._train is not None
        texts = self._train[0]
        assert isinstance(texts, Texts)
        return [texts.texts[i] for i in np.asarray(positions, dtype=np.int64).tolist()]

    def _loader(self, sampler: Any, samples: Samples, augment: Augmentation | None, views: int) -> Any:
        if isinstance(samples.x, Texts):
            # ids and not texts go to worker processes
            samples = samples._replace(x=samples.x.ids)
        return super()._loader(sampler, samples, augment, views)

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Cuts off padding that no text of the batch needs."""
        if isinstance(batch, Batch):
            return batch.with_input(_map_input(batch.x, self._shortened))
        if isinstance(batch, dict):
            # the streams of a meta-learned method
            return {name: self.on_before_batch_transfer(part, dataloader_idx) for name, part in batch.items()}
        if isinstance(batch, (tuple, list)) and len(batch) == 2:
            return self._shortened(batch[0]), batch[1]
        return batch

    def _shortened(self, ids: Tensor) -> Tensor:
        needed = (ids != self.tokenizer.pad_id).any(0).nonzero()
        return ids[:, : int(needed.max()) + 1] if len(needed) else ids

    # checkpoint ---------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Which batch comes next, a name for the data, and the tokenizer."""
        state = super().state_dict()
        return {**state, "tokenizer": as_plain(self.tokenizer)} if state else state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes the place in the epoch and the tokenizer from a checkpoint.

        Raises:
            ValueError: If training is to go on with other data, or with a tokenizer that gives other ids.
        """
        saved = state.get("tokenizer")
        if saved is not None:
            loaded = from_plain(saved)
            if self._trains and self._drawn and not _same(self.tokenizer, loaded):
                raise ValueError(
                    f"{type(self).__name__} has another tokenizer or vocabulary than the checkpoint, whose network "
                    "would read other ids. Resume with the same texts and tokenizer, or start a new run."
                )
            self._fitted = loaded
        super().load_state_dict({name: value for name, value in state.items() if name != "tokenizer"})


def _same(one: Tokenizer, other: Any) -> bool:
    # not what they were made with, where a default may be written out or not
    settings = [{name: v for name, v in vars(t).items() if not name.startswith("_")} for t in (one, other)]
    return type(one) is type(other) and settings[0] == settings[1]
