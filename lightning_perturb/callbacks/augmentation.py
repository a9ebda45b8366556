"""What samples become when their features are augmented."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from matplotlib.figure import Figure
from torch import Tensor

from lightning_perturb.callbacks.epoch_sums import EpochSumsReport
from lightning_perturb.callbacks.run import class_names, raw_images
from lightning_perturb.checks import check_positive
from lightning_perturb.core.batch import Batch
from lightning_perturb.core.covariances import CovarianceModule
from lightning_perturb.core.modes import evaluating
from lightning_perturb.figures import Augmented, augmented_samples
from lightning_perturb.functional import cross_entropy, feature_gradient


class _Seen(NamedTuple):
    features: Tensor
    logits: Tensor
    weight: Tensor
    y: Tensor
    positions: Tensor


class AugmentationReport(EpochSumsReport):
    """Shows samples beside what IADA augments them to, at the end of training [iada Fig. 5].

    For methods that tell ``epsilon`` (:class:`~lightning_perturb.methods.IADA`,
    :class:`~lightning_perturb.methods.MetaIADA`); with others nothing is drawn. Features are drawn from
    N(h - ε s, α Σ_y), the anti-adversarial side, and from N(h + ε s, α Σ_y), the adversarial one, ε being the mean size
    of the last epoch's. For each draw stands the training image whose features are nearest: the paper projects features
    into the pixel space, which takes a trained generator of such images. The losses are those of the drawn features.
    The figure, as PNG and in TensorBoard, is ``augmented_samples.png``. On several ranks the images are those of the
    first rank.

    Attributes:
        paths: The figure that was written; empty before and where there is none.

    Args:
        folder: Where the figure goes; None takes the folder of the run's logs.
        samples: Rows of the figure, each a sample of another class, the most frequent class first.
        draws: Augmentations on either side.
        among: Training images that are looked at.
        seed: Seed of the draws.
    """

    def __init__(
        self, folder: str | None = None, samples: int = 6, draws: int = 3, among: int = 10_000, seed: int = 0
    ) -> None:
        super().__init__(folder)
        for name, value in (("samples", samples), ("draws", draws), ("among", among)):
            check_positive(name, value)
        self.samples = samples
        self.draws = draws
        self.among = among
        self.seed = seed

    # the sums of an epoch are those of |ε| and of samples

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Adds the sizes of the batch's ε."""
        if isinstance(outputs, Mapping) and outputs.get("epsilon") is not None:
            size = outputs["epsilon"].abs().double()
            self.add(trainer.current_epoch, torch.stack([size.sum(), torch.ones_like(size).sum()]))

    def figures(self, trainer: Trainer, method: Any, epochs: list[int], sums: Tensor) -> dict[str, Figure]:
        """The one figure; none where the training data are no images."""
        data = getattr(trainer, "datamodule", None)
        if not isinstance(method, CovarianceModule) or not hasattr(data, "score_dataloader"):
            return {}
        seen = self._look(data, method)
        shown = self._chosen(seen.y)
        epsilon = float(sums[-1, 0] / sums[-1, 1])
        generator = torch.Generator().manual_seed(self.seed)
        names = class_names(trainer, method.num_classes)
        rows = []
        for place in shown:
            sides = [self._augmented(seen, place, sign * epsilon, method, generator) for sign in (-1.0, 1.0)]
            wanted = torch.cat([seen.positions[place][None], *(seen.positions[nearest] for nearest, _ in sides)])
            images = raw_images(trainer, wanted.numpy())
            if images is None:
                return {}
            (_, easier_loss), (_, harder_loss) = sides
            label = seen.y[place]
            loss = float(cross_entropy(seen.logits[place][None], label[None]))
            easier, harder = images[1 : self.draws + 1], images[self.draws + 1 :]
            rows.append(Augmented(names[label], images[0], loss, easier, easier_loss, harder, harder_loss))
        return {"augmented_samples": augmented_samples(rows)}

    @torch.no_grad()
    def _look(self, data: Any, method: CovarianceModule) -> _Seen:
        """Features and logits of the first training samples, on the CPU."""

        def parts() -> Iterator[_Seen]:
            left = self.among
            for raw in data.score_dataloader():
                batch = data.on_after_batch_transfer(Batch.of(raw).to(method.device), 0)
                out = method.outputs(method.net, batch)
                found = (out["features"], out["logits"], out["weight"], batch.y, method.indices(batch))
                yield _Seen(*(part.detach().cpu() for part in found))
                left -= len(batch)
                if left <= 0:
                    return

        with evaluating(method.net):
            found = list(parts())
        features, logits, y, positions = (
            torch.cat([getattr(part, name) for part in found])[: self.among]
            for name in ("features", "logits", "y", "positions")
        )
        return _Seen(features.float(), logits.float(), found[0].weight.float(), y, positions)

    def _chosen(self, y: Tensor) -> list[int]:
        """The first sample of each of the most frequent classes."""
        frequent = y.bincount().argsort(descending=True, stable=True).tolist()
        firsts = [(y == label).nonzero() for label in frequent]
        return [int(first[0]) for first in firsts if len(first)][: self.samples]

    def _augmented(
        self, seen: _Seen, place: int, epsilon: float, method: CovarianceModule, generator: torch.Generator
    ) -> tuple[Tensor, Any]:
        """Places of the images nearest to draws of a sample's features, and the draws' losses."""
        logits, label, h = seen.logits[place][None], seen.y[place][None], seen.features[place]
        shift = epsilon * feature_gradient(logits, label, seen.weight)[0].sign()
        spread = _root(float(getattr(method, "alpha", 1.0)) * method.feature_covariance[label].cpu()[0])
        noise = torch.randn(self.draws, len(h), generator=generator)
        moved = h + shift + (noise * spread if spread.ndim == 1 else noise @ spread.T)
        losses = cross_entropy(logits + (moved - h) @ seen.weight.T, label.expand(self.draws))
        distance = torch.cdist(moved, seen.features)
        # the sample itself is nearest to most of what is near it
        distance[:, place] = torch.inf
        return distance.argmin(1), np.asarray(losses)


def _root(covariance: Tensor) -> Tensor:
    """L with L Lᵀ = Σ ``[A, A]``, also where Σ has no full rank; of variances ``[A]`` their roots."""
    if covariance.ndim == 1:
        return covariance.clamp(min=0).sqrt()
    values, vectors = torch.linalg.eigh(covariance)
    root: Tensor = vectors * values.clamp(min=0).sqrt()
    return root
