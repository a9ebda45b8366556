"""The CIFAR ResNets of depth 6n + 2 (He et al., Deep Residual Learning for Image Recognition, 2016, section 4.2)."""

from collections.abc import Callable
from functools import partial

from torch import nn

from lightning_perturb.checks import check_positive, check_rate
from lightning_perturb.nets._blocks import BasicBlock, PadShortcut
from lightning_perturb.nets._pooled import PooledNet, conv_norm_relu, stages


def cifar_backbone(depth: int, in_channels: int, block: Callable[[int, int, int], nn.Module]) -> dict[str, nn.Module]:
    """A 3x3 stem and three stages of 16, 32 and 64 channels.

    Args:
        depth: number of weighted layers, 6n + 2 with n blocks a stage.
        in_channels: channels of the images.
        block: makes one block from its input channels, output channels and stride.

    Raises:
        ValueError: if ``depth`` is not 6n + 2 with n of at least 1.
    """
    check_positive("in_channels", in_channels)
    blocks, rest = divmod(depth - 2, 6)
    if blocks < 1 or rest:
        raise ValueError(f"depth={depth} is not 6n + 2. Choose 8, 14, 20, 32, 44, 56, 110 or another 6n + 2.")
    return {"stem": conv_norm_relu(in_channels, 16), **stages(block, 16, (16, 32, 64), (blocks,) * 3)}


class CifarResNet(PooledNet):
    """The CIFAR ResNet of depth 6n + 2: a 3x3 stem, three stages of 16, 32 and 64 channels, parameter-free shortcuts.

    Takes images of any size; 64 features.

    Args:
        depth: number of weighted layers, 6n + 2 with n blocks a stage: 8, 14, 20, 32, 44, 56, 110, ...
        num_classes: number of classes.
        in_channels: channels of the images.
        dropout: rate of the dropout between the two convolutions of a block, from 0 to 1.

    Raises:
        ValueError: if ``depth`` is not 6n + 2 with n of at least 1, or ``dropout`` is outside 0..1.
    """

    def __init__(self, depth: int, num_classes: int, in_channels: int = 3, dropout: float = 0.0) -> None:
        check_rate("dropout", dropout)
        block = partial(BasicBlock, shortcut=PadShortcut, dropout=dropout)
        super().__init__(cifar_backbone(depth, in_channels, block), 64, num_classes)


class ResNet20(CifarResNet):
    """The CIFAR ResNet of depth 20: 0.27 M parameters, 64 features.

    Args:
        num_classes: number of classes.
        in_channels: channels of the images.
        dropout: rate of the dropout between the two convolutions of a block, from 0 to 1.
    """

    def __init__(self, num_classes: int, in_channels: int = 3, dropout: float = 0.0) -> None:
        super().__init__(20, num_classes, in_channels, dropout)


class ResNet32(CifarResNet):
    """The CIFAR ResNet of depth 32: 0.46 M parameters, 64 features.

    Args:
        num_classes: number of classes.
        in_channels: channels of the images.
        dropout: rate of the dropout between the two convolutions of a block, from 0 to 1.
    """

    def __init__(self, num_classes: int, in_channels: int = 3, dropout: float = 0.0) -> None:
        super().__init__(32, num_classes, in_channels, dropout)


class ResNet44(CifarResNet):
    """The CIFAR ResNet of depth 44: 0.66 M parameters, 64 features.

    Args:
        num_classes: number of classes.
        in_channels: channels of the images.
        dropout: rate of the dropout between the two convolutions of a block, from 0 to 1.
    """

    def __init__(self, num_classes: int, in_channels: int = 3, dropout: float = 0.0) -> None:
        super().__init__(44, num_classes, in_channels, dropout)


class ResNet56(CifarResNet):
    """The CIFAR ResNet of depth 56: 0.85 M parameters, 64 features.

    Args:
        num_classes: number of classes.
        in_channels: channels of the images.
        dropout: rate of the dropout between the two convolutions of a block, from 0 to 1.
    """

    def __init__(self, num_classes: int, in_channels: int = 3, dropout: float = 0.0) -> None:
        super().__init__(56, num_classes, in_channels, dropout)


class ResNet110(CifarResNet):
    """The CIFAR ResNet of depth 110: 1.73 M parameters, 64 features.

    Args:
        num_classes: number of classes.
        in_channels: channels of the images.
        dropout: rate of the dropout between the two convolutions of a block, from 0 to 1.
    """

    def __init__(self, num_classes: int, in_channels: int = 3, dropout: float = 0.0) -> None:
        super().__init__(110, num_classes, in_channels, dropout)
