"""Prepare a data set from the user's own files: in parallel, with progress, and from where a killed run was."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from functools import lru_cache
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from msam.checks import as_count
from msam.data.archives.packages import Report, silent
from msam.data.media.opening import DamagedClipError
from msam.data.prepared.parts import Field, Part, Rows, as_bytes
from msam.data.prepared.reading import read_manifest
from msam.data.prepared.working import WORKING, Entry, Working, read_journal, reopen
from msam.errors import InvalidValueError
from msam.storage import refuse

FORMAT = 1
"""Of the manifest."""

_SHOWN = 5
_CHUNK = 1 << 20

Result = tuple[Entry, dict[str, bytes] | None]
"""What is known of a part, and its rows as they are stored."""


@dataclass(frozen=True)
class Plan:
    """What to prepare.

    Raises:
        InvalidValueError: If there are no parts, or two have one name.
    """

    name: str
    """Of the set."""
    source: Path
    parts: Sequence[Part]
    fields: Mapping[str, Field]
    read: Callable[[Part], tuple[Rows, tuple[str, ...]]]
    """From a part to its rows and what is odd about it; raises `DamagedClipError` for one that cannot be used."""
    settings: Mapping[str, Any]
    """JSON-able: what the arrays depend on, besides the parts' files."""
    expected: Mapping[str, int]
    """What the literature counts -> how many."""
    count: Callable[[Sequence[Part]], Mapping[str, int]]
    """Counts the same of the parts that can be used."""
    absent: Sequence[str] = ()
    """What the source has that cannot be a part, and why; each begins with its name."""

    def __post_init__(self) -> None:
        names = [part.name for part in self.parts]
        if not names or len(set(names)) < len(names):
            raise InvalidValueError(f"{self.name} must have parts with names of their own, found {len(names)} parts")


def prepare(
    plan: Plan, target: Path, *, jobs: int | None = None, leave_out_damaged: bool = False, progress: Report = silent
) -> Path:
    """Prepare a set, unless it is there already, from the same files with the same settings.

    Args:
        plan: What to prepare.
        target: The folder to write.
        jobs: Parts that are read at the same time; the number of processors if None. Threads: decoders let others run.
        leave_out_damaged: Whether to go on without parts that cannot be used, which the manifest lists; an error else.
        progress: Is told how far it is.

    Returns:
        The target.

    Raises:
        InvalidValueError: If parts cannot be used and that was not allowed: what was read is kept, so that the next call reads
            only what is missing or was changed, and a set that was there stays; or if another process prepares it.
        StorageError: If the disk refuses.

    Cost: memory for `jobs` x 2 parts. A file counts as changed where its size or its time of change is another.
    """
    jobs = (os.cpu_count() or 1) if jobs is None else as_count("jobs", jobs, 1)
    target = target.resolve()
    folder = target.with_name(target.name + WORKING)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f"{target.name}.lock"), timeout=0):
            return _prepare(plan, target, folder, jobs, progress, leave_out_damaged=leave_out_damaged)
    except Timeout as error:
        raise InvalidValueError(
            f"{plan.name} must be prepared by one process at a time, found another one at work in {str(folder)!r}; wait for "
            "it, or set MSAM_CACHE to another folder"
        ) from error
    except OSError as error:
        refuse(target.parent, error)


def _prepare(plan: Plan, target: Path, folder: Path, jobs: int, progress: Report, *, leave_out_damaged: bool) -> Path:
    manifest = read_manifest(target)
    if manifest is not None and manifest["settings"] == _as_json(plan.settings):
        if _is_current(plan, target, manifest):
            return target
        if not folder.exists():
            reopen(target, folder)
    with Working(folder, plan.fields, plan.parts, plan.settings) as working:
        _read_all(plan, working, jobs, progress)
        damaged = {part.name: found for part in plan.parts if (found := working.entries[part.name].damage)}
        if (damaged or plan.absent) and not leave_out_damaged:
            raise InvalidValueError(_refusal(plan, damaged))
        if len(damaged) == len(plan.parts):
            raise InvalidValueError(f"{plan.name} must have parts that can be used, found none: {next(iter(damaged.values()))}")
        working.finish(target, _manifest(plan, working.entries))
    return target


def _is_current(plan: Plan, target: Path, manifest: Mapping[str, Any]) -> bool:
    """Tell whether a prepared set is of these parts, as their files are now; those that were left out, too."""
    journal = read_journal(target)
    infos = {part["name"]: part["info"] for part in manifest["parts"]}
    if manifest["planned"] != [part.name for part in plan.parts]:
        return False
    for part in plan.parts:
        entry = journal.get(part.name)
        if entry is None or (part.name in infos and infos[part.name] != _as_json(part.info)):
            return False
        is_whole = all(path.is_file() for path in part.files)
        if not _is_done(part, entry, plan.source) and (is_whole or not entry.damage):
            return False
    return True


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _read_all(plan: Plan, working: Working, jobs: int, progress: Report) -> None:
    """Read what is not done yet, a few parts at a time."""
    left = [part for part in plan.parts if not _is_done(part, working.entries.get(part.name), plan.source)]
    done, total = len(plan.parts) - len(left), len(plan.parts)
    what = f"preparing {plan.name}" + (f", going on after {done} of {total}" if done and left else "")
    progress(what, done, total)
    with ThreadPoolExecutor(jobs, thread_name_prefix="prepare") as pool:
        try:
            for entry, stored in _in_turn(pool, lambda part: _read_one(plan, part), left, 2 * jobs):
                working.store(entry, stored)
                done += 1
                progress(what, done, total)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _in_turn(pool: ThreadPoolExecutor, read: Callable[[Part], Result], parts: Sequence[Part], ahead: int) -> Iterator[Result]:
    """Give results as they come, with no more than some in memory."""
    left = iter(parts)
    running: set[Future[Result]] = {pool.submit(read, part) for part in islice(left, ahead)}
    while running:
        done, running = wait(running, return_when=FIRST_COMPLETED)
        # What failed comes last, so that nothing that was read beside it is lost.
        for future in sorted(done, key=lambda each: each.exception() is not None):
            yield future.result()
            running |= {pool.submit(read, part) for part in islice(left, 1)}


def _read_one(plan: Plan, part: Part) -> Result:
    files = {}
    for path in part.files:
        try:
            known = path.stat()
            version = known.st_size, known.st_mtime_ns
            files[_inside(path, plan.source)] = (*version, _checksum(path, version))
        except OSError as error:
            why = f"{_inside(path, plan.source)} cannot be read: {error.strerror or error}"
            return Entry(part.name, files, why), None
    try:
        found, notes = plan.read(part)
        return Entry(part.name, files, notes=notes), as_bytes(plan.fields, found, part)
    except DamagedClipError as error:
        return Entry(part.name, files, str(error)), None


def _is_done(part: Part, entry: Entry | None, source: Path) -> bool:
    """Tell whether a part was read, from the files as they are now."""
    if entry is None or len(entry.files) < len(part.files):
        return False
    try:
        now = {_inside(path, source): path.stat() for path in part.files}
    except OSError:
        return False
    return all(name in entry.files and (seen.st_size, seen.st_mtime_ns) == entry.files[name][:2] for name, seen in now.items())


def _inside(path: Path, source: Path) -> str:
    return path.relative_to(source).as_posix()


@lru_cache(maxsize=64)
def _checksum(path: Path, version: tuple[int, int]) -> str:  # noqa: ARG001
    """Compute a file's SHA-256, once while it stays as it is: parts may share a file."""
    digest = sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def checksums(paths: Sequence[Path]) -> dict[str, str]:
    """Compute the SHA-256 of files that say which rows are in which split, for a plan's settings.

    Args:
        paths: Of the files.

    Returns:
        File's name -> SHA-256.

    Raises:
        InvalidValueError: If one cannot be read.
    """
    try:
        return {path.name: _checksum(path, (path.stat().st_size, path.stat().st_mtime_ns)) for path in paths}
    except OSError as error:
        raise InvalidValueError(f"all of {[path.name for path in paths]} must be files, found: {error}") from error


def _refusal(plan: Plan, damaged: Mapping[str, str]) -> str:
    """Name what cannot be used; the rest is done and kept."""
    lines = [*plan.absent[:_SHOWN], *list(damaged.values())[:_SHOWN]]
    more = max(0, len(plan.absent) - _SHOWN) + max(0, len(damaged) - _SHOWN)
    said = "".join(f"\n  {line}" for line in lines) + (f"\n  and {more} more" if more else "")
    return (
        f"all {len(plan.parts) + len(plan.absent)} parts of {plan.name} must be there and whole, found "
        f"{len(damaged) + len(plan.absent)} that cannot be used; mend them and give the same command again, which reads only "
        f"these, or leave them out with --leave-out-damaged:{said}"
    )


def _manifest(plan: Plan, entries: Mapping[str, Entry]) -> dict[str, Any]:
    """Say what the set was made of. Paths are those inside the source."""
    parts: list[dict[str, Any]] = []
    usable = [part for part in plan.parts if not entries[part.name].damage]
    left_out = [{"name": text.split(" ", 1)[0], "why": text} for text in plan.absent]
    first = 0
    for part in plan.parts:
        entry = entries[part.name]
        if entry.damage:
            left_out.append({"name": part.name, "why": entry.damage})
        else:
            files = {name: known[2] for name, known in entry.files.items()}
            known = {"name": part.name, "first": first, "rows": part.rows, "info": dict(part.info), "sha256": files}
            parts.append({**known, "crc": entry.crc, **({"notes": list(entry.notes)} if entry.notes else {})})
        first += part.rows
    lines = sorted({f"{name} {digest}" for part in parts for name, digest in part["sha256"].items()})
    return {
        "format": FORMAT,
        "name": plan.name,
        "settings": dict(plan.settings),
        "expected": dict(plan.expected),
        "found": dict(plan.count(usable)),
        "source_sha256": sha256("\n".join(lines).encode()).hexdigest(),
        "fields": {name: asdict(field) for name, field in plan.fields.items()},
        "rows": first,
        "planned": [part.name for part in plan.parts],
        "left_out": left_out,
        "parts": parts,
    }
