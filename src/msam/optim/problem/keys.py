"""The keys of a batch: each belongs to one modality, and to an argument of the model."""

import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from torch import nn
from torch.utils.weak import WeakIdKeyDictionary

from msam.errors import ContributionWarning, InvalidValueError


class _Arguments(NamedTuple):
    """Those of a model's forward."""

    names: frozenset[str]
    """By which they are passed; empty where nothing is known."""
    takes_any: bool
    """Whether there is a ``**kwargs``."""
    warned_of: set[str]


_NAMED = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}

_KNOWN: WeakIdKeyDictionary = WeakIdKeyDictionary()


def check_keys(
    batch: Mapping[str, Any], modalities: Mapping[str, list[str]], labels: str | None, embeddings: Mapping[str, nn.Module]
) -> None:
    """Refuse modalities, labels and embeddings that do not fit the batch.

    Args:
        batch: Argument -> value.
        modalities: Modality name -> its keys.
        labels: The key of the target, if it is in the batch.
        embeddings: Modality name -> module.

    Raises:
        InvalidValueError: If a key is missing, or belongs to two modalities.
    """
    used = [key for keys in modalities.values() for key in keys]
    missing = [key for key in used if key not in batch]
    if missing or not all(modalities.values()):
        raise InvalidValueError(
            f"every modality must name keys of the batch, found {dict(modalities)} for a batch with {list(batch)}; "
            "drop what is not there"
        )
    if labels is not None and labels not in batch:
        raise InvalidValueError(
            f"target must be a key of the batch, found {labels!r} for a batch with {list(batch)}; name another key, or pass "
            "the tensor itself where the model takes no labels"
        )
    if len(set(used)) < len(used) or labels in used:
        raise InvalidValueError(
            f"a key must belong to one modality, and the target to none, found {dict(modalities)} and target {labels!r}; "
            "name each key once"
        )
    unknown = [name for name in embeddings if name not in modalities]
    if unknown:
        raise InvalidValueError(f"embeddings must name modalities, found {unknown[0]!r}; the modalities are {list(modalities)}")


def check_arguments(model: Callable[..., Any], modalities: Mapping[str, list[str]]) -> None:
    """Refuse keys that the model does not take, and warn once of those that only its ``**kwargs`` takes.

    Args:
        model: Called as ``model(**batch)``.
        modalities: Modality name -> its keys.

    Raises:
        InvalidValueError: If the model has no argument for a key.
    """
    known = _arguments_of(model)
    for name, keys in modalities.items():
        for key in keys:
            if not known.names or key in known.names or key in known.warned_of:
                continue
            found = f"found {key!r} of {name!r}, which is none of {sorted(known.names)}"
            if not known.takes_any:
                raise InvalidValueError(f"a key must be an argument of the model, {found}; correct it, or drop it")
            known.warned_of.add(key)
            warnings.warn(
                f"a key should be a named argument of the model, {found}: its **kwargs takes it, and may drop it in silence; "
                "correct its spelling, or ignore this where the model passes it on",
                ContributionWarning,
                stacklevel=2,
            )


def _arguments_of(model: Callable[..., Any]) -> _Arguments:
    try:
        known = _KNOWN.get(model)
        if known is None:
            known = _KNOWN[model] = _read_arguments(model)
    except TypeError:  # what cannot be referred to weakly is looked at each time
        known = _read_arguments(model)
    found: _Arguments = known
    return found


def _read_arguments(model: Any) -> _Arguments:
    inner = _look_through(model)
    names: set[str] = set()
    takes_any: list[bool] = []
    for function in _functions_of(inner):
        try:
            parameters = inspect.signature(function).parameters.values()
        except (TypeError, ValueError):
            return _Arguments(frozenset(), takes_any=True, warned_of=set())
        names |= {parameter.name for parameter in parameters if parameter.kind in _NAMED}
        takes_any.append(any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters))
        if not takes_any[-1]:
            break
    return _Arguments(frozenset(names), takes_any[0], set())


def _functions_of(model: Any) -> list[Any]:
    """What is called, and after it what it may pass its ``**kwargs`` on to: the forward functions of its class's parents."""
    if not isinstance(model, nn.Module):
        return [model]
    kinds = [kind for kind in type(model).__mro__ if "forward" in kind.__dict__ and kind is not nn.Module]
    return [model.forward, *(kind.__dict__["forward"].__get__(model) for kind in kinds)]


def _look_through(model: Any) -> Any:
    """Find the model in its wrappers: adapters, parallel ones, compiled ones."""
    for _ in range(4):
        if callable(getattr(model, "get_base_model", None)):
            inner = model.get_base_model()
        elif type(model).__name__ in {"DataParallel", "DistributedDataParallel"}:
            inner = model.module
        else:
            inner = getattr(model, "_orig_mod", model)
        if inner is model:
            break
        model = inner
    return model
