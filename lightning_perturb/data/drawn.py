"""A data module whose splits and labels are drawn once from its own seed, whatever its samples come from."""

import hashlib
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor

from lightning_perturb.checks import check_choice, check_positive
from lightning_perturb.core.needs import DataFacts, Needs
from lightning_perturb.data.balanced import ClassAwareSampler, MetaSampler
from lightning_perturb.data.domains import check_domains, count_groups, group_ids
from lightning_perturb.data.imbalance import Imbalance
from lightning_perturb.data.label_noise import (
    LabelNoise,
    noise_rate,
    realized_entry_matrices,
    realized_transition_matrix,
)
from lightning_perturb.data.labels import Labels, check_labels, check_multi_hot, count_classes
from lightning_perturb.data.samplers import EpochSampler
from lightning_perturb.data.split import balanced_choice, balanced_meta_split, stratified_split


class DrawnDataModule(LightningDataModule):
    """Draws splits, imbalance and label noise of a training set, and keeps the place in the epoch for a resume.

    A subclass names its classes, calls :meth:`_draw` in ``setup`` once it has read its labels, and takes the order of
    training batches from :meth:`_training_sampler`.

    Args:
        label_noise: How training labels are corrupted (``Symmetric``, ``PairFlip``, ...); None leaves them.
        imbalance: How training classes are thinned out (``Exponential``, ``Step``); None leaves them.
        val_size: Validation samples carved from the training set, a share (below 1) or a count; 0 for none.
        val_labels: ``given``: validation labels are as noisy as training labels. ``clean``: true labels, an advantage
            that most published baselines do not have.
        meta_size: Clean samples carved from the training set for meta-learning, balanced over ``meta_by``. Where the
            data brings a list of clean samples, so many of them; 0 then takes all.
        meta_by: What they are balanced over: ``class``, or ``group``, a class in a domain, where samples have domains.
        meta_labels: What a method that does not learn from them gets of the clean samples. ``drop``: nothing, all
            methods train on the same samples. ``merge``: it trains on them too, with their true labels. ``validate``:
            they are its validation set.
        meta_batch_size: Samples in a meta batch, on each device; None takes the size of training batches.
        balanced_from: First epoch in which training batches are re-sampled so that every class comes alike often, by
            given labels (0: from the start); None never. A method may ask for it too.
        balanced_by: What comes alike often in them: ``class``; ``domain``; or ``group``, a class in a domain.
        train_size: Keep this many training samples (a share below 1 or a count), in proportion to the classes; None
            keeps all.
        labels_known: Whether the labels that are read are the true ones. False where they have a noise of their own,
            and nobody knows which are wrong: what would need the truth is then left out of reports, or refused.
        seed: Seed of splits, imbalance, noise, order and augmentation.
    """

    #: mean and standard deviation of pixels in [0, 1] by channel; None where inputs are no pixels
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    #: whether labels are multi-hot ``[N, C]`` instead of class ids ``[N]``
    multi_label: bool = False
    #: whether the source brings clean samples for meta-learning (``read_meta``), so that none are carved
    brings_meta: bool = False

    def __init__(
        self,
        label_noise: LabelNoise | None = None,
        imbalance: Imbalance | None = None,
        val_size: float = 0.0,
        val_labels: Literal["given", "clean"] = "given",
        meta_size: int = 0,
        meta_by: Literal["class", "group"] = "class",
        meta_labels: Literal["drop", "merge", "validate"] = "drop",
        meta_batch_size: int | None = None,
        balanced_from: int | None = None,
        balanced_by: Literal["class", "domain", "group"] = "class",
        train_size: float | None = None,
        labels_known: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_positive("val_size", val_size, zero=True)
        check_positive("meta_size", meta_size, zero=True)
        if meta_batch_size is not None:
            check_positive("meta_batch_size", meta_batch_size)
        check_choice("val_labels", val_labels, ("given", "clean"))
        check_choice("meta_labels", meta_labels, ("drop", "merge", "validate"))
        check_choice("meta_by", meta_by, ("class", "group"))
        check_choice("balanced_by", balanced_by, ("class", "domain", "group"))
        if meta_by != "class" and not meta_size and not self.brings_meta:
            raise ValueError(f"meta_by={meta_by!r} balances clean samples, but meta_size=0 carves none. Set meta_size.")
        if balanced_by != "class" and balanced_from is None:
            raise ValueError(
                f"balanced_by={balanced_by!r} balances no batch, since balanced_from is null. Set that to the first "
                "epoch with balanced batches, such as 0."
            )
        if meta_labels != "drop" and not meta_size and not self.brings_meta:
            raise ValueError(
                f"meta_labels={meta_labels!r} says what to do with clean samples, but meta_size=0 carves none. Set "
                "meta_size, or leave meta_labels away."
            )
        if meta_labels == "validate" and val_size:
            raise ValueError(
                f"meta_labels='validate' and val_size={val_size} both ask for a validation set. Set val_size to 0, or "
                "meta_labels to drop or merge."
            )
        if not labels_known:
            self._refuse_truth(val_labels, meta_size)
        if balanced_from is not None:
            check_positive("balanced_from", balanced_from, zero=True)
        if train_size is not None:
            check_positive("train_size", train_size)
        self.label_noise = label_noise
        self.imbalance = imbalance
        self.val_size = val_size
        self.val_labels = val_labels
        self.meta_size = meta_size
        self.meta_by = meta_by
        self.meta_labels = meta_labels
        self.meta_batch_size = meta_batch_size
        self.balanced_from = balanced_from
        self.balanced_by = balanced_by
        self.train_size = train_size
        self.labels_known = labels_known
        self.seed = seed
        #: the domain of each sample of the full training set ``[N]``, or None
        self.domains: Labels | None = None
        self._drawn = False
        self._resume: dict[str, Any] | None = None

    def _refuse_truth(self, val_labels: str, meta_size: int) -> None:
        if val_labels == "clean":
            raise ValueError(
                "val_labels='clean' asks for true labels, but labels_known=False says that nobody knows them. Set "
                "val_labels to given, or give the data a validation split with clean labels."
            )
        if meta_size and not self.brings_meta:
            raise ValueError(
                f"meta_size={meta_size} asks for clean samples of the training set, but labels_known=False says that "
                "nobody knows which of its labels are right. Set meta_size to 0, or give the data a list of clean "
                "samples (meta_list of ImageLists)."
            )

    # what a subclass says -----------------------------------------------------------------------------------------

    @property
    def num_classes(self) -> int:
        """Number of classes, known before anything is read (the command line links it to method and network)."""
        raise NotImplementedError(f"{type(self).__name__} must say its num_classes.")

    @property
    def class_names(self) -> list[str]:
        """A name for each class."""
        return [str(c) for c in range(self.num_classes)]

    @property
    def domain_names(self) -> list[str]:
        """A name for each domain, such as a place or a colour; empty where samples have none."""
        return []

    # drawing ------------------------------------------------------------------------------------------------------

    def _generator(self, use: str) -> np.random.Generator:
        # one stream for each use: more noise must not move the split
        return np.random.default_rng([self.seed, *use.encode()])

    def _checked_labels(self, labels: npt.ArrayLike) -> Labels:
        """True labels as int64, of the kind that this module has."""
        check = check_multi_hot if self.multi_label else check_labels
        return check(labels, self.num_classes)

    def _check_arguments_fit(self) -> None:
        if not self.multi_label:
            return
        if self.imbalance is not None:
            raise ValueError(
                f"imbalance={type(self.imbalance).__name__} keeps so many samples of each class, which says nothing "
                "where a sample has several. Set imbalance to null and take long-tailed data: VOCMLT, COCOMLT, or "
                "MultiLabelDigits with its ratio."
            )
        if self.meta_size:
            raise ValueError(
                f"meta_size={self.meta_size} takes equally many samples of each class, which says nothing where a "
                "sample has several. Set meta_size to 0: no multi-label method learns from meta samples."
            )

    def _subset(self, labels: Labels, size: float) -> Labels:
        """Positions of ``train_size`` samples."""
        number = round(size * len(labels)) if size < 1 else int(size)
        least = int((count_classes(labels, self.num_classes) > 0).sum())
        if not least <= number <= len(labels) or (size >= 1 and size != number):
            raise ValueError(
                f"train_size={size} is neither a share below 1 nor a count of the {len(labels)} samples, or leaves a "
                f"class empty. Keep {least} to {len(labels)} samples."
            )
        return stratified_split(labels, self.num_classes, len(labels) - number, self._generator("train_size"))[0]

    def _draw(
        self,
        labels: Labels,
        inputs: Callable[[Labels], Tensor],
        domains: npt.ArrayLike | None = None,
        meta_labels: Labels | None = None,
    ) -> None:
        """Draws splits and given labels.

        Args:
            labels: Labels of the training set as they are read ``[N]``, or multi-hot ``[N, C]``.
            inputs: Gives clean inputs at positions; called by noise that looks at them.
            domains: Domain ids of the training set, and of the clean samples behind it; None where samples have none.
            meta_labels: Labels of the clean samples that the source brings ``[M]``, which count on behind the training
                set (positions N to N+M-1); None where it brings none.
        """
        labels = self._checked_labels(labels)
        self._check_arguments_fit()
        total = len(labels)
        rest = np.arange(total)
        if self.train_size is not None and self.train_size != total:
            rest = self._subset(labels, self.train_size)
        before_split = count_classes(labels[rest], self.num_classes)
        if meta_labels is not None:
            labels = np.concatenate([labels, self._checked_labels(meta_labels)])
        if domains is not None:
            self.domains = check_domains(domains, len(labels), self.domain_names, type(self).__name__)
        meta = val = rest[:0]
        if meta_labels is not None or self.meta_size:
            parts = self._balanced_parts(labels, self.meta_by, "meta_by")
            if meta_labels is not None:
                meta = total + self._of_own_meta(parts[total:])
            else:
                names, generator = self._part_names(self.meta_by), self._generator("meta")
                rest, meta = _of(rest, balanced_meta_split, parts, len(names), self.meta_size, generator, names)
        if self.val_size:
            generator = self._generator("val")
            rest, val = _of(rest, partial(hold_out, "val_size"), labels, self.num_classes, self.val_size, generator)
        if self.imbalance is not None:
            rest = rest[
                self.imbalance(labels[rest], self.num_classes, self._generator("imbalance"), before_split=before_split)
            ]
        given = labels.copy()
        if self.label_noise is not None:
            noisy = np.sort(np.concatenate([rest, val]))
            shown = _as_noise_reads(inputs(noisy)) if self.label_noise.needs_inputs else None
            given[noisy] = self.label_noise(
                labels[noisy],
                self.num_classes,
                self._generator("label_noise"),
                inputs=shown,
                index=noisy,
                total=total,
            )
        self._splits = rest, val, meta
        self._read_labels, self.given_labels = labels, given
        self._drawn = True
        self._hand_out_meta()

    def _of_own_meta(self, parts: Labels) -> Labels:
        """Which of the clean samples that the source brings are taken, of those of each class or group.

        Args:
            parts: What each of them counts as ``[M]``.
        """
        if not self.meta_size:
            return np.arange(len(parts))
        names = self._part_names(self.meta_by)
        return balanced_choice(parts, len(names), self.meta_size, self._generator("meta"), names)

    def _balanced_parts(self, labels: Labels, by: str, argument: str) -> Labels:
        """What every sample of the full training set counts as, where parts are to come alike often ``[N]``.

        Raises:
            ValueError: If they are domains or groups, and samples have no domains, or groups of several labels.
        """
        if by == "class":
            return labels
        if self.domains is None:
            raise ValueError(
                f"{argument}={by!r} asks for the domain of each sample, which {type(self).__name__} does not tell. Set "
                "it to class, or use data with domains."
            )
        if by == "domain":
            return self.domains
        if self.multi_label:
            raise ValueError(f"{argument}='group' takes samples of one class each, but these have several labels.")
        return group_ids(labels, self.domains, len(self.domain_names))

    def _part_names(self, by: str) -> list[str]:
        if by == "class":
            return [f"class {c}" for c in range(self.num_classes)]
        return [f"group {c}/{d}" for c in self.class_names for d in self.domain_names]

    def _hand_out_meta(self) -> None:
        """Says which samples train, validate and are meta samples for the method that the trainer has now."""
        self.train_index, self.val_index, self.meta_index = self._splits
        if self._needs_meta and self.trainer.state.fn == TrainerFn.FITTING:  # type: ignore[union-attr]
            self._check_meta()
        if self.trainer is None or self._needs_meta or self.meta_labels == "drop":
            return
        if self.meta_labels == "merge":
            self.train_index = np.sort(np.concatenate([self.train_index, self.meta_index]))
        else:
            self.val_index = self.meta_index
        self.meta_index = self.meta_index[:0]

    def _check_meta(self) -> None:
        """Says so before training where the method lacks clean samples."""
        if self.multi_label:
            # the method is about to refuse the labels themselves
            return
        names = self._part_names(self.meta_by)
        parts = self._balanced_parts(self._read_labels, self.meta_by, "meta_by")[self.meta_index]
        missing = np.flatnonzero(count_classes(parts, len(names)) == 0)
        if len(missing):
            method = type(self.trainer.lightning_module).__name__  # type: ignore[union-attr]
            several = "groups" if self.meta_by == "group" else "classes"
            fault = (
                "leaves no clean samples"
                if not len(parts)
                else f"leaves {len(missing)} of {len(names)} {several} without a clean sample (first: "
                f"{names[missing[0]]})"
            )
            source = f"meta_size={self.meta_size}"
            each = self.meta_by
            remedy = f"Set meta_size of the data to at least {len(names)}; the papers take 10 to 100 for each {each}."
            if self.brings_meta:
                source, remedy = "the list of clean samples", f"Add samples of every {self.meta_by} to it."
            elif not self.labels_known:
                remedy = "Nobody knows which of these labels are right: give the data a list of clean samples."
            raise ValueError(
                f"{method} learns from clean meta samples of every {self.meta_by}, but {source} {fault}. {remedy}"
            )

    # what was drawn -----------------------------------------------------------------------------------------------

    @property
    def facts(self) -> DataFacts:
        """What a method learns of the data before training."""
        self._need_setup()
        return DataFacts(
            num_samples=len(self._read_labels),
            num_classes=self.num_classes,
            class_counts=self.class_counts,
            mean=self.mean,
            std=self.std,
            multi_label=self.multi_label,
            train_samples=len(self.train_index),
            noisy=self.noisy if self._needs is not None and self._needs.truth else None,
            true_counts=self.true_counts,
            num_domains=0 if self.domains is None else len(self.domain_names),
            group_counts=self.group_counts,
        )

    @property
    def class_counts(self) -> Labels:
        """Given labels by class in the training split ``[C]``; positives where labels are multi-hot."""
        self._need_setup()
        return count_classes(self.given_labels[self.train_index], self.num_classes)

    @property
    def true_labels(self) -> Labels | None:
        """True labels of the full training set ``[N]``; None where nobody knows them, and before ``setup("fit")``."""
        return self._read_labels if self._drawn and self.labels_known else None

    @property
    def true_counts(self) -> Labels | None:
        """True labels by class in the training split ``[C]``, or positives; None where nobody knows them."""
        self._need_setup()
        return count_classes(self._read_labels[self.train_index], self.num_classes) if self.labels_known else None

    @property
    def group_counts(self) -> Labels | None:
        """Given labels by class and domain in the training split ``[C, D]``; None where samples have no domains."""
        self._need_setup()
        if self.domains is None:
            return None
        given, domains = self.given_labels[self.train_index], self.domains[self.train_index]
        return count_groups(given, domains, self.num_classes, len(self.domain_names))

    @property
    def noisy(self) -> npt.NDArray[np.bool_] | None:
        """Which samples of the full training set carry a wrong label ``[N]``; None where nobody knows."""
        self._need_setup()
        if not self.labels_known:
            return None
        wrong: npt.NDArray[np.bool_] = self.given_labels != self._read_labels
        return np.asarray(wrong.any(axis=1)) if self.multi_label else wrong

    @property
    def noise_rate(self) -> float:
        """Share of wrong labels in the training split; of wrong entries where labels are multi-hot.

        NaN where nobody knows which are wrong.
        """
        self._need_setup()
        if not self.labels_known:
            return float("nan")
        return noise_rate(self._read_labels[self.train_index], self.given_labels[self.train_index])

    @property
    def transition_matrix(self) -> npt.NDArray[np.float64]:
        """How true labels became given labels in the training split: ``[C, C]``, rows are true classes.

        Where labels are multi-hot, one matrix for each class by itself: ``[C, 2, 2]``, rows are true entries. NaN where
        nobody knows the true labels.
        """
        self._need_setup()
        realized = realized_entry_matrices if self.multi_label else realized_transition_matrix
        matrix = realized(self._read_labels[self.train_index], self.given_labels[self.train_index], self.num_classes)
        return matrix if self.labels_known else np.full_like(matrix, np.nan)

    @property
    def checksum(self) -> str:
        """Names this set with its splits and labels: another set at a resume is an error."""
        self._need_setup()
        digest = hashlib.sha256()
        for part in (self._read_labels, self.given_labels, self.train_index, self.val_index, self.meta_index):
            digest.update(np.ascontiguousarray(part, dtype=np.int64).tobytes())
        return digest.hexdigest()[:16]

    @property
    def _domains_checksum(self) -> str | None:
        # not in the checksum: there are checkpoints from before there were domains
        return None if self.domains is None else hashlib.sha256(self.domains.tobytes()).hexdigest()[:16]

    def _need_setup(self) -> None:
        if not self._drawn:
            raise RuntimeError(f"{type(self).__name__} has not read its training data yet. Call setup('fit') first.")

    # what a loader needs ------------------------------------------------------------------------------------------

    @property
    def _needs(self) -> Needs | None:
        """What the method needs; None for a module of another project."""
        needs = getattr(getattr(self.trainer, "lightning_module", None), "needs", None)
        return needs if isinstance(needs, Needs) else None

    @property
    def _val_labels(self) -> Labels:
        """Labels that validation samples carved from the training set show."""
        return self.given_labels if self.val_labels == "given" else self._read_labels

    @property
    def _ranks(self) -> tuple[int, int]:
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def _current_epoch(self) -> int:
        return 0 if self.trainer is None else self.trainer.current_epoch

    def _training_sampler(self, batch_size: int, drop_last: bool, shuffle: bool = True) -> EpochSampler:
        """The order of training batches, from where a resume goes on."""
        overfit = getattr(self.trainer, "overfit_batches", 0)
        if overfit:
            raise ValueError(
                f"overfit_batches={overfit} makes Lightning replace the sampler that knows epochs and ranks. "
                f"Give {type(self).__name__} a train_size instead."
            )
        resume, self._resume = self._resume or {}, None
        rank, world = self._ranks
        positions = torch.from_numpy(self.train_index)
        options: dict[str, Any] = {
            "seed": self.seed,
            "shuffle": shuffle,
            "drop_last": drop_last,
            "rank": rank,
            "world_size": world,
            "epoch": resume.get("epoch", 0 if self.trainer is None else self.trainer.current_epoch),
            "skip": resume.get("batch", 0),
            "current_epoch": None if self.trainer is None else self._current_epoch,
        }
        balanced_from, by = self._balance
        if balanced_from is not None:
            parts = self._balanced_parts(self.given_labels, by, "balanced_by")[self.train_index]
            sampler: EpochSampler = ClassAwareSampler(
                positions, parts, batch_size, balanced_from=balanced_from, **options
            )
        else:
            sampler = EpochSampler(positions, batch_size, **options)
        if len(sampler) == 0:
            raise ValueError(
                f"drop_last=True leaves no batch: {len(self.train_index)} training samples, "
                f"batch_size={batch_size} on each of {world} ranks. Lower batch_size or set drop_last to False."
            )
        return sampler

    @property
    def _balance(self) -> tuple[int | None, str]:
        """First epoch with balanced batches, if any, and what they are balanced over."""
        needs = self._needs or Needs()
        both = (self.balanced_from, self.balanced_by), (needs.balanced_from, needs.balanced_by)
        asked = [(epoch, by) for epoch, by in both if epoch is not None]
        if len({by for _, by in asked}) > 1:
            method = type(self.trainer.lightning_module).__name__  # type: ignore[union-attr]
            raise ValueError(
                f"balanced_by={self.balanced_by!r} contradicts {method}, which asks for batches balanced by "
                f"{needs.balanced_by}. Set balanced_from of the data to null."
            )
        return min(asked, default=(None, "class"))

    @property
    def _needs_meta(self) -> bool:
        return self._needs is not None and self._needs.meta

    def _with_meta(self, training: Any, sampler: EpochSampler, load: Callable[[MetaSampler], Any]) -> Any:
        """The training loader, with the meta stream beside it where the method needs one.

        Args:
            training: The training loader.
            sampler: Its order.
            load: Makes the loader of clean samples from their order.
        """
        needs = self._needs
        if needs is None or not needs.meta:
            return training
        size = self.meta_batch_size or sampler.batch_size
        parts = self._balanced_parts(self._read_labels, self.meta_by, "meta_by")[self.meta_index]
        positions = torch.from_numpy(self.meta_index)
        order = MetaSampler(positions, parts, size, sampler, from_epoch=needs.meta_from, every=needs.meta_every)
        meta = load(order)
        # both have the same length; the default mode would start the first anew before it sees the end of the second
        return CombinedLoader({"train": training, "meta": meta}, "min_size")

    # checkpoint ---------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Which batch comes next, and a name for the data."""
        if self.trainer is None or not self._drawn:
            return {}
        loop = self.trainer.fit_loop
        # Any: their declared types lack the counters that they have
        epochs: Any = loop.epoch_progress.current
        batches: Any = loop.epoch_loop.batch_progress
        epoch = max(epochs.ready - 1, 0)
        # processed, not ready: a checkpoint that an exception writes may know a batch that was fetched but not trained
        batch = batches.current.processed
        if epochs.ready > epochs.started:
            # the epoch was announced, the progress of batches is still that of the epoch before
            batch = 0
        elif batches.is_last_batch and batch == batches.current.ready:
            epoch, batch = epoch + 1, 0
        state = {"epoch": epoch, "batch": batch, "checksum": self.checksum}
        return state if self.domains is None else {**state, "domains": self._domains_checksum}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes the place in the epoch from a checkpoint that training resumes from.

        Raises:
            ValueError: If the data, its splits, its labels or its domains are not those of the checkpoint.
        """
        if self.trainer is None or self.trainer.state.fn != TrainerFn.FITTING:
            return
        if self._drawn and state.get("checksum") != self.checksum:
            raise ValueError(
                f"The data differs from that of the checkpoint (checksum {self.checksum}, not "
                f"{state.get('checksum')}): other samples, splits, labels or data seed. Resume with the same data "
                "options, or start a new run."
            )
        if self._drawn and "domains" in state and state["domains"] != self._domains_checksum:
            raise ValueError(
                "The samples are of other domains than those of the checkpoint. Resume with the same domains, or start "
                "a new run."
            )
        self._resume = dict(state)


def _of(positions: Labels, split: Callable[..., Any], labels: Labels, *args: Any) -> tuple[Labels, Labels]:
    rest, held = split(labels[positions], *args)
    return positions[rest], positions[held]


def hold_out(
    name: str, labels: Labels, num_classes: int, size: float, generator: np.random.Generator
) -> tuple[Labels, Labels]:
    """:func:`stratified_split`, with errors that name the argument that asked for it."""
    try:
        return stratified_split(labels, num_classes, size, generator)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _as_noise_reads(x: Tensor) -> npt.NDArray[Any]:
    """Clean inputs as instance-dependent noise reads them: raw pixels with channels last, or features."""
    return (x.permute(0, 2, 3, 1) if x.ndim == 4 else x).numpy()
