"""Small networks for digits, tabular features and quick trials."""

from torch import Tensor, nn

from lightning_perturb.checks import check_positive, check_rate
from lightning_perturb.nets._pooled import PooledNet, conv_norm_relu


class ConvNet(PooledNet):
    """A small convolutional network: three 3x3 convolutions with batch norm, two max-poolings, 4 x width features.

    Takes images of any size from 8x8 up.

    Args:
        num_classes: number of classes.
        in_channels: channels of the images.
        width: channels of the first convolution; the second has twice and the third four times as many.
    """

    def __init__(self, num_classes: int, in_channels: int = 3, width: int = 32) -> None:
        check_positive("in_channels", in_channels)
        check_positive("width", width)
        backbone = {
            "stage1": conv_norm_relu(in_channels, width),
            "pool1": nn.MaxPool2d(2),
            "stage2": conv_norm_relu(width, 2 * width),
            "pool2": nn.MaxPool2d(2),
            "stage3": conv_norm_relu(2 * width, 4 * width),
        }
        super().__init__(backbone, 4 * width, num_classes)


class MLP(nn.Module):
    """A multilayer perceptron with ReLU; the input is flattened, so it takes tabular features and images.

    Args:
        num_classes: number of classes.
        in_features: number of values of one sample: features, or channels x height x width.
        hidden: widths of the hidden layers; none makes it a linear (softmax) classifier.
        dropout: rate of the dropout after each hidden layer, from 0 to 1.
        norm: put a batch norm before each ReLU.

    Raises:
        ValueError: if a width is below 1 or ``dropout`` is outside 0..1; in the forward, if the flattened samples
            do not have ``in_features`` values.
    """

    def __init__(
        self,
        num_classes: int,
        in_features: int,
        hidden: tuple[int, ...] = (256,),
        dropout: float = 0.0,
        norm: bool = False,
    ) -> None:
        check_positive("num_classes", num_classes)
        check_positive("in_features", in_features)
        for width in hidden:
            check_positive("hidden", width)
        check_rate("dropout", dropout)
        super().__init__()
        self.in_features = in_features
        layers: list[nn.Module] = []
        for fan_in, fan_out in zip((in_features, *hidden), hidden, strict=False):
            # a bias before batch norm would only be subtracted again
            layers.append(nn.Linear(fan_in, fan_out, bias=not norm))
            if norm:
                layers.append(nn.BatchNorm1d(fan_out))
            layers += [nn.ReLU(), nn.Dropout(dropout)]
        self.backbone = nn.Sequential(*layers)
        self.classifier = nn.Linear((in_features, *hidden)[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Maps samples ``[B, ...]`` of ``in_features`` values each to logits ``[B, num_classes]``."""
        flat = x.flatten(1)
        if flat.shape[1] != self.in_features:
            raise ValueError(
                f"in_features={self.in_features} does not fit samples of shape {tuple(x.shape[1:])}. "
                f"Build the MLP with in_features={flat.shape[1]}."
            )
        logits: Tensor = self.classifier(self.backbone(flat))
        return logits
