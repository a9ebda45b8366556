"""Strategies of IADA that are given and not learned: from what is known of a batch to each sample's epsilon, [B].

Above 0 a sample is perturbed adversarially, below 0 anti-adversarially. The rules are ours: the paper learns epsilon,
and shows which signs come out [iada Figs. 1, 3, 4].
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_perturb.functional.characteristics import Observation


def tail_adversarial(seen: Observation) -> Tensor:
    """From -1 for the most frequent class to 1 for the rarest, linear in the log of the frequency; 0 if all are equal.

    What the paper's figures 1 and 3 show: the rarer the class, the more of its samples are adversarial.
    """
    low, high = seen.log_prior.aminmax()
    centred = (high + low) - 2 * seen.log_prior[seen.target]
    return centred / (high - low).clamp(min=torch.finfo(centred.dtype).tiny)


def doubted_anti_adversarial(seen: Observation) -> Tensor:
    """2 p_y - 1 at the sample's history of p_y, or at its present p_y where none is kept.

    What the paper's figure 4 shows: samples whose label the network keeps contradicting are anti-adversarial.
    """
    trust = seen.losses.neg().exp() if seen.history is None else seen.history
    return 2 * trust - 1


def all_adversarial(seen: Observation) -> Tensor:
    """1 for every sample: all are made harder."""
    return torch.ones_like(seen.losses)


def all_anti_adversarial(seen: Observation) -> Tensor:
    """-1 for every sample: all are made easier."""
    return -torch.ones_like(seen.losses)
