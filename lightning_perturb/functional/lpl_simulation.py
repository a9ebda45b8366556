"""The errors of [lpl Theorems 1-3] found on drawn samples, with nothing of the theorems' derivation but its setting."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_perturb.checks import check_positive


def simulated_errors(
    minus: float,
    plus: float,
    gamma: float,
    d: int = 2,
    eta: float = 1.0,
    sigma: float = 1.0,
    K: float = 1.0,
    samples: int = 500_000,
    generator: torch.Generator | None = None,
) -> tuple[float, float]:
    """The natural errors of the threshold that is best on perturbed training samples.

    Training samples of both classes are drawn [lpl 16, 17], their logits w^T x with w = 1 are perturbed [lpl 18, 19],
    and b is the one with the fewest errors on them [lpl 20, 22, 24] among all whose threshold lies between the means of
    the perturbed classes. The errors are those on as many samples drawn anew.

    Args:
        minus: Perturbation of the class -1: epsilon_- where its loss is raised, minus epsilon_- where it is lowered.
        plus: Perturbation of the class +1, likewise.
        gamma: Gamma, how many times as common the class -1 is, above 0.
        d: The dimension, at least 1.
        eta: Each coordinate of the mean, above 0.
        sigma: The standard deviation of the class +1, above 0.
        K: How many times as wide the class -1 is, above 0; 1 in Theorems 1 and 2.
        samples: Training samples of both classes together, at least 1 000.
        generator: Source of the samples; None takes PyTorch's own.

    Returns:
        The errors of the classes -1 and +1.

    Raises:
        ValueError: If a number is outside its range or a class is perturbed beyond the other's mean.
    """
    for name, value in (("gamma", gamma), ("d", d), ("eta", eta), ("sigma", sigma), ("K", K)):
        check_positive(name, value)
    if samples < 1000:
        raise ValueError(f"samples={samples} are too few to find a threshold. Draw at least 1000.")
    low, high = minus - d * eta, d * eta - plus
    if not low < high:
        raise ValueError(
            f"The perturbations {plus:g} and {minus:g} move the class means past each other (2 d eta = "
            f"{2 * d * eta:g}). Lower them."
        )
    rare = max(round(samples / (1 + gamma)), 1)

    def logits(sign: int, number: int) -> Tensor:
        width = sigma if sign > 0 else K * sigma
        x = sign * eta + width * torch.randn(number, d, dtype=torch.float64, generator=generator)
        return x.sum(dim=1)

    threshold = _best_threshold(logits(-1, samples - rare) + minus, logits(1, rare) - plus, low, high)
    wrong_minus = (logits(-1, samples - rare) > threshold).double().mean()
    wrong_plus = (logits(1, rare) <= threshold).double().mean()
    return float(wrong_minus), float(wrong_plus)


def _best_threshold(negatives: Tensor, positives: Tensor, low: float, high: float) -> float:
    """The threshold in ``[low, high]`` with the smallest share of negatives above it and positives below it.

    The share is smoothed about its minimum: there it is flat, and the lowest of its steps lies far from the middle.
    """
    grid = torch.linspace(low, high, 2001, dtype=torch.float64)
    # how many samples each threshold has below it, counted without sorting them
    below = [
        torch.bincount(torch.bucketize(values, grid), minlength=len(grid) + 1).cumsum(0)[:-1].double()
        for values in (negatives, positives)
    ]
    share = (len(negatives) - below[0] + below[1]) / (len(negatives) + len(positives))
    near = torch.nonzero(share <= share.min() + 0.01).flatten()
    chosen = slice(int(near[0]), int(near[-1]) + 1)
    if chosen.stop - chosen.start < 10:
        return float(grid[share.argmin()])
    place = torch.linspace(-1, 1, chosen.stop - chosen.start, dtype=torch.float64)
    powers = torch.stack([place**n for n in range(4)], dim=1)
    cubic = powers @ torch.linalg.lstsq(powers, share[chosen, None]).solution
    return float(grid[chosen][cubic.argmin()])
