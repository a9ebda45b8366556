"""The split of any network into features and a linear classifier."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


class RecordedFeatures:
    """What entered the classifier in the latest forward, together with the weight and bias used there.

    All of them carry the gradient of that forward and stay readable after the recording has ended.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._recorded: tuple[Tensor, Tensor, Tensor | None] | None = None

    @property
    def features(self) -> Tensor:
        """Input of the classifier, ``[B, A]``: ``features @ weight.T + bias`` are its outputs."""
        return self._latest()[0]

    @property
    def weight(self) -> Tensor:
        """Weight of the classifier, ``[num_classes, A]``; inside ``functional_call`` the one that was passed."""
        return self._latest()[1]

    @property
    def bias(self) -> Tensor | None:
        """Bias of the classifier, ``[num_classes]``, or None where it has none."""
        return self._latest()[2]

    def _latest(self) -> tuple[Tensor, Tensor, Tensor | None]:
        if self._recorded is None:
            raise RuntimeError(
                f"The classifier {self.name!r} was not called while its input was recorded. Call the network inside "
                "the `with record_features(...)` block, and check that its forward uses this layer."
            )
        return self._recorded

    def _hook(self, classifier: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        assert isinstance(classifier, nn.Linear)
        features: Tensor = args[0] if args else kwargs["input"]
        # read here and not later: functional_call puts the original parameters back after the forward
        self._recorded = (features, classifier.weight, classifier.bias)


def find_classifier(net: nn.Module, name: str | None = None) -> tuple[str, nn.Linear]:
    """Finds the linear classifier that a network ends with.

    Args:
        net: any network.
        name: dotted name of the classifier in ``net``; None takes the ``nn.Linear`` that was registered last.

    Returns:
        The dotted name and the layer itself. The name is empty if ``net`` is itself the classifier.

    Raises:
        ValueError: if ``net`` has no ``nn.Linear``, or none of that name; the message lists those that it has.
    """
    linears = {dotted: module for dotted, module in net.named_modules() if isinstance(module, nn.Linear)}
    if not linears:
        raise ValueError(
            f"{type(net).__name__} has no nn.Linear, so its features cannot be told from its classifier. "
            "Use a network whose last layer is an nn.Linear."
        )
    if name is None:
        name = next(reversed(linears))
    if name not in linears:
        raise ValueError(f"name={name!r} is no nn.Linear of {type(net).__name__}. Choose one of: {', '.join(linears)}.")
    return name, linears[name]


@contextmanager
def record_features(net: nn.Module, name: str | None = None) -> Iterator[RecordedFeatures]:
    """Records what enters the classifier of ``net`` in the forwards inside the ``with`` block.

    ``net`` may be called directly, through a wrapper or through ``torch.func.functional_call``. After several
    forwards the latest one counts. Recordings may be nested, each sees all forwards inside its own block. The hook is
    removed at the end of the block, also after an error.

    Args:
        net: any network that ends with an ``nn.Linear``.
        name: dotted name of the classifier in ``net``; None takes the ``nn.Linear`` that was registered last.

    Yields:
        The recording, to be read after the forward.

    Raises:
        ValueError: if there is no such classifier.
    """
    name, classifier = find_classifier(net, name)
    recorded = RecordedFeatures(name)
    handle = classifier.register_forward_hook(recorded._hook, with_kwargs=True)
    try:
        yield recorded
    finally:
        handle.remove()


@contextmanager
def move_features(
    net: nn.Module, move: Callable[[Tensor, nn.Linear], Tensor], name: str | None = None
) -> Iterator[None]:
    """Changes what enters the classifier of ``net`` in the forwards inside the ``with`` block.

    Args:
        net: any network that ends with an ``nn.Linear``.
        move: from the features and the layer, as it is in that forward, to the features that enter it instead.
        name: as of :func:`record_features`, which sees the features as they were changed.

    Raises:
        ValueError: if there is no such classifier.
    """
    _, classifier = find_classifier(net, name)

    def hook(layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        assert isinstance(layer, nn.Linear)
        if args:
            return (move(args[0], layer), *args[1:]), kwargs
        return args, {**kwargs, "input": move(kwargs["input"], layer)}

    handle = classifier.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
