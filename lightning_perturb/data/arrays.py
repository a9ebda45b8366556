"""Your own arrays: images or features that are already in memory, or in .npy / .npz / .pt files."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from lightning_perturb.checks import check_positive
from lightning_perturb.data.base import Labels, PerturbationDataModule, hold_out
from lightning_perturb.data.domains import check_domains
from lightning_perturb.data.labels import check_labels, check_multi_hot


class Arrays(PerturbationDataModule):
    """Numpy arrays or tensors, or files of them.

    Args:
        x: Training inputs: an array, a tensor, or the path of a ``.npy``, ``.npz`` or ``.pt`` file. uint8
            ``[N, C, H, W]``, ``[N, H, W, C]`` with 1 or 3 channels, and ``[N, H, W]`` are images; anything else becomes
            float32 features that the network gets as they are.
        y: Training labels, likewise: class ids 0..C-1 ``[N]``, or one 0 or 1 for each class ``[N, C]`` (multi-label).
        x_test: Test inputs, or None to keep ``test_size`` of the training samples.
        y_test: Test labels, clean.
        num_classes: Number of classes; None counts the labels, or the columns of multi-hot ones.
        test_size: Share or count of samples kept for the test where no test arrays are given; 0 for no test split.
        mean: Per-channel mean of pixels in [0, 1]; None computes it from the training images. For images only.
        std: Per-channel standard deviation, likewise.
        domains: The domain of each training sample, ids 0..D-1 ``[N]`` or a file of them: for methods and metrics of
            subpopulation shift. None where there are none.
        domains_test: The domain of each test sample, where there are test arrays.
        domain_names: A name for each domain; None numbers them.
        **kwargs: Arguments of :class:`~lightning_perturb.data.PerturbationDataModule`.
    """

    def __init__(
        self,
        x: Any,
        y: Any,
        x_test: Any = None,
        y_test: Any = None,
        num_classes: int | None = None,
        test_size: float = 0.0,
        mean: tuple[float, ...] | None = None,
        std: tuple[float, ...] | None = None,
        domains: Any = None,
        domains_test: Any = None,
        domain_names: list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_positive("test_size", test_size, zero=True)
        self._x = _inputs(_array("x", x))
        self._y = _labels("y", y)
        _check_lengths("x", self._x, "y", self._y)
        if not len(self._y):
            raise ValueError("x and y hold no samples. Give at least one of each class.")
        if (x_test is None) != (y_test is None):
            raise ValueError("x_test and y_test belong together: give both or neither.")
        if x_test is not None and test_size:
            raise ValueError(f"test_size={test_size} and x_test contradict each other. Give one of them.")
        self.multi_label = self._y.ndim == 2
        if self.multi_label and self._y.shape[1] < 2:
            raise ValueError(f"y has the shape {self._y.shape}, a column. Give class ids flat, y.reshape(-1).")
        counted = self._y.shape[1] if self.multi_label else int(self._y.max()) + 1
        self._classes = num_classes if num_classes is not None else counted
        (check_multi_hot if self.multi_label else check_labels)(self._y, self._classes, "y")
        self._held: tuple[Tensor, Labels] | None = None
        self._domain_names = domain_names
        self._domains: dict[str, Labels] = {}
        self._read_domains(domains, domains_test, x_test is not None)
        if x_test is not None:
            self._held = _inputs(_array("x_test", x_test)), _labels("y_test", y_test)
            _check_lengths("x_test", self._held[0], "y_test", self._held[1])
            if self._held[1].ndim != self._y.ndim:
                raise ValueError(
                    f"y_test has shape {self._held[1].shape} and y {self._y.shape}. Give both as class ids [N], or "
                    "both as multi-hot labels [N, C]."
                )
            if self._held[0].dtype != self._x.dtype or self._held[0].shape[1:] != self._x.shape[1:]:
                raise ValueError(
                    f"x_test holds {self._held[0].dtype} of shape {tuple(self._held[0].shape[1:])} and x "
                    f"{self._x.dtype} of shape {tuple(self._x.shape[1:])}. Give both in the same form."
                )
        elif test_size:
            rest, held = hold_out("test_size", self._y, self._classes, test_size, np.random.default_rng(1797))
            self._held = self._x[torch.from_numpy(held)], self._y[held]
            self._x, self._y = self._x[torch.from_numpy(rest)], self._y[rest]
            if "train" in self._domains:
                self._domains = {"train": self._domains["train"][rest], "test": self._domains["train"][held]}
        if self._x.dtype == torch.uint8:
            self.mean, self.std = _statistics(self._x, mean, std)
        elif mean is not None or std is not None:
            raise ValueError(f"mean={mean} and std={std} are for uint8 images; x has {self._x.dtype}. Leave them away.")

    def _read_domains(self, domains: Any, domains_test: Any, has_test: bool) -> None:
        given = {"domains": domains, "domains_test": domains_test}
        if domains is None and (domains_test is not None or self._domain_names is not None):
            raise ValueError("domains_test and domain_names belong to domains, which is None. Give domains, too.")
        if domains is not None and has_test != (domains_test is not None):
            raise ValueError("domains_test and x_test belong together: give both or neither.")
        ids = {name: _labels(name, value) for name, value in given.items() if value is not None}
        if ids and self._domain_names is None:
            self._domain_names = [str(d) for d in range(int(max(found.max() for found in ids.values())) + 1)]
        self._domains = {"test" if name == "domains_test" else "train": found for name, found in ids.items()}
        if ids:
            check_domains(ids["domains"], len(self._y), self.domain_names, "domains")

    @property
    def domain_names(self) -> list[str]:
        """As given, or numbers."""
        return self._domain_names or []

    def read_domains(self, split: Literal["train", "val", "test"]) -> Labels | None:
        """As given."""
        return self._domains.get(split)

    @property
    def num_classes(self) -> int:
        """As given, or the largest label + 1."""
        return self._classes

    def read(self, split: Literal["train", "val", "test"]) -> tuple[Tensor, Labels] | None:
        """The arrays."""
        if split == "train":
            return self._x, self._y
        return self._held if split == "test" else None


def _check_lengths(x_name: str, x: Tensor, y_name: str, y: Labels) -> None:
    if len(x) != len(y):
        raise ValueError(f"{x_name} has {len(x)} samples and {y_name} {len(y)}. Give one label for each sample.")


def _array(name: str, value: Any) -> Any:
    if not isinstance(value, (str, Path)):
        return value
    path = Path(value)
    if not path.is_file():
        raise FileNotFoundError(f"{name}={str(path)!r} is not a file. Give a .npy, .npz or .pt file.")
    if path.suffix == ".npy":
        return np.load(path, allow_pickle=False)
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            key = name if name in archive else archive.files[0]
            return archive[key]
    if path.suffix == ".pt":
        return torch.load(path, map_location="cpu", weights_only=True)
    raise ValueError(f"{name}={str(path)!r} has an unknown ending. Give a .npy, .npz or .pt file.")


def _inputs(value: Any) -> Tensor:
    x = torch.as_tensor(np.asarray(value) if not isinstance(value, Tensor) else value)
    if x.dtype != torch.uint8 or x.ndim not in (3, 4):
        return x.to(torch.float32)
    if x.ndim == 3:
        x = x[:, None]
    if x.ndim == 4 and x.shape[1] not in (1, 3) and x.shape[-1] in (1, 3):
        x = x.permute(0, 3, 1, 2)
    return x.contiguous()


def _labels(name: str, value: Any) -> Labels:
    labels = np.asarray(_array(name, value))
    whole = labels.dtype.kind in "iub" or (labels.dtype.kind == "f" and bool((labels % 1 == 0).all()))
    if labels.ndim not in (1, 2) or not whole:
        raise ValueError(
            f"{name} has shape {labels.shape} and type {labels.dtype}. Give class ids 0..C-1, one a sample, or one 0 "
            "or 1 for each class."
        )
    return labels.astype(np.int64)


def _statistics(
    x: Tensor, mean: tuple[float, ...] | None, std: tuple[float, ...] | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if mean and std:
        return mean, std
    first = second = torch.zeros(x.shape[1], dtype=torch.float64)
    # in chunks: the float copy of all images would be four times their size
    for chunk in torch.split(x, 1024):
        pixels = chunk.to(torch.float32)
        first = first + pixels.sum((0, 2, 3), dtype=torch.float64)
        second = second + pixels.square().sum((0, 2, 3), dtype=torch.float64)
    count = x.numel() / x.shape[1] * 255
    centre = first / count
    spread = (second / (count * 255) - centre**2).clamp(min=1e-8).sqrt()
    return mean or tuple(centre.tolist()), std or tuple(spread.tolist())
