"""Self-paced learning and its soft variants."""

from matplotlib.figure import Figure

from lightning_perturb.figures.self_paced import spl_weight_curves


def draw() -> Figure:
    """Sample weights of self-paced learning by the loss [tax Fig. 11]."""
    return spl_weight_curves()
