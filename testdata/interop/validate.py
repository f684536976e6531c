"""Judges JSON documents by a JSON schema, with an independent validator.

Arguments: the schema's file, and one of documents, a line each. Prints `true`
or `false` for each of them. `format: regex` is Python's.
"""

import json
import sys

from jsonschema import Draft202012Validator

with open(sys.argv[1], encoding="utf-8") as file:
    schema = json.load(file)
Draft202012Validator.check_schema(schema)
validator = Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
with open(sys.argv[2], encoding="utf-8") as documents:
    for line in documents:
        print(json.dumps(validator.is_valid(json.loads(line))))
