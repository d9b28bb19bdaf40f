"""Every error and warning that msam raises by itself: each names the rule, the value found, and the remedy.

Errors of your own code, and of torch or NumPy below it, are passed on as they are. To catch all of msam's at once::

    try:
        optimizer.step(closure)
    except msam.errors.MsamError as error:
        print(error)
"""

import sys
import warnings
from pathlib import Path

_INSIDE = str(Path(__file__).parent)


class MsamError(Exception):
    """What all errors of msam have in common; raised as one of the kinds below."""


class InvalidValueError(MsamError, ValueError):
    """An argument, a setting or data whose value is out of its range, or does not fit the others."""


class InvalidTypeError(MsamError, TypeError, ValueError):
    """An argument of a type that cannot be used. It is a `ValueError` too, as which version 0.1 raised such errors."""


class InvalidStateError(MsamError, RuntimeError):
    """Something that cannot be done now: calls in the wrong order, gradients that are not there or not finite."""


class StorageError(InvalidStateError):
    """A file or folder that cannot be read or written: a full disk, a missing permission, a file in a folder's place."""


class RunError(InvalidStateError):
    """Runs of a comparison that ended without a result: their process died, or took longer than allowed."""


class MsamWarning(UserWarning):
    """What all warnings of msam have in common."""


class SkippedStepsWarning(MsamWarning):
    """Many steps in a row were skipped because something in them was not finite."""


class PerturbationWarning(MsamWarning):
    """A perturbation does not do what it is meant to: it is rounded away, or the second pass does not see it."""


class ContributionWarning(MsamWarning):
    """Contributions of modalities are not taken as the model's author may think, or say nothing."""


class DamagedFileWarning(MsamWarning):
    """A file that can be made again was damaged, and is made again."""


class BalanceWarning(MsamWarning):
    """A balancing method does not do what it is meant to, under this optimizer."""


class JoinWarning(MsamWarning):
    """Samples of several tables do not meet though their names look alike."""


def warn_caller(text: str, category: type[Warning]) -> None:
    """Warn of the line of the user's that has led here, however many calls of this library and of torch lie between.

    Args:
        text: What to say.
        category: The kind of warning.
    """
    torch = sys.modules.get("torch")
    inside = (_INSIDE, str(Path(str(torch.__file__)).parent)) if torch is not None else (_INSIDE,)
    frame, level = sys._getframe(), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(inside):
        frame, level = frame.f_back, level + 1
    warnings.warn(text, category, stacklevel=level)
