"""Three methods that perturb logits, and whose losses they raise."""

from functools import partial

from matplotlib.figure import Figure

from lightning_perturb.figures.papers._training import balanced, long_tail, quiet, variation_figure, variations
from lightning_perturb.methods import ISDA, LDAM, LogitAdjustment


def draw() -> Figure:
    """Relative loss variation of each class under ISDA, LA and LDAM, on digits, balanced or not [lpl Fig. 1]."""
    # LDAM as the equation is written, without cosines
    ldam = partial(LDAM, cosine=False, margin=0.5)
    with quiet():
        return variation_figure(
            variations("ISDA, balanced", ISDA, balanced, epochs=30),
            variations("ISDA, long tail", ISDA, long_tail, epochs=30),
            variations("LA, long tail", LogitAdjustment, long_tail, epochs=30),
            variations("LDAM, long tail", ldam, long_tail, epochs=30),
        )
