"""How many samples a method perturbs adversarially, of each class, and of clean and noisy samples."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from matplotlib.figure import Figure
from torch import Tensor

from lightning_perturb.callbacks.epoch_sums import EpochSumsReport
from lightning_perturb.callbacks.run import class_names, true_labels
from lightning_perturb.checks import check_positive
from lightning_perturb.figures import adversarial_by_class, adversarial_over_epochs

_GROUPS = ("clean", "noisy")
_LAST = 40


class AdversarialReport(EpochSumsReport):
    """Counts the samples whose ε is above 0, and draws them at the end of training [iada Figs. 3, 4].

    For methods that tell ``epsilon`` in what a step returns (:class:`~lightning_perturb.methods.IADA`,
    :class:`~lightning_perturb.methods.MetaIADA`); with others nothing is drawn. Logs per epoch ``train/adversarial``
    and, where it is known which given labels are wrong, ``train/adversarial_clean`` and ``train/adversarial_noisy``.
    Figures, as PNG and in TensorBoard: ``adversarial_by_class.png`` over the last epochs, the most frequent class
    first, and ``adversarial_over_epochs.png``. A resumed run goes on with the counts of the run before.

    Attributes:
        paths: The figures that were written; empty before and where there are none.

    Args:
        folder: Where the figures go; None takes the folder of the run's logs.
        last_epochs: Epochs, the last ones, that the figure by class is made of; the paper shows the last 40.
    """

    def __init__(self, folder: str | None = None, last_epochs: int = _LAST) -> None:
        super().__init__(folder)
        check_positive("last_epochs", last_epochs)
        self.last_epochs = last_epochs
        self._true: Tensor | None = None

    def settings(self) -> dict[str, Any]:
        """The number of last epochs, if another was given."""
        return {} if self.last_epochs == _LAST else {"last_epochs": self.last_epochs}

    # the sums of an epoch are counts [clean or noisy, class, all or adversarial]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks which given labels are wrong."""
        super().on_train_start(trainer, pl_module)
        true = true_labels(trainer)
        self._true = None if true is None else torch.as_tensor(true, device=pl_module.device)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts the batch on the device; nothing is synchronised."""
        if not isinstance(outputs, Mapping) or outputs.get("epsilon") is None:
            return
        y, index, epsilon = outputs["y"], outputs["index"], outputs["epsilon"]
        noisy = torch.zeros_like(y)
        if self._true is not None and index is not None:
            noisy = (self._true[index] != y).long()
        classes = outputs["logits"].shape[1]
        found = torch.stack([torch.ones_like(y), (epsilon > 0).long()], 1)
        counts = found.new_zeros(2 * classes, 2).index_add_(0, noisy * classes + y, found)
        self.add(trainer.current_epoch, counts.view(2, classes, 2))

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs the shares of the epoch."""
        counts = self.summed(trainer.current_epoch)
        if counts is None:
            return
        for name, (total, adversarial) in self._groups(counts).items():
            if total:
                pl_module.log(f"train/adversarial{name and '_' + name}", adversarial / total, sync_dist=True)

    def _groups(self, counts: Tensor) -> dict[str, list[int]]:
        """Samples and adversarial samples: of all, and of clean and noisy ones where that is known."""
        groups = {"": counts.sum((0, 1)).tolist()}
        if self._true is not None:
            groups.update(zip(_GROUPS, counts.sum(1).tolist(), strict=True))
        return groups

    def figures(self, trainer: Trainer, method: Any, epochs: list[int], sums: Tensor) -> dict[str, Figure]:
        """The shares by class and by epoch."""
        late = sums[-self.last_epochs :].sum((0, 1))
        # 0 / 0 is NaN: a class without samples is left out
        shares, sizes = (late[:, 1] / late[:, 0]).numpy(), late[:, 0].numpy()
        curves: dict[str, tuple[list[int], list[float]]] = {}
        for epoch, row in zip(epochs, sums, strict=True):
            for name, (total, adversarial) in self._groups(row).items():
                if total:
                    x, y = curves.setdefault(name or "all", ([], []))
                    x.append(epoch)
                    y.append(adversarial / total)
        shown = _GROUPS if "noisy" in curves else ("all",)
        return {
            "adversarial_by_class": adversarial_by_class(shares, sizes, class_names(trainer, len(sizes))),
            "adversarial_over_epochs": adversarial_over_epochs(
                {name: curves[name] for name in shown if name in curves}
            ),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As in the base; the first checkpoints call the sums counts."""
        super().load_state_dict({"sums": state_dict.get("counts"), **state_dict})
