"""JSON Schema of the result record, for editors and for tools in other languages: ``python -m leaderboard.schema [FILE]``.

The pydantic model in `zoo.evaluation.record` is the source; the schema is generated from it and kept in the repository.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from zoo.errors import ZooError
from zoo.evaluation.record import Record
from zoo.files import write_text_atomically

SCHEMA_PATH = Path(__file__).with_name("record.schema.json")


def schema_text() -> str:
    """The schema as it is written: JSON Schema 2020-12, sorted keys, a final newline."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Record.model_json_schema()}
    return json.dumps(schema, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the schema; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m leaderboard.schema", description="Write the JSON Schema of result records.")
    parser.add_argument("path", nargs="?", type=Path, default=SCHEMA_PATH, help="default: record.schema.json in the package")
    path: Path = parser.parse_args(arguments).path
    try:
        write_text_atomically(path, schema_text())
    except ZooError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
