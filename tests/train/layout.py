"""Files in the safetensors layout as another program might write them, and how much memory reading them takes."""

import json
import tracemalloc


def plain(path, header, data=b""):
    """A file as another program might write it: `header` is a dictionary or the header's own bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def entry(shape=(2,), offsets=(0, 8), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


class traced:
    """``with traced() as peak``: afterwards ``peak()`` is how far the traced memory rose, in bytes."""

    def __enter__(self):
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        return lambda: self.peak - before

    def __exit__(self, *_):
        self.peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
