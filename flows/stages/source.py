"""What a source holds, as a digest, and what a job keeps of it so that an unchanged file is not read again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

from flows.closure import stage_code
from flows.progress import say
from flows.workspace.job import Job
from flows.workspace.removing.withdrawals import withdrawn_of
from pipeline.core.config import Config, TablesSource, reader_options
from pipeline.core.digest import digest_json
from pipeline.ingest.containers import holder
from pipeline.ingest.kept.watermarks import Watermarks, files_below
from pipeline.ingest.mapping.load import load_mapping
from pipeline.ingest.table_files import layout_files
from pipeline.ingest.withdrawn import Withdrawn

if TYPE_CHECKING:
    from pipeline.ingest.kept.pieces import Pieces

PIECES: Final = "pieces"
MARKS: Final = "marks"
READING: Final = "flows.stages.ingest"
"""Whatever this stage's module reaches may change what a piece holds."""


@final
@dataclass(frozen=True)
class SourceState:
    """A job's source: marks of its files, kept pieces, who has withdrawn.

    Without `resume` every file is hashed and parsed: marks and pieces are written, and none is trusted.
    """

    job: Job

    @cached_property
    def marks(self) -> Watermarks:
        place = self.job.config.workspace / "store" / MARKS / f"{self.job.config.name}.json"
        return Watermarks(place, fresh=not self.job.resume)

    @cached_property
    def pieces(self) -> Pieces | None:
        from pipeline.ingest.kept.pieces import Pieces
        from pipeline.ingest.sources.readers import IN_PIECES

        if self.job.config.source.kind not in IN_PIECES:
            return None
        folder = self.job.config.workspace / "store" / PIECES
        return Pieces(folder, stage_code(READING, ()), self.marks, fresh=not self.job.resume)

    @cached_property
    def withdrawn(self) -> Withdrawn:
        return withdrawn_of(self.job.config.workspace)

    def content(self) -> str:
        """Digest of what would be read."""
        return _source_digest(self.job.config, self.marks.digest)

    def finish(self) -> None:
        """Hold that nothing changed while it was read, and keep what the next reading can use.

        Raises:
            EnvironmentProblem: a file changed or vanished, or the disk refuses.
        """
        self.marks.require_unchanged()
        if self.pieces is not None:
            self.pieces.finish(self.job.config.name)
            say(f"  {self.marks.hashed} files were hashed, {self.pieces.parsed} pieces parsed; the rest is as it was")


def _source_digest(config: Config, digest: Callable[[Path], str]) -> str:
    """Digest of what is read: of tables, the files that the layout names, and nothing else in their folder."""
    source = config.source
    layout = load_mapping(config.cohort.mapping).layout if isinstance(source, TablesSource) else None
    if not isinstance(source, TablesSource) or layout is None or not source.folder.is_dir():
        return _content_digest(reader_options(source), digest)
    files = layout_files(source.folder, layout)
    return digest_json({path.relative_to(source.folder).as_posix(): digest(holder(path)) for path in files})


def _content_digest(options: Mapping[str, Any], digest: Callable[[Path], str]) -> str:
    """Digest of the reading options, with every path replaced by its content: where files lie does not matter."""

    def told(value: Any) -> Any:
        if isinstance(value, Path):
            return _path_digest(value, digest)
        return [told(item) for item in value] if isinstance(value, tuple) else value

    return digest_json({name: told(value) for name, value in options.items()})


def _path_digest(path: Path, digest: Callable[[Path], str]) -> str:
    """Digest of a file, or of a folder's files with their names; of nothing when absent (the reader will say so)."""
    if path.is_dir():
        return digest_json({file.relative_to(path).as_posix(): digest(file) for file in sorted(files_below(path))})
    return digest(path) if path.is_file() else ""
