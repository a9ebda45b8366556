"""Libraries that only some classes need."""

from typing import Any


def need_transformers(who: str) -> Any:
    """The library transformers.

    Args:
        who: What needs it, for the message.

    Raises:
        ImportError: If it is not installed.
    """
    try:
        import transformers
    except ImportError as error:
        raise ImportError(
            f"{who} needs the library transformers. Install it with: pip install 'lightning-perturb[text]'"
        ) from error
    return transformers
