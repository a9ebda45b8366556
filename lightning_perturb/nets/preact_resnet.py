"""The pre-activation ResNet-18 for small images (He et al., Identity Mappings in Deep Residual Networks, 2016)."""

from torch import nn

from lightning_perturb.checks import check_positive
from lightning_perturb.nets._blocks import PreActBlock
from lightning_perturb.nets._pooled import PooledNet, conv3x3, stages


class PreActResNet18(PooledNet):
    """Pre-activation ResNet-18 with a 3x3 stem and no max-pooling: 11.2 M parameters, 512 features.

    The stem is a bare convolution and the last stage is followed by batch norm and ReLU, as in the paper's appendix.
    Takes images of any size.

    Args:
        num_classes: number of classes.
        in_channels: channels of the images.
    """

    def __init__(self, num_classes: int, in_channels: int = 3) -> None:
        check_positive("in_channels", in_channels)
        backbone = {
            "stem": conv3x3(in_channels, 64),
            **stages(PreActBlock, 64, (64, 128, 256, 512), (2, 2, 2, 2)),
            "norm": nn.BatchNorm2d(512),
            "relu": nn.ReLU(),
        }
        super().__init__(backbone, 512, num_classes)
