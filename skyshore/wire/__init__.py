"""Between protobuf messages and domain values, by field name, and between domain errors and transport codes.

`pairs` is the table of messages and classes, `by_name` converts, `status` is the table of errors.
"""
