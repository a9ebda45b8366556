"""The bases of methods that read the number of training samples of each class."""

from typing import Any

import torch
from torch import Tensor

from lightning_perturb.core.module import PerturbationModule


class OptionalCountsModule(PerturbationModule):
    """A method with an option whose loss contains the class frequencies of the given labels, ``class_counts``.

    Args:
        class_counts: Given labels by class in the training set, for data modules that do not tell; positives where
            samples have several labels.
        **kwargs: Arguments of :class:`~lightning_perturb.core.PerturbationModule`.

    Raises:
        ValueError: If they are not one number above 0 a class. At the start of a fit: if they are needed, but unknown
            or 0 for a class.
    """

    def __init__(self, *args: Any, class_counts: list[int] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if class_counts is not None and (len(class_counts) != self.num_classes or min(class_counts) < 1):
            raise ValueError(
                f"class_counts={class_counts} must be {self.num_classes} numbers of samples above 0, one a class."
            )
        self._given_counts = None if class_counts is None else [int(number) for number in class_counts]

    @property
    def needs_class_counts(self) -> bool:
        """Whether the loss contains them; asks ``super()`` too, for methods that it is combined with."""
        return False

    def use_counts(self, counts: Tensor) -> None:
        """Computes constants before training, into buffers that are not persistent; only where counts are needed.

        Args:
            counts: Training samples of each class ``[C]``, all above 0, in double precision.
        """

    def setup(self, stage: str) -> None:
        """As in the base; checks that the frequencies are known where they are needed."""
        super().setup(stage)
        if self._given_counts is not None:
            self.class_counts.copy_(torch.tensor(self._given_counts))
        if stage == "fit" and self.needs_class_counts:
            self.use_counts(self.known_counts().double())

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """As in the base; counts that are given beat those of the checkpoint, as in what is made of them."""
        super().on_load_checkpoint(checkpoint)
        if self._given_counts is not None and self._resuming and "class_counts" in checkpoint.get("state_dict", {}):
            checkpoint["state_dict"]["class_counts"] = torch.tensor(self._given_counts)

    def known_counts(self) -> Tensor:
        """The frequencies ``[C]``.

        Raises:
            ValueError: If they are unknown, or a class has no sample.
        """
        name = type(self).__name__
        if not self.class_counts.any():
            raise ValueError(
                f"{name} needs the number of training samples of each class. Use a lightning_perturb data module, put "
                "Wrap(datamodule=...) around yours, or give class_counts=[...]."
            )
        empty = (self.class_counts == 0).nonzero().flatten().tolist()
        if empty:
            raise ValueError(
                f"{name} needs training samples of every class, but there are none of the classes {empty}. Lower the "
                "ratio of the imbalance, keep more samples, or leave these classes out of num_classes."
            )
        return self.class_counts


class CountedModule(OptionalCountsModule):
    """A method whose loss contains the class frequencies of the given labels, ``class_counts``.

    Args:
        **kwargs: Arguments of :class:`~lightning_perturb.core.counts.OptionalCountsModule`.
    """

    @property
    def needs_class_counts(self) -> bool:
        """True; a method with an option that leaves them out overrides it."""
        return True
