from antiphon_actors.channels.framing import RecordParser

def pack_frame(
    kind: int,
    stream: int,
    seq: int,
    sent_ns: int,
    payload: bytes,
    cause: int = 0,
    ordinal: int = 0,
) -> bytes: ...
def pack_data_head(
    kind: int, stream: int, seq: int, sent_ns: int, size: int, cause: int = 0
) -> bytes: ...
def cut_frames(data: bytes | memoryview, start: int, parser: RecordParser) -> int: ...
