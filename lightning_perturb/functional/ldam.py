"""LDAM: margins that are larger for rarer classes [lpl 8]."""

from __future__ import annotations

from torch import Tensor

from lightning_perturb.checks import check_positive
from lightning_perturb.functional._arguments import check_ids, check_logits, upcast
from lightning_perturb.functional._counts import check_counts


def ldam_margins(counts: Tensor, largest: float = 0.5) -> Tensor:
    """The margins m_c proportional to n_c^(-1/4), the rarest class having the largest.

    Args:
        counts: The numbers of samples n_c, [C], above 0.
        largest: The margin of the rarest class, above 0.

    Returns:
        [C], float32 (float64 for float64 counts).

    Raises:
        ValueError: If largest is not positive or a class has no samples.
    """
    check_positive("largest", largest)
    check_counts(counts)
    margins = (counts if counts.is_floating_point() else counts.float()).pow(-0.25)
    return margins * (largest / margins.max())


def ldam_logits(logits: Tensor, target: Tensor, margins: Tensor, scale: float = 30.0) -> Tensor:
    """scale (u - m_y e_y), whose cross-entropy is the LDAM loss [lpl 8].

    The authors take cosines for u (``cosine_logits``) and the scale 30; the equation is that of scale 1.

    Args:
        logits: u, [B, C].
        target: Class ids, [B] (int64).
        margins: m_c, [C], see ``ldam_margins``.
        scale: s, above 0.

    Returns:
        [B, C]; float32 for half-precision logits.

    Raises:
        ValueError: If scale is not positive or the shapes or dtypes do not fit.
    """
    check_positive("scale", scale)
    check_logits(logits)
    check_ids(target, logits.shape[0])
    if margins.shape != logits.shape[1:]:
        raise ValueError(f"margins have the shape {tuple(margins.shape)} where [{logits.shape[1]}] is needed.")
    logits = upcast(logits)
    lowered = -margins[target].to(logits.dtype).unsqueeze(1)
    return scale * logits.scatter_add(1, target.unsqueeze(1), lowered)
