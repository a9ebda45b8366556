"""The data family: source -> split -> imbalance -> label noise -> loaders, everything drawn once from its own seed."""

from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_perturb.checks import check_positive
from lightning_perturb.core.batch import Batch, _map_input
from lightning_perturb.data.augment import Augmentation
from lightning_perturb.data.datasets import BatchedSet, Inputs, ResumableLoader, as_is, joined
from lightning_perturb.data.domains import Domains, check_domains, check_overlapping
from lightning_perturb.data.drawn import DrawnDataModule
from lightning_perturb.data.drawn import hold_out as hold_out
from lightning_perturb.data.labels import Labels as Labels
from lightning_perturb.data.samplers import EvaluationSampler


class Samples(NamedTuple):
    """What a loader serves.

    Attributes:
        x: Inputs ``[N, ...]``.
        labels: Labels ``[N]`` or ``[N, C]``.
        domains: Domain ids ``[N]``, or which domains apply ``[N, D]``; None where there are none.
    """

    x: Inputs
    labels: Labels
    domains: Domains | None = None


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
        self._evaluated: dict[str, Domains | None] = {}

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

    def read_domains(self, split: Literal["train", "val", "test"]) -> Labels | None:
        """The domain of each sample of a split, 0..D-1 ``[N]``; None where samples have none.

        A module that gives them names them in ``domain_names``. They are facts about inputs: no noise moves them.
        """
        return None

    def evaluation_domains(self, split: Literal["train", "val", "test"]) -> npt.NDArray[np.bool_] | None:
        """Where several domains may apply to a sample: which do ``[N, D]``; evaluation then groups by these.

        A module that gives them names them in ``evaluation_domain_names``. Training has the one domain of
        :meth:`read_domains`.
        """
        return None

    @property
    def evaluation_domain_names(self) -> list[str]:
        """A name for each domain that evaluation groups by; those of training where there are no others."""
        return self.domain_names

    def read_meta(self) -> tuple[Inputs, Labels] | None:
        """Reads clean samples that the source brings for meta-learning, none of which is in another split.

        They are told from the training samples by their positions, which count on behind those. Where there are some,
        ``brings_meta`` must say so.
        """
        return None

    def read_meta_domains(self) -> Labels | None:
        """The domain of each of those clean samples, where training samples have one."""
        return None

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
            meta = self.read_meta() if self.brings_meta else None
            self._draw(
                train[1],
                partial(_rows, train[0]),
                self._training_domains(len(train[1]), meta is not None),
                None if meta is None else meta[1],
            )
            self._train = train if meta is None else (joined(train[0], meta[0]), self._read_labels)
            self._read_evaluation_domains("train", len(train[1]))
            if self._val is not None:
                self._read_evaluation_domains("val", len(self._val[1]))
        if self._drawn:
            self._hand_out_meta()
        if stage in (None, "test", "predict") and self._test is None:
            self._test = self.read("test")
            if self._test is not None:
                self._checked_labels(self._test[1])
                self._read_evaluation_domains("test", len(self._test[1]))

    def _training_domains(self, samples: int, with_meta: bool) -> npt.ArrayLike | None:
        """Domains of the training set, and of the clean samples behind it."""
        domains = self.read_domains("train")
        if domains is None or not with_meta:
            return domains
        of_meta = self.read_meta_domains()
        if of_meta is None:
            raise ValueError(
                f"{type(self).__name__} gives training samples domains, but its clean samples none. Define "
                "read_meta_domains."
            )
        return np.concatenate([check_domains(domains, samples, self.domain_names, type(self).__name__), of_meta])

    def _read_evaluation_domains(self, split: Literal["train", "val", "test"], samples: int) -> None:
        source = f"{type(self).__name__} ({split})"
        found: Domains | None = self.evaluation_domains(split)
        if found is not None:
            found = check_overlapping(found, samples, self.evaluation_domain_names, source)
            # clean samples behind the training set are of none of them
            beyond = len(self._read_labels) - samples if split == "train" else 0
            found = np.concatenate([found, np.zeros((beyond, found.shape[1]), dtype=found.dtype)])
        elif split == "train":
            found = self.domains
        elif (ids := self.read_domains(split)) is not None:
            found = check_domains(ids, samples, self.domain_names, source)
        self._evaluated[split] = found

    # loaders ------------------------------------------------------------------------------------------------------

    def train_dataloader(self) -> Any:
        """Shuffled, augmented batches with given labels."""
        sampler = self._training_sampler(self.batch_size, self.drop_last)
        views = self._needs.views if self._needs is not None else 1
        training = self._loader(sampler, self._samples(self.given_labels), self.augment, views)
        return self._with_meta(
            training, sampler, lambda meta: self._loader(meta, self._samples(self._read_labels), self.augment, 1)
        )

    def val_dataloader(self) -> Any:
        """Validation batches in order; an empty list where there is no validation split."""
        if self._val is not None:
            return self._evaluation(Samples(*self._val, self._evaluated.get("val")))
        if not len(self.val_index):
            return []
        shown = self._samples(self._val_labels)._replace(domains=self._evaluated.get("train"))
        return self._evaluation(shown, self.val_index)

    def test_dataloader(self) -> Any:
        """Test batches in order, always with clean labels."""
        if self._test is None:
            raise ValueError(
                f"{type(self).__name__} has no test split. Give it a test/ folder, x_test and y_test, or test_size."
            )
        return self._evaluation(Samples(*self._test, self._evaluated.get("test")))

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
        return self._evaluation(self._samples(self.given_labels), self.train_index)

    def clean_dataloader(self) -> Any:
        """The clean meta samples in index order, not augmented, with true labels."""
        self._need_setup()
        return self._evaluation(self._samples(self._read_labels), self.meta_index)

    def raw_inputs(self, positions: npt.ArrayLike) -> Tensor:
        """Training inputs as read (uint8 images or features) at positions of the full training set ``[n, ...]``.

        Images that are decoded when they are served are decoded here.
        """
        self._need_setup()
        assert self._train is not None
        return self._train[0][torch.as_tensor(np.asarray(positions, dtype=np.int64))]

    def _samples(self, labels: Labels) -> Samples:
        """The full training set with these labels."""
        self._need_setup()
        assert self._train is not None
        return Samples(self._train[0], labels, self.domains)

    def _evaluation(self, samples: Samples, positions: Labels | None = None) -> Any:
        rank, world = self._ranks
        chosen = torch.arange(len(samples.x)) if positions is None else torch.from_numpy(positions)
        sampler = EvaluationSampler(chosen, self.eval_batch_size, rank=rank, world_size=world)
        return self._loader(sampler, samples, None, 1)

    def _loader(self, sampler: Any, samples: Samples, augment: Augmentation | None, views: int) -> Any:
        x, labels, domains = samples
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
            BatchedSet(
                x,
                self._served(labels),
                augment,
                views,
                self.seed,
                pairs,
                None if domains is None else torch.from_numpy(domains),
            ),
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
            "The label noise looks at the pixels or features of all samples, which these are not: images that are "
            "decoded one by one, and would not fit into memory, or texts. Choose a noise that looks at labels alone."
        )
    return x[torch.from_numpy(positions)]
