"""Two classes of two Gaussians each, of which the training set holds biased shares: the toy of [tax 22, Fig. 3]."""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lightning_perturb.checks import check_positive, check_rate
from lightning_perturb.data.base import PerturbationDataModule
from lightning_perturb.data.labels import Labels


class TwoGaussians(PerturbationDataModule):
    """The classes -1 and +1, each a mixture of two Gaussians along theta = (eta, ..., eta) [tax 22, Fig. 3].

    The parts of the class +1 are C1 at theta and C2 at far x theta, those of the class -1 are C3 at -theta and C4 at
    -far x theta. In truth both parts of a class are equally frequent, and the test samples are drawn so. The training
    samples are biased: C1 and C4 are ``ratio`` times as frequent as C2 and C3, so that the class +1 is mostly seen
    close to the boundary, the class -1 far from it, and a boundary halfway between them cuts off C3. (The paper prints
    1:30 for C1:C2, but moves samples away from C1, which only fits 30:1.)

    Everything is drawn from ``draw_seed``, whatever ``seed`` is, so that runs with other seeds compare on the same
    samples. Validation and meta samples are carved from the training set and share its bias; for classes of unequal
    size give an ``imbalance``.

    Args:
        samples: Training samples, half of each class.
        test_samples: Test samples, likewise.
        ratio: How many times as frequent the common part of a class is among the training samples, at least 1; 1 is no
            bias.
        eta: Each coordinate of theta, above 0.
        d: Number of features, at least 1.
        far: Where the far parts lie, in multiples of theta, above 1.
        sigma_plus: Standard deviation of the class +1, in every direction.
        sigma_minus: Standard deviation of the class -1.
        moved: Share of the training samples of C1, and of C4, that are moved by (far - 1) theta into the other part of
            their class: the perturbation of features that undoes the bias. 14/30 does for the ratio of 30.
        draw_seed: Seed of the samples.
        batch_size: Training samples in a batch, on each device.
        **kwargs: Arguments of :class:`~lightning_perturb.data.PerturbationDataModule`.
    """

    def __init__(
        self,
        samples: int = 620,
        test_samples: int = 2000,
        ratio: float = 30.0,
        eta: float = 0.5,
        d: int = 2,
        far: float = 2.5,
        sigma_plus: float = 0.2,
        sigma_minus: float = 0.2,
        moved: float = 0.0,
        draw_seed: int = 1797,
        batch_size: int = 62,
        **kwargs: Any,
    ) -> None:
        super().__init__(batch_size=batch_size, **kwargs)
        for name, value in (("eta", eta), ("d", d), ("sigma_plus", sigma_plus), ("sigma_minus", sigma_minus)):
            check_positive(name, value)
        for name, number in (("samples", samples), ("test_samples", test_samples)):
            if number < 2:
                raise ValueError(f"{name}={number!r} leaves a class without a sample. Draw at least 2.")
        if not 1.0 <= ratio < np.inf:
            raise ValueError(f"ratio={ratio!r} must be at least 1: the common part of a class over the other.")
        if not 1.0 < far < np.inf:
            raise ValueError(f"far={far!r} must be above 1: the far parts lie behind the near ones.")
        check_rate("moved", moved)
        self.sizes = {"train": samples, "test": test_samples}
        self.ratio = ratio
        self.eta = eta
        self.d = d
        self.far = far
        self.sigmas = (sigma_minus, sigma_plus)
        self.moved = moved
        self.draw_seed = draw_seed

    @property
    def num_classes(self) -> int:
        """Two: 0 is the class -1, 1 the class +1."""
        return 2

    @property
    def class_names(self) -> list[str]:
        """The paper's names."""
        return ["-1", "+1"]

    def read(self, split: Literal["train", "val", "test"]) -> tuple[Tensor, Labels] | None:
        """Features ``[N, d]`` and labels."""
        if split == "val":
            return None
        x, part = self._draw_samples(split)
        return torch.from_numpy(x.astype(np.float32)), (part < 2).astype(np.int64)

    def parts(self, split: Literal["train", "test"]) -> Labels:
        """Which part each sample of a split was drawn from ``[N]``: 1 to 4 for C1 to C4.

        Args:
            split: The split, of which ``train`` is the full training set.
        """
        part: Labels = self._draw_samples(split)[1] + 1
        return part

    def _draw_samples(self, split: Literal["train", "test"]) -> tuple[npt.NDArray[np.float64], Labels]:
        # one stream for each split: more training samples must not move the test
        generator = np.random.default_rng([self.draw_seed, *split.encode()])
        number, ratio = self.sizes[split], self.ratio if split == "train" else 1.0
        plus = number // 2
        counts = [_rare(plus, ratio), _rare(number - plus, ratio)]
        part = np.repeat(np.arange(4), [plus - counts[0], counts[0], counts[1], number - plus - counts[1]])
        part = generator.permutation(part).astype(np.int64)
        theta = self.eta * np.ones(self.d)
        centre = np.array([1.0, self.far, -1.0, -self.far])[part, None] * theta
        spread = np.array(self.sigmas)[(part < 2).astype(int), None]
        x = centre + spread * generator.standard_normal((number, self.d))
        if split == "train":
            for common in (0, 3):
                chosen = np.flatnonzero(part == common)
                x[chosen[: round(self.moved * len(chosen))]] += (self.far - 1) * theta
        return x, part


def _rare(number: int, ratio: float) -> int:
    return round(number / (1 + ratio))
