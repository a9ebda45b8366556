"""Meta-learned methods over whole runs: schedulers, resume, ranks."""

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from testkit.meta import CLASSES, Each, adam, arrays, fit, mlp, plateau, sgd, sharpened, tensors, weight_net

from lightning_perturb.core.distributed import world_size
from lightning_perturb.methods import CrossEntropy, MetaWeightNet

SCHEDULERS = {
    "epoch": {"lr_scheduler": lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.5)},
    "step": {"lr_scheduler": lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9), "lr_interval": "step"},
    "plateau": {"lr_scheduler": plateau},
}


@pytest.mark.parametrize("limit", [1.0, 3])
@pytest.mark.parametrize("kind", SCHEDULERS)
def test_rates_are_those_of_automatic_optimization(kind, limit):
    rates = []
    for cls, options in ((CrossEntropy, {}), (MetaWeightNet, {"hidden": 3})):
        module = cls(mlp(), CLASSES, optimizer=sgd, **SCHEDULERS[kind], **options)
        found = []
        watch = Each(lambda m, found=found: found.append(m.trainer.optimizers[0].param_groups[0]["lr"]))
        fit(module, arrays(val_size=8), callbacks=[watch], max_epochs=4, limit_train_batches=limit)
        rates.append(found)
    assert rates[0] == rates[1]
    assert len(set(rates[0])) > 2


# resume ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SCHEDULERS)
def test_a_resumed_run_is_bit_identical(kind, tmp_path):
    def module(seed):
        # Lightning loads a checkpoint before it converts to 64-true, into float32
        return weight_net(True, 0.3, seed, meta_every=2, **SCHEDULERS[kind]).double()

    L.seed_everything(1, verbose=False)
    inside = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=5, save_top_k=-1)
    ends = ModelCheckpoint(tmp_path, filename="end-{epoch}", save_on_train_epoch_end=True, save_top_k=-1)
    whole = fit(module(0), arrays(val_size=8), [inside, ends], max_epochs=3)
    assert whole.global_step == 18
    expected = everything(whole)
    for name in ("step=5", "step=10", "end-epoch=0", "end-epoch=1"):
        L.seed_everything(99, verbose=False)
        rest = fit(module(5), arrays(val_size=8), max_epochs=3, ckpt_path=tmp_path / f"{name}.ckpt")
        found = everything(rest)
        assert expected.keys() == found.keys()
        for key, value in expected.items():
            assert torch.equal(value, found[key]), (name, key)


def everything(trainer):
    found = tensors(trainer.lightning_module)
    for place, optimizer in enumerate(trainer.optimizers):
        for number, state in optimizer.state_dict()["state"].items():
            found.update({f"{place}/{number}/{k}": torch.as_tensor(v) for k, v in state.items() if v is not None})
        found[f"{place}/lr"] = torch.tensor(optimizer.param_groups[0]["lr"])
    found["random"] = torch.get_rng_state()
    found["steps"] = torch.tensor(trainer.global_step)
    return found


def test_a_checkpoint_opens_without_arguments_but_the_network(tmp_path):
    trainer = fit(sharpened(), max_epochs=1)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    from lightning_perturb import load

    module = load(tmp_path / "a.ckpt", net=mlp())
    assert module.strength.item() == pytest.approx(trainer.lightning_module.strength.item(), rel=1e-6)
    assert "meta_optimizer" not in module.hparams


# ranks ----------------------------------------------------------------------------------------------------------------


class OwnWeights(Callback):
    """Every rank starts from another θ: rank 0's must reach all."""

    def setup(self, trainer, pl_module, stage):
        if world_size() > 1 and torch.distributed.get_rank():
            with torch.no_grad():
                pl_module.meta_net.layers[0].weight.add_(1.0)


def on_ranks(size, norm, every):
    module = weight_net(norm, meta_every=every, lr_scheduler=SCHEDULERS["epoch"]["lr_scheduler"])
    data = arrays(batch_size=8 // size, meta_batch_size=8 // size)
    options = {"devices": 2, "strategy": "ddp"} if size > 1 else {}
    trainer = fit(module, data, [OwnWeights()], max_epochs=2, **options)
    assert trainer.global_step == 14
    return everything(trainer)


@pytest.mark.parametrize("every", [1, 2])
def test_two_ranks_equal_one_process(ranks, every):
    one = on_ranks(1, False, every)
    first, second = ranks(on_ranks, 2, False, every)
    for name, value in one.items():
        if name == "random":
            continue
        assert torch.equal(first[name], second[name]), name
        assert torch.allclose(first[name], value, rtol=1e-10, atol=1e-12), name


def number_on_ranks(size):
    data = arrays(batch_size=8 // size, meta_batch_size=8 // size)
    options = {"devices": 2, "strategy": "ddp"} if size > 1 else {}
    return everything(fit(sharpened(meta_optimizer=adam).double(), data, **options))


def test_two_ranks_learn_a_number_as_one_process(ranks):
    one = number_on_ranks(1)
    first, second = ranks(number_on_ranks, 2)
    assert one["strength"] != 1.0
    for name in one.keys() - {"random"}:
        assert torch.equal(first[name], second[name]), name
        assert torch.allclose(first[name], one[name], rtol=1e-10, atol=1e-12), name


def test_with_batch_norm_ranks_agree_in_everything(ranks):
    first, second = ranks(on_ranks, 2, True, 1)
    for name, value in first.items():
        assert name == "random" or torch.equal(value, second[name]), name
