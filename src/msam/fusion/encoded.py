"""What models that encode each modality on its own have in common."""

from abc import abstractmethod
from collections.abc import Mapping

from torch import Tensor, nn
from typing_extensions import override

from msam.contribution.late_fusion import fuses_encoded


class EncodedFusion(nn.Module):
    """Encode each modality on its own, then fuse: ``forward(inputs) = fuse(encode(inputs))``.

    Such a model declares ``encoders`` and ``fuse``, so that contributions cost one batched pass of `fuse`.
    """

    encoders: Mapping[str, nn.Module] | nn.ModuleDict
    """Modality name -> module from an input to a feature."""

    @override
    @fuses_encoded
    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Map a batch to the output.

        Args:
            inputs: Modality name -> input, first axis the sample; all of the encoders' names.

        Returns:
            The output, ``(B, ...)``.
        """
        return self.fuse({name: encoder(inputs[name]) for name, encoder in self.encoders.items()})

    @abstractmethod
    def fuse(self, features: Mapping[str, Tensor]) -> Tensor:
        """Map one feature per modality to the output.

        Args:
            features: Modality name -> what its encoder gives, first axis the sample.

        Returns:
            The output, ``(B, ...)``.
        """
