"""K-means and robust clustering with outliers: ``python -m lightning_perturb.examples.robust_clustering``.

A feature perturbation of the taxonomy [tax 11].
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_perturb.core import Coordinates
from lightning_perturb.functional import robust_clustering

#: the place in the taxonomy
COORDINATES = Coordinates.of("feature", "positive", "regularization", "sample")
#: the centres that both methods look for
TRUE = torch.tensor([[0.0, 0.0], [6.0, 0.0], [0.0, 6.0]], dtype=torch.float64)


def samples(outliers: int = 30) -> Tensor:
    """Fifty samples of each cluster, and outliers far out on one side."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(150, 2, generator=generator, dtype=torch.float64)
    far = 12 + 6 * torch.rand(outliers, 2, generator=generator, dtype=torch.float64)
    return torch.cat([TRUE.repeat_interleave(50, 0) + 0.5 * noise, far])


def main() -> dict[str, float]:
    """Prints, and returns, how far the found centres are from the true ones."""
    x = samples()
    errors = {}
    for name, lam in (("k-means", float("inf")), ("robust clustering", 1.0)):
        centers, _, o = robust_clustering(x, TRUE + 1.0, lam)
        errors[name] = float((centers - TRUE).norm(dim=1).max())
        moved = int((o.norm(dim=1) > 2.0).sum())
        print(f"{name + ':':20}largest error of a centre {errors[name]:.2f}, {moved} samples moved by more than 2")
    return errors


if __name__ == "__main__":
    main()
