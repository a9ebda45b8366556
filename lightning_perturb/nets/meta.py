"""Networks that map what training knows of a sample to a hyperparameter of its loss."""

import torch
from torch import Tensor, nn

from lightning_perturb.checks import check_positive


class MetaMLP(nn.Module):
    """The two-layer network of the meta-learning papers: linear, ReLU, linear; both layers have a bias.

    Args:
        in_features: Number of training characteristics of a sample.
        hidden: Width of the hidden layer.
        out_features: Number of outputs.

    Raises:
        ValueError: If a width is below 1.
    """

    def __init__(self, in_features: int, hidden: int = 100, out_features: int = 1) -> None:
        super().__init__()
        check_positive("in_features", in_features)
        check_positive("hidden", hidden)
        check_positive("out_features", out_features)
        self.layers = nn.Sequential(nn.Linear(in_features, hidden), nn.ReLU(), nn.Linear(hidden, out_features))

    def forward(self, x: Tensor) -> Tensor:
        """Maps characteristics ``[B, in_features]`` to raw outputs ``[B, out_features]``, before any sigmoid."""
        out: Tensor = self.layers(x)
        return out


class LabelCorrectionNet(nn.Module):
    """The network of meta label correction: from features and the given label to a distribution over the true ones.

    The label's embedding beside the features, two layers with tanh, a last one that gives logits. Weights start by
    Xavier's rule, biases at 0, as published.

    Args:
        num_features: Number of features of a sample.
        num_classes: Number of classes.
        embedding: Width of the label's embedding.
        hidden: Width of both hidden layers.

    Raises:
        ValueError: If a width is below 1.
    """

    def __init__(self, num_features: int, num_classes: int, embedding: int = 128, hidden: int = 128) -> None:
        super().__init__()
        check_positive("num_features", num_features)
        check_positive("num_classes", num_classes)
        check_positive("embedding", embedding)
        check_positive("hidden", hidden)
        self.embedding = nn.Embedding(num_classes, embedding)
        self.layers = nn.Sequential(
            nn.Linear(num_features + embedding, hidden), nn.Tanh(),
            nn.Linear(hidden, hidden), nn.Tanh(),
            nn.Linear(hidden, num_classes),
        )  # fmt: skip
        nn.init.xavier_uniform_(self.embedding.weight)
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_normal_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, features: Tensor, y: Tensor) -> Tensor:
        """Logits of the corrected label ``[B, C]`` from features ``[B, A]`` and given labels ``[B]``."""
        embedded = self.embedding(y)
        out: Tensor = self.layers(torch.cat([features.to(embedded.dtype), embedded], 1))
        return out
