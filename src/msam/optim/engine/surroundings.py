"""What a second pass must leave as the first one left it, besides the optimizer's own parameters."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from msam.geometry.spread import as_local
from msam.optim.engine.snapshot import Backup
from msam.optim.engine.weights import Weights

SMALL = 1 << 16
"""Buffers up to this many bytes are copied without asking whether they moved: writes through ``.data`` do not show."""
LOOKED_FOR_EVERY = 100

Slot = tuple[nn.Module, str]
"""A module, and the name of one of its buffers."""

State = tuple[int, int]
"""The version of a tensor, and where its memory is."""
_UNKNOWN = -1, -1


class Surroundings:
    """Everything that a pass can change and that is not for the second pass to change.

    - Buffers of the model: small ones and BatchNorm's statistics (to which it writes without a trace) always, other large
      ones if the first pass wrote into them, are copied before the second pass, and restored after it.
    - Parameters of the model that are in no group of ours, or frozen (a codebook that ``forward`` moves): those that the first
      pass wrote into. Writes through ``.data`` do not show, unless they put other memory in its place.
    - ``.grad`` of parameters of no group of ours: set aside for the second pass and put back, so that another optimizer gets
      the gradient of the first pass alone. They are those of the model, or of a `MultimodalClosure`'s; else they are found by
      following the loss that the closure returns.
    - Weights that a forward pass writes into (``nn.Embedding`` with ``max_norm``): if the pass at theta raises, they are as
      before it.

    Args:
        model: The module, or None.
        weights: The optimizer's own.
    """

    def __init__(self, model: nn.Module | None, weights: Weights) -> None:
        self._model = model
        self._weights = weights
        self._backup, self._table = Backup(), Backup(stays=False)
        self._held: list[tuple[nn.Module, str, Tensor]] = []
        self._foreign: list[tuple[Tensor, Tensor | None]] = []
        self._states: list[State] = []
        self._own_states: list[State] = []
        self._buffer_states: list[tuple[nn.Module, str, State]] = []
        self.forget()

    def forget(self) -> None:
        """Look for everything anew at the next step; after groups have changed, or a checkpoint was loaded."""
        self._parts: list[tuple[nn.Module, list[nn.Module | None], int]] = []
        self._slots: list[Slot] = []
        self._others: list[Tensor] = []
        self._watched: list[Tensor] = []
        self._strangers: list[Tensor] = []
        self._models: list[nn.Module] = []
        self._rewritten: list[Tensor] = []
        self._moving: set[Slot | Tensor] = set()
        self._knows = True
        self._taken = 0

    # -- before and during the pass at theta ---------------------------------------------------------------------------

    def start_first(self) -> None:
        """Note how everything is before the pass at theta."""
        if self._model is not None:
            if not self._is_known():
                self._look(self._model)
            # Our own that are frozen now are not ours to move either.
            self._watched = [*self._others, *(tensor for tensor in self._weights if not tensor.requires_grad)]
        self._states = [_state(tensor) for tensor in self._watched]
        self._buffer_states = [
            (part, name, _state(found))
            for part, name in self._slots
            if (found := _buffer(part, name)) is not None and _is_large(found)
        ]
        self._own_states = [_state(tensor) for tensor in self._weights] if self._taken % LOOKED_FOR_EVERY == 0 else []
        self._taken += 1
        if self._rewritten:
            self._table.take(self._rewritten)

    def start_late(self) -> None:
        """Begin where a pass at theta has run already: as nothing is known of what it moved, everything is kept."""
        self.start_first()
        self._buffer_states, self._states = [], [_UNKNOWN] * len(self._watched)
        self._knows = False

    def start_next(self) -> None:
        """Note how everything is after a step, where the next pass at theta is another's to run."""
        if not self._knows:
            self._moving, self._knows = set(), True
        self.start_first()

    def undo_first(self) -> None:
        """Put weights back that an interrupted pass at theta has written into."""
        self._table.restore_()

    def end_first(self, loss: object, models: list[nn.Module]) -> None:
        """Learn from a pass at theta that has ended.

        Args:
            loss: What the closure returned.
            models: What it ran, where that is known.
        """
        if self._rewritten:
            self._table = Backup(stays=False)
        if self._own_states:
            pairs = zip(self._weights, self._own_states, strict=True)
            known = {id(tensor) for tensor in self._rewritten}
            self._rewritten += [tensor for tensor, state in pairs if _state(tensor) != state and id(tensor) not in known]
        if self._model is None:
            self._find_strangers(loss, models)

    def _find_strangers(self, loss: object, models: list[nn.Module]) -> None:
        """Find parameters of no group of ours that take part in a loss."""
        if models:
            if models != self._models:
                own = set(self._weights)
                found = (parameter for model in models for parameter in model.parameters() if parameter not in own)
                self._strangers, self._models = list(dict.fromkeys(found)), models
        elif isinstance(loss, Tensor) and loss.grad_fn is not None:
            own = set(self._weights)
            self._strangers = [leaf for leaf in find_leaves(loss) if leaf not in own]

    # -- around the second pass ------------------------------------------------------------------------------------------

    def set_aside(self) -> None:
        """Before the second pass: copy what it could change, and take foreign gradients away."""
        before = {(id(part), name): state for part, name, state in self._buffer_states}
        self._held = [(part, name, found) for part, name in self._slots if (found := _buffer(part, name)) is not None]
        chosen = []
        for part, name, buffer in self._held:
            if not _can_be_copied(buffer):
                continue
            # One that was not there before the first pass has been put there by it.
            if _is_large(buffer) and before.get((id(part), name)) != _state(buffer):
                self._moving.add((part, name))
            if not _is_large(buffer) or isinstance(part, _NormBase) or (part, name) in self._moving:
                chosen.append(buffer)
        for tensor, state in zip(self._watched, self._states, strict=True):
            if _state(tensor) != state and _can_be_copied(tensor):
                self._moving.add(tensor)
        if self._moving:
            chosen += [tensor for tensor in self._watched if tensor in self._moving]
        self._backup.take([as_local(tensor) for tensor in chosen])
        trained = (tensor for tensor in (*self._others, *self._strangers) if tensor.requires_grad)
        self._foreign = [(tensor, tensor.grad) for tensor in trained]
        for tensor, _ in self._foreign:
            tensor.grad = None

    def put_back(self) -> None:
        """After the second pass: undo what it changed."""
        self._backup.restore_()
        for tensor, gradient in self._foreign:
            tensor.grad = gradient
        for part, name, buffer in self._held:
            if _buffer(part, name) is not buffer:
                setattr(part, name, buffer)
        self._held, self._foreign = [], []
        if not self._models:
            # Leaves may be inputs, which are others at every step.
            self._strangers = []

    # -- what there is ---------------------------------------------------------------------------------------------------

    def _is_known(self) -> bool:
        """Tell whether the model has the parts that it had; cheaper than to walk it."""
        for part, children, count in self._parts:
            if len(part._buffers) != count or list(part._modules.values()) != children:
                return False
        return bool(self._parts)

    def _look(self, model: nn.Module) -> None:
        own = set(self._weights)
        parts = list(model.modules())
        self._parts = [(part, list(part._modules.values()), len(part._buffers)) for part in parts]
        # `keys`, since those of a ScriptModule cannot be gone through otherwise.
        self._slots = [(part, name) for part in parts for name in part._buffers.keys()]  # noqa: SIM118
        self._others = [tensor for tensor in model.parameters() if tensor not in own]
        tables = [part.weight for part in parts if isinstance(part, nn.Embedding | nn.EmbeddingBag) and part.max_norm]
        self._rewritten = [tensor for tensor in tables if tensor in own]


def _buffer(part: nn.Module, name: str) -> Tensor | None:
    # Those of a ScriptModule have no `get`.
    return part._buffers[name] if name in part._buffers else None  # noqa: SIM401


def _state(tensor: Tensor) -> State:
    """What changes when a tensor is written to, or gets other memory."""
    if tensor.is_inference() or tensor.layout != torch.strided:
        return id(tensor), 0
    tensor = as_local(tensor)
    return tensor._version, tensor.data_ptr()


def _is_large(tensor: Tensor) -> bool:
    return tensor.layout != torch.strided or tensor.numel() * tensor.element_size() > SMALL


def _can_be_copied(tensor: Tensor) -> bool:
    """Whether it can be written back: not sparse, no inference tensor, and no number in it that stands for several."""
    if tensor.layout != torch.strided or tensor.is_inference():
        return False
    return tensor.is_contiguous() or all(
        stride or size <= 1 for stride, size in zip(tensor.stride(), tensor.shape, strict=True)
    )


def find_leaves(loss: Tensor) -> list[Tensor]:
    """Find the leaves that a loss was computed from; its graph may have been used already.

    Args:
        loss: With a graph.

    Returns:
        The leaf tensors that require a gradient, each once.

    Example:
        >>> weight = torch.ones(2, requires_grad=True)
        >>> find_leaves((weight * 2).sum())[0] is weight
        True
    """
    leaves: dict[Tensor, None] = {}
    seen: set[object] = set()
    waiting: list[object] = [loss.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if isinstance(variable, Tensor) and variable.is_leaf:
            leaves[variable] = None
        following: Iterable[tuple[object, int]] = getattr(node, "next_functions", ())
        waiting.extend(next_node for next_node, _ in following)
    return list(leaves)
