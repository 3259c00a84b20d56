"""What a miner of the private track commits on the chain: which image it runs, for which element."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any, Final

from bittensor import Intent, calls, timelock

REVEAL_IN: Final = "30s"
"""The record is sealed until then, as the subnet's own tool seals it for a block: nobody copies it before it counts."""
_IMAGE: Final = re.compile(
    r"(?P<repo>[a-z0-9][\w.\-:]*(?:/[\w.\-]+)+):(?P<tag>[\w.\-]{1,128})@(?P<digest>sha256:[0-9a-f]{64})"
)
_ELEMENT: Final = re.compile(r"[^\s/]+/[^\s/]+")


def commitment_record(element: str, image: str, hotkey: str) -> str:
    """The record as JSON, of an element's id and an image NAME:TAG@DIGEST. Raises ValueError for what is neither."""
    found = _IMAGE.fullmatch(image)
    if found is None:
        raise ValueError(f"--image {image} is not REGISTRY/NAME:TAG@sha256:DIGEST; a spot-check runs it by its digest")
    if not _ELEMENT.fullmatch(element):
        raise ValueError(f"--element {element} is no element's id, as OWNER/NAME; copy it from the subnet's manifest")
    return json.dumps(
        {
            "role": "miner",
            "track": "private",
            "image_repo": found["repo"],
            "image_tag": found["tag"],
            "image_digest": found["digest"],
            "element_id": element,
            "hotkey": hotkey,
        },
        separators=(",", ":"),
    )


@dataclass
class Commit(Intent):  # type: ignore[misc]  # the SDK's own type is Any here
    """Publish a sealed record, which the chain opens by itself."""

    op = "set_commitment"
    signer = "hotkey"
    wraps = (("Commitments", "set_commitment"),)

    netuid: int = field(metadata={"help": "Subnet."})
    record: str = field(metadata={"help": "The record, JSON."})

    async def build(self, substrate: Any, wallet: Any) -> Any:
        sealed = timelock.encrypt(self.record, REVEAL_IN)
        told = {"encrypted": "0x" + sealed.encrypted.hex(), "reveal_round": sealed.reveal_round}
        info: Any = {"fields": [{"TimelockEncrypted": told}]}
        return await substrate.compose(calls.Commitments.set_commitment(netuid=self.netuid, info=info))

    def summary(self) -> str:
        return f"commit on netuid {self.netuid}, opened after {REVEAL_IN}: {self.record}"
