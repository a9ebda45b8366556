"""torchvision's models by name; no test touches the network."""

import warnings
from urllib.error import URLError

import pytest
import torch
from torch import nn
from torchvision import models

from lightning_perturb.nets import TorchvisionNet

SMALL = "shufflenet_v2_x0_5"


@pytest.fixture(autouse=True)
def hub(monkeypatch, tmp_path):
    """An empty download cache on a machine without access."""

    def refuse(*args, **kwargs):
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    checkpoints = tmp_path / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    return checkpoints


def save(net, path):
    torch.save(net.state_dict(), path)
    return str(path)


def last_layer(net):
    return [layer for layer in net.modules() if isinstance(layer, (nn.Linear, nn.Conv2d))][-1]


def assert_same_state(net, other, but=()):
    ours, theirs = net.state_dict(), other.state_dict()
    assert set(ours) <= set(theirs)
    for key, value in ours.items():
        if key not in but:
            assert torch.equal(value, theirs[key]), key


FAMILIES = (
    "alexnet convnext_tiny densenet121 efficientnet_b0 googlenet inception_v3 maxvit_t mnasnet0_5 mobilenet_v2 "
    "mobilenet_v3_large resnet50 resnext50_32x4d shufflenet_v2_x1_0 squeezenet1_0 swin_t swin_v2_t vgg11_bn vit_b_16"
)


@pytest.mark.parametrize("name", FAMILIES.split())
def test_every_family_gives_logits_of_num_classes(name):
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        net = TorchvisionNet(name, num_classes=7).train()
        logits = net(torch.empty(2, 3, 224, 224) if name != "inception_v3" else torch.empty(2, 3, 299, 299))
    assert logits.shape == (2, 7)
    assert isinstance(last_layer(net), nn.Conv2d if name.startswith("squeezenet") else nn.Linear)


def test_regnet_too():
    net = TorchvisionNet("regnet_y_400mf", num_classes=7).eval()
    assert net(torch.randn(1, 3, 32, 32)).shape == (1, 7)


def test_forward_is_torchvisions():
    net = TorchvisionNet("ShuffleNet_V2_x0_5", num_classes=7).eval()
    reference = models.shufflenet_v2_x0_5(num_classes=7).eval()
    reference.load_state_dict(net.model.state_dict())
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(net(x), reference(x), rtol=0, atol=0)


@pytest.mark.parametrize(("name", "near"), [("resnet19", "resnet18"), ("ResNet-50", "resnet50"), ("vit", "vit_b_16")])
def test_unknown_names_list_near_matches(name, near):
    with pytest.raises(ValueError, match=f"name='{name}' is no classification model of torchvision.*{near}"):
        TorchvisionNet(name, num_classes=7)


@pytest.mark.parametrize("name", ["qqq", "fcn_resnet50_", ""])
def test_names_unlike_any_say_where_to_look(name):
    with pytest.raises(ValueError, match=r"Near matches|list_models"):
        TorchvisionNet(name, num_classes=7)


def test_no_classes_are_refused():
    with pytest.raises(ValueError, match="num_classes=0"):
        TorchvisionNet(SMALL, num_classes=0)


@pytest.mark.parametrize("weights", ["DEFAULT", "IMAGENET1K_V1"])
@pytest.mark.parametrize(("name", "head"), [(SMALL, "fc"), ("squeezenet1_1", "classifier.1")])
def test_named_weights_get_a_fresh_last_layer(hub, name, head, weights):
    trained = models.get_model(name)
    save(trained, hub / models.get_model_weights(name).DEFAULT.url.split("/")[-1])
    net = TorchvisionNet(name, num_classes=7, weights=weights).eval()
    assert_same_state(net.model, trained, but=(f"{head}.weight", f"{head}.bias"))
    assert net(torch.randn(1, 3, 64, 64)).shape == (1, 7)
    assert last_layer(net).weight.requires_grad


def test_named_weights_keep_a_last_layer_that_fits(hub):
    trained = models.get_model(SMALL)
    save(trained, hub / models.get_model_weights(SMALL).DEFAULT.url.split("/")[-1])
    assert_same_state(TorchvisionNet(SMALL, num_classes=1000, weights="DEFAULT").model, trained)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_heads_of_weights_are_left_out(hub, name):
    trained = models.get_model(name, aux_logits=True, init_weights=False)
    path = save(trained, hub / models.get_model_weights(name).DEFAULT.url.split("/")[-1])
    named = TorchvisionNet(name, num_classes=7, weights="DEFAULT").train()
    assert_same_state(named.model, trained, but=("fc.weight", "fc.bias"))
    assert named(torch.randn(2, 3, 80, 80)).shape == (2, 7)
    if name == "googlenet":
        from_file = TorchvisionNet(name, num_classes=7, weights=path)
        assert_same_state(from_file.model, trained, but=("fc.weight", "fc.bias"))


def test_weights_out_of_reach_say_what_to_put_where(hub):
    with pytest.raises(RuntimeError) as error:
        TorchvisionNet(SMALL, num_classes=7, weights="DEFAULT")
    url = models.get_model_weights(SMALL).DEFAULT.url
    message = str(error.value)
    assert "no route to host" in message
    assert url in message
    assert str(hub / url.split("/")[-1]) in message
    assert "path" in message


def test_truncated_download_says_so(hub):
    name = models.get_model_weights(SMALL).DEFAULT.url.split("/")[-1]
    whole = hub / "whole"
    save(models.get_model(SMALL), whole)
    (hub / name).write_bytes(whole.read_bytes()[:5000])
    with pytest.raises(RuntimeError, match=r"could not be fetched or read.*" + name):
        TorchvisionNet(SMALL, num_classes=7, weights="DEFAULT")


@pytest.mark.parametrize(("classes", "kept"), [(1000, False), (7, True)])
def test_file_of_any_last_layer(tmp_path, classes, kept):
    trained = models.get_model(SMALL, num_classes=classes)
    net = TorchvisionNet(SMALL, num_classes=7, weights=save(trained, tmp_path / "weights.pt"))
    assert_same_state(net.model, trained, but=() if kept else ("fc.weight", "fc.bias"))
    assert last_layer(net).out_features == 7


def test_file_without_last_layer(tmp_path):
    trained = models.get_model(SMALL)
    trained.fc = nn.Identity()
    net = TorchvisionNet(SMALL, num_classes=7, weights=save(trained, tmp_path / "weights.pt"))
    assert torch.equal(net.model.conv1[0].weight, trained.conv1[0].weight)


def test_old_names_of_densenet_files_are_understood(tmp_path):
    trained = models.densenet121(num_classes=3)
    old = {
        key.replace("norm1", "norm.1").replace("norm2", "norm.2").replace("conv1", "conv.1").replace("conv2", "conv.2")
        if "denselayer" in key
        else key: value
        for key, value in trained.state_dict().items()
    }
    assert set(old) != set(trained.state_dict())
    torch.save(old, tmp_path / "old.pth")
    net = TorchvisionNet("densenet121", num_classes=7, weights=str(tmp_path / "old.pth"))
    assert_same_state(net.model, trained, but=("classifier.weight", "classifier.bias"))


@pytest.mark.parametrize("other", ["shufflenet_v2_x1_0", "squeezenet1_1"])
def test_file_of_another_model_is_refused(tmp_path, other):
    path = save(models.get_model(other), tmp_path / "other.pt")
    with pytest.raises(ValueError, match=rf"weights='{path}' does not fit {SMALL}"):
        TorchvisionNet(SMALL, num_classes=7, weights=path)


def test_file_that_lacks_entries_is_refused(tmp_path):
    state = models.get_model(SMALL).state_dict()
    del state["conv1.0.weight"]
    torch.save(state, tmp_path / "part.pt")
    with pytest.raises(ValueError, match=r"1 entries are missing \['conv1.0.weight'\] and 0 are unknown"):
        TorchvisionNet(SMALL, num_classes=7, weights=str(tmp_path / "part.pt"))


@pytest.mark.parametrize("content", [{"state_dict": {}, "epoch": 3}, [torch.zeros(1)]], ids=["checkpoint", "list"])
def test_file_of_other_things_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"holds no state dict.*torch.save\(net.state_dict\(\), path\)"):
        TorchvisionNet(SMALL, num_classes=7, weights=str(tmp_path / "other.pt"))


def test_file_with_code_is_refused(tmp_path):
    torch.save(nn.Linear(2, 2), tmp_path / "module.pt")
    with pytest.raises(ValueError, match="cannot be read as tensors"):
        TorchvisionNet(SMALL, num_classes=7, weights=str(tmp_path / "module.pt"))


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>"], ids=["empty", "html"])
def test_broken_file_is_refused(tmp_path, content):
    (tmp_path / "broken.pt").write_bytes(content)
    with pytest.raises(ValueError, match="cannot be read as tensors"):
        TorchvisionNet(SMALL, num_classes=7, weights=str(tmp_path / "broken.pt"))


def test_unknown_weights_list_the_names():
    named = "neither a file nor one of resnet50's trained weights: IMAGENET1K_V1, IMAGENET1K_V2, DEFAULT"
    with pytest.raises(ValueError, match=named):
        TorchvisionNet("resnet50", num_classes=7, weights="IMAGENET21K")


def test_frozen_modules_stay_as_they_are():
    torch.manual_seed(0)
    net = TorchvisionNet("resnet18", 3, frozen=["conv1", "bn1", "layer1", "layer2", "layer3", "layer4"]).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    optimizer = torch.optim.SGD(net.parameters(), 0.1, weight_decay=0.1)
    net(torch.randn(2, 3, 32, 32)).square().sum().backward()
    optimizer.step()
    moved = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"model.fc.weight", "model.fc.bias"}


@pytest.mark.parametrize("part", ["layer9", ""])
def test_a_part_that_does_not_exist(part):
    with pytest.raises(ValueError, match=rf"frozen names '{part}', but resnet18 has no such module.*layer4"):
        TorchvisionNet("resnet18", 3, frozen=[part])


def test_one_name_is_no_list():
    with pytest.raises(ValueError, match=r"frozen='layer1' is one name.*Give frozen=\['layer1'\]"):
        TorchvisionNet("resnet18", 3, frozen="layer1")


def test_frozen_modules_never_train():
    net = TorchvisionNet("resnet18", 3, frozen=["layer1"]).train()
    assert not net.model.layer1.training
    assert net.model.layer2.training
    net.eval()
    assert not net.model.layer2.training
