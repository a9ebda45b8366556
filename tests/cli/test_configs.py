"""The configurations that users run are the ones that run here."""

import re
from pathlib import Path

import pytest
import torch

from lightning_perturb import methods
from lightning_perturb.cli import build, main
from lightning_perturb.core.load import subclasses

CONFIGS = Path(__file__).parents[2] / "configs"
QUICK = ["--trainer.fast_dev_run=1", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]


def files(folder: str) -> list[str]:
    return sorted(path.name for path in (CONFIGS / folder).glob("*.yaml"))


def method_of(name: str) -> type:
    return getattr(methods, (CONFIGS / "methods" / name).read_text().split("class_path: ", 1)[1].split()[0])


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def trained(words: list[str]) -> None:
    """Trains a moment on a configuration; the words of `main`, which makes four parsers, are tested in test_cli.py."""
    cli = build([*words, *QUICK, "--trainer.logger=false"])
    cli.trainer.fit(cli.model, cli.datamodule)
    assert cli.trainer.global_step == 1


def needed(name: str) -> list[str]:
    """What a file leaves to its user."""
    if not name.endswith("knowledge_distillation.yaml"):
        return []
    short = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--trainer.default_root_dir=teacher"]
    main(["fit", "-c", str(CONFIGS / "data/digits.yaml"), "--trainer.accelerator=cpu", *short])
    (teacher,) = Path("teacher").rglob("*.ckpt")
    return [f"--model.init_args.teacher={teacher}"]


@pytest.mark.parametrize("name", files("methods"))
def test_every_method_file_trains(name):
    kinds = {
        "multi_label_digits": method_of(name).multi_label,
        "colored_digits": method_of(name).needs.domains,
        "generated_reviews": name.endswith("_text.yaml"),
    }
    data = next((kind for kind, asked in kinds.items() if asked), "digits_sym40")
    words = ["-c", str(CONFIGS / f"data/{data}.yaml"), "-c", str(CONFIGS / "methods" / name)]
    trained([*words, *needed(name)])


def test_every_method_has_a_file():
    named = {method_of(name).__name__ for name in files("methods")}
    assert named == {cls.__name__ for cls in subclasses() if cls.__module__.startswith("lightning_perturb.methods")}
    assert named == set(methods.__all__)


@pytest.mark.parametrize("name", [n for n in files("data") if "digits" in n or "generated" in n])
def test_every_embedded_file_trains(name):
    main(["fit", "-c", str(CONFIGS / "data" / name), *QUICK])


def test_the_two_gaussians_file_trains_and_draws():
    main(["fit", "-c", str(CONFIGS / "data/two_gaussians.yaml"), *QUICK[1:], "--trainer.max_epochs=1"])
    assert list(Path().rglob("decision_boundary.png"))


@pytest.mark.parametrize("name", [n for n in files("data") if n.startswith("cifar")])
def test_every_other_data_file_builds_and_says_what_is_missing(name):
    cli = build(["-c", str(CONFIGS / "data" / name), "--trainer.accelerator=cpu", "--trainer.logger=false"])
    assert cli.model.num_classes == cli.datamodule.num_classes == (100 if "cifar100" in name else 10)
    assert cli.model.net(torch.zeros(2, 3, 32, 32)).shape == (2, cli.model.num_classes)
    with pytest.raises(FileNotFoundError, match=r"root='data'.*Unpack"):
        cli.datamodule.setup("fit")


PHOTOGRAPHS = {
    "imagenet_lt": (1000, r"ImageNet_LT_train\.txt does not exist.*Put the published lists"),
    "places_lt": (365, r"Places_LT_train\.txt does not exist.*Put the published lists"),
    "inaturalist2018": (8142, r"iNaturalist18_train\.txt does not exist.*Put the published lists"),
    "inaturalist2017": (5089, r"train2017\.json does not exist.*Put train2017\.json"),
    "voc_mlt": (20, r"longtail2012/img_id\.txt does not exist.*Fetch it"),
    "coco_mlt": (80, r"instances_train2017\.json does not exist.*Put annotations"),
    "waterbirds": (2, r"metadata\.csv does not exist.*Unpack waterbird"),
    "celeba": (2, r"list_attr_celeba\.csv does not exist.*Put list_attr_celeba"),
    "colored_mnist": (2, r"train-labels-idx1-ubyte does not exist.*Unpack MNIST"),
    "imagenet": (1000, r"has no class folders in train/.*Unpack ILSVRC2012_img_train\.tar"),
    "tiny_imagenet": (200, r"has no class folders in train/"),
    "imagenet_glt": (1000, r"inter_lt\.json does not exist.*imagenet_glt_generation\.py"),
    "mscoco_glt": (29, r"coco_glt/annotation\.json does not exist.*mscoco_glt_crop\.py"),
    "clothing1m": (14, r"noisy_train_key_list\.txt does not exist.*Put the annotation files"),
    "animal10n": (10, r"training has no images.*raw_image_ver\.zip"),
    "food101n": (101, r"imagelist\.tsv does not exist.*Unpack the archives"),
    "ms_coco": (80, r"instances_train2014\.json does not exist.*Put annotations"),
}


TEXTS = {
    "civil_comments": r"all_data_with_identities\.csv does not exist",
    "imdb": r"aclImdb/train/neg does not exist\. Unpack",
    "imdb_bert": r"aclImdb/train/neg does not exist\. Unpack",
}


@pytest.mark.parametrize("name", TEXTS)
def test_sets_of_texts_build_and_say_what_is_missing(name, tmp_path):
    text = (CONFIGS / f"data/{name}.yaml").read_text()
    if "name: " in text:
        # the trained weights and the tokenizer would be fetched
        transformers = pytest.importorskip("transformers")
        sizes = {"hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 1, "intermediate_size": 4}
        transformers.BertConfig(vocab_size=9, **sizes).save_pretrained(tmp_path / "tiny")
        text = re.sub(
            r"(TransformersClassifier\n\s*init_args: {name: )[\w-]+", rf"\1{tmp_path}/tiny, pretrained: false", text
        )
    text = text.replace("glove.6B.300d.txt", "null")
    (tmp_path / "here.yaml").write_text(text)
    method = ["-c", str(CONFIGS / "methods/mixpert_text.yaml")]
    cli = build(["-c", str(tmp_path / "here.yaml"), *method, "--trainer.accelerator=cpu", "--trainer.logger=false"])
    assert cli.model.num_classes == cli.datamodule.num_classes == 2
    rate = {"imdb": 1e-3, "imdb_bert": 2e-5, "civil_comments": 1e-5}[name]
    assert cli.model.optimizer([torch.zeros(1)]).defaults["lr"] == rate
    with pytest.raises(FileNotFoundError, match=TEXTS[name]):
        cli.datamodule.setup("fit")


def test_the_text_table_file_says_what_is_missing():
    with pytest.raises((FileNotFoundError, SystemExit, ValueError), match=r"train\.csv"):
        main(["fit", "-c", str(CONFIGS / "data/text_table.yaml"), *QUICK])


def test_every_data_file_is_tested():
    known = {name.removesuffix(".yaml") for name in files("data")}
    rest = {name for name in known if not name.startswith("cifar") and "digits" not in name and "generated" not in name}
    assert rest - {"image_folder", "text_table", "two_gaussians"} == set(PHOTOGRAPHS) | set(TEXTS)


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_sets_of_photographs_build_and_say_what_is_missing(name, tmp_path):
    classes, missing = PHOTOGRAPHS[name]
    text = (CONFIGS / f"data/{name}.yaml").read_text()
    for large in ("resnet50", "resnext50_32x4d", "vgg19_bn"):
        text = text.replace(large, "resnet18")
    # the trained weights would be fetched
    (tmp_path / "small.yaml").write_text(text.replace(", weights: IMAGENET1K_V1", ""))
    cli = build(["-c", str(tmp_path / "small.yaml"), "--trainer.accelerator=cpu", "--trainer.logger=false"])
    assert cli.model.num_classes == cli.datamodule.num_classes == classes
    assert cli.model.multi_label == cli.datamodule.multi_label == (name in ("voc_mlt", "coco_mlt", "ms_coco"))
    with pytest.raises(FileNotFoundError, match=missing):
        cli.datamodule.setup("fit")


def test_the_image_folder_file_says_what_is_missing():
    with pytest.raises((FileNotFoundError, SystemExit, ValueError), match="train/"):
        main(["fit", "-c", str(CONFIGS / "data/image_folder.yaml"), *QUICK])


@pytest.mark.parametrize("name", files("trainer"))
def test_every_trainer_file_composes(name):
    here = ["--trainer.devices=1", "--trainer.strategy=auto", "--data.init_args.num_workers=0"]
    words = ["-c", str(CONFIGS / "data/digits.yaml"), "-c", str(CONFIGS / "methods/mixpert.yaml")]
    main(["fit", *words, "-c", str(CONFIGS / "trainer" / name), *QUICK, *here, "--data.init_args.pin_memory=false"])


def test_the_multi_label_files_compose():
    data = ["-c", str(CONFIGS / "data/multi_label_digits.yaml")]
    trainer = ["-c", str(CONFIGS / "trainer/cpu.yaml")]
    with pytest.raises(ValueError, match=r"ModelCheckpoint monitors 'val/acc'.*configs/trainer/multi_label.yaml"):
        main(["fit", *data, *trainer, *QUICK])
    main(["fit", *data, *trainer, "-c", str(CONFIGS / "trainer/multi_label.yaml"), *QUICK])


def test_the_multi_label_quickstart_runs(capsys):
    words = ["--trainer.max_epochs=2", "--trainer.enable_progress_bar=false", "--data.init_args.samples=200"]
    main(["fit", "-c", str(CONFIGS / "quickstart_multi_label.yaml"), *words])
    printed = capsys.readouterr().out
    for name in ("mean average precision", "head", "medium", "tail", "macro F1"):
        assert name in printed
    assert list(Path("logs/quickstart_multi_label").rglob("*.ckpt"))


def test_method_files_keep_network_and_optimizer_of_the_data_file():
    words = ["-c", str(CONFIGS / "data/digits.yaml"), "-c", str(CONFIGS / "methods/mixpert.yaml")]
    cli = build([*words, "--trainer.accelerator=cpu", "--model.init_args.eta=3", "--trainer.logger=false"])
    assert isinstance(cli.model, methods.MixPert)
    assert cli.model.eta == 3
    assert cli.model.optimizer(cli.model.parameters()).defaults["lr"] == 0.05
