"""The base of methods whose own part may begin late in training."""

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

    def phases(self) -> list[tuple[int, str]]:
        """As in the base, and ``deferred``."""
        return [*super().phases(), (self.from_epoch, "deferred")]
