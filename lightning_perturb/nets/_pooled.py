"""What the convolutional networks share: named stages, global average pooling and a linear classifier."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn

from lightning_perturb.checks import check_positive


class PooledNet(nn.Module):
    """A convolutional backbone, global average pooling and an ``nn.Linear`` on the pooled features.

    Convolutions start from a Kaiming normal over their fan-out, which keeps the gradient's variance through ReLUs.
    The layers are named (``backbone.stage2``, ``classifier``), so that they can be addressed from a config.

    Args:
        backbone: the layers in order, by name; maps ``[B, in_channels, H, W]`` to ``[B, width, h, w]``.
        width: number of pooled features, that is of channels that the backbone ends with.
        num_classes: number of classes.
    """

    def __init__(self, backbone: Mapping[str, nn.Module], width: int, num_classes: int) -> None:
        check_positive("num_classes", num_classes)
        super().__init__()
        self.backbone = nn.Sequential(OrderedDict(backbone))
        self.classifier = nn.Linear(width, num_classes)
        for module in self.backbone.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Maps images ``[B, in_channels, H, W]`` to logits ``[B, num_classes]``."""
        logits: Tensor = self.classifier(self.backbone(x).mean(dim=(2, 3)))
        return logits


def conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size at stride 1; without a bias, since batch norm follows."""
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)


def conv1x1(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """A 1x1 convolution without a bias, the projection of a shortcut."""
    return nn.Conv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False)


def conv_norm_relu(in_channels: int, out_channels: int) -> nn.Sequential:
    """A 3x3 convolution, batch norm and ReLU."""
    return nn.Sequential(conv3x3(in_channels, out_channels), nn.BatchNorm2d(out_channels), nn.ReLU())


def stages(
    block: Callable[[int, int, int], nn.Module], in_channels: int, widths: Sequence[int], depths: Sequence[int]
) -> dict[str, nn.Module]:
    """Builds stages of residual blocks, named ``stage1``, ``stage2``, ...; each but the first halves the size.

    Args:
        block: makes one block from its input channels, output channels and stride.
        in_channels: channels that enter the first stage.
        widths: output channels of each stage.
        depths: number of blocks of each stage.
    """
    built: dict[str, nn.Module] = {}
    for number, (width, depth) in enumerate(zip(widths, depths, strict=True), start=1):
        first = block(in_channels, width, 1 if number == 1 else 2)
        built[f"stage{number}"] = nn.Sequential(first, *(block(width, width, 1) for _ in range(depth - 1)))
        in_channels = width
    return built
