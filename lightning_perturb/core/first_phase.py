"""The base of methods whose main phase follows a first one of cross-entropy."""

from typing import Any

from lightning_perturb.checks import check_positive
from lightning_perturb.core.module import CHECKPOINT_KEY, PerturbationModule


class FirstPhaseModule(PerturbationModule):
    """A method with a phase ``first`` before ``main``, in which it does what its loss says; the base's cross-entropy.

    Args:
        first_epochs: Epochs of the first phase; None takes half of max_epochs.
        **kwargs: Arguments of :class:`~lightning_perturb.core.PerturbationModule`.

    Raises:
        ValueError: If an argument is out of range; at the start of a fit, if nobody says how long the first phase is,
            or a resumed run had another length.
    """

    #: name of the argument, where a method has a better one
    first_argument = "first_epochs"

    def __init__(self, *args: Any, first_epochs: int | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if first_epochs is not None:
            check_positive(self.first_argument, first_epochs)
        self.first_epochs = first_epochs

    @property
    def has_first_phase(self) -> bool:
        """Whether there is one at all."""
        return True

    def phases(self) -> list[tuple[int, str]]:
        """Warm-up, first and main phase."""
        start = self.warmup_epochs
        return [(0, "warmup"), (start, "first"), (start + self._first_length(), "main")]

    def _first_length(self) -> int:
        if not self.has_first_phase:
            return 0
        if self.first_epochs is not None:
            return self.first_epochs
        epochs = 0 if self._trainer is None else self._trainer.max_epochs or 0
        return max((epochs - self.warmup_epochs) // 2, 1)

    def on_fit_start(self) -> None:
        """As in the base; checks that the first phase has a length."""
        super().on_fit_start()
        if self.has_first_phase and self.first_epochs is None and (self.trainer.max_epochs or -1) < 1:
            raise ValueError(
                f"{self.first_argument}=None takes half of max_epochs, which the Trainer does not have. Set "
                f"{self.first_argument}."
            )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """As in the base, with the length of the first phase."""
        super().on_save_checkpoint(checkpoint)
        checkpoint[CHECKPOINT_KEY]["first_length"] = self._first_length()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """As in the base; half of another max_epochs would be another training."""
        super().on_load_checkpoint(checkpoint)
        begun = checkpoint.get(CHECKPOINT_KEY, {}).get("first_length")
        now = self._first_length()
        if self._resuming and self.first_epochs is None and begun not in (None, now):
            raise ValueError(
                f"{self.first_argument}=None takes half of max_epochs, now {now} epochs, but the run that is resumed "
                f"began with {begun}. Set {self.first_argument} to {begun} to go on with it, or to another length."
            )
