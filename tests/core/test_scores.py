"""The pass over a set beside training."""

import numpy as np
import torch
from testkit.training import sgd, trainer_of

from lightning_perturb.core import PerturbationModule
from lightning_perturb.core.scores import training_predictions
from lightning_perturb.data import Arrays
from lightning_perturb.data.samplers import Draw, EvaluationSampler


class Passing(PerturbationModule):
    """Looks at all training samples once an epoch."""

    def start_epoch(self):
        self.found = training_predictions(self)


def test_batches_without_a_sample_are_passed_over(monkeypatch):
    # as on the second of two ranks that share three samples, one in each batch
    whole, empty = EvaluationSampler.__iter__, Draw(0, torch.empty(0, dtype=torch.int64))
    monkeypatch.setattr(EvaluationSampler, "__iter__", lambda self: iter([*whole(self), empty]))
    data = Arrays(np.eye(3, dtype=np.float32), [0, 1, 2], eval_batch_size=1)
    module = Passing(torch.nn.Linear(3, 3), 3, optimizer=sgd)
    trainer_of(max_epochs=1).fit(module, datamodule=data)
    assert module.found.shape == (3, 3)
