from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch.cli import LightningCLI
from testkit.training import CLASSES, NETS, Recipe, fit, resume, tiny_data, trainer_of

import lightning_perturb
from lightning_perturb.core import PerturbationModule
from lightning_perturb.core.load import subclasses
from lightning_perturb.data import Digits
from lightning_perturb.methods import CrossEntropy, LogPert, MixPert


def saved(recipe: Recipe, folder: Path) -> tuple[Path, PerturbationModule]:
    trainer = fit(recipe.but(trainer={"max_epochs": 1}))
    trainer.save_checkpoint(folder / "run.ckpt")
    return folder / "run.ckpt", trainer.lightning_module


def test_a_live_network_is_given_again(tmp_path):
    path, module = saved(Recipe(LogPert, {"update": "joint", "lam": 0.05, "lr_interval": "step"}), tmp_path)
    net = NETS["mlp"]()
    again = lightning_perturb.load(path, net=net)
    assert type(again) is LogPert
    assert again.net is net
    assert not again.training
    assert (again.update, again.lam, again.lr_interval, again.num_classes) == ("joint", 0.05, "step", CLASSES)
    x = torch.rand(5, 1, 8, 8)
    torch.testing.assert_close(again(x), module.eval()(x), rtol=0, atol=0)
    assert torch.equal(again.perturbation, module.perturbation)
    assert float(again.perturbation.abs().sum()) > 0
    assert torch.equal(again.class_counts, module.class_counts)


def test_the_checkpoint_holds_no_code(tmp_path):
    path, _ = saved(Recipe(MixPert, {"eps2": 0.03, "clip": False, "mean": (0.3,), "std": (0.4,)}), tmp_path)
    checkpoint = torch.load(path, weights_only=True)
    assert {"optimizer", "lr_scheduler", "net"}.isdisjoint(checkpoint["hyper_parameters"])
    assert checkpoint["hyper_parameters"]["eps2"] == 0.03


def test_positional_arguments_are_kept(tmp_path):
    module = LogPert(NETS["mlp"](), CLASSES, lam=0.3)
    assert module.hparams["num_classes"] == CLASSES
    assert module.hparams["lam"] == 0.3
    assert "net" not in module.hparams


def command_line(folder: Path, *arguments: str) -> LightningCLI:
    """A run of Lightning's own command line in both subclass modes, as the package's is."""
    words = [
        "fit", "--data=Digits", "--data.init_args.train_size=64", "--data.init_args.batch_size=32",
        "--model.init_args.net=lightning_perturb.nets.MLP", "--model.init_args.net.init_args.num_classes=10",
        "--model.init_args.net.init_args.in_features=64", "--model.init_args.net.init_args.hidden=[16]",
        "--model.init_args.num_classes=10", "--trainer.max_epochs=1", "--trainer.accelerator=cpu",
        "--trainer.logger=false", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false",
        f"--trainer.default_root_dir={folder}", *arguments,
    ]  # fmt: skip
    return LightningCLI(
        PerturbationModule, Digits, subclass_mode_model=True, subclass_mode_data=True, save_config_callback=None,
        seed_everything_default=0, args=words,
    )  # fmt: skip


@pytest.mark.parametrize("method", ["MixPert", "SelfPacedLogPert"])
def test_the_command_line_saves_the_network_too(method, tmp_path):
    rate = "--model.init_args.optimizer=torch.optim.Adam", "--model.init_args.optimizer.init_args.lr=0.05"
    ran = command_line(tmp_path, f"--model={method}", "--model.init_args.eta=3.5", *rate)
    path = tmp_path / "run.ckpt"
    ran.trainer.save_checkpoint(path)
    again = lightning_perturb.load(path)
    assert type(again).__name__ == method
    assert again.eta == 3.5
    x = torch.rand(4, 1, 8, 8)
    torch.testing.assert_close(again(x), ran.model.eval()(x), rtol=0, atol=0)
    assert type(again.net).__name__ == "MLP"
    other = lightning_perturb.load(path, net=NETS["mlp"]())
    torch.testing.assert_close(other(x), again(x), rtol=0, atol=0)
    stored = torch.load(path, weights_only=True)["hyper_parameters"]
    assert "optimizer" not in stored, "a typed rate must win at a resume"
    assert "0.05" not in str(stored)


def test_what_can_be_wrong_with_the_file(tmp_path):
    path, _ = saved(Recipe(CrossEntropy), tmp_path)
    with pytest.raises(FileNotFoundError, match=r"nowhere.ckpt.* is not a file"):
        lightning_perturb.load(tmp_path / "nowhere.ckpt")
    whole = path.read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 100):
        cut = tmp_path / f"cut{size}.ckpt"
        cut.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=rf"cut{size}.ckpt.* cut off: use an older one"):
            lightning_perturb.load(cut)
    (tmp_path / "text.ckpt").write_text("hello")
    with pytest.raises(ValueError, match=r"text.ckpt"):
        lightning_perturb.load(tmp_path / "text.ckpt")
    for other in ({"state_dict": {}}, {"lightning_perturb": {}}, [1], torch.zeros(2)):
        torch.save(other, tmp_path / "other.ckpt")
        with pytest.raises(ValueError, match=r"not written by a lightning_perturb method"):
            lightning_perturb.load(tmp_path / "other.ckpt")


def test_what_the_file_does_not_hold(tmp_path):
    path, _ = saved(Recipe(CrossEntropy), tmp_path)
    with pytest.raises(ValueError, match=r"load\(path, net=your_net\)"):
        lightning_perturb.load(path)
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["lightning_perturb"]["class"] = "somewhere.Else"
    torch.save(checkpoint, path)
    with pytest.raises(ValueError, match=r"class somewhere.Else, which is not imported"):
        lightning_perturb.load(path, net=NETS["mlp"]())


def test_an_object_among_the_arguments_is_not_called_a_cut_file(tmp_path):
    path, _ = saved(Recipe(LogPert), tmp_path)
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["hyper_parameters"]["lam"] = Path("x")
    torch.save(checkpoint, path)
    with pytest.raises(ValueError, match=r"plain") as caught:
        lightning_perturb.load(path, net=NETS["mlp"]())
    assert "cut off" not in str(caught.value)


class Scheduled(CrossEntropy):
    """A user's method with a function among its arguments."""

    def __init__(self, *args, schedule=None, strength=1.0, **kwargs):
        super().__init__(*args, warmup_epochs=1, **kwargs)
        self.schedule, self.strength = schedule, strength


def test_every_live_argument_is_asked_for(tmp_path):
    trainer = trainer_of(max_epochs=1)
    trainer.fit(Scheduled(NETS["mlp"](), CLASSES, schedule=lambda epoch: epoch / 2, strength=3.0), tiny_data())
    path = tmp_path / "run.ckpt"
    trainer.save_checkpoint(path)
    with pytest.raises(ValueError, match=r"load\(path, net=your_net, schedule=your_schedule\)"):
        lightning_perturb.load(path)
    again = lightning_perturb.load(path, net=NETS["mlp"](), schedule=abs)
    assert (again.schedule, again.strength, again.warmup_epochs) == (abs, 3.0, 1)


def test_numpy_numbers_among_the_arguments_are_plain(tmp_path):
    recipe = Recipe(LogPert, {"lam": np.float64(0.25), "warmup_epochs": np.int64(0)})
    path, _ = saved(recipe, tmp_path)
    assert lightning_perturb.load(path, net=NETS["mlp"]()).lam == 0.25


def test_a_loaded_module_goes_on(tmp_path):
    path, _ = saved(Recipe(LogPert, {"update": "joint"}), tmp_path)
    module = lightning_perturb.load(path, net=NETS["mlp"]())
    trainer_of(max_epochs=1).fit(module, tiny_data(samples=64))
    assert len(module.perturbation) == 64, "other data, other rows"
    assert all(part.training for part in module.net.modules()), "it must not train in evaluation mode"


def test_subclasses_are_found_once_in_order():
    found = list(subclasses())
    assert len(found) == len(set(found))
    assert {CrossEntropy, LogPert, MixPert} <= set(found)
    names = [cls.__name__ for cls in subclasses(MixPert) if cls.__module__.startswith("lightning_perturb")]
    assert names == ["SelfPacedLogPert"]


@pytest.mark.parametrize(
    "changed",
    [{"seed": 1}, {"noise": 0.2}, {"samples": 100}, {"val_size": 10}],
    ids=lambda changed: next(iter(changed)),
)
def test_other_data_at_a_resume_is_an_error(changed, tmp_path):
    recipe = Recipe(LogPert, {"update": "alternating"})
    path, _ = saved(recipe, tmp_path)
    with pytest.raises(ValueError, match=r"[Dd]ata (differs from that of the checkpoint|.* was trained on)"):
        resume(recipe.but(data=changed), path)
