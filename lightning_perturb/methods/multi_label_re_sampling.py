"""Class-aware re-sampling of several labels, over binary cross-entropy and the focal loss."""

from lightning_perturb.core import MultiLabelModule
from lightning_perturb.methods.multi_label_focal import MultiLabelFocal
from lightning_perturb.methods.resampling import ReSampling


class MultiLabelReSampling(ReSampling, MultiLabelModule):
    """Binary cross-entropy on batches into which every class is drawn alike often [lpl Table V, RS].

    Args:
        **kwargs: Arguments of :class:`~lightning_perturb.methods.ReSampling` and
            :class:`~lightning_perturb.core.MultiLabelModule`.
    """


class MultiLabelReSamplingFocal(ReSampling, MultiLabelFocal):
    """The focal loss on batches into which every class is drawn alike often [lpl Table V, RS-Focal].

    Args:
        **kwargs: Arguments of :class:`~lightning_perturb.methods.ReSampling` and
            :class:`~lightning_perturb.methods.MultiLabelFocal`.
    """
