"""Cross-entropy, the loss that every method perturbs."""

from lightning_perturb.core import PerturbationModule


class CrossEntropy(PerturbationModule):
    """Plain cross-entropy on the given labels [tax 1]: the base with nothing perturbed.

    Args:
        **kwargs: Arguments of :class:`~lightning_perturb.core.PerturbationModule`.
    """
