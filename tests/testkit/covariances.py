"""Class statistics and the terms of ISDA and IADA by their definitions, one sample and class at a time."""

from __future__ import annotations

import torch
from testkit.meta import CLASSES
from torch import Tensor


class Statistics:
    """Keeps every feature that it is shown."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.features = [torch.zeros(0, width, dtype=torch.float64) for _ in range(CLASSES)]

    def add(self, features: Tensor, y: Tensor) -> None:
        for c in range(CLASSES):
            self.features[c] = torch.cat([self.features[c], features[y == c].detach()])

    @property
    def counts(self) -> list[int]:
        return [len(features) for features in self.features]

    def mean(self) -> Tensor:
        return torch.stack([f.mean(0) if len(f) else f.new_zeros(self.width) for f in self.features])

    def covariance(self) -> Tensor:
        zero = torch.zeros(self.width, self.width, dtype=torch.float64)
        return torch.stack([torch.cov(f.T, correction=0) if len(f) > 1 else zero for f in self.features])


def quadratic(weight: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
    """1/2 (w_j - w_y)^T Sigma_y (w_j - w_y), [B, C]."""
    rows = []
    for k in y.tolist():
        s = sigma[k] if sigma.ndim == 3 else torch.diag(sigma[k])
        rows.append(torch.stack([0.5 * (weight[j] - weight[k]) @ s @ (weight[j] - weight[k]) for j in range(CLASSES)]))
    return torch.stack(rows)


def signs(logits: Tensor, weight: Tensor, y: Tensor) -> Tensor:
    """The sign of the cross-entropy's gradient in the features, [B, A]."""
    with torch.no_grad():
        p = logits.softmax(1)
        return torch.stack([torch.sign((p[i] - torch.eye(CLASSES).double()[k]) @ weight) for i, k in enumerate(y)])
