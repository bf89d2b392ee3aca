"""The bytes that a compiled program sends between devices."""

import math
import re

COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "reduce-scatter", "collective-permute")
BYTES = {"f32": 4, "s32": 4, "u32": 4, "bf16": 2, "pred": 1}


def collective_bytes(compiled) -> dict[str, int]:
    """Bytes of the results of each kind of collective in a compiled program, per device."""
    found = dict.fromkeys(COLLECTIVES, 0)
    for line in compiled.as_text().splitlines():
        match = re.search(rf"= (.*?) ({'|'.join(COLLECTIVES)})(-start)?\(", line)
        if match:
            shapes = re.findall(rf"({'|'.join(BYTES)})\[([\d,]*)\]", match[1])
            found[match[2]] += sum(BYTES[dtype] * math.prod(map(int, filter(None, dims.split(",")))) for dtype, dims in shapes)
    return {name: size for name, size in found.items() if size}


def ring_bytes(collectives: dict[str, int], devices: int) -> int:
    """Bytes that each device sends in ring collectives: 2 (n - 1) / n of what is reduced, (n - 1) / n of what is gathered."""
    share = (devices - 1) / devices
    return round(sum(size * share * (2 if name == "all-reduce" else 1) for name, size in collectives.items()))
