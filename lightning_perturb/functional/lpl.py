"""LPL: class-level logit perturbation that raises the loss of some classes and lowers that of others [lpl 26-33].

A class whose loss is to rise (positively augmented in the paper's words, +1 here) is ascended, one whose loss is to
fall (-1) descended. The split into the two and the bounds of the perturbation are functions of their own.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lightning_perturb.checks import check_choice, check_positive
from lightning_perturb.functional._arguments import check_ids, check_logits, upcast
from lightning_perturb.functional._classes import present_classes
from lightning_perturb.functional._counts import check_counts
from lightning_perturb.functional._precision import full_precision

Split = Callable[[Tensor, Tensor], Tensor]


def lpl(
    logits: Tensor,
    target: Tensor,
    sign: Tensor | Split | None = None,
    steps: int | Tensor = 10,
    alpha: float = 0.01,
    grad_norm: str = "row",
    detach: bool = True,
) -> Tensor:
    """The class-level perturbation of the logits, by steps along each class's mean gradient [lpl 27-32, Algorithm 1].

    A step of class c is alpha sign_c times the mean of S(u) - e_y over its samples in the batch, scaled to unit
    length; its samples share the sum of K_c steps. So ||delta_c||_2 <= K_c alpha = epsilon_c, and delta_c sums to 0.
    Only classes in the batch are computed, O(steps B C). With several ranks give the logits and targets of all of
    them and keep the own rows of the result.

    Args:
        logits: u, [B, C].
        target: Class ids, [B] (int64).
        sign: +1 for classes whose loss is to rise, -1 for those whose loss is to fall, [C]; or a function from logits
            and target to it, which is asked again on the perturbed logits before every step. None splits by the mean
            confidence of the unperturbed logits [lpl 27].
        steps: K_c, a number for all classes or [C] (int64), see ``lpl_steps``; at least 0.
        alpha: The size of a step, above 0.
        grad_norm: ``"row"`` scales each class's gradient to unit length, ``"none"`` leaves it [lpl 31, 32] (it fades
            as the class is learnt), ``"column"`` divides by the norm of the matrix's column instead of its row, as the
            published code does.
        detach: Whether the perturbation is a constant in the logits. In the published long-tail code it is not.

    Returns:
        delta_{y_i}, to be added to the logits, [B, C]; float32 for half-precision logits.

    Raises:
        ValueError: If steps or alpha is outside its range, grad_norm is unknown or the shapes or dtypes do not fit.
    """
    check_logits(logits)
    check_ids(target, logits.shape[0])
    check_positive("alpha", alpha)
    check_choice("grad_norm", grad_norm, ("row", "none", "column"))
    _check_by_class("sign", sign, logits.shape[1])
    _check_by_class("steps", steps, logits.shape[1])
    if not isinstance(steps, Tensor) and steps < 0:
        raise ValueError(f"steps={steps!r} must be at least 0.")
    with torch.set_grad_enabled(torch.is_grad_enabled() and not detach), full_precision(logits):
        logits = upcast(logits)
        if not len(target):
            return torch.zeros_like(logits)
        if sign is None:
            sign = mean_confidence_split(logits, target)
        present, place, sizes = present_classes(target)
        limit = steps.to(target.device)[present] if isinstance(steps, Tensor) else torch.full_like(present, steps)
        # the mean over a class is a product: unlike a scatter it sums in the same order in every run
        member = place == torch.arange(len(present), device=place.device).unsqueeze(1)
        average = member.to(logits.dtype) / sizes.unsqueeze(1)
        delta = walked = logits.new_zeros(len(present), logits.shape[1])
        for k in range(int(limit.max())):
            shifted = logits + walked[place]
            gradient = (average @ torch.softmax(shifted, 1)).scatter_add(
                1, present.unsqueeze(1), logits.new_full((len(present), 1), -1.0)
            )
            direction = (sign if isinstance(sign, Tensor) else sign(shifted, target)).to(logits)[present]
            walked = walked + alpha * direction.unsqueeze(1) * _normalised(gradient, present, grad_norm)
            # classes that are done walk on, since others may depend on where they are (column norm, new split)
            delta = torch.where((limit > k).unsqueeze(1), walked, delta)
        return delta[place]


def class_confidence(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The mean probability of the given class over the samples of each class, q_c [lpl 28].

    Args:
        logits: u, [B, C].
        target: Class ids, [B] (int64).

    Returns:
        q_c, 0 for classes without samples, and the numbers of samples, each [C], detached.

    Raises:
        ValueError: If the shapes or dtypes do not fit.
    """
    check_logits(logits)
    check_ids(target, logits.shape[0])
    with torch.no_grad(), full_precision(logits):
        own = torch.softmax(upcast(logits), 1).gather(1, target.unsqueeze(1))
        member = target.unsqueeze(1) == torch.arange(logits.shape[1], device=target.device)
        samples = member.sum(0).to(own.dtype)
        return (own * member).sum(0) / samples.clamp(min=1), samples


def confidence_threshold(confidence: Tensor, samples: Tensor, absent: str = "mask") -> Tensor:
    """tau = mean_c q_c, the threshold of the split by confidence [lpl, after 28].

    Args:
        confidence: q_c, [C].
        samples: The number of samples of each class, [C].
        absent: ``"mask"`` takes the mean over the classes with samples; ``"zero"`` counts the others as 0, as the
            published code does, which lowers tau.

    Returns:
        tau, a scalar; 0 without any sample.

    Raises:
        ValueError: If absent is unknown.
    """
    check_choice("absent", absent, ("mask", "zero"))
    if absent == "zero":
        return confidence.mean()
    present = samples > 0
    return torch.where(present, confidence, 0.0).sum() / present.sum().clamp(min=1)


def confidence_split(confidence: Tensor, tau: float | Tensor) -> Tensor:
    """The split by confidence, S(tau - q_c) [lpl 27]: the loss of classes below the threshold is to rise.

    Args:
        confidence: q_c, [C].
        tau: The threshold; above all q_c it lets every loss rise, as ISDA does.

    Returns:
        +1 where q_c <= tau, else -1, [C].
    """
    return torch.where(confidence <= tau, 1.0, -1.0).to(confidence.dtype)


def mean_confidence_split(logits: Tensor, target: Tensor, absent: str = "mask") -> Tensor:
    """The split of a batch by its mean confidence [lpl 27, 28]; as a function it may be given to ``lpl``.

    Args:
        logits: u, [B, C].
        target: Class ids, [B] (int64).
        absent: As in ``confidence_threshold``.

    Returns:
        +1 or -1, [C].

    Raises:
        ValueError: If absent is unknown or the shapes or dtypes do not fit.
    """
    confidence, samples = class_confidence(logits, target)
    return confidence_split(confidence, confidence_threshold(confidence, samples, absent))


def frequency_rank(counts: Tensor) -> Tensor:
    """The rank of each class by its number of samples: 1 for the most frequent; of equals the smaller id is first.

    Args:
        counts: The numbers of samples, [C].

    Returns:
        Ranks from 1 to C, [C] (int64).

    Raises:
        ValueError: If counts are not of shape [C].
    """
    if counts.ndim != 1:
        raise ValueError(f"counts have the shape {tuple(counts.shape)}. Give one number per class, [C].")
    order = torch.argsort(counts, dim=0, descending=True, stable=True)
    return torch.empty_like(order).index_copy_(0, order, torch.arange(1, len(counts) + 1, device=counts.device))


def frequency_split(counts: Tensor, tau: float) -> Tensor:
    """The split by frequency, S(c - tau) with c the rank of the class [lpl 29]: the loss of the tail is to rise.

    As in the bounds and the published code the class of rank tau belongs to the head.

    Args:
        counts: The numbers of samples, [C].
        tau: How many classes are the head; 0 makes all classes tail.

    Returns:
        -1 for the head (rank <= tau), +1 for the tail, [C], float32.

    Raises:
        ValueError: If tau is negative or counts are not of shape [C].
    """
    check_positive("tau", tau, zero=True)
    return torch.where(frequency_rank(counts) <= tau, -1.0, 1.0)


def confidence_bounds(
    confidence: Tensor,
    samples: Tensor,
    tau: float | Tensor,
    eps: float = 0.0,
    delta_eps: float = 0.1,
    bound_norm: str = "none",
) -> Tensor:
    """The bounds that grow with the distance from the threshold, eps + delta_eps |tau - q_c| [lpl 33, first].

    Args:
        confidence: q_c, [C].
        samples: The numbers of samples of each class, [C].
        tau: The threshold.
        eps: The smallest bound, at least 0.
        delta_eps: How much the bounds vary, at least 0; 0 gives fixed bounds.
        bound_norm: ``"none"`` for the equation, ``"side_max"`` to divide each distance by the largest on its side of
            the threshold, as the published code does.

    Returns:
        The bounds epsilon_c, [C]; eps alone for classes without samples.

    Raises:
        ValueError: If a number is negative or bound_norm is unknown.
    """
    check_positive("eps", eps, zero=True)
    check_positive("delta_eps", delta_eps, zero=True)
    check_choice("bound_norm", bound_norm, ("none", "side_max"))
    signed = torch.where(samples > 0, tau - confidence, 0.0)
    distance = signed.abs()
    if bound_norm == "side_max":
        highest = torch.where(signed >= 0, signed.amax(), -signed.amin())
        distance = distance / torch.where(highest > 0, highest, 1.0)
    return eps + delta_eps * distance


def frequency_bounds(
    counts: Tensor,
    tau: float,
    eps: float = 0.0,
    delta_eps: float = 1.0,
    head_scale: float = 1.0,
    statistic: Tensor | None = None,
    known: Tensor | None = None,
) -> Tensor:
    """The bounds that are largest at both ends of the frequency order [lpl 33, second].

    eps + delta_eps n_c / n_1 for the head and eps + delta_eps n_C / n_c for the tail, where 1 is the most frequent
    class and C the rarest.

    Args:
        counts: The numbers of samples n_c, [C], above 0.
        tau: How many classes are the head.
        eps: The smallest bound, at least 0.
        delta_eps: How much the bounds vary, at least 0; 0 gives fixed bounds.
        head_scale: What the head's part is multiplied by; the published code has .6 for CIFAR-10, .2 for CIFAR-100.
        statistic: What takes the place of the counts in the ratios, [C]: the confidence q_c as the equation is
            printed; none takes the counts as the published code does. A ratio is at most 1.
        known: Which classes the statistic is known of, [C] (bool); none means all. The ends are then the most frequent
            and the rarest of these, and the others get eps alone.

    Returns:
        The bounds epsilon_c, [C], float32.

    Raises:
        ValueError: If a number is negative, a class has no samples or the shapes do not fit.
    """
    for name, value in (("tau", tau), ("eps", eps), ("delta_eps", delta_eps), ("head_scale", head_scale)):
        check_positive(name, value, zero=True)
    check_counts(counts)
    rank = frequency_rank(counts)
    sizes = (counts if statistic is None else statistic).float()
    if sizes.shape != counts.shape:
        raise ValueError(f"statistic has the shape {tuple(sizes.shape)} beside {len(counts)} counts.")
    if known is None:
        known = torch.ones_like(rank, dtype=torch.bool)
    first = sizes[torch.where(known, rank, len(rank) + 1).argmin()]
    last = sizes[torch.where(known, rank, 0).argmax()]
    smallest = torch.finfo(sizes.dtype).tiny
    head = head_scale * (sizes / first.clamp(min=smallest)).clamp(max=1)
    tail = (last / sizes.clamp(min=smallest)).clamp(max=1)
    return eps + delta_eps * torch.where(known, torch.where(rank <= tau, head, tail), 0.0)


def lpl_steps(bounds: Tensor, alpha: float, rounding: str = "floor") -> Tensor:
    """The number of steps of each class from its bound, K_c = floor(epsilon_c / alpha) [lpl Algorithm 1].

    Args:
        bounds: epsilon_c, [C].
        alpha: The size of a step, above 0.
        rounding: ``"floor"``, up to rounding errors (.3 / .1 is 3), or ``"round"``, with at least one step for a
            bound above 0, as the published code does.

    Returns:
        K_c, [C] (int64).

    Raises:
        ValueError: If alpha is not positive or rounding is unknown.
    """
    check_positive("alpha", alpha)
    check_choice("rounding", rounding, ("floor", "round"))
    quotient = bounds.double() / alpha
    if rounding == "round":
        return torch.where(bounds > 0, quotient.round().clamp(min=1), 0.0).long()
    # float32 bounds carry a relative error of 6e-8
    return (quotient + 1e-6 * quotient.clamp(min=1)).floor().clamp(min=0).long()


def _normalised(gradient: Tensor, present: Tensor, grad_norm: str) -> Tensor:
    if grad_norm == "none":
        return gradient
    norms: Tensor
    if grad_norm == "row":
        norms = torch.linalg.vector_norm(gradient, dim=1)
    else:
        # classes without samples add nothing to the columns of others
        norms = torch.linalg.vector_norm(gradient[:, present], dim=0)
    return gradient / norms.clamp(min=1e-12).unsqueeze(1)


def _check_by_class(name: str, value: object, classes: int) -> None:
    if isinstance(value, Tensor) and value.shape != (classes,):
        raise ValueError(f"{name} has the shape {tuple(value.shape)} where one value per class is needed, [{classes}].")
