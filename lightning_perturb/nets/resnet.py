"""The ImageNet ResNets of basic blocks with a stem for small images: 3x3, stride 1, no max-pooling."""

from functools import partial

from lightning_perturb.checks import check_positive
from lightning_perturb.nets._blocks import BasicBlock, ProjectionShortcut
from lightning_perturb.nets._pooled import PooledNet, conv_norm_relu, stages


class ResNet(PooledNet):
    """A ResNet of basic blocks for small images: a 3x3 stem, stages of 64, 128, 256 and 512 channels, 1x1 shortcuts.

    The stages are those of He et al., Deep Residual Learning for Image Recognition, 2016, Table 1. The stem keeps the
    image's size, as usual for images of 32x32. Takes images of any size; 512 features.

    Args:
        blocks: number of blocks of each of the four stages: 2, 2, 2, 2 is ResNet-18.
        num_classes: number of classes.
        in_channels: channels of the images.

    Raises:
        ValueError: if a stage has no block.
    """

    def __init__(self, blocks: tuple[int, int, int, int], num_classes: int, in_channels: int = 3) -> None:
        check_positive("in_channels", in_channels)
        if len(blocks) != 4 or min(blocks) < 1:
            raise ValueError(f"blocks={blocks} must hold four numbers of at least 1, one for each stage.")
        backbone = {
            "stem": conv_norm_relu(in_channels, 64),
            **stages(partial(BasicBlock, shortcut=ProjectionShortcut), 64, (64, 128, 256, 512), blocks),
        }
        super().__init__(backbone, 512, num_classes)


class ResNet18(ResNet):
    """ResNet-18 with a 3x3 stem and no max-pooling: 11.2 M parameters, 512 features.

    Args:
        num_classes: number of classes.
        in_channels: channels of the images.
    """

    def __init__(self, num_classes: int, in_channels: int = 3) -> None:
        super().__init__((2, 2, 2, 2), num_classes, in_channels)


class ResNet34(ResNet):
    """ResNet-34 with a 3x3 stem and no max-pooling: 21.3 M parameters, 512 features.

    Args:
        num_classes: number of classes.
        in_channels: channels of the images.
    """

    def __init__(self, num_classes: int, in_channels: int = 3) -> None:
        super().__init__((3, 4, 6, 3), num_classes, in_channels)
