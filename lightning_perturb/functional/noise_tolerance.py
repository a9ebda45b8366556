"""Noise tolerance of robust losses: the bounds of [narl Theorems 1-4] and a numerical check of the risks they bound.

f* minimises the risk R on clean labels and f^ the risk R^eta on noisy ones. A loss is noise-tolerant [narl
Definition 1] where R^eta(f*) - R^eta(f^) is 0. All bounds are products of a property of the noise and of the loss's
``spread``: how far the sum of the loss over all labels can vary with the prediction (0 for a symmetric loss [narl
Definition 2], finite for a bounded one [narl Definition 3]).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from lightning_perturb.checks import check_positive, check_range
from lightning_perturb.functional.js import js_loss

Loss = Callable[[Tensor, Tensor], Tensor]


def gce_spread(num_classes: int, q: float) -> float:
    """(c^(1 - q) - 1) / q, the spread of GCE [narl Theorem 1 (1)], drawn over c in Fig. 3 (a).

    Args:
        num_classes: c, at least 2.
        q: The loss's hyperparameter, in (0, 1]; the spread is 0 at 1 and grows without bound towards 0.

    Returns:
        The spread, at least 0.

    Raises:
        ValueError: If an argument is outside its range.
    """
    _check_classes(num_classes)
    check_range("q", q, 0.0, 1.0, open_low=True)
    return math.expm1((1 - q) * math.log(num_classes)) / q


def rce_spread() -> float:
    """0, the spread of reverse cross-entropy, which is symmetric [narl Theorem 1 (2)].

    Returns:
        0.
    """
    return 0.0


def polysoft_spread(num_classes: int, lam: float, d: float) -> float:
    """(d - 1) / d max_k k (lam - log k) over k = 1..c, an upper bound of PolySoft's spread [narl Theorem 1 (3)].

    From lam = 1 + log c on the maximum is at k = c, which is the printed c (d - 1) / d (lam - log c). Below, the
    printed one is too small: the proof of [narl Lemma 1] uses (1 - CE / lam)^(d / (d - 1)) <= 1 - CE / lam for all
    classes, but those with CE >= lam contribute lam only, so predictions that leave k < c classes a chance have a
    smaller sum. (With lam = log c it is 0, yet five classes, d = 20 and eta = .79 give a gap of .023.) The last step
    of that proof is also printed with lam for log c.

    Args:
        num_classes: c, at least 2.
        lam: The loss's threshold, above 0.
        d: The loss's degree, above 1.

    Returns:
        The bound, above 0.

    Raises:
        ValueError: If an argument is outside its range.
    """
    _check_classes(num_classes)
    check_positive("lam", lam)
    check_range("d", d, 1.0, math.inf, open_low=True, open_high=True)
    return (d - 1) / d * max(k * (lam - math.log(k)) for k in range(1, num_classes + 1))


def js_spread(num_classes: int, pi1: float) -> float:
    """sum_i L(e_i, e_1) - sum_i L(e_i, u) with uniform u, the spread of JS [narl Theorem 1 (4)], in Fig. 3 (b).

    Args:
        num_classes: c, at least 2.
        pi1: The loss's hyperparameter, in (0, 1].

    Returns:
        The spread, at least 0.

    Raises:
        ValueError: If an argument is outside its range.
    """
    _check_classes(num_classes)
    check_range("pi1", pi1, 0.0, 1.0, open_low=True)
    # the loss depends on p_y alone, so two logits stand for all classes: p_y = 0, and p_y = 1 / c
    rivals = torch.tensor([[0.0, 1e4], [0.0, math.log(num_classes - 1)]], dtype=torch.float64)
    wrong, uniform = js_loss(rivals, torch.zeros(2, dtype=torch.int64), pi1)
    return float((num_classes - 1) * wrong - num_classes * uniform)


def symmetric_noise_bounds(spread: float, eta: float, num_classes: int) -> tuple[float, float]:
    """How far symmetric noise can lead a loss astray [narl Theorem 1].

    Args:
        spread: The loss's spread S.
        eta: The noise rate, the probability of another class, from 0 to 1 - 1 / c.
        num_classes: c, at least 2.

    Returns:
        A = eta S / (c - 1), with 0 <= R^eta(f*) - R^eta(f^) <= A, and A' = -eta S / (c - 1 - eta c), with
        A' <= R(f*) - R(f^) <= 0; A' is -inf at eta = 1 - 1 / c, unless S is 0.

    Raises:
        ValueError: If an argument is outside its range.
    """
    check_positive("spread", spread, zero=True)
    _check_eta(eta, num_classes)
    if not spread * eta:
        return 0.0, 0.0
    room = num_classes - 1 - eta * num_classes
    return eta * spread / (num_classes - 1), -eta * spread / room if room > 0 else -math.inf


def class_conditional_noise_bound(spread: float, transition: Tensor, priors: Tensor | None = None) -> float:
    """How far class-conditional noise can lead a loss astray where the clean risk can reach 0 [narl Theorem 2].

    Args:
        spread: The loss's spread S.
        transition: eta_ij = P(given label j | true class i), [C, C], each class most likely given as itself.
        priors: The probabilities of the true classes, [C]; none is uniform.

    Returns:
        B = S E(1 - eta_x), with 0 <= R^eta(f*) - R^eta(f^) <= B.

    Raises:
        ValueError: If the spread is negative or the matrix does not meet the theorem's condition.
    """
    check_positive("spread", spread, zero=True)
    _check_transition(transition)
    kept = transition.diagonal().double()
    if priors is None:
        return spread * float(kept.mean())
    if priors.shape != kept.shape:
        raise ValueError(f"priors has the shape {tuple(priors.shape)} where [{len(kept)}] is needed.")
    return spread * float(kept @ priors.double())


def oracle_symmetric_noise_bounds(eta: float, num_classes: int) -> tuple[float, float]:
    """The bounds under symmetric noise when clean and noisy samples have their own hyperparameters [narl Theorem 3].

    For GCE with q -> 0 on clean and q = 1 on noisy samples, and for JS with pi1 -> 0 and -> 1. PolySoft with lam of
    noisy samples below their cross-entropy is noise-tolerant: both bounds are 0. The theorem's second inequality is
    printed with its signs reversed; its proof gives the one below.

    Args:
        eta: The noise rate, from 0 to 1 - 1 / c.
        num_classes: c, at least 2.

    Returns:
        A = eta / (c - 1), with 0 <= R^eta(f*) - R^eta(f^) <= A, and A' = -eta / (c - 1 - c eta + eta), with
        A' <= R(f*) - R(f^) <= 0, R being the clean risk of cross-entropy.

    Raises:
        ValueError: If an argument is outside its range.
    """
    _check_eta(eta, num_classes)
    return eta / (num_classes - 1), -eta / ((num_classes - 1) * (1 - eta))


def oracle_class_conditional_noise_bound(transition: Tensor) -> float:
    """0: with their own hyperparameters GCE, PolySoft and JS are tolerant of class-conditional noise [narl Theorem 4].

    As Theorem 2, for a clean risk that can reach 0.

    Args:
        transition: eta_ij = P(given label j | true class i), [C, C], each class most likely given as itself.

    Returns:
        0.

    Raises:
        ValueError: If the matrix does not meet the theorem's condition.
    """
    _check_transition(transition)
    return 0.0


def symmetric_transition(num_classes: int, eta: float) -> Tensor:
    """The transition matrix of symmetric noise as [narl 2.1] defines it: eta / (c - 1) to every other class.

    Args:
        num_classes: c, at least 2.
        eta: The noise rate, from 0 to 1 - 1 / c.

    Returns:
        [C, C], float64.

    Raises:
        ValueError: If an argument is outside its range.
    """
    _check_eta(eta, num_classes)
    off = eta / (num_classes - 1)
    return torch.full((num_classes, num_classes), off, dtype=torch.float64).fill_diagonal_(1 - eta)


def pair_transition(num_classes: int, eta: float) -> Tensor:
    """The transition matrix of noise that turns each class into the next one with probability eta.

    Args:
        num_classes: c, at least 2.
        eta: The noise rate, in 0..1; the theorems ask for less than 0.5.

    Returns:
        [C, C], float64.

    Raises:
        ValueError: If an argument is outside its range.
    """
    _check_classes(num_classes)
    check_range("eta", eta, 0.0, 1.0)
    kept = torch.eye(num_classes, dtype=torch.float64)
    return (1 - eta) * kept + eta * kept.roll(1, 1)


def loss_sum_range(loss: Loss, num_classes: int, samples: int = 2000, seed: int = 0) -> tuple[float, float]:
    """The smallest and largest sum of a loss over all labels, over predictions of every kind [narl Definitions 2, 3].

    Equal ends make the loss symmetric; their difference is the spread, as far as random predictions show it.

    Args:
        loss: From logits [B, C] and class ids [B] to the losses [B].
        num_classes: c, at least 2.
        samples: The number of random predictions, beside the uniform and the certain ones.
        seed: Of the random predictions.

    Returns:
        The smallest and the largest sum.

    Raises:
        ValueError: If num_classes is below 2.
    """
    _check_classes(num_classes)
    sums = _losses_by_label(loss, _predictions(num_classes, samples, seed)).sum(1)
    return float(sums.min()), float(sums.max())


def noise_gaps(
    loss: Loss,
    transition: Tensor,
    noisy_loss: Loss | None = None,
    samples: int = 50,
    steps: int = 300,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """The risk differences that the theorems bound, by true class, found numerically.

    A network that can give any prediction to any sample minimises the risk sample by sample. For each true class i
    this searches the prediction f^ that minimises sum_j eta_ij L(f, j) (by gradient steps in the logits from certain
    and random predictions, and from those that are uniform over the most likely given labels) and compares it with
    f* = e_i, at which every loss here has its clean minimum. The theorems' risks are the means of the gaps over the
    classes. A loss is noise-tolerant where the first gap is 0.

    Logits are kept within +-30, so an unbounded loss has a large gap, not an infinite one.

    Args:
        loss: From logits [B, C] and class ids [B] to the losses [B], in float64.
        transition: eta_ij = P(given label j | true class i), [C, C].
        noisy_loss: The loss of samples whose given label is wrong; none is ``loss``. This is the oracle of [narl
            Theorems 3, 4].
        samples: The number of random starts.
        steps: The number of gradient steps.
        seed: Of the random starts.

    Returns:
        The noisy gaps R^eta(f*) - R^eta(f^) >= 0 and the clean gaps R(f*) - R(f^) <= 0 of the true classes, each [C].

    Raises:
        ValueError: If transition is not a matrix of transitions.
    """
    _check_square(transition)
    transition = transition.double()
    classes = len(transition)
    right = torch.eye(classes, dtype=torch.bool)
    # rank of each given label by its probability: predictions that are uniform over the first k of them
    rank = transition.argsort(1, descending=True).argsort(1)
    shared = torch.where(rank <= torch.arange(classes).view(-1, 1, 1), 0.0, -30.0).double()
    starts = torch.cat([shared, _predictions(classes, samples, seed).unsqueeze(1).expand(-1, classes, -1)])

    def risks(logits: Tensor) -> Tensor:
        """Noisy risks of logits [S, C, C], whose second dimension is the true class: [S, C]."""
        flat = logits.reshape(-1, classes)
        clean = _losses_by_label(loss, flat).view(logits.shape)
        wrong = clean if noisy_loss is None else _losses_by_label(noisy_loss, flat).view(logits.shape)
        return (transition * torch.where(right, clean, wrong)).sum(2)

    with torch.no_grad():
        certain = _certain(classes).unsqueeze(0)
        lowest = risks(certain)
    logits = starts.clone().requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.1)
    with torch.enable_grad():
        for _ in range(steps):
            optimizer.zero_grad()
            values = risks(logits.clamp(-30, 30))
            values.sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    with torch.no_grad():
        candidates = torch.cat([certain, logits.detach().clamp(-30, 30), starts])
        values = risks(candidates)
        # rounding must not make a worse prediction out of an equal one
        winner = torch.where(values < lowest - 1e-12, values, math.inf).min(0)
        found = winner.values < math.inf
        noisy = torch.where(found, lowest.squeeze(0) - winner.values, 0.0)
        own = torch.arange(classes)
        chosen = candidates[winner.indices, own]
        clean_gap = loss(_certain(classes), own) - loss(chosen, own)
        return noisy, torch.where(found, clean_gap, 0.0)


def _certain(num_classes: int) -> Tensor:
    """The logits of the certain predictions, [C, C]."""
    return torch.full((num_classes, num_classes), -30.0, dtype=torch.float64).fill_diagonal_(30.0)


def _predictions(num_classes: int, samples: int, seed: int) -> Tensor:
    """The logits of certain, uniform and random predictions, [S, C]; the random ones from flat to nearly certain."""
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(samples, num_classes, dtype=torch.float64, generator=generator)
    scale = 10 * torch.rand(samples, 1, dtype=torch.float64, generator=generator)
    uniform = torch.zeros(1, num_classes, dtype=torch.float64)
    return torch.cat([_certain(num_classes), uniform, (normal * scale).clamp(-30, 30)])


def _losses_by_label(loss: Loss, logits: Tensor) -> Tensor:
    """The loss under every label, [S, C]."""
    batch, classes = logits.shape
    labels = torch.arange(classes).repeat(batch)
    return loss(logits.repeat_interleave(classes, 0), labels).view(batch, classes)


def _check_classes(num_classes: int) -> None:
    if num_classes < 2:
        raise ValueError(f"num_classes={num_classes!r} must be at least 2.")


def _check_eta(eta: float, num_classes: int) -> None:
    _check_classes(num_classes)
    # 1 - 1 / c itself is allowed, whatever its rounding
    check_range("eta", eta, 0.0, 1 - 1 / num_classes + 1e-12)


def _check_square(transition: Tensor) -> None:
    if transition.ndim != 2 or transition.shape[0] != transition.shape[1] or len(transition) < 2:
        raise ValueError(f"transition has the shape {tuple(transition.shape)}. Give [C, C] with C of at least 2.")
    if (transition < 0).any() or not torch.allclose(transition.double().sum(1), torch.ones(len(transition)).double()):
        raise ValueError("transition must hold probabilities: at least 0, and 1 in the sum of each row.")


def _check_transition(transition: Tensor) -> None:
    _check_square(transition)
    kept = transition.diagonal()
    largest = transition.clone().fill_diagonal_(-1).amax(1)
    if not (largest < kept).all():
        worst = int((kept - largest).argmin())
        raise ValueError(
            f"transition turns class {worst} into another class with probability {float(largest[worst]):g}, not below "
            f"the {float(kept[worst]):g} with which it is kept. The theorem needs each class most likely kept."
        )
