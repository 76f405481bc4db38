"""The only mapping between protobuf messages and domain values, by direction: `x_to_proto`, `x_from_proto`.

`demand` maps what is asked for, `fleet` what could do it, `result` what came of it.
"""
