"""All kinds of input, by name."""

from fuzz.arguments import ARGUMENTS
from fuzz.arrays import NPY
from fuzz.checkpoints import CERTIFICATE, CHECKPOINT, FORGERY, INDEX, START
from fuzz.commands import COMMAND
from fuzz.kind import Kind
from fuzz.networks import NETWORKS
from fuzz.prepared import METADATA, PAYLOAD, RECORDS
from fuzz.text_files import RECIPES, TS

KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        *(CHECKPOINT, START, INDEX, CERTIFICATE, FORGERY, RECIPES),
        *(TS, METADATA, RECORDS, PAYLOAD, NPY, COMMAND, ARGUMENTS, NETWORKS),
    )
}
