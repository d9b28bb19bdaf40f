"""Which parameters belong to which modality: an explicit map, never guessed from names."""

from collections.abc import Iterable, Mapping, Set

from torch import Tensor, nn

from msam.checks import check_type
from msam.errors import InvalidValueError

Block = nn.Module | Tensor | Iterable["nn.Module | Tensor"]
"""A module, a parameter, or several of them."""


def collect_blocks(blocks: Mapping[str, Block], parameters: Iterable[Tensor]) -> dict[str, Set[Tensor]]:
    """Turn a map from modalities to modules or parameters into sets of parameters.

    Args:
        blocks: Modality name -> its block. A part that several modalities share, such as the head, may be in several.
        parameters: Those of the optimizer.

    Returns:
        Modality name -> its trainable parameters.

    Raises:
        InvalidValueError: If a block has no trainable parameter that the optimizer has; if something in it is neither a module
            nor a tensor.
    """
    check_type("blocks", blocks, Mapping, "a mapping of modality name -> module, parameter or several of them")
    known = set(parameters)
    found = {name: {p for p in list_parameters(name, block) if p.requires_grad} for name, block in blocks.items()}
    for name, block in found.items():
        if not block & known:
            raise InvalidValueError(
                f"the block of each modality must hold parameters that the optimizer trains, found none for {name!r}; "
                "give modules or parameters, such as {'image': model.encoders['image']}"
            )
    return {name: block & known for name, block in found.items()}


def list_parameters(name: str, block: Block) -> Iterable[Tensor]:
    """List the parameters of a block, frozen ones too.

    Args:
        name: Of the modality, for messages.
        block: Its block.

    Returns:
        Its parameters.

    Raises:
        InvalidValueError: If something in it is neither a module nor a tensor.
    """
    if isinstance(block, nn.Module):
        return block.parameters()
    if isinstance(block, Tensor):
        return [block]
    if isinstance(block, str) or not isinstance(block, Iterable):
        raise InvalidValueError(f"a block must be a module, a parameter or several of them, found {block!r} for {name!r}")
    return [parameter for part in block for parameter in list_parameters(name, part)]
