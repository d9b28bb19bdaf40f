"""Prepare a data set from the user's own files: in parallel, with progress, and from where a killed run was."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass
from functools import lru_cache
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any

from msam.data.archives.packages import Report, silent
from msam.data.media.opening import DamagedClipError
from msam.data.prepared.parts import Field, Part, Rows
from msam.data.prepared.reading import is_there
from msam.data.prepared.working import WORKING, Entry, Working, read_journal, reopen
from msam.errors import InvalidValueError

FORMAT = 1
"""Of the manifest."""

_SHOWN = 5
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Plan:
    """What to prepare."""

    name: str
    """Of the set."""
    source: Path
    parts: Sequence[Part]
    fields: Mapping[str, Field]
    read: Callable[[Part], tuple[Rows, tuple[str, ...]]]
    """From a part to its rows and what is odd about it; raises `DamagedClipError` for one that cannot be used."""
    settings: Mapping[str, Any]
    """JSON-able: what the arrays depend on, besides the files."""
    expected: Mapping[str, int]
    """What the literature counts -> how many."""
    count: Callable[[Sequence[Part]], Mapping[str, int]]
    """Counts the same of the parts that can be used."""
    absent: Sequence[str] = ()
    """What the source has that cannot be a part, and why; each begins with its name."""


def prepare(
    plan: Plan, target: Path, *, jobs: int | None = None, leave_out_damaged: bool = False, progress: Report = silent
) -> Path:
    """Prepare a set, unless it is there already with the same settings and parts.

    Args:
        plan: What to prepare.
        target: The folder to write.
        jobs: Parts that are read at the same time; the number of processors if None. Threads: decoders let others run.
        leave_out_damaged: Whether to go on without parts that cannot be used, which the manifest lists; an error else.
        progress: Is told how far it is.

    Returns:
        The target.

    Raises:
        InvalidValueError: If parts cannot be used, or are absent, and that was not allowed; what was read is kept, so that the
            next call reads only what is missing or was changed.
        StorageError: If the disk refuses.

    Cost: memory for `jobs` x 2 parts.
    """
    folder = target.with_name(target.name + WORKING)
    if is_there(target, plan.settings, [part.name for part in plan.parts]):
        if not _is_mended(plan, target):
            return target
        reopen(target, folder)
    with Working(folder, plan.fields, plan.parts, plan.settings) as working:
        _read_all(plan, working, jobs or os.cpu_count() or 1, progress)
        working.flush()
        damaged = {name: entry.damage for name, entry in working.entries.items() if entry.damage}
        if (damaged or plan.absent) and not leave_out_damaged:
            raise InvalidValueError(_refusal(plan, damaged))
        if len(damaged) == len(plan.parts):
            raise InvalidValueError(f"{plan.name} must have parts that can be used, found none: {next(iter(damaged.values()))}")
        working.finish(target, _manifest(plan, working.entries))
    return target


def _read_all(plan: Plan, working: Working, jobs: int, progress: Report) -> None:
    """Read what is not done yet, a few parts at a time."""
    left = [part for part in plan.parts if not _is_done(part, working.entries.get(part.name), plan.source)]
    done, total = len(plan.parts) - len(left), len(plan.parts)
    what = f"preparing {plan.name}" + (f", going on after {done} of {total}" if done and left else "")
    progress(what, done, total)
    with ThreadPoolExecutor(jobs, thread_name_prefix="prepare") as pool:
        try:
            for part, entry, found in _in_turn(pool, lambda part: _read_one(plan, part), left, 2 * jobs):
                working.store(part, entry, found)
                done += 1
                progress(what, done, total)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise


def _in_turn(
    pool: ThreadPoolExecutor, read: Callable[[Part], tuple[Part, Entry, Rows | None]], parts: Sequence[Part], ahead: int
) -> Iterator[tuple[Part, Entry, Rows | None]]:
    """Give results as they come, with no more than some in memory."""
    left = iter(parts)
    running: set[Future[tuple[Part, Entry, Rows | None]]] = {pool.submit(read, part) for part in islice(left, ahead)}
    while running:
        done, running = wait(running, return_when=FIRST_COMPLETED)
        # What failed comes last, so that nothing that was read beside it is lost.
        for future in sorted(done, key=lambda each: each.exception() is not None):
            yield future.result()
            running |= {pool.submit(read, part) for part in islice(left, 1)}


def _read_one(plan: Plan, part: Part) -> tuple[Part, Entry, Rows | None]:
    files = {}
    for path in part.files:
        try:
            known = path.stat()
            version = known.st_size, known.st_mtime_ns
            files[_inside(path, plan.source)] = (*version, _checksum(path, version))
        except OSError as error:
            return part, Entry(part.name, files, f"{path.name} cannot be read: {error.strerror or error}"), None
    try:
        found, notes = plan.read(part)
    except DamagedClipError as error:
        return part, Entry(part.name, files, str(error)), None
    return part, Entry(part.name, files, notes=notes), found


def _is_done(part: Part, entry: Entry | None, source: Path) -> bool:
    """Tell whether a part was read, from the files as they are now."""
    if entry is None or len(entry.files) < len(part.files):
        return False
    try:
        now = {_inside(path, source): path.stat() for path in part.files}
    except OSError:
        return False
    return all((now[name].st_size, now[name].st_mtime_ns) == tuple(known[:2]) for name, known in entry.files.items())


def _is_mended(plan: Plan, target: Path) -> bool:
    """Tell whether a part that was left out has other files now."""
    known = read_journal(target)
    left_out = [part for part in plan.parts if part.name not in known or known[part.name].damage]
    return any(
        all(path.is_file() for path in part.files) and not _is_done(part, known.get(part.name), plan.source)
        for part in left_out
    )


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
