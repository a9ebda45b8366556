"""LDAM for several labels at once."""

from typing import Any

import torch
from torch import Tensor

from lightning_perturb.checks import check_positive
from lightning_perturb.core import Batch, Coordinates, CountedModule, MultiLabelModule
from lightning_perturb.functional import ldam_margins


class MultiLabelLDAM(CountedModule, MultiLabelModule):
    """LDAM on each label: a positive must win by a margin that is larger for rarer classes [lpl 8-9].

    The logit of a positive label is lowered by m_c proportional to n_c^(-1/4); negatives are left. How the published
    comparison on VOC-MLT and COCO-MLT carried LDAM over to several labels is not told.

    Args:
        largest_margin: Margin of the rarest class.
        scale: Factor of the logits, margin included; 1, as in the equation. With a network that gives cosines take 30.
        **kwargs: Arguments of :class:`~lightning_perturb.core.CountedModule` and
            :class:`~lightning_perturb.core.MultiLabelModule`.
    """

    coordinates = Coordinates.of("logit", "negative", "prior", "category")

    margins: Tensor

    def __init__(self, *args: Any, largest_margin: float = 0.5, scale: float = 1.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_positive("largest_margin", largest_margin)
        check_positive("scale", scale)
        self.largest_margin = largest_margin
        self.scale = scale
        self.add_state("margins", torch.zeros(self.num_classes), persistent=False)

    def use_counts(self, counts: Tensor) -> None:
        """The margin of each class."""
        super().use_counts(counts)
        self.margins.copy_(ldam_margins(counts, self.largest_margin))

    def perturb_logits(self, logits: Tensor, outputs: dict[str, Tensor], batch: Batch) -> Tensor:
        """s (u - m y)."""
        return self.scale * (super().perturb_logits(logits, outputs, batch) - self.margins * batch.y)
