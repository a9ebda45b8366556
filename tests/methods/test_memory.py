"""Memory stays flat: what a meta-learned method keeps of a batch is gone with the batch."""

import gc
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from testkit.training import MLP, tiny_data, trainer_of

from lightning_perturb.methods import MetaIADA

STEPS = 1000


class Watch(Callback):
    """Live tensors and resident memory, early and late."""

    def __init__(self):
        self.seen = {}

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
        if trainer.global_step in (STEPS // 5, STEPS):
            gc.collect()
            tensors = sum(issubclass(type(found), torch.Tensor) for found in gc.get_objects())
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.seen[trainer.global_step] = tensors, pages * 4096 / 2**20


def slow(params):
    return torch.optim.SGD(params, lr=0.02, weight_decay=5e-4)


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="reads the resident memory from /proc")
def test_it_is_flat_over_a_thousand_steps():
    watch = Watch()
    trainer = trainer_of(max_epochs=-1, max_steps=STEPS, callbacks=[watch])
    module = MetaIADA(MLP(10, 64, (256, 8)), 10, optimizer=slow, meta_every=4)
    trainer.fit(module, datamodule=tiny_data(samples=640, batch_size=32, meta_size=20))
    (few, small), (many, large) = watch.seen[STEPS // 5], watch.seen[STEPS]
    assert many <= few
    # a step's graph holds some 0.1 MiB: kept, they would be 80
    assert large - small < 20
