"""All kinds of input, by name."""

from fuzz.arrays import NPY
from fuzz.kind import Kind
from fuzz.prepared import METADATA, PAYLOAD, RECORDS
from fuzz.text_files import RECIPES, TS

KINDS: dict[str, Kind] = {
    kind.name: kind for kind in (TS, RECIPES, METADATA, RECORDS, PAYLOAD, NPY)
}
