"""Class-aware re-sampling, and fine-tuning on it."""

from dataclasses import replace
from typing import Any, Literal

from torch import nn

from lightning_perturb.checks import check_choice
from lightning_perturb.core import Coordinates
from lightning_perturb.core.deferred import DeferredModule
from lightning_perturb.core.held import HoldingModule
from lightning_perturb.methods.class_weights import ReWeighting
from lightning_perturb.nets import find_classifier


class ReSampling(DeferredModule):
    """Cross-entropy on batches into which every class is drawn alike often (class-aware sampling).

    The data module draws them (:class:`~lightning_perturb.data.balanced.ClassAwareSampler`); its ``balanced_from`` does
    the same for any other method. An epoch stays as long as the training set.

    Args:
        from_epoch: First epoch with such batches; before, they are those of any method (deferred re-sampling).
        **kwargs: Arguments of :class:`~lightning_perturb.core.PerturbationModule`.
    """

    coordinates = Coordinates.of("loss", ("positive", "negative"), "prior", "category")

    def __init__(self, *args: Any, from_epoch: int = 0, **kwargs: Any) -> None:
        super().__init__(*args, from_epoch=from_epoch, **kwargs)
        self.needs = replace(self.needs, balanced_from=self.from_epoch)


class ClassBalancedFineTuning(HoldingModule, ReWeighting):
    """Two phases: cross-entropy on the data as it is, then on balanced classes (Cui et al., 2018).

    Let the scheduler lower the learning rate where the second phase begins.

    Args:
        from_epoch: First epoch of the second phase.
        balance: ``sampling``: its batches hold every class alike often; ``weights``: losses are weighted by inverse
            class frequency.
        tuned: What the second phase trains: ``all``, or the ``classifier`` alone, with everything else as it is, batch
            norm and dropout included.
        classifier: Dotted name of the classifier for ``tuned="classifier"``; None takes the ``nn.Linear`` registered
            last.
        **kwargs: Arguments of :class:`~lightning_perturb.core.PerturbationModule`, and ``class_counts`` of
            :class:`~lightning_perturb.core.counts.CountedModule`.
    """

    def __init__(
        self,
        *args: Any,
        from_epoch: int = 160,
        balance: Literal["sampling", "weights"] = "sampling",
        tuned: Literal["all", "classifier"] = "all",
        classifier: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, from_epoch=from_epoch, **kwargs)
        check_choice("balance", balance, ("sampling", "weights"))
        check_choice("tuned", tuned, ("all", "classifier"))
        self.balance = balance
        self.tuned = tuned
        if balance == "sampling":
            self.needs = replace(self.needs, balanced_from=self.from_epoch)
        self.classifier = classifier
        if tuned == "classifier":
            find_classifier(self.net, classifier)

    @property
    def needs_class_counts(self) -> bool:
        """Whether they become weights."""
        return self.balance == "weights"

    @property
    def rests(self) -> bool:
        """While the classifier alone is tuned: its features are those of evaluation."""
        return self.tuned == "classifier" and self.phase == "deferred"

    def held(self) -> list[nn.Parameter]:
        """All but the classifier, while it alone is tuned."""
        return self.all_but(find_classifier(self.net, self.classifier)[1].parameters()) if self.rests else []
