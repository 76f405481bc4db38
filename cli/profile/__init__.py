"""`skyshore profile`: measures what the arms of this machine cost and how good they are."""
