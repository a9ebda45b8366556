"""Text classifiers of the library transformers (BERT, DistilBERT, ...)."""

from typing import Any

from torch import Tensor, nn

from lightning_perturb.checks import check_positive
from lightning_perturb.optional import need_transformers


class TransformersClassifier(nn.Module):
    """A sequence classifier of Hugging Face's transformers with ``num_classes`` outputs.

    It takes ids ``[B, L]`` with padding at the end, as :class:`~lightning_perturb.data.TransformersTokenizer` of the
    same name gives them, and leaves padding out of the attention. Its files are read without running any code of
    theirs: weights as safetensors or as plain tensors, and no classes that come with the files.

    Args:
        name: a folder with ``config.json`` and weights, or a name of the Hugging Face hub, which is fetched once.
        num_classes: number of classes. A last layer of another width, or none, is replaced by a fresh one.
        pretrained: take the trained weights; False reads the configuration alone and draws weights at random.

    Raises:
        ImportError: if transformers is not installed.
        ValueError: if the files cannot be read, or are no sequence classifier.
    """

    def __init__(self, name: str, num_classes: int, pretrained: bool = True) -> None:
        check_positive("num_classes", num_classes)
        super().__init__()
        transformers = need_transformers(type(self).__name__)
        auto = transformers.AutoModelForSequenceClassification
        try:
            config = transformers.AutoConfig.from_pretrained(name, num_labels=num_classes, trust_remote_code=False)
            if pretrained:
                self.model = auto.from_pretrained(
                    name, config=config, trust_remote_code=False, ignore_mismatched_sizes=True
                )
            else:
                self.model = auto.from_config(config, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"name={name!r} cannot be read as a text classifier ({str(error).splitlines()[0]}). Give a folder with "
                "config.json and model.safetensors, or a name of the Hugging Face hub and access to it."
            ) from error
        # it comes in evaluation mode from a file
        self.model.train()
        self.pad_id = 0 if config.pad_token_id is None else int(config.pad_token_id)

    def forward(self, ids: Tensor) -> Tensor:
        """Maps ids ``[B, L]``, padded at the end, to logits ``[B, num_classes]``."""
        if ids.ndim != 2 or ids.is_floating_point():
            raise ValueError(
                f"{type(self).__name__} takes ids [B, L] of tokens, but the input is {ids.dtype} of shape "
                f"{tuple(ids.shape)}. Use text data with a TransformersTokenizer; to perturb embedded tokens, set "
                "perturb_at to embeddings."
            )
        logits: Tensor = self.model(input_ids=ids, attention_mask=(ids != self.pad_id).long()).logits
        return logits

    def get_input_embeddings(self) -> Any:
        """The layer that embeds tokens, by the library's own name for it."""
        return self.model.get_input_embeddings()
