"""LPL: learning to perturb logits, class by class [lpl 26-33, Algorithms 1 and 2]."""

from typing import Any, Literal

import torch
from torch import Tensor

from lightning_perturb.checks import check_choice, check_positive, check_range, check_used
from lightning_perturb.core import Batch, Coordinates
from lightning_perturb.core.counts import OptionalCountsModule
from lightning_perturb.core.distributed import gather_batch
from lightning_perturb.functional import (
    class_confidence,
    confidence_bounds,
    confidence_split,
    confidence_threshold,
    frequency_bounds,
    frequency_split,
    lpl,
    lpl_steps,
)

# as in the released scripts: balanced, varied bounds (40 steps of 0.01); CIFAR-10-LT (10 steps of 0.15)
_RELEASED = {
    "confidence": {"eps": 0.4, "delta_eps": 0.1, "alpha": 0.01},
    "frequency": {"eps": 0.0, "delta_eps": 1.5, "alpha": 0.15},
}


class LPL(OptionalCountsModule):
    """Raises the loss of some classes and lowers that of the others, by logit perturbations within bounds [lpl 26].

    In every batch each class gets one perturbation of its samples' logits, found by K_c = ε_c / α steps up or down the
    class's mean gradient [lpl 31-32]. ``split="confidence"``, for balanced data, raises the loss of classes whose mean
    confidence q_c is at most the threshold [lpl 27]; ``split="frequency"``, for long tails, that of the rarer classes
    [lpl 29]. Bounds are fixed where ``delta_eps`` is 0, otherwise varied [lpl 33]; all 0, it is cross-entropy. No
    parameters, one forward, evaluation on the plain logits. Combines with other logit perturbations:
    ``class LogitAdjustedLPL(LPL, LogitAdjustment)`` perturbs the adjusted logits.

    Paper and released code differ in many places; what is said to be the code's is an option here.

    Args:
        split: ``confidence`` (of balanced data) or ``frequency`` (of long tails).
        threshold: τ of ``split="confidence"``; None takes the mean of q_c. Above 1 every loss rises, as in ISDA.
        head: How many of the most frequent classes are the head of ``split="frequency"``, a share (below 1) or a count.
            The paper searches {0.4, 0.5, 0.6}; its code has 4 of 10 and 40 or 27 of 100.
        eps: ε, smallest bound. Fixed bounds are searched in {0.1, 0.2, 0.3, 0.4} on balanced data, {1.5, 2.5, 5} on
            long tails. None takes the released code's: 0.4 for ``confidence``, 0 for ``frequency``.
        delta_eps: Δε, how far bounds vary: ε + Δε |τ - q_c| for ``confidence`` ({0.1, 0.2}), and for ``frequency``
            ({1, 2, 3}) ε + Δε n_c / n_1 in the head and ε + Δε n_C / n_c in the tail. None takes 0.1 and 1.5.
        alpha: α, size of a step. The paper searches {0.01, 0.02, 0.03} on balanced data. None takes 0.01 and 0.15.
        grad_norm: ``row``: steps have unit length times α, so that ε_c bounds the length of the perturbation.
            ``none``: the equation, where steps fade as a class is learnt. ``column``: the code, which divides by the
            length of the gradient matrix's column.
        q_stat: q_c is the mean over the ``batch`` (Algorithm 1, code), an ``ema`` over batches, or the mean over the
            samples of the last ``epoch`` [lpl 28]; the last two take the batch's for classes that they do not know yet.
        ema_decay: How much of the old value the moving average keeps.
        absent: Classes without q_c: ``mask`` leaves them out of τ and distances, ``zero`` counts them as 0 (code).
        freeze_split: Keep the split over the steps of a batch (Algorithm 2); False splits anew on the perturbed logits
            before each step (code), with ``q_stat="batch"``.
        bound_stat: What the ratios of varied bounds of ``split="frequency"`` are made of: class ``count`` (code) or
            ``confidence``, as the equation is printed.
        head_scale: Factor of the head's Δε; the code has 0.6 for CIFAR-10, 0.2 for CIFAR-100.
        bound_norm: ``none``, or ``side_max``: distances from τ divided by the largest on their side (code).
        rounding: K_c is the ``floor`` of ε_c / α, or ``round``: the nearest, at least 1 (code).
        detach: Take the perturbation as a constant; False lets gradients flow through the steps (long-tail code).
        sync_stats: Statistics, splits and steps are those of all devices' samples as one batch; False takes each
            device's alone, as any port of the code.
        **kwargs: Arguments of :class:`~lightning_perturb.core.PerturbationModule`, and ``class_counts`` of
            :class:`~lightning_perturb.core.counts.OptionalCountsModule`.
    """

    coordinates = Coordinates.of("logit", ("positive", "negative"), "adversarial", "category")
    paper = "lpl"

    sign: Tensor
    steps: Tensor
    confidence: Tensor
    confidence_known: Tensor
    confidence_sums: Tensor
    confidence_samples: Tensor

    def __init__(
        self,
        *args: Any,
        split: Literal["confidence", "frequency"] = "confidence",
        threshold: float | None = None,
        head: float = 0.5,
        eps: float | None = None,
        delta_eps: float | None = None,
        alpha: float | None = None,
        grad_norm: Literal["row", "none", "column"] = "row",
        q_stat: Literal["batch", "ema", "epoch"] = "batch",
        ema_decay: float = 0.9,
        absent: Literal["mask", "zero"] = "mask",
        freeze_split: bool = True,
        bound_stat: Literal["count", "confidence"] = "count",
        head_scale: float = 1.0,
        bound_norm: Literal["none", "side_max"] = "none",
        rounding: Literal["floor", "round"] = "floor",
        detach: bool = True,
        sync_stats: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        check_choice("split", split, ("confidence", "frequency"))
        check_choice("grad_norm", grad_norm, ("row", "none", "column"))
        check_choice("q_stat", q_stat, ("batch", "ema", "epoch"))
        check_choice("absent", absent, ("mask", "zero"))
        check_choice("bound_stat", bound_stat, ("count", "confidence"))
        check_choice("bound_norm", bound_norm, ("none", "side_max"))
        check_choice("rounding", rounding, ("floor", "round"))
        check_range("ema_decay", ema_decay, 0.0, 1.0, open_high=True)
        self.split = split
        self.threshold = threshold
        self.head_classes = count_head(head, self.num_classes)
        released = _RELEASED[split]
        self.eps = released["eps"] if eps is None else eps
        self.delta_eps = released["delta_eps"] if delta_eps is None else delta_eps
        self.alpha = released["alpha"] if alpha is None else alpha
        self.grad_norm = grad_norm
        self.q_stat = q_stat
        self.ema_decay = ema_decay
        self.absent = absent
        self.freeze_split = freeze_split
        self.bound_stat = bound_stat
        self.head_scale = head_scale
        self.bound_norm = bound_norm
        self.rounding = rounding
        self.detach = detach
        self.sync_stats = sync_stats
        self._check_used_together()
        self._check_bounds()
        classes = self.num_classes
        if split == "frequency":
            self.add_state("sign", torch.zeros(classes), persistent=False)
            self.add_state("steps", torch.zeros(classes, dtype=torch.int64), persistent=False)
        if q_stat != "batch":
            self.add_state("confidence", torch.zeros(classes))
            self.add_state("confidence_known", torch.zeros(classes, dtype=torch.bool))
        if q_stat == "epoch":
            self.add_state("confidence_sums", torch.zeros(classes))
            self.add_state("confidence_samples", torch.zeros(classes))

    # arguments ----------------------------------------------------------------------------------------------------

    def _check_used_together(self) -> None:
        for name, default, user in (
            ("threshold", None, "confidence"),
            ("freeze_split", True, "confidence"),
            ("bound_norm", "none", "confidence"),
            ("bound_stat", "count", "frequency"),
            ("head_scale", 1.0, "frequency"),
        ):
            check_used(name, getattr(self, name), default, "split", self.split, (user,))
        if self.split == "frequency":
            for name, default in (("q_stat", "batch"), ("absent", "mask")):
                check_used(name, getattr(self, name), default, "bound_stat", self.bound_stat, ("confidence",))
        check_used("ema_decay", self.ema_decay, 0.9, "q_stat", self.q_stat, ("ema",))
        # states are the same on every device, and a moving average does not see the perturbed logits
        check_used("sync_stats", self.sync_stats, True, "q_stat", self.q_stat, ("batch",))
        check_used("freeze_split", self.freeze_split, True, "q_stat", self.q_stat, ("batch",))

    def _check_bounds(self) -> None:
        for name in ("eps", "delta_eps", "head_scale"):
            check_positive(name, getattr(self, name), zero=True)
        check_positive("alpha", self.alpha)
        widest = max(1.0, abs(self.threshold or 0.0) + 1.0 if self.split == "confidence" else self.head_scale)
        largest = self.eps + self.delta_eps * widest
        if self.rounding == "floor" and 0 < largest < self.alpha * (1 - 1e-6):
            raise ValueError(
                f"alpha={self.alpha} is above every bound that eps={self.eps} and delta_eps={self.delta_eps} allow "
                f"({largest:g}): no class would make a step. Lower alpha, or set both to 0 for cross-entropy."
            )

    # what the classes get -----------------------------------------------------------------------------------------

    @property
    def needs_class_counts(self) -> bool:
        """Whether the split is by frequency, or another method in the inheritance needs them."""
        return self.split == "frequency" or super().needs_class_counts

    def use_counts(self, counts: Tensor) -> None:
        """Which classes are head and tail, and how many steps each makes where that depends on the counts alone."""
        super().use_counts(counts)
        if self.split == "frequency":
            self.sign.copy_(frequency_split(counts, self.head_classes))
            self.steps.copy_(self._steps(self._frequency_bounds()))

    def _frequency_bounds(self, confidence: Tensor | None = None, known: Tensor | None = None) -> Tensor:
        return frequency_bounds(
            self.class_counts, self.head_classes, self.eps, self.delta_eps, self.head_scale, confidence, known
        )

    def _steps(self, bounds: Tensor) -> Tensor:
        return lpl_steps(bounds, self.alpha, self.rounding)

    def perturb_logits(self, logits: Tensor, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        """u + δ_y, where u are the logits as other methods in the inheritance have perturbed them."""
        logits = super().perturb_logits(logits, outputs, batch)
        rows, target, own = self._statistical_batch(logits, batch.y)
        sign, steps = self._sign_and_steps(rows.detach(), target, batch)
        resplit = sign if self.freeze_split else self._split
        delta = lpl(rows, target, resplit, steps, self.alpha, self.grad_norm, self.detach)[own]
        self.tell(batch, "perturbation_norm", delta.abs().sum(1))
        return logits + delta

    def _statistical_batch(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor, slice]:
        """Logits and labels of the samples that statistics are taken over, and where this device's are."""
        rows = logits.detach() if self.detach else logits
        rows = rows if rows.dtype == torch.float64 else rows.float()
        if not self.sync_stats:
            return rows, target, slice(0, len(target))
        (rows, target), own = gather_batch(rows, target)
        return rows, target, own

    def _sign_and_steps(self, logits: Tensor, target: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        if self.split == "confidence":
            confidence, counted = self._confidence(logits, target, batch)
            tau = self._tau(confidence, counted)
            bounds = confidence_bounds(confidence, counted, tau, self.eps, self.delta_eps, self.bound_norm)
            return confidence_split(confidence, tau), self._steps(bounds)
        if self.bound_stat == "confidence":
            confidence, counted = self._confidence(logits, target, batch)
            return self.sign, self._steps(self._frequency_bounds(confidence, counted > 0))
        return self.sign, self.steps

    def _split(self, logits: Tensor, target: Tensor) -> Tensor:
        """The split of perturbed logits, where it is made anew before each step."""
        confidence, counted = self._counted(*class_confidence(logits, target))
        return confidence_split(confidence, self._tau(confidence, counted))

    def _tau(self, confidence: Tensor, counted: Tensor) -> float | Tensor:
        return confidence_threshold(confidence, counted) if self.threshold is None else self.threshold

    # the confidence of classes ------------------------------------------------------------------------------------

    def _confidence(self, logits: Tensor, target: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """q_c, and above 0 for the classes that count ``[C]``."""
        confidence, samples = class_confidence(logits, target)
        if self.q_stat == "batch":
            return self._counted(confidence, samples)
        here, known = samples > 0, self.confidence_known
        old = self.confidence.to(confidence)
        # what the state becomes is left for after the loss, which changes none
        batch.extra["class_samples"], batch.extra["class_confidence"] = samples, confidence
        if self.q_stat == "ema":
            moved = torch.where(known, torch.lerp(confidence, old, self.ema_decay), confidence)
            confidence = torch.where(here, moved, old)
            batch.extra["class_confidence"] = confidence
        else:
            confidence = torch.where(known, old, confidence)
        return self._counted(confidence, (known | here).to(confidence))

    def _counted(self, confidence: Tensor, counted: Tensor) -> tuple[Tensor, Tensor]:
        return confidence, torch.ones_like(counted) if self.absent == "zero" else counted

    def update_state(self, outputs: dict[str, Tensor], batch: Batch) -> None:
        """Takes the batch into the classes' confidence, where that is kept over batches."""
        super().update_state(outputs, batch)
        if "class_confidence" not in batch.extra:
            return
        confidence, samples = batch.extra["class_confidence"], batch.extra["class_samples"]
        if self.q_stat == "ema":
            self.confidence.copy_(confidence)
            self.confidence_known |= samples > 0
        else:
            self.confidence_sums += confidence * samples
            self.confidence_samples += samples

    def start_epoch(self) -> None:
        """Puts the confidence over the epoch before in use; classes that it did not see keep theirs."""
        super().start_epoch()
        if self.q_stat != "epoch":
            return
        seen = self.confidence_samples > 0
        self.confidence.copy_(
            torch.where(seen, self.confidence_sums / self.confidence_samples.clamp(min=1), self.confidence)
        )
        self.confidence_known |= seen
        self.confidence_sums.zero_()
        self.confidence_samples.zero_()


def count_head(head: float, num_classes: int) -> int:
    """How many classes are the head, from a share below 1 or a count.

    Raises:
        ValueError: If it is neither.
    """
    # a share such as .29 of 100 must not lose a class to the last bit of a float
    count = int(head * num_classes + 1e-9) if head < 1 else int(head)
    if not 0 <= head <= num_classes or (head >= 1 and head != count):
        raise ValueError(
            f"head={head!r} is neither a share below 1 nor a count of the {num_classes} classes. Give how many classes "
            "are the head."
        )
    return count
