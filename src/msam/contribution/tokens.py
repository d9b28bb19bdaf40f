"""A stand-in for integer ids: the token that says that nothing is there."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from msam.checks import check_type
from msam.contribution.baselines import Baseline
from msam.contribution.nested import Path, is_replaced, list_leaves, map_paths, replace_leaves
from msam.errors import InvalidTypeError, InvalidValueError


class Tokens(Baseline):
    """Integer ids become one token, such as that of the mask or of what is unknown; numbers of floating point become zeros.

    Masks (booleans) stay, and so do integers that are not named, such as lengths.

    Args:
        tokens: Modality name -> token; or -> mapping of a key of its input to the token there, where it has several integers.
            Other modalities get zeros.

    Raises:
        InvalidTypeError: If it is no mapping of whole numbers; later, if a modality that is named has no integers.
        InvalidValueError: Later, if a modality has several integer tensors and the token does not say which is meant.

    Example:
        >>> batch = {"ids": torch.tensor([[5, 7]]), "mask": torch.tensor([[True, True]])}
        >>> Tokens({"text": 0}).absent("text", batch)
        {'ids': tensor([[0, 0]]), 'mask': tensor([[True, True]])}
    """

    def __init__(self, tokens: Mapping[str, int | Mapping[Any, int]]) -> None:
        check_type("tokens", tokens, Mapping, "a mapping of modality name -> token", remedy="such as {'text': 0}")
        for name, token in tokens.items():
            for number in token.values() if isinstance(token, Mapping) else (token,):
                if isinstance(number, bool) or not isinstance(number, int):
                    raise InvalidTypeError(
                        f"a token must be a whole number, found {number!r} for {name!r}; such as tokenizer.mask_token_id"
                    )
        self._tokens = dict(tokens)

    @override
    def absent(self, name: str, value: Any) -> Any:
        if name not in self._tokens:
            return replace_leaves(name, value, lambda leaf, _: torch.zeros_like(leaf))
        token = self._tokens[name]
        ids = [leaf for leaf in list_leaves(value) if _is_integer(leaf)]
        if not ids:
            raise InvalidTypeError(f"a token must stand in for integers, found none in {name!r}; leave it out of `tokens`")
        if len(ids) > 1 and not isinstance(token, Mapping):
            raise InvalidValueError(
                f"a token must say which integers it stands in for, found {len(ids)} tensors of them in {name!r}; give a "
                f"mapping, such as {{{name!r}: {{'ids': {token}}}}}"
            )

        met: set[Any] = set()

        def replace(leaf: Tensor, path: Path) -> Tensor:
            if is_replaced(leaf):
                return torch.zeros_like(leaf)
            key = path[-1] if path else None
            if not _is_integer(leaf) or (isinstance(token, Mapping) and key not in token):
                return leaf
            met.add(key)
            number = token[key] if isinstance(token, Mapping) else token
            known = torch.iinfo(leaf.dtype)
            if not known.min <= number <= known.max:
                raise InvalidValueError(
                    f"a token must fit the integers it stands in for, found {number} for {name!r}, {leaf.dtype}; use int64 ids"
                )
            return torch.full_like(leaf, number)

        found = map_paths(replace, value)
        missed = [key for key in token if key not in met] if isinstance(token, Mapping) else []
        if missed:
            # What it was to stand in for would stay, and the modality would be seen where it is absent.
            where = (
                "a single tensor; give the token itself" if isinstance(value, Tensor) else f"{_keys(value)}; name one of these"
            )
            raise InvalidValueError(f"tokens must name integers of the input, found {missed} for {name!r}, which is {where}")
        return found


def _keys(value: Any) -> str:
    return f"a mapping of {list(value)}" if isinstance(value, Mapping) else f"a {type(value).__name__}"


def _is_integer(leaf: Tensor) -> bool:
    return not (leaf.is_floating_point() or leaf.is_complex() or leaf.dtype == torch.bool or is_replaced(leaf))
