"""Gold loss correction: the noise's transition matrix from clean samples, on which the network trains, too."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lightning_perturb.checks import check_range
from lightning_perturb.core import Batch, Coordinates, Needs
from lightning_perturb.core.clean import CleanSamplesModule
from lightning_perturb.core.scores import clean_predictions, training_size
from lightning_perturb.core.transition import TransitionModule
from lightning_perturb.functional import gold_transition


class GoldLossCorrection(CleanSamplesModule, TransitionModule):
    """Gold loss correction (Hendrycks et al., 2018), GLC in [iada Table 5].

    In a first phase the network learns the noisy labels by cross-entropy. The mean of its predictions for the clean
    samples of class c is row c of the transition matrix T. The second phase starts anew, from the weights, learning
    rate and schedule of the first: noisy samples have the loss -log sum_k p_k T[k, y], clean ones cross-entropy with
    their true labels. So max_epochs counts both phases, and a schedule is meant for one.

    The authors shuffle clean samples among the noisy ones, each once an epoch. Here every batch has clean samples
    beside it, whose mean loss has the share of the whole that they have there: the same loss in the mean over batches.

    Args:
        clean_share: Share of the clean samples in the loss of the second phase, in [0, 1]; None takes their share
            among all samples, as the authors do.
        **kwargs: ``estimate_epochs`` of :class:`~lightning_perturb.core.transition.TransitionModule`, and arguments of
            :class:`~lightning_perturb.core.PerturbationModule`.

    Raises:
        ValueError: If an argument is out of range; at the start of a fit, if nobody says how long the first phase is;
            where T is estimated, if a class has no clean sample.
    """

    coordinates = Coordinates.of("logit", "positive", "prior", "category")
    needs = Needs(meta=True, scores=True)
    paper = "iada"

    share: Tensor

    def __init__(self, *args: Any, clean_share: float | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if clean_share is not None:
            check_range("clean_share", clean_share, 0.0, 1.0)
        self.clean_share = clean_share
        self.add_state("share", torch.zeros(()))
        self._clean: Batch | None = None

    def setup(self, stage: str) -> None:
        """As in the base; clean samples are read from the second phase on."""
        super().setup(stage)
        if stage == "fit":
            self.needs = replace(self.needs, meta_from=self.phases()[-1][0])

    def reads_clean(self, batch_idx: int) -> bool:
        """In the second phase."""
        return self.phase == "main"

    def estimate(self) -> Tensor:
        """T from the clean samples; and their share among all."""
        probabilities, target = clean_predictions(self)
        self.share.fill_(self._share(len(target)) if self.clean_share is None else self.clean_share)
        return gold_transition(probabilities, target)

    def _share(self, clean: int) -> float:
        noisy = training_size(self)
        if not noisy:
            raise ValueError(
                "clean_share=None takes the share of the clean samples among all, but the data does not tell how many "
                "there are. Set clean_share."
            )
        return clean / (clean + noisy)

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        """One step on a noisy batch, with the clean one beside it in the second phase."""
        train, self._clean = self._streams(batch, batch_idx)
        return super().training_step(train, batch_idx)

    def outputs(self, call: Callable[..., Any], batch: Batch) -> dict[str, Tensor]:
        """Logits of the noisy batch, and ``clean_logits`` of the clean one."""
        outputs = super().outputs(call, batch)
        if self._clean is not None:
            outputs["clean_logits"] = self.run(call, self._clean.view)
        return outputs

    def loss(self, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        """The corrected loss of noisy samples and cross-entropy of clean ones, each by its share."""
        noisy = super().loss(outputs, batch)
        if self._clean is None:
            return noisy
        clean = self.plain_loss(outputs["clean_logits"], self._clean.y).mean()
        return torch.lerp(noisy, clean, self.share.to(noisy.dtype))
