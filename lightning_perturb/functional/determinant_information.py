"""DMI: the determinant of the joint distribution of prediction and label, which label noise only scales."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_perturb.checks import check_choice, check_positive
from lightning_perturb.functional._arguments import check_ids, check_logits

MISSING = ("present", "skip")


def joint_distribution(logits: Tensor, target: Tensor) -> Tensor:
    """The mean over the batch of label x prediction, U[y, k] = 1/B sum_i [y_i = y] p_i[k], in double precision.

    Args:
        logits: u, [B, C].
        target: Class ids, [B] (int64).

    Returns:
        U, [C, C]; rows are labels, columns predictions. All entries together sum to 1.

    Raises:
        ValueError: If the shapes or dtypes do not fit.
    """
    check_logits(logits)
    check_ids(target, logits.shape[0])
    batch, classes = logits.shape
    prob = torch.softmax(logits.double(), 1)
    return prob.new_zeros(classes, classes).index_add(0, target, prob) / max(batch, 1)


def dmi_loss(logits: Tensor, target: Tensor, missing: str = "present", floor: float = 1e-3) -> Tensor:
    """-log |det U| of the joint distribution U of label and prediction (Xu et al., 2019): DMI in [iada Table 5].

    Labels that are noisy whatever the sample turn U into T'U, so the loss moves by the constant -log |det T| and its
    gradient not at all. Exchanging the classes of the predictions does not change it either: start from a network that
    knows its classes. It is a number of the batch, not a mean over samples.

    The gradient grows without bound where predictions of two classes become alike. The published code therefore takes
    the logarithm of |det (B U)| + 0.001; so does this, less the constant C log B. The determinant comes from a QR
    decomposition in double precision, and its logarithm underflows nowhere.

    Args:
        logits: u, [B, C].
        target: Class ids, [B] (int64).
        missing: What a batch gives in which a class has no sample, so that det U = 0. ``present``: the volume of the
            rows that there are, sqrt(det U_S U_S'), which is |det U| where all are; ours. ``skip``: 0, since the
            published loss is a constant there. A batch of less than two classes tells nothing and always gives 0.
        floor: What is added to the determinant of the counts, at least 0; 0 gives the formula.

    Returns:
        The loss, a number, float64. Where two classes have exactly the same predictions it has no gradient, and is
        infinite without a floor.

    Raises:
        ValueError: If missing is unknown, floor negative, or the shapes or dtypes do not fit.
    """
    check_choice("missing", missing, MISSING)
    check_positive("floor", floor, zero=True)
    joint = joint_distribution(logits, target)
    present = torch.zeros(len(joint), dtype=torch.bool, device=joint.device).index_fill(0, target, True)
    rows = joint[present]
    if len(rows) < 2 or (missing == "skip" and len(rows) < len(joint)):
        return rows.sum() * 0.0
    size = len(rows) * math.log(len(target))
    lowest = math.log(floor) - size if floor else -math.inf
    lengths: Tensor = torch.linalg.qr(rows.t()).R.diagonal().abs()
    if not bool(lengths.all()):
        return rows.sum() * 0.0 - lowest
    volume = lengths.log().sum()
    return -torch.logaddexp(volume, volume.new_tensor(lowest)) if floor else -volume
