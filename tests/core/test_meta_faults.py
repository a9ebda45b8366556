"""What meta-learned methods refuse, and what loaders of one's own may serve them."""

from types import SimpleNamespace

import lightning as L
import pytest
import torch
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy
from testkit.meta import CLASSES, adam, arrays, fit, mlp, plateau, sgd, sharpened, weight_net

from lightning_perturb.methods import MetaMixUp, MetaSAug


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"gradient_clip_val": 0.5}, r"gradient_clip_val=0.5\) .*Give gradient_clip_val=0.5 to MetaWeightNet"),
        ({"accumulate_grad_batches": 2}, "accumulate_grad_batches=2.*Raise batch_size"),
        ({"precision": "16-true"}, "precision='16-true'.*bf16-mixed"),
    ],
    ids=str,
)
def test_settings_that_do_not_go_with_it_are_named(options, text):
    with pytest.raises(ValueError, match=text):
        fit(weight_net(), **options)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"precision": "16-mixed"}, "precision='16-mixed'.*bf16-mixed"),
        ({"strategy": object.__new__(FSDPStrategy)}, "FSDPStrategy.*strategy='ddp'"),
        ({"strategy": object.__new__(DeepSpeedStrategy)}, "DeepSpeedStrategy.*strategy='ddp'"),
    ],
    ids=["half", "fsdp", "deepspeed"],
)
def test_settings_that_need_other_machines_are_named(options, text):
    settings = {"gradient_clip_val": None, "accumulate_grad_batches": 1, "precision": "32", **options}
    with pytest.raises(ValueError, match=text):
        weight_net()._check_trainer(SimpleNamespace(**settings))


def test_faults_are_named():
    with pytest.raises(ValueError, match="meta_every=0"):
        weight_net(meta_every=0)
    with pytest.raises(ValueError, match="engine='fast' is unknown"):
        weight_net(engine="fast")
    with pytest.raises(ValueError, match="gradient_clip_val=-1"):
        weight_net(gradient_clip_val=-1)
    for name in ("name", "nothing"):
        with pytest.raises(ValueError, match=f"meta_parameters names '{name}'"):
            sharpened(meta_parameters={name: (0, 1)})
    with pytest.raises(ValueError, match=r"keeps 'strength' in \[2, 3\], but it starts at 1"):
        sharpened((2, 3))
    with pytest.raises(ValueError, match="has nothing to learn from meta samples"):
        fit(sharpened(meta_parameters=None))
    with pytest.raises(ValueError, match=r"MetaWeightNet .*meta_size=0"):
        fit(weight_net(), arrays(meta_size=0))
    with pytest.raises(ValueError, match="ReduceLROnPlateau waits for 'val/loss', which is not logged"):
        fit(weight_net(lr_scheduler=plateau))
    with pytest.raises(ValueError, match="lr_interval='step' does not go with ReduceLROnPlateau"):
        fit(weight_net(lr_scheduler=plateau, lr_interval="step"))
    plain = torch.utils.data.DataLoader([(torch.zeros(6), 1)] * 4, batch_size=2)
    with pytest.raises(ValueError, match=r"its batches have none.*'meta': loader"):
        L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False).fit(
            weight_net(), plain
        )


def test_rates_that_nothing_has_are_refused():
    with pytest.raises(ValueError, match=r"nothing to learn.*Raise sigma_lr, or take ISDA"):
        fit(MetaSAug(mlp(), CLASSES, optimizer=sgd, class_counts=[9, 9, 9, 9], sigma_lr=0.0).double())
    with pytest.raises(ValueError, match="meta_optimizer was given to MetaMixUp"):
        fit(MetaMixUp(mlp(), CLASSES, optimizer=sgd, meta_optimizer=adam).double())


def test_loaders_of_the_users_own_do_too():
    def loader(label):
        samples = [(torch.randn(6, dtype=torch.float64), label(n)) for n in range(8)]
        return torch.utils.data.DataLoader(samples, batch_size=4)

    good = loader(lambda n: n % CLASSES)
    for meta in (good, loader(lambda n: 9)):
        trainer = L.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
                            enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
        module = weight_net().double()
        if meta is good:
            trainer.fit(module, {"train": good, "meta": meta})
            assert trainer.global_step == 2
        else:
            with pytest.raises(ValueError, match="A meta label is 9"):
                trainer.fit(module, {"train": good, "meta": meta})


def test_meta_labels_of_any_integer_type_do():
    samples = [(torch.randn(6, dtype=torch.float64), torch.tensor(n % CLASSES, dtype=torch.int32)) for n in range(8)]
    loaders = {name: torch.utils.data.DataLoader(samples, batch_size=4) for name in ("train", "meta")}
    trainer = L.Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
                        enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
    trainer.fit(weight_net().double(), loaders)
    assert trainer.global_step == 2
