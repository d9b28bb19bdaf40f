"""The published sets: what to get, on which terms, and how each is prepared."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msam.data.archives.packages import Report, cache_folder, silent
from msam.data.prepared.preparing import Plan, prepare
from msam.data.prepared.reading import Prepared, is_prepared, load_prepared
from msam.data.published import av_mnist, ave, ave_segments, crema_d, ur_funny
from msam.errors import InvalidValueError


@dataclass(frozen=True)
class PublishedSet:
    """One set that its authors hand out, to be prepared from the user's own copy."""

    name: str
    title: str
    contents: str
    """How many of what."""
    plan: Callable[..., Plan]
    """From the source, and settings by keyword, to what is to be prepared."""
    origin: str
    terms: str
    """On which it is handed out, and what to cite."""

    @property
    def path(self) -> Path:
        """The folder that it is prepared in."""
        return cache_folder() / self.name

    @property
    def prepared(self) -> bool:
        """Whether it is on this machine, in full length."""
        return is_prepared(self.path)

    @property
    def command(self) -> str:
        """The command that prepares it."""
        return f"msam data {self.name} --source DIR"

    def prepare(
        self,
        source: Path,
        *,
        jobs: int | None = None,
        leave_out_damaged: bool = False,
        progress: Report = silent,
        **settings: Any,
    ) -> Prepared:
        """Prepare it, unless it is there with the same settings from the same parts.

        Args:
            source: A folder with what the authors hand out.
            jobs: Parts that are read at the same time; as many as there are processors where None.
            leave_out_damaged: Whether to go on without parts that cannot be used.
            progress: Is told how far it is.
            **settings: Of `plan`, such as ``frame_size=96``.

        Returns:
            The prepared set.

        Raises:
            InvalidValueError: If the source is another, a setting is not one of this set, or parts cannot be used; what was
                prepared is kept for the next call.
            StorageError: If the disk refuses.
        """
        known = [name for name in inspect.signature(self.plan).parameters if name != "source"]
        if unknown := [name for name in settings if name not in known]:
            raise InvalidValueError(
                f"settings of {self.name} are {known}, found {unknown[0]}={settings[unknown[0]]!r}; leave it out"
            )
        if not source.is_dir():
            raise InvalidValueError(f"--source must be a folder with {self.title}, found none at {str(source)!r}")
        plan = self.plan(source, **settings)
        prepare(plan, self.path, jobs=jobs, leave_out_damaged=leave_out_damaged, progress=progress)
        return self.load()

    def load(self) -> Prepared:
        """Open what was prepared.

        Returns:
            The set, from a memory map.

        Raises:
            InvalidValueError: If it was not prepared, or is not whole.
        """
        return load_prepared(self.path, f"{self.command} (from {self.origin})")


PUBLISHED: dict[str, PublishedSet] = {
    known.name: known
    for known in (
        PublishedSet(
            name="crema-d",
            title="CREMA-D: six emotions, acted by 91 people, seen and heard",
            contents="7442 clips: a spectrogram of 3 s and 3 frames",
            plan=crema_d.plan_crema_d,
            origin=crema_d.ORIGIN,
            terms="Open Database License; cite H. Cao et al., IEEE Transactions on Affective Computing 5(4), 2014",
        ),
        PublishedSet(
            name="av-mnist",
            title="AV-MNIST: weakened digits and noisy spectrograms of spoken ones",
            contents="60000 + 10000 pictures of 28 x 28 and spectrograms of 112 x 112",
            plan=av_mnist.plan_av_mnist,
            origin=av_mnist.ORIGIN,
            terms="none stated for the whole; cite V. Vielzeuf et al., ECCV workshops 2018",
        ),
        PublishedSet(
            name="ur-funny",
            title="UR-FUNNY: punchlines, funny or not, as words, sound and face",
            contents="16514 punchlines of 20 words (version 1)",
            plan=ur_funny.plan_ur_funny,
            origin=ur_funny.ORIGIN,
            terms="research; cite M. K. Hasan et al., EMNLP 2019",
        ),
        PublishedSet(
            name="ave",
            title="AVE: 28 events, seen and heard in videos of 10 s",
            contents="4143 clips: a spectrogram of 10 s and 4 frames",
            plan=ave.plan_ave,
            origin=ave.ORIGIN,
            terms="videos of YouTube, listed for research; cite Y. Tian et al., ECCV 2018",
        ),
        PublishedSet(
            name="ave-segments",
            title="AVE's segments: which event, or none, each second shows, from the authors' features",
            contents="4143 videos of 10 segments",
            plan=ave_segments.plan_ave_segments,
            origin=ave.ORIGIN,
            terms="as AVE",
        ),
    )
}
"""Name -> data set."""
