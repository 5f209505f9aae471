"""Where the lake's tables live, and how one is opened."""

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from muxly_dagster.errors import MuxlyError
from muxly_dagster.lake.table import LakeTable, unreadable


class Tables:
    """All tables under one folder or bucket URL (`s3://`, `gs://`). `options` go to the object store as they stand."""

    def __init__(self, url: str, options: dict[str, str] | None = None) -> None:
        self.url, self.options = url.rstrip("/"), options

    def path(self, name: str) -> str:
        """Where the table of this name lives: `crm.contacts` in the folder crm/contacts."""
        return f"{self.url}/{name.replace('.', '/')}"

    def table(self, name: str) -> LakeTable | None:
        """The table as it stands now; None if nothing was ever stored under this name."""
        try:
            return LakeTable(name, DeltaTable(self.path(name), storage_options=self.options))
        except TableNotFoundError:
            return None
        except DeltaError as error:
            raise unreadable(name, self.path(name), error) from error

    def existing(self, name: str) -> LakeTable:
        """The table as it stands now. Raises MuxlyError when there is none yet."""
        table = self.table(name)
        if table is None:
            raise MuxlyError(f"{name} has no data yet", do=f"run `muxly run {name}` first")
        return table
