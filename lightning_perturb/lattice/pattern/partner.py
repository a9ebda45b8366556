"""The way to another sample of the batch, which inputs and labels go together [Mixup]."""

from torch import Tensor

from lightning_perturb.core.distributed import gather_batch
from lightning_perturb.core.partners import mixing_weights, partners
from lightning_perturb.lattice.site import Site


def to_partner(value: Tensor, site: Site, alpha: float) -> Tensor:
    """The way from each value to that of its partner in the batch, (1 - w)(v_j - v): the same one for every target."""
    module = site.module
    (everyone, keys), own = gather_batch(value.detach(), module.sample_keys(site.batch))
    partner = partners(module._draw_seed, module.current_epoch, keys)[own]
    key = keys.new_full((1,), module._batch_idx)
    weight = mixing_weights(module._draw_seed, module.current_epoch, key, alpha).to(value.dtype)
    return (1 - weight) * (everyone[partner] - value)
