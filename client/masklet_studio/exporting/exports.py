"""The exports of a studio: each a process, with a file to download at its end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from masklet.errors import FailedPrecondition, NotFound, ResourceExhausted
from masklet_studio.exporting.formats import Export
from masklet_studio.exporting.results import ResultWriter

MAX_RUNNING = 2
MAX_KEPT = 8
"""Exports whose files are kept; older ones are deleted."""
Told = Callable[[dict[str, Any]], None]

logger = logging.getLogger("masklet.studio")


@dataclass(eq=False)
class RunningExport:
    """One export.

    Attributes:
        export_id: Its name.
        video_id: The video that it belongs to.
        path: The file that is made.
        done: How far it is, of `total`.
        total: When it is done; 0 while that is not known.
        ready: Whether the file can be downloaded.
        error: Why it failed; None where it did not.
    """

    export_id: str
    video_id: str
    path: Path
    done: int = 0
    total: int = 0
    ready: bool = False
    error: str | None = None
    task: asyncio.Task[None] | None = field(default=None, repr=False)

    def told(self) -> dict[str, Any]:
        """As the page has it."""
        return {
            "id": self.export_id, "done": self.done, "total": self.total, "ready": self.ready,
            "error": None if self.error is None else {"message": self.error, "field": None},
        }  # fmt: skip


class Exports:
    """All exports of a studio.

    Args:
        folder: Where their files are. What is in it from an earlier studio is deleted.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._exports: dict[str, RunningExport] = {}
        for old in folder.iterdir():
            shutil.rmtree(old, ignore_errors=True)

    def start(self, export: Export, video_id: str, name: str, results: ResultWriter, tell: Told) -> RunningExport:
        """Begin to export.

        Args:
            export: What.
            video_id: The video that it belongs to.
            name: What the file is called, without its extension.
            results: The masks.
            tell: Called with how far it is.

        Raises:
            ResourceExhausted: Too many exports are running.
        """
        if sum(not one.ready and one.error is None for one in self._exports.values()) >= MAX_RUNNING:
            raise ResourceExhausted(f"{MAX_RUNNING} exports are running, the most at once; wait until one is ready")
        export_id = secrets.token_hex(6)
        folder = self._folder / export_id
        folder.mkdir()
        running = RunningExport(export_id, video_id, folder / f"{name}-{export.to}{export.extension}")
        self._exports[export_id] = running
        running.task = asyncio.create_task(self._run(running, export, results, tell))
        for old in list(self._exports.values())[:-MAX_KEPT]:
            if old.ready or old.error is not None:
                self._forget(old)
        return running

    def find(self, export_id: str) -> RunningExport:
        """An export by its id.

        Raises:
            NotFound: There is none.
        """
        if export_id not in self._exports:
            raise NotFound(f"there is no export {export_id!r:.40}; only the last {MAX_KEPT} are kept")
        return self._exports[export_id]

    def file(self, export_id: str) -> Path:
        """The file of an export that is ready.

        Raises:
            NotFound: There is no such export.
            FailedPrecondition: It is not ready.
        """
        export = self.find(export_id)
        if not export.ready:
            raise FailedPrecondition(
                f"the export has failed: {export.error}" if export.error else "it is not ready yet"
            )
        return export.path

    async def remove(self, export_id: str) -> None:
        """End an export if it runs, and delete its file.

        Raises:
            NotFound: There is none.
        """
        export = self.find(export_id)
        await _end(export)
        self._forget(export)

    async def close(self) -> None:
        """End all exports that run."""
        for export in self._exports.values():
            await _end(export)

    def _forget(self, export: RunningExport) -> None:
        del self._exports[export.export_id]
        shutil.rmtree(export.path.parent, ignore_errors=True)

    async def _run(self, running: RunningExport, export: Export, results: ResultWriter, tell: Told) -> None:
        try:
            file = running.path.parent / "results.jsonl"
            await asyncio.to_thread(results.write, file)
            await self._in_process(running, export, file, tell)
            file.unlink()
        except OSError as error:
            running.error = f"the export cannot be written: {error.strerror or error}"
        except Exception as error:  # it must not count as running for ever
            logger.exception("an export failed")
            running.error = f"the export failed: {type(error).__name__}: {error}"
        tell(running.told())

    async def _in_process(self, running: RunningExport, export: Export, results: Path, tell: Told) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "masklet_studio.exporting.export_main",
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            task = {
                "results": str(results), "to": export.to, "out": str(running.path), "is_folder": export.is_folder,
                "options": export.options,
            }  # fmt: skip
            process.stdin.write(json.dumps(task).encode())
            process.stdin.close()
            async for line in process.stdout:
                told = json.loads(line)
                running.done, running.total = told.get("done", running.done), told.get("total", running.total)
                running.error = told.get("error")
                running.ready = bool(told.get("ready"))
                if running.ready:
                    running.done = running.total = max(running.total, 1)
                if not running.ready and running.error is None:
                    tell(running.told())
            await process.wait()
            if not running.ready and running.error is None:
                running.error = f"the export's process ended with status {process.returncode}; it may need more memory"
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.communicate()


async def _end(export: RunningExport) -> None:
    if export.task is not None:
        export.task.cancel()
        await asyncio.gather(export.task, return_exceptions=True)
