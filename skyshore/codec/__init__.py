"""Conversion of domain values by field name.

`fields` reads the fields of a class; `document` converts values to and from JSON documents. `skyshore.wire`
converts them to and from protobuf messages. A new field of a class needs no line in any of them.
"""
