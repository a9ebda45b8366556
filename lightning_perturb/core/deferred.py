"""The base of methods whose own part may begin late in training."""

import warnings
from typing import Any

from lightning_perturb.checks import check_positive
from lightning_perturb.core.module import PerturbationModule


class DeferredModule(PerturbationModule):
    """A method whose own part begins at an epoch, when a network is already trained.

    Args:
        from_epoch: First epoch of the method's own part, the phase ``deferred``.
        **kwargs: Arguments of :class:`~lightning_perturb.core.PerturbationModule`.
    """

    def __init__(self, *args: Any, from_epoch: int = 0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_positive("from_epoch", from_epoch, zero=True)
        # warm-up is plain cross-entropy throughout
        self.from_epoch = max(from_epoch, self.warmup_epochs)

    def on_fit_start(self) -> None:
        """As in the base; warns where the method's own part never comes."""
        super().on_fit_start()
        last = self.trainer.max_epochs
        if last is not None and 0 < last <= self.from_epoch:
            warnings.warn(
                f"{type(self).__name__} begins its own part at from_epoch={self.from_epoch}, but training ends after "
                f"{last} epochs. Lower from_epoch, or raise max_epochs.",
                stacklevel=2,
            )

    def phases(self) -> list[tuple[int, str]]:
        """As in the base, and ``deferred``."""
        return [*super().phases(), (self.from_epoch, "deferred")]
