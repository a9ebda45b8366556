"""The information bottleneck of IB-IRM: features that vary little within a domain (Ahuja et al., 2021)."""

from __future__ import annotations

from torch import Tensor

from lightning_perturb.functional._arguments import upcast
from lightning_perturb.functional._domains import repeated, totals


def feature_variance(features: Tensor, domain: Tensor) -> Tensor:
    """The variance of the features within a domain, averaged over features and domains.

    It bounds the entropy of features from above. Within a domain n - 1 stands below, as in the published code.

    Args:
        features: h, [B, A].
        domain: Domain ids, [B]; one with a single sample in the batch has no variance and is left out.

    Returns:
        A number, 0 where no domain is left; float32 for half-precision features.

    Raises:
        ValueError: If the shapes or dtypes do not fit.
    """
    features, place, who, sizes = repeated(upcast(features), domain)
    mean = totals(who, features) / sizes.unsqueeze(1)
    squares = totals(who, (features - mean[place]).square()) / (sizes - 1).unsqueeze(1)
    return squares.mean(1).sum() / max(len(sizes), 1)
