"""Wide ResNets (Zagoruyko and Komodakis, Wide Residual Networks, 2016)."""

from functools import partial

from torch import nn

from lightning_perturb.checks import check_positive, check_rate
from lightning_perturb.nets._blocks import PreActBlock
from lightning_perturb.nets._pooled import PooledNet, conv3x3, stages


class WideResNet(PooledNet):
    """The wide ResNet WRN-depth-k: pre-activation blocks in three stages of 16k, 32k and 64k channels.

    Takes images of any size; 64k features.

    Args:
        depth: number of weighted layers, 6n + 4 with n blocks a stage: 10, 16, 22, 28, 40, ...
        widen_factor: the factor k that widens the stages.
        num_classes: number of classes.
        in_channels: channels of the images.
        dropout: rate of the dropout between the two convolutions of a block, from 0 to 1.

    Raises:
        ValueError: if ``depth`` is not 6n + 4 with n of at least 1, or ``dropout`` is outside 0..1.
    """

    def __init__(
        self, depth: int, widen_factor: int, num_classes: int, in_channels: int = 3, dropout: float = 0.0
    ) -> None:
        check_positive("in_channels", in_channels)
        check_positive("widen_factor", widen_factor)
        check_rate("dropout", dropout)
        blocks, rest = divmod(depth - 4, 6)
        if blocks < 1 or rest:
            raise ValueError(f"depth={depth} is not 6n + 4. Choose 10, 16, 22, 28, 40 or another 6n + 4.")
        widths = (16 * widen_factor, 32 * widen_factor, 64 * widen_factor)
        backbone = {
            "stem": conv3x3(in_channels, 16),
            **stages(partial(PreActBlock, dropout=dropout), 16, widths, (blocks,) * 3),
            "norm": nn.BatchNorm2d(widths[-1]),
            "relu": nn.ReLU(),
        }
        super().__init__(backbone, widths[-1], num_classes)


class WRN28_10(WideResNet):
    """WRN-28-10: 36.5 M parameters, 640 features.

    Args:
        num_classes: number of classes.
        in_channels: channels of the images.
        dropout: rate of the dropout between the two convolutions of a block, from 0 to 1.
    """

    def __init__(self, num_classes: int, in_channels: int = 3, dropout: float = 0.0) -> None:
        super().__init__(28, 10, num_classes, in_channels, dropout)


class WRN16_8(WideResNet):
    """WRN-16-8: 11.0 M parameters, 512 features.

    Args:
        num_classes: number of classes.
        in_channels: channels of the images.
        dropout: rate of the dropout between the two convolutions of a block, from 0 to 1.
    """

    def __init__(self, num_classes: int, in_channels: int = 3, dropout: float = 0.0) -> None:
        super().__init__(16, 8, num_classes, in_channels, dropout)
