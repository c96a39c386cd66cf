"""`chainzrule-audit checkpoint`: the signed ends of the chains, to be kept where the operator cannot change them."""

import sys
from contextlib import closing
from typing import TYPE_CHECKING

from pydantic import Field

from service.audit.commands import DONE
from service.audit.commands.options import SourceFlags

if TYPE_CHECKING:
    from service.trail.schemas import CheckpointList


class ShowCheckpoints(SourceFlags):
    """Show the last signed checkpoint of every chain, one a line: to be kept, and to verify against later.

    Exit code: 0, or 2 where the trail cannot be read.
    """

    keys: bool = Field(False, description="show the public keys that the trail names instead, as PEM")

    def execute(self) -> int:
        """Show them."""
        found = self._of_service(self.url) if self.url else self._of_trail()
        if not found.checkpoints:
            print("chainzrule-audit: no checkpoint was signed yet", file=sys.stderr)
        if self.keys:
            print("".join(key.pem for key in found.keys), end="")
        else:
            for checkpoint in found.checkpoints:
                print(checkpoint.model_dump_json())
        return DONE

    def _of_trail(self) -> "CheckpointList":
        from service.trail.present import checkpoints_of

        with closing(self.database()) as database, database.reading() as connection:
            return checkpoints_of(connection)

    @staticmethod
    def _of_service(url: str) -> "CheckpointList":
        from service.audit.remote import Remote
        from service.trail.schemas import CheckpointList

        with Remote(url) as remote:
            return CheckpointList.model_validate(remote.get("/v1/audit/checkpoint"))
