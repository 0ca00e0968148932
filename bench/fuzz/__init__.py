"""Fuzzing of everything a proxy's bytes go through: frames, header blocks, message framing, protobuf, the dialogue."""
