"""The slack of a support vector machine as a loss perturbation: ``python -m lightning_perturb.examples.svm_slack``.

A loss perturbation of the taxonomy [tax 16-19].
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_perturb.core import Coordinates
from lightning_perturb.functional import hinge_loss, slack, svm_slack

#: the place in the taxonomy
COORDINATES = Coordinates.of("loss", "positive", "regularization", "sample")


def samples() -> tuple[Tensor, Tensor]:
    """Two clusters of thirty in the plane, with three wrong labels."""
    generator = torch.Generator().manual_seed(0)
    y = torch.ones(60, dtype=torch.float64)
    y[30:] = -1
    x = 1.5 * y[:, None] + torch.randn(60, 2, generator=generator, dtype=torch.float64)
    y[:3] = -1
    return x, y


def main(lam: float = 0.5) -> dict[str, float]:
    """Prints, and returns, the objective with the loss perturbed and that of the standard machine."""
    x, y = samples()
    w, b, xi = svm_slack(x, y, lam)
    loss = hinge_loss(x @ w + b, y)
    perturbation = slack(loss, lam)
    found = {
        "perturbed": float(w @ w / 2 + ((loss - perturbation).clamp(min=0) + lam * perturbation).sum()),
        "standard": float(w @ w / 2 + lam * xi.sum()),
        "slack on wrong labels": float(xi[:3].mean()),
        "slack on the others": float(xi[3:].mean()),
    }
    for name, value in found.items():
        print(f"{name + ':':23}{value:.4f}")
    return found


if __name__ == "__main__":
    main()
