"""Decodes OTLP uploads with the official Python protobufs, strictly.

Reads files named as arguments, each one `ExportTraceServiceRequest`; fails on
anything that the messages do not define, and on bytes that do not come out
again as they went in. Prints one JSON line for each span.
"""

import json
import sys

from google.protobuf import unknown_fields
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


def refuse_unknown(message, path):
    found = unknown_fields.UnknownFieldSet(message)
    if len(found):
        sys.exit(f"{path}: fields that the message does not define: {[f.field_number for f in found]}")
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        items = value if hasattr(value, "__len__") and not hasattr(value, "ListFields") else [value]
        for at, item in enumerate(items):
            refuse_unknown(item, f"{path}.{field.name}[{at}]")


def plain(value):
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [plain(item) for item in value.array_value.values]
    if kind == "bytes_value":
        return {"bytes": value.bytes_value.hex()}
    return getattr(value, kind) if kind else None


def attributes(pairs, path):
    seen = {}
    for pair in pairs:
        if pair.key in seen:
            sys.exit(f"{path}: attribute {pair.key} twice")
        seen[pair.key] = plain(pair.value)
    return seen


for name in sys.argv[1:]:
    with open(name, "rb") as file:
        data = file.read()
    request = ExportTraceServiceRequest()
    request.ParseFromString(data)
    refuse_unknown(request, "request")
    if request.ByteSize() != len(data):
        sys.exit(f"{name}: {len(data)} bytes came in, {request.ByteSize()} would go out")
    for group in request.resource_spans:
        resource = attributes(group.resource.attributes, "resource")
        for scope in group.scope_spans:
            for span in scope.spans:
                print(
                    json.dumps(
                        {
                            "resource": resource,
                            "scope": scope.scope.name,
                            "trace_id": span.trace_id.hex(),
                            "span_id": span.span_id.hex(),
                            "name": span.name,
                            "kind": span.kind,
                            "took_ns": span.end_time_unix_nano - span.start_time_unix_nano,
                            "status": span.status.code,
                            "attributes": attributes(span.attributes, span.name),
                        }
                    )
                )
