"""What a second pass must leave as the first one left it, besides the optimizer's own parameters."""

from collections.abc import Iterable

from torch import Tensor, nn

from msam.optim.engine.snapshot import Backup
from msam.optim.engine.weights import Weights

SMALL = 1 << 16
"""Buffers up to this many bytes are copied without asking whether they moved: writes through ``.data`` do not show."""
LOOKED_FOR_EVERY = 100

Slot = tuple[nn.Module, str]
"""A module, and the name of one of its buffers."""


class Surroundings:
    """Everything that a pass can change and that is not for the second pass to change.

    - Buffers of the model (BatchNorm's statistics), and its parameters of no group of ours (a codebook that ``forward``
      moves): what moved in the first pass is copied before the second, and restored after it.
    - ``.grad`` of parameters of no group of ours: set aside for the second pass and put back, so that another optimizer gets
      the gradient of the first pass alone. Without the model, those are found by following the loss that the closure
      returns, on the first and on every hundredth step.
    - Weights that a forward pass writes into (``nn.Embedding`` with ``max_norm``): if the pass at theta raises, they are as
      before it.

    Args:
        model: The module, or None.
        weights: The optimizer's own.
    """

    def __init__(self, model: nn.Module | None, weights: Weights) -> None:
        self._model = model
        self._weights = weights
        self._parts: list[tuple[nn.Module, list[nn.Module | None], int]] = []
        self._slots: list[Slot] = []
        self._others: list[Tensor] = []
        self._strangers: list[Tensor] = []
        self._rewritten: list[Tensor] = []
        self._moving: set[Tensor] = set()
        self._versions: list[tuple[Tensor, int]] = []
        self._own_versions: list[tuple[Tensor, int]] = []
        self._foreign: list[tuple[Tensor, Tensor | None]] = []
        self._held: list[tuple[nn.Module, str, Tensor]] = []
        self._backup = Backup()
        self._table = Backup(stays=False)

    def forget(self) -> None:
        """Look for everything anew at the next step; after groups have changed."""
        self._parts, self._strangers = [], []

    # -- before and during the pass at theta ---------------------------------------------------------------------------

    def start_first(self, step: int) -> None:
        """Note how everything is before the pass at theta.

        Args:
            step: Number of steps taken before.
        """
        if self._model is not None and not self._is_known():
            self._look(self._model)
        self._versions = [(tensor, _version(tensor)) for tensor in (*self._others, *self._large_buffers())]
        looks = step % LOOKED_FOR_EVERY == 0
        self._own_versions = [(tensor, tensor._version) for tensor in self._weights] if looks else []
        if self._rewritten:
            self._table.take(self._rewritten)

    def undo_first(self) -> None:
        """Put weights back that an interrupted pass at theta has written into."""
        self._table.restore_()

    def end_first(self, loss: object, step: int) -> None:
        """Learn from a pass at theta that has ended.

        Args:
            loss: What the closure returned.
            step: Number of steps taken before.
        """
        if self._rewritten:
            self._table = Backup(stays=False)
        for tensor, version in self._own_versions:
            if tensor._version != version and all(tensor is not other for other in self._rewritten):
                self._rewritten.append(tensor)
        if self._model is None and step % LOOKED_FOR_EVERY == 0 and isinstance(loss, Tensor) and loss.grad_fn is not None:
            own = set(self._weights)
            # Not added to those found before: leaves may be inputs, which are others at every step.
            self._strangers = [leaf for leaf in find_leaves(loss) if leaf not in own]

    # -- around the second pass ------------------------------------------------------------------------------------------

    def set_aside(self) -> None:
        """Before the second pass: copy what it could change, and take foreign gradients away."""
        self._held = [(part, name, found) for part, name in self._slots if (found := _buffer(part, name)) is not None]
        chosen = [buffer for _, _, buffer in self._held if buffer.nbytes <= SMALL]
        if self._others or len(chosen) < len(self._held):
            known = dict(self._versions)
            for tensor in (*self._others, *(buffer for _, _, buffer in self._held if buffer.nbytes > SMALL)):
                # One that was not there before the first pass has been put there by it.
                if known.get(tensor) != _version(tensor):
                    self._moving.add(tensor)
                if tensor in self._moving:
                    chosen.append(tensor)
        self._backup.take(chosen)
        self._foreign = [(tensor, tensor.grad) for tensor in (*self._others, *self._strangers)]
        for tensor, _ in self._foreign:
            tensor.grad = None

    def put_back(self) -> None:
        """After the second pass: undo what it changed."""
        for tensor, gradient in self._foreign:
            tensor.grad = gradient
        self._backup.restore_()
        for part, name, buffer in self._held:
            if _buffer(part, name) is not buffer:
                setattr(part, name, buffer)
        self._held, self._foreign = [], []

    # -- what there is ---------------------------------------------------------------------------------------------------

    def _large_buffers(self) -> list[Tensor]:
        buffers = (_buffer(part, name) for part, name in self._slots)
        return [buffer for buffer in buffers if buffer is not None and buffer.nbytes > SMALL]

    def _is_known(self) -> bool:
        """Tell whether the model has the parts that it had; cheaper than to walk it."""
        for part, children, count in self._parts:
            if (
                len(part._buffers) != count
                or (part._modules and list(part._modules.values()) != children)
                or (children and not part._modules)
            ):
                return False
        return bool(self._parts)

    def _look(self, model: nn.Module) -> None:
        own = set(self._weights)
        parts = list(model.modules())
        self._parts = [(part, list(part._modules.values()), len(part._buffers)) for part in parts]
        self._slots = [(part, name) for part in parts for name in part._buffers]
        self._others = [tensor for tensor in model.parameters() if tensor not in own]
        tables = [
            part.weight for part in parts if isinstance(part, nn.Embedding | nn.EmbeddingBag) and part.max_norm is not None
        ]
        self._rewritten = [tensor for tensor in tables if tensor in own]


def _buffer(part: nn.Module, name: str) -> Tensor | None:
    # Those of a ScriptModule have no `get`.
    return part._buffers[name] if name in part._buffers else None  # noqa: SIM401


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


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
        if isinstance(variable, Tensor):
            leaves[variable] = None
        following: Iterable[tuple[object, int]] = getattr(node, "next_functions", ())
        waiting.extend(next_node for next_node, _ in following)
    return list(leaves)
