"""Self-paced weights and the loss ratio of MixPert's positive part [tax Figs. 11, 12]."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure
from torch import Tensor

from lightning_perturb.checks import check_positive
from lightning_perturb.figures.style import COLORS, LINES, mark, plot
from lightning_perturb.functional import (
    cross_entropy,
    linear_spl_weights,
    logarithmic_spl_weights,
    loss_ratio,
    mixture_spl_weights,
    spl_weights,
)


def spl_weight_curves(lam: float = 0.8, lam_low: float = 0.4, highest: float = 1.0) -> Figure:
    """Sample weights of self-paced learning and its soft variants by the loss [tax Fig. 11].

    Args:
        lam: The age lambda in (0, 1), from which the weights are 0.
        lam_low: Loss up to which the mixture's weight is 1, below ``lam``.
        highest: Largest loss that is drawn.

    Raises:
        ValueError: If not ``0 < lam_low < lam < 1``, or ``highest`` is not positive.
    """
    check_positive("highest", highest)
    loss = torch.linspace(0, highest, 2001, dtype=torch.float64)
    figure, axes = plot("loss $l$", "weight $w$")
    curves = {
        "hard": spl_weights(loss, lam),
        "linear": linear_spl_weights(loss, lam),
        "logarithmic": logarithmic_spl_weights(loss, lam),
        "mixture": mixture_spl_weights(loss, lam, lam_low),
    }
    for number, (name, weights) in enumerate(curves.items()):
        axes.plot(
            loss.numpy(), weights.numpy(), label=name, linewidth=1.8, color=COLORS[number], linestyle=LINES[number]
        )
    for value, name in ((lam, "$\\lambda$"), (lam_low, "$\\lambda_{low}$")):
        mark(axes, value, name)
    axes.set_xlim(0, highest)
    axes.set_ylim(-0.03, 1.13)
    axes.legend(frameon=False, fontsize="small", loc="lower left")
    return figure


def loss_ratio_curve(logits: Tensor, target: Tensor, eta: float, tau: float) -> Figure:
    """Perturbed over original loss by the original loss, at fixed η and τ [tax Fig. 12].

    Args:
        logits: Logits u of the samples ``[N, C]``.
        target: Class ids ``[N]``.
        eta: Step of the perturbation; above twice the largest norm of the logits it acts like self-paced weights.
        tau: Loss from which a sample is perturbed.

    Raises:
        ValueError: If ``eta`` or ``tau`` is negative or the shapes do not fit.
    """
    loss = cross_entropy(logits.detach(), target).double().cpu()
    ratio = loss_ratio(logits, target, eta, tau).double().cpu()
    order = loss.argsort()
    figure, axes = plot("original loss $l$", "perturbed loss / original loss")
    axes.plot(loss[order].numpy(), ratio[order].numpy(), ".", markersize=3, color=COLORS[0], rasterized=True)
    mark(axes, tau, "$\\tau$")
    axes.set_xlim(left=0)
    axes.set_ylim(-0.03, 1.13)
    axes.set_title(f"$\\eta$ = {eta:.4g}, $\\tau$ = {tau:.4g}, {len(loss):,} samples", fontsize="small")
    return figure
