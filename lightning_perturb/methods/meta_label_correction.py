"""Meta label correction: a network turns given labels into soft ones, and is learned on clean samples."""

from collections.abc import Callable
from typing import Any

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor

from lightning_perturb.core import Batch, Coordinates, MetaPerturbationModule
from lightning_perturb.core.features import FeatureModule
from lightning_perturb.nets import LabelCorrectionNet


def correction_optimizer(params: Any) -> torch.optim.Optimizer:
    """The published optimizer of the correction network: Adam with AMSGrad and learning rate 3e-4."""
    return torch.optim.Adam(params, lr=3e-4, amsgrad=True)


class MLC(MetaPerturbationModule, FeatureModule):
    """Meta label correction (Zheng et al., 2021), MLC in [iada Table 5].

    The label of a noisy sample is what a correction network says of its features and its given label: soft, and a
    constant in the classifier. That network is learned on clean samples, through one virtual step (the published
    default; its option of several accumulates approximate gradients). As published, half of every clean batch is
    trained on with its true labels, the other half measures the virtual step.

    Args:
        train_on_clean: Train on half of the clean batch; otherwise all of it measures the virtual step, and what the
            network learns at first is that all classes are alike.
        embedding: Width of the label's embedding in the correction network.
        hidden: Width of its two hidden layers.
        meta_optimizer: Makes the optimizer of the correction network. Default: Adam with AMSGrad, lr 3e-4.
        **kwargs: Arguments of :class:`~lightning_perturb.core.MetaPerturbationModule` (published: look_ahead_momentum
            true), and of :class:`~lightning_perturb.core.features.FeatureModule`.
    """

    coordinates = Coordinates.of("label", ("positive", "negative"), "meta", "sample")
    paper = "iada"

    correction_net: LabelCorrectionNet

    def __init__(
        self,
        *args: Any,
        train_on_clean: bool = True,
        embedding: int = 128,
        hidden: int = 128,
        meta_optimizer: OptimizerCallable = correction_optimizer,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, meta_optimizer=meta_optimizer, **kwargs)
        self.train_on_clean = train_on_clean
        self.add_meta("correction_net", LabelCorrectionNet(self.num_features, self.num_classes, embedding, hidden))
        self._clean: Batch | None = None

    def _streams(self, batch: Any, batch_idx: int) -> tuple[Any, Batch | None]:
        train, meta = super()._streams(batch, batch_idx)
        self._clean = None
        if meta is not None and self.train_on_clean and len(meta) > 1:
            # by turns: so the halves of several devices are those of one that has all
            meta, self._clean = meta.rows(slice(0, None, 2)), meta.rows(slice(1, None, 2))
        return train, meta

    def outputs(self, call: Callable[..., Any], batch: Batch) -> dict[str, Tensor]:
        """As in the base, and ``clean_logits`` of the clean samples that are trained on."""
        outputs = super().outputs(call, batch)
        if self._clean is not None:
            outputs["clean_logits"] = self.run(call, self._clean.view)
        return outputs

    def corrected(self, features: Tensor, y: Tensor) -> Tensor:
        """The soft labels ``[B, C]`` of features ``[B, A]`` and given labels ``[B]``; constant in the features."""
        logits: Tensor = self.correction_net(features.detach(), y)
        return logits.float().softmax(1) if logits.dtype in (torch.bfloat16, torch.float16) else logits.softmax(1)

    def perturb_logits(self, logits: Tensor, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        """The logits as they are; finds the corrected labels beside them, from the features."""
        corrected = self.corrected(outputs["features"], batch.y)
        batch.extra["corrected"] = corrected
        self.tell(batch, "hyperparameter/kept", corrected.gather(1, batch.y[:, None])[:, 0])
        return super().perturb_logits(logits, outputs, batch)

    def perturb_target(self, logits: Tensor, batch: Batch) -> Tensor:
        """The corrected labels."""
        return batch.extra["corrected"]

    def loss(self, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        """The mean over noisy samples with corrected and clean samples with true labels."""
        noisy = super().loss(outputs, batch)
        if self._clean is None:
            return noisy
        clean = self.plain_loss(outputs["clean_logits"], self._clean.y).mean()
        return torch.lerp(noisy, clean, len(self._clean) / (len(self._clean) + len(batch)))
