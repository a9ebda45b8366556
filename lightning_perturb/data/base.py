"""The data family: source -> split -> imbalance -> label noise -> loaders, everything drawn once from its own seed."""

from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_perturb.checks import check_positive
from lightning_perturb.core.batch import Batch, _map_input
from lightning_perturb.data.augment import Augmentation
from lightning_perturb.data.datasets import BatchedSet, Inputs, ResumableLoader, as_is
from lightning_perturb.data.drawn import DrawnDataModule
from lightning_perturb.data.drawn import hold_out as hold_out
from lightning_perturb.data.labels import Labels as Labels
from lightning_perturb.data.samplers import EvaluationSampler


class PerturbationDataModule(DrawnDataModule):
    """Splits, imbalance and label noise over one source of samples.

    A subclass names its classes and reads its arrays (:meth:`read`). Test labels are never corrupted; validation labels
    are drawn with the training labels, so they are as noisy, unless asked otherwise.

    Args:
        batch_size: Training samples in a batch, on each device.
        eval_batch_size: Samples in an evaluation batch; None takes four times ``batch_size``.
        augment: Augmentation of training images. True takes the data's usual one (crop and flip for CIFAR, none for
            digits and arrays), False none.
        num_workers: Worker processes of each loader.
        drop_last: Leave out a last training batch that is not full.
        pin_memory: Let loaders pin memory (faster copies to a GPU).
        **kwargs: Arguments of :class:`~lightning_perturb.data.DrawnDataModule`.
    """

    def __init__(
        self,
        batch_size: int = 128,
        eval_batch_size: int | None = None,
        augment: Augmentation | bool = True,
        num_workers: int = 0,
        drop_last: bool = False,
        pin_memory: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_positive("batch_size", batch_size)
        if eval_batch_size is not None:
            check_positive("eval_batch_size", eval_batch_size)
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size or 4 * batch_size
        self.augment = self.usual_augmentation() if augment is True else augment or None
        self._view = self.evaluation_view()
        self.num_workers = num_workers
        self.drop_last = drop_last
        self.pin_memory = pin_memory
        self._train: tuple[Inputs, Labels] | None = None
        self._test: tuple[Inputs, Labels] | None = None
        self._val: tuple[Inputs, Labels] | None = None

    # what a subclass says -----------------------------------------------------------------------------------------

    def usual_augmentation(self) -> Augmentation | None:
        """What ``augment=True`` stands for."""
        return None

    def evaluation_view(self) -> Augmentation | None:
        """What an image goes through where it is not augmented, such as a crop to the network's size; None: nothing."""
        return None

    def read(self, split: Literal["train", "val", "test"]) -> tuple[Inputs, Labels] | None:
        """Reads a split: inputs (uint8 images ``[N, C, H, W]``, also as files, or float features) and true labels.

        Labels are class ids ``[N]``, or one 0 or 1 for each class ``[N, C]`` where ``multi_label`` says so.
        Returns None for ``val`` where the source has no validation split of its own.
        """
        raise NotImplementedError(f"{type(self).__name__} must read its arrays.")

    # setup --------------------------------------------------------------------------------------------------------

    def setup(self, stage: str | None = None) -> None:
        """Reads what the stage needs and draws splits and labels, once."""
        if stage in (None, "fit", "validate") and self._train is None:
            train = self.read("train")
            if train is None:
                raise ValueError(f"{type(self).__name__} has no training split.")
            self._val = self.read("val")
            if self._val is not None:
                self._checked_labels(self._val[1])
            if self._val is not None and (self.val_size or self.meta_labels == "validate"):
                asking = f"val_size={self.val_size}" if self.val_size else "meta_labels='validate'"
                raise ValueError(
                    f"{asking} asks for a validation split, but {type(self).__name__} found one in the data. Set "
                    "val_size to 0 and meta_labels to drop or merge, or leave that split out of the data."
                )
            self._draw(train[1], partial(_rows, train[0]))
            self._train = train
        if self._drawn:
            self._hand_out_meta()
        if stage in (None, "test", "predict") and self._test is None:
            self._test = self.read("test")
            if self._test is not None:
                self._checked_labels(self._test[1])

    # loaders ------------------------------------------------------------------------------------------------------

    def train_dataloader(self) -> Any:
        """Shuffled, augmented batches with given labels."""
        sampler = self._training_sampler(self.batch_size, self.drop_last)
        views = self._needs.views if self._needs is not None else 1
        training = self._loader(sampler, self._images_and(self.given_labels), self.augment, views)
        return self._with_meta(
            training, sampler, lambda meta: self._loader(meta, self._images_and(self.true_labels), self.augment, 1)
        )

    def val_dataloader(self) -> Any:
        """Validation batches in order; an empty list where there is no validation split."""
        if self._val is not None:
            return self._evaluation(self._val[0], self._val[1])
        if not len(self.val_index):
            return []
        return self._evaluation(*self._images_and(self._val_labels), positions=self.val_index)

    def test_dataloader(self) -> Any:
        """Test batches in order, always with clean labels."""
        if self._test is None:
            raise ValueError(
                f"{type(self).__name__} has no test split. Give it a test/ folder, x_test and y_test, or test_size."
            )
        return self._evaluation(*self._test)

    @property
    def has_test(self) -> bool:
        """Whether there is a test split; reads it."""
        self.setup("test")
        return self._test is not None

    def predict_dataloader(self) -> Any:
        """The test split."""
        return self.test_dataloader()

    def score_dataloader(self) -> Any:
        """The training split in index order, not augmented, with given labels: for scores and reports."""
        self._need_setup()
        return self._evaluation(*self._images_and(self.given_labels), positions=self.train_index)

    def clean_dataloader(self) -> Any:
        """The clean meta samples in index order, not augmented, with true labels."""
        self._need_setup()
        return self._evaluation(*self._images_and(self.true_labels), positions=self.meta_index)

    def raw_inputs(self, positions: npt.ArrayLike) -> Tensor:
        """Training inputs as read (uint8 images or features) at positions of the full training set ``[n, ...]``.

        Images that are decoded when they are served are decoded here.
        """
        self._need_setup()
        assert self._train is not None
        return self._train[0][torch.as_tensor(np.asarray(positions, dtype=np.int64))]

    def _images_and(self, labels: Labels) -> tuple[Inputs, Labels]:
        self._need_setup()
        assert self._train is not None
        return self._train[0], labels

    def _evaluation(self, x: Inputs, labels: Labels, positions: Labels | None = None) -> Any:
        rank, world = self._ranks
        chosen = torch.arange(len(x)) if positions is None else torch.from_numpy(positions)
        sampler = EvaluationSampler(chosen, self.eval_batch_size, rank=rank, world_size=world)
        return self._loader(sampler, (x, labels), None, 1)

    def _loader(self, sampler: Any, data: tuple[Inputs, Labels], augment: Augmentation | None, views: int) -> Any:
        x, labels = data
        augment = augment or self._view
        if augment is not None and (x.dtype != torch.uint8 or x.ndim != 4):
            raise ValueError(
                f"augment={type(augment).__name__} works on uint8 images [N, C, H, W]; this data has {x.dtype} of "
                f"shape {tuple(x.shape[1:])}. Set augment to false."
            )
        pairs = self.trainer is not None and self._needs is None
        # the loader's own generator: it must not draw from the stream that dropout draws from
        generator = torch.Generator().manual_seed(self.seed)
        return ResumableLoader(
            BatchedSet(x, self._served(labels), augment, views, self.seed, pairs),
            batch_size=None,
            sampler=sampler,
            num_workers=self.num_workers,
            collate_fn=as_is,
            pin_memory=self.pin_memory,
            generator=generator,
        )

    def _served(self, labels: Labels) -> Tensor:
        y = torch.from_numpy(labels)
        # what binary cross-entropy takes, here and in modules of other projects
        return y.float() if self.multi_label else y

    # on the device ------------------------------------------------------------------------------------------------

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Turns uint8 pixels into normalised floats, on the device."""
        if isinstance(batch, Batch):
            return batch.with_input(_map_input(batch.x, self._network_input))
        if isinstance(batch, dict) and self._needs_meta:
            # the streams of a meta-learned method
            return {name: self.on_after_batch_transfer(part, dataloader_idx) for name, part in batch.items()}
        if isinstance(batch, (tuple, list)) and len(batch) == 2:
            return self._network_input(batch[0]), batch[1]
        return batch

    def _network_input(self, x: Tensor) -> Tensor:
        x = self.normalize(x)
        # Lightning converts to the network's type before the transfer, when these were still whole numbers
        return x if self.trainer is None else self.trainer.precision_plugin.convert_input(x)

    def normalize(self, x: Tensor) -> Tensor:
        """Normalised floats of uint8 pixels; other inputs pass."""
        if x.dtype != torch.uint8:
            return x
        mean = torch.tensor(self.mean or (0.0,), device=x.device).reshape(-1, 1, 1)
        std = torch.tensor(self.std or (1.0,), device=x.device).reshape(-1, 1, 1)
        return (x.float() - 255.0 * mean) / (255.0 * std)


def _rows(x: Inputs, positions: Labels) -> Tensor:
    if not isinstance(x, Tensor):
        raise ValueError(
            "The label noise looks at the pixels of all images, which are decoded one by one here and would not fit "
            "into memory. Choose a noise that looks at labels alone."
        )
    return x[torch.from_numpy(positions)]
