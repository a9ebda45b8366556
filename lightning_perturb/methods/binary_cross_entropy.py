"""Binary cross-entropy, the plain loss of several labels at once."""

from lightning_perturb.core import MultiLabelModule


class BinaryCrossEntropy(MultiLabelModule):
    """Plain training on the given labels of every class: empirical risk minimisation [lpl Table V, ERM].

    Args:
        **kwargs: Arguments of :class:`~lightning_perturb.core.MultiLabelModule`.
    """
