"""ISDA+LPL by cooperation."""

from lightning_perturb.core import Coordinates
from lightning_perturb.methods.isda import ISDA
from lightning_perturb.methods.lpl import LPL


class ISDALPL(LPL, ISDA):
    """ISDA+LPL: the perturbation of LPL starts from the logits that ISDA has raised.

    With bounds of 0 it is ISDA, with λ of 0 LPL.

    Args:
        **kwargs: Arguments of :class:`~lightning_perturb.methods.LPL` and of :class:`~lightning_perturb.methods.ISDA`.
    """

    coordinates = Coordinates.of("logit", ("positive", "negative"), ("prior", "adversarial"), "category")
    paper = "lpl"
