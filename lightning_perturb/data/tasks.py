"""Several data modules at once, each a task."""

import hashlib
from typing import Any

import numpy as np
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.utilities import CombinedLoader

from lightning_perturb.core.needs import DataFacts
from lightning_perturb.data.drawn import DrawnDataModule


class Tasks(LightningDataModule):
    """Serves a batch of every task at each step, for methods that learn from several data sets together.

    A batch is ``{"0": ..., "1": ...}``, with what each data module serves. An epoch has as many steps as the shortest
    task. Validation and test loaders are those of the tasks, in order, if every task has one.

    Args:
        datamodules: The tasks: data modules of this package (or ``Wrap`` around others) with the same number of
            classes, each with its own label noise, meta set and seed.

    Raises:
        ValueError: If there are none, one is of another kind, or their numbers of classes differ.
    """

    def __init__(self, datamodules: list[LightningDataModule]) -> None:
        super().__init__()
        if not datamodules:
            raise ValueError("datamodules=[] has no task. Give at least one data module.")
        for place, data in enumerate(datamodules):
            if not isinstance(data, DrawnDataModule):
                raise ValueError(
                    f"datamodules[{place}]={type(data).__name__} is not a data module of lightning_perturb. Put "
                    "Wrap(datamodule=...) around it."
                )
        self.datamodules = datamodules

    @property
    def _tasks(self) -> list[Any]:
        return list(self.datamodules)

    @property
    def trainer(self) -> Trainer | None:
        """The trainer; the tasks have the same."""
        return self._trainer

    @trainer.setter
    def trainer(self, trainer: Trainer | None) -> None:
        self._trainer = trainer
        for data in getattr(self, "datamodules", []):
            data.trainer = trainer

    # what is known ------------------------------------------------------------------------------------------------

    @property
    def num_classes(self) -> int:
        """Number of classes, the same for all tasks."""
        numbers = [data.num_classes for data in self._tasks]
        if len(set(numbers)) > 1:
            raise ValueError(f"The tasks have {numbers} classes. Give data modules with the same number of classes.")
        return int(numbers[0])

    @property
    def class_names(self) -> list[str]:
        """The first task's names of the classes."""
        names: list[str] = self._tasks[0].class_names
        return names

    @property
    def facts(self) -> DataFacts:
        """The sum of the tasks' class counts, and otherwise what holds for the largest."""
        facts = [data.facts for data in self._tasks]
        true = [data.true_counts for data in self._tasks]
        return DataFacts(
            num_samples=max(fact.num_samples for fact in facts),
            num_classes=self.num_classes,
            class_counts=np.sum([fact.class_counts for fact in facts], axis=0),
            mean=facts[0].mean,
            std=facts[0].std,
            true_counts=None if any(count is None for count in true) else np.sum(true, axis=0),
        )

    @property
    def mean(self) -> tuple[float, ...] | None:
        """What all tasks subtract from pixels in [0, 1] by channel; None where they differ."""
        return _common([data.mean for data in self._tasks])

    @property
    def std(self) -> tuple[float, ...] | None:
        """What all tasks divide by, likewise."""
        return _common([data.std for data in self._tasks])

    @property
    def batch_size(self) -> int:
        """The first task's size of a batch."""
        return int(self._tasks[0].batch_size)

    @property
    def checksum(self) -> str:
        """Names the sets of all tasks with their splits and labels."""
        return hashlib.sha256(" ".join(data.checksum for data in self._tasks).encode()).hexdigest()[:16]

    # life cycle ---------------------------------------------------------------------------------------------------

    def prepare_data(self) -> None:
        """The tasks'."""
        for data in self._tasks:
            data.prepare_data()

    def setup(self, stage: str | None = None) -> None:
        """The tasks'."""
        for data in self._tasks:
            data.setup(stage)

    def teardown(self, stage: str) -> None:
        """The tasks'."""
        for data in self._tasks:
            data.teardown(stage)

    def state_dict(self) -> dict[str, Any]:
        """Which batch of each task comes next, and names for their data."""
        return {str(place): data.state_dict() for place, data in enumerate(self._tasks)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes them from a checkpoint that training resumes from.

        Raises:
            ValueError: If the data, its splits or its labels are not those of the checkpoint, or their number.
        """
        if len(state) != len(self._tasks):
            raise ValueError(
                f"The checkpoint was trained on {len(state)} tasks, the data has {len(self._tasks)}. Resume with the "
                "same tasks."
            )
        for place, data in enumerate(self._tasks):
            data.load_state_dict(state[str(place)])

    # loaders ------------------------------------------------------------------------------------------------------

    def train_dataloader(self) -> Any:
        """A batch of every task, with its meta stream where the method needs one."""
        loaders = {}
        for place, data in enumerate(self._tasks):
            loader = data.train_dataloader()
            # the streams of a task stand in one tree with those of the others
            loaders[str(place)] = loader.iterables if isinstance(loader, CombinedLoader) else loader
        return CombinedLoader(loaders, "min_size")

    def val_dataloader(self) -> Any:
        """The tasks' validation loaders, or none unless all have one."""
        loaders = [data.val_dataloader() for data in self._tasks]
        return [] if any(isinstance(loader, list) and not loader for loader in loaders) else loaders

    def test_dataloader(self) -> Any:
        """The tasks' test loaders."""
        return [data.test_dataloader() for data in self._tasks]

    def predict_dataloader(self) -> Any:
        """The first task's."""
        return self._tasks[0].predict_dataloader()

    # on the device ------------------------------------------------------------------------------------------------

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """The tasks'."""
        return self._by_task("on_before_batch_transfer", batch, dataloader_idx)

    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
        """The tasks'."""
        return self._by_task("transfer_batch_to_device", batch, device, dataloader_idx)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """The tasks'."""
        return self._by_task("on_after_batch_transfer", batch, dataloader_idx)

    def _by_task(self, hook: str, batch: Any, *args: Any) -> Any:
        if isinstance(batch, dict) and batch.keys() == {str(place) for place in range(len(self._tasks))}:
            return {name: getattr(self._tasks[int(name)], hook)(part, *args) for name, part in batch.items()}
        # an evaluation loader is of the task in its place
        return getattr(self._tasks[args[-1]], hook)(batch, *args[:-1], 0)


def _common(values: list[tuple[float, ...] | None]) -> tuple[float, ...] | None:
    return values[0] if all(value == values[0] for value in values) else None
