"""Networks that map what training knows of a sample to a hyperparameter of its loss."""

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
