"""Label noise, imbalance and a meta split for any existing LightningDataModule."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from lightning_perturb.data.balanced import BalancedSampler
from lightning_perturb.data.drawn import DrawnDataModule
from lightning_perturb.data.foreign_loader import batch_size, check_loader, drop_last, rebuilt, shuffles
from lightning_perturb.data.foreign_set import BatchSet, ForeignSet, Indexed, IndexedSet
from lightning_perturb.data.labels import Labels
from lightning_perturb.data.sample_label import find_label_key, input_of
from lightning_perturb.data.samplers import Draw, EpochSampler, EvaluationSampler
from lightning_perturb.data.seeded import generators_kept, seeded
from lightning_perturb.data.true_labels import read_labels, read_true_labels

_EVALUATION = ("val_dataloader", "test_dataloader", "predict_dataloader")
_TRANSFER = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer")


class Wrap(DrawnDataModule):
    """Injects label noise, imbalance and a meta split into the training set of any LightningDataModule.

    The wrapped module needs one map-style training loader whose samples are ``(x, y, ...)`` or mappings with a label:
    one class id per sample, or a vector of zeros and ones, one for each class (multi-label). Labels are exchanged in
    the sample, before the loader's own ``collate_fn``, so a module of another project gets just the batches that it
    knows (``x, y = batch``). A method of this package gets a :class:`~lightning_perturb.core.Batch` with the index, the
    sample's position in the training loader's data set.

    Validation, test and predict loaders are the wrapped module's own, untouched: their labels stay what they are, also
    those of a validation set that it splits off itself. ``val_size`` carves another one, under the training transforms,
    with given labels unless asked otherwise.

    What happens when:

    * The wrapped ``setup`` runs once for each stage, and ``train_dataloader`` once, under generators seeded from
      ``seed`` (those of Python, NumPy and PyTorch), which are then put back: an unseeded ``random_split`` gives the
      same samples at every call, rank and resume.
    * True labels are read once. A set that keeps them (``targets``, ``labels``, a TensorDataset; through Subset and
      ConcatDataset) is compared at the first sample of up to 32 classes; any other is iterated once, on every rank, at
      the cost of one epoch of loading, with a progress bar.
    * The training loader keeps batch size, ``drop_last``, ``shuffle``, ``collate_fn`` and workers of the wrapped one.
      Its order is drawn anew, so that a run resumes at the batch where it stopped.
    * Random augmentation inside the wrapped data set is seeded for each sample from (seed, epoch, index), and the
      ``collate_fn`` from the first index of its batch; any number of workers and any resume sees the same. Generators
      that the data set owns, and ``numpy.random.default_rng()`` without a seed, are out of reach.
    * Hooks of the wrapped module run where it overrides them. Where it overrides one of the three transfer hooks, Wrap
      passes on all three: to the wrapped module those that it overrides, the others to the LightningModule.
    * Attributes that Wrap lacks are read from the wrapped module.

    Args:
        datamodule: The data module to wrap.
        num_classes: Number of classes; None asks the wrapped module's ``num_classes``, or counts the labels.
        label_key: Where a sample's label stands: a position, or a key. None takes position 1, or the first of ``y``,
            ``label``, ``labels``, ``target``.
        domain_key: Where the id of a sample's domain stands (a place, a source): a position, or a key. All are read
            once, at the cost of one epoch of loading. None where samples have none. Evaluation by group is of a
            validation set that Wrap carves, and of the wrapped module's own batches where they are mappings with a
            ``domain``.
        domain_names: A name for each domain; None asks the wrapped module's ``domain_names``, or numbers them.
        mean: Per-channel mean that the wrapped transforms subtract from pixels in [0, 1], for methods that move pixels;
            None where inputs are not normalised pixels.
        std: Per-channel standard deviation that they divide by, likewise.
        **kwargs: Arguments of :class:`~lightning_perturb.data.DrawnDataModule`: label_noise, imbalance, val_size,
            val_labels, meta_size, meta_by, meta_labels, meta_batch_size, balanced_from, balanced_by, train_size,
            labels_known, seed.

    Raises:
        ValueError: If the data module cannot be wrapped, or arguments contradict each other or it. In ``setup``: if the
            training loader has a sampler of its own or an iterable data set, or there are several; if labels are not
            class ids in 0..num_classes-1.
    """

    def __init__(
        self,
        datamodule: LightningDataModule,
        num_classes: int | None = None,
        label_key: int | str | None = None,
        domain_key: int | str | None = None,
        domain_names: list[str] | None = None,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._check(datamodule)
        if (mean is None) != (std is None):
            raise ValueError(f"mean={mean} and std={std} belong together: give both or neither.")
        if num_classes is not None and num_classes < 2:
            raise ValueError(f"num_classes={num_classes} leaves nothing to tell apart. Give at least 2.")
        self.datamodule = datamodule
        self.label_key = label_key
        self.domain_key = domain_key
        self._domain_names = domain_names
        if domain_names is not None and domain_key is None:
            raise ValueError(f"domain_names={domain_names} belongs to domain_key, which is None. Give domain_key, too.")
        self.mean = mean
        self.std = std
        self.prepare_data_per_node = datamodule.prepare_data_per_node
        self.allow_zero_length_dataloader_with_multiple_devices = (
            datamodule.allow_zero_length_dataloader_with_multiple_devices
        )
        self._num_classes = num_classes
        self._counted: int | None = None
        self._stages: set[str | None] = set()
        self._source: DataLoader[Any] | None = None
        self._key: int | str = 1
        self._show_overridden_hooks()

    def _check(self, datamodule: Any) -> None:
        name = type(datamodule).__name__
        if not isinstance(datamodule, LightningDataModule):
            raise ValueError(
                f"datamodule={name} is not a lightning.pytorch.LightningDataModule. Give an object of that class (a "
                "module of the package pytorch_lightning must import from lightning.pytorch instead)."
            )
        if isinstance(datamodule, DrawnDataModule):
            raise ValueError(
                f"datamodule={name} takes label_noise, imbalance and meta_size itself. Give them to {name}."
            )
        if not is_overridden("train_dataloader", datamodule):
            raise ValueError(f"datamodule={name} has no train_dataloader, so there is nothing to corrupt. Define it.")
        if self._carves_val and is_overridden("val_dataloader", datamodule):
            asking = f"val_size={self.val_size}" if self.val_size else "meta_labels='validate'"
            raise ValueError(
                f"{asking} asks for a validation split, but {name} has a val_dataloader. Set val_size to 0 and "
                "meta_labels to drop or merge, or remove that loader."
            )

    def _show_overridden_hooks(self) -> None:
        # Lightning asks whether an object overrides these hooks, and then does more: so Wrap has them as attributes of
        # the object where the wrapped module overrides them, and otherwise not at all
        for name in _EVALUATION:
            if is_overridden(name, self.datamodule):
                setattr(self, name, getattr(self.datamodule, name))
        if self._carves_val:
            self.val_dataloader = self._carved_val_dataloader  # type: ignore[method-assign]
        if self._transfers:
            for name in _TRANSFER:
                setattr(self, name, partial(self._pass_on, name))

    @property
    def _carves_val(self) -> bool:
        return bool(self.val_size) or self.meta_labels == "validate"

    # what the wrapped module says ---------------------------------------------------------------------------------

    @property
    def trainer(self) -> Trainer | None:
        """The trainer; the wrapped module has the same."""
        return self._trainer

    @trainer.setter
    def trainer(self, trainer: Trainer | None) -> None:
        self._trainer = trainer
        if "datamodule" in self.__dict__:
            self.datamodule.trainer = trainer

    def __getattr__(self, name: str) -> Any:
        # reached for what Wrap lacks alone; "datamodule" is missing while a copy is made
        if name.startswith("_") or "datamodule" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}.")
        return getattr(self.datamodule, name)

    @property
    def num_classes(self) -> int:
        """As given; or the wrapped module's; or, after ``setup("fit")``, the largest label + 1."""
        known = self._known_classes
        if known is None:
            raise ValueError(
                f"num_classes=None, and {type(self.datamodule).__name__} has no num_classes: the labels are counted in "
                "setup('fit'). Give num_classes to know it before."
            )
        return known

    @property
    def _known_classes(self) -> int | None:
        if self._num_classes is not None:
            return self._num_classes
        own = getattr(self.datamodule, "num_classes", None)
        return int(own) if isinstance(own, (int, np.integer)) else self._counted

    @property
    def class_names(self) -> list[str]:
        """The wrapped module's ``class_names``, its data set's ``classes``, or numbers; empty while unknown."""
        number = self._known_classes or 0
        dataset = None if self._source is None else self._source.dataset
        while isinstance(dataset, Subset):
            dataset = dataset.dataset
        for names in (getattr(self.datamodule, "class_names", None), getattr(dataset, "classes", None)):
            if isinstance(names, (list, tuple)) and len(names) == number:
                return [str(name) for name in names]
        return [str(c) for c in range(number)]

    # setup --------------------------------------------------------------------------------------------------------

    def prepare_data(self) -> None:
        """The wrapped module's."""
        self.datamodule.prepare_data()

    def setup(self, stage: str | None = None) -> None:
        """Sets the wrapped module up, once for each stage, and draws splits and labels, once."""
        anew = self._setup_wrapped(stage)
        if stage == "validate" and self._carves_val:
            anew = self._setup_wrapped("fit")
        elif stage not in (None, "fit"):
            return
        if self._drawn:
            self._hand_out_meta()
        if anew or not self._drawn:
            before = self.checksum if self._drawn else None
            self._read_and_draw()
            if before is not None and before != self.checksum:
                raise ValueError(
                    f"{type(self.datamodule).__name__} has other training samples or labels at its second setup. Let "
                    "setup draw from the global generators alone, which Wrap seeds, or from seeded generators."
                )

    def _setup_wrapped(self, stage: str | None) -> bool:
        """Whether the wrapped setup ran."""
        if not self._stages.isdisjoint({stage, None}):
            return False
        with seeded(self._wrapped_seed):
            self.datamodule.setup(stage)  # type: ignore[arg-type]
        self._stages.add(stage)
        return True

    @property
    def _wrapped_seed(self) -> int:
        # the same for every stage: a split that is drawn again in the next one is then the same split
        return int(self._generator("wrapped").integers(2**32))

    def _read_and_draw(self) -> None:
        with seeded(self._wrapped_seed):
            loader = check_loader(self.datamodule.train_dataloader(), type(self.datamodule).__name__)
        size = len(loader.dataset)  # type: ignore[arg-type]
        if size == 0:
            raise ValueError(f"The training set of {type(self.datamodule).__name__} is empty. Wrap one with samples.")
        with seeded(self._wrapped_seed):
            self._key = find_label_key(loader.dataset[0], self.label_key)
            labels = read_true_labels(loader, self._key)
            domains = self._read_domains(loader)
        self._source = loader
        self.multi_label = labels.ndim == 2
        self._counted = labels.shape[1] if self.multi_label else int(labels.max()) + 1
        self._draw(labels, partial(self._inputs, labels), domains)

    def _read_domains(self, loader: DataLoader[Any]) -> Labels | None:
        if self.domain_key is None:
            return None
        try:
            place = find_label_key(loader.dataset[0], self.domain_key)
            domains = read_labels(loader, place)
        except ValueError as error:
            raise ValueError(f"domain_key={self.domain_key!r} finds no domain, read as labels are: {error}") from error
        own = getattr(self.datamodule, "domain_names", None)
        if self._domain_names is None:
            self._domain_names = [str(d) for d in (own or range(int(domains.max()) + 1))]
        return domains

    @property
    def domain_names(self) -> list[str]:
        """As given, the wrapped module's, or numbers; empty where samples have no domains."""
        return self._domain_names or []

    def teardown(self, stage: str) -> None:
        """The wrapped module's, which is then set up again for a later run of the stage."""
        if is_overridden("teardown", self.datamodule):
            self.datamodule.teardown(stage)
            self._stages -= {stage, None}

    def on_exception(self, exception: BaseException) -> None:
        """The wrapped module's."""
        self.datamodule.on_exception(exception)

    # loaders ------------------------------------------------------------------------------------------------------

    def train_dataloader(self) -> Any:
        """Batches of the training split with given labels; with a meta stream where the method needs one."""
        loader = self._wrapped_loader
        sampler = self._training_sampler(batch_size(loader), drop_last(loader), shuffles(loader))
        views = self._needs.views if self._needs is not None else 1
        training = self._loader(sampler, self.given_labels, views)
        return self._with_meta(training, sampler, lambda meta: self._loader(meta, self._read_labels))

    def _carved_val_dataloader(self) -> Any:
        """Batches of the validation split that was carved, in index order."""
        return self._in_order(self.val_index, self._val_labels) if len(self.val_index) else []

    def score_dataloader(self) -> Any:
        """The training split in index order, with given labels, for scores and reports.

        The wrapped data set's transforms are as in training; where they are random, every pass draws the same.
        """
        return self._in_order(self.train_index, self.given_labels)

    def clean_dataloader(self) -> Any:
        """The clean meta samples in index order, with true labels; otherwise like :meth:`score_dataloader`."""
        return self._in_order(self.meta_index, self._read_labels)

    def meta_dataloader(self) -> Any:
        """Batches of the clean meta split, laid out as training batches; classes or groups take turns in each batch.

        Every pass draws a new order.

        Raises:
            ValueError: If there is no meta split.
        """
        loader = self._wrapped_loader
        if not len(self.meta_index):
            raise ValueError(f"meta_size={self.meta_size} carves no meta split. Set meta_size to a number of samples.")
        rank, world = self._ranks
        sampler = BalancedSampler(
            torch.from_numpy(self.meta_index),
            self._balanced_parts(self._read_labels, self.meta_by, "meta_by")[self.meta_index],
            batch_size(loader),
            seed=self.seed,
            rank=rank,
            world_size=world,
        )
        return self._loader(sampler, self._read_labels)

    @property
    def _wrapped_loader(self) -> DataLoader[Any]:
        self._need_setup()
        assert self._source is not None
        return self._source

    def _in_order(self, positions: Labels, labels: Labels) -> Any:
        rank, world = self._ranks
        # at least 2: a rank never gets an empty batch then, which a foreign collate_fn could not make
        size = max(batch_size(self._wrapped_loader), 2)
        return self._loader(EvaluationSampler(torch.from_numpy(positions), size, rank=rank, world_size=world), labels)

    def _loader(self, sampler: EpochSampler | EvaluationSampler, labels: Labels, views: int = 1) -> Any:
        loader = self._wrapped_loader
        parts = (loader.dataset, self._read_labels, labels, self._key, loader.collate_fn, self.seed)
        if self._needs is None:
            dataset = ForeignSet(*parts)
        else:
            domains = None if self.domains is None else torch.from_numpy(self.domains)
            dataset = (IndexedSet if self._transfers else BatchSet)(*parts, views=views, domains=domains)
        # the loader's own generator: it must not draw from the stream that dropout draws from
        return rebuilt(loader, dataset, sampler, torch.Generator().manual_seed(self.seed))

    def raw_inputs(self, positions: npt.ArrayLike) -> Tensor:
        """Inputs of training samples as the data set gives them, transforms included, ``[n, ...]``.

        Args:
            positions: Positions in the full training set ``[n]``.

        Raises:
            ValueError: If the samples have no single input, or inputs of unequal shapes.
        """
        self._need_setup()
        return self._inputs(self._read_labels, np.asarray(positions, dtype=np.int64))

    def _inputs(self, true_labels: Labels, positions: Labels) -> Tensor:
        loader = self._source
        assert loader is not None
        clean = ForeignSet(loader.dataset, true_labels, true_labels, self._key, loader.collate_fn, self.seed)
        with generators_kept():
            draw = Draw(0, torch.from_numpy(positions))
            inputs = [_as_tensor(input_of(sample, self._key)) for sample in clean.samples(draw)]
        shapes = sorted({tuple(x.shape) for x in inputs})
        if len(shapes) != 1:
            raise ValueError(
                f"Inputs of training samples have the shapes {shapes[:3]} and cannot be stacked. Resize them in the "
                "data set, or use label noise and reports that do not look at inputs."
            )
        return torch.stack(inputs)

    # on the device ------------------------------------------------------------------------------------------------

    @property
    def _transfers(self) -> bool:
        """Whether the wrapped module takes part in moving batches to the device."""
        return any(is_overridden(name, self.datamodule) for name in _TRANSFER)

    def _pass_on(self, name: str, batch: Any, *args: Any, **kwargs: Any) -> Any:
        """Runs a transfer hook of the wrapped module, or else of the LightningModule, on the layout that it knows."""
        if self._needs_meta and isinstance(batch, dict) and batch.keys() == {"train", "meta"}:
            return {stream: self._pass_on(name, part, *args, **kwargs) for stream, part in batch.items()}
        if batch is None:
            # a step without a meta batch
            return None
        own = is_overridden(name, self.datamodule) or self.trainer is None
        hook: Callable[..., Any] = getattr(self.datamodule if own else self.trainer.lightning_module, name)  # type: ignore[union-attr]
        if not isinstance(batch, Indexed):
            return hook(batch, *args, **kwargs)
        passed = batch.map(lambda view: hook(view, *args, **kwargs))
        return passed.batch() if name == "on_after_batch_transfer" else passed

    # checkpoint ---------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Which batch comes next, a name for the data, and the wrapped module's state."""
        wrapped = self.datamodule.state_dict()
        return super().state_dict() | ({"wrapped": wrapped} if wrapped else {})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes both from a checkpoint.

        Raises:
            ValueError: If the data, its splits or its labels are not those of the checkpoint.
        """
        if "wrapped" in state:
            self.datamodule.load_state_dict(state["wrapped"])
        super().load_state_dict({name: value for name, value in state.items() if name != "wrapped"})


def _as_tensor(x: Any) -> Tensor:
    """An input as a tensor; pictures of PIL get their channels first."""
    if isinstance(x, Tensor):
        return x
    array = np.array(x)
    if hasattr(x, "getbands"):
        array = array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)
    return torch.from_numpy(np.ascontiguousarray(array))
