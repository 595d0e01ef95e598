"""Writes the fixtures beside this file: `python make.py DIR`, DIR holding GGUF files quantised by llama.cpp.

Needs gguf, numpy and ml_dtypes, whose decoders are the oracles. Each FORMAT.bin is two rows of 512 weights in the
file's own layout, then the same 1024 weights as f32. The first row was quantised by llama.cpp; the second is random
bytes under scales that are finite, so that every bit of a block matters. f8_e4m3.bin is the values of codes 0 to 255.
quantise.bin is 256 f32, then the same quantised to Q8_0, Q4_0, F16 and BF16.
"""

import pathlib
import sys

import ml_dtypes
import numpy as np
from gguf import GGML_QUANT_SIZES, GGUFReader
from gguf import GGMLQuantizationType as T
from gguf.quants import dequantize, quantize

COLS = 512
# Offsets of the f16 scales and minima in a block.
HALVES = {
    T.Q8_0: [0], T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q2_K: [80, 82], T.Q3_K: [108],
    T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208], T.IQ4_NL: [0], T.IQ4_XS: [0], T.MXFP4: [], T.F32: [], T.F16: [], T.BF16: [],
}  # fmt: skip
rng = np.random.default_rng(1)


def random_row(qtype, block_bytes, blocks):
    if qtype in (T.F32, T.F16, T.BF16):
        x = rng.standard_normal(COLS).astype(np.float32) * np.exp2(rng.integers(-20, 10, COLS)).astype(np.float32)
        kind = {T.F32: np.float32, T.F16: np.float16, T.BF16: ml_dtypes.bfloat16}[qtype]
        return x.astype(kind).view(np.uint8)
    row = rng.integers(0, 256, (blocks, block_bytes), dtype=np.uint8)
    for at in HALVES[qtype]:
        row[:, at : at + 2] = rng.standard_normal(blocks).astype(np.float16).view(np.uint8).reshape(blocks, 2)
    if qtype == T.MXFP4:
        row[:, 0] = rng.integers(0, 250, blocks)
        row[:2, 0] = [0, 1]
    return row.reshape(-1)


def main():
    here = pathlib.Path(__file__).parent
    real = {}
    for path in sorted(pathlib.Path(sys.argv[1]).glob("*.gguf")):
        for tensor in GGUFReader(path).tensors:
            block, block_bytes = GGML_QUANT_SIZES[tensor.tensor_type]
            flat = np.asarray(tensor.data).reshape(-1).view(np.uint8)
            if flat.size >= COLS // block * block_bytes:
                real.setdefault(tensor.tensor_type, flat[: COLS // block * block_bytes])
    for qtype in HALVES:
        block, block_bytes = GGML_QUANT_SIZES[qtype]
        blocks = COLS // block
        first = real.get(qtype, None)
        rows = np.stack([random_row(qtype, block_bytes, blocks) if first is None else first, random_row(qtype, block_bytes, blocks)])
        if qtype in (T.F32, T.F16):
            expected = rows.view({T.F32: np.float32, T.F16: np.float16}[qtype]).astype(np.float32)
        else:
            expected = dequantize(rows, qtype)
        assert expected.shape == (2, COLS) and np.isfinite(expected).all(), qtype
        print(qtype.name, "real" if first is not None else "random only")
        (here / f"{qtype.name.lower()}.bin").write_bytes(rows.tobytes() + expected.astype("<f4").tobytes())
    codes = np.arange(256, dtype=np.uint8).view(ml_dtypes.float8_e4m3fn).astype("<f4")
    (here / "f8_e4m3.bin").write_bytes(codes.tobytes())
    x = rng.standard_normal(256).astype(np.float32)
    x[32:64] = 0
    x[64:96] = np.arange(32) - 15.5  # ties of Q4_0
    x[96:128] *= np.float32(1e-6)
    x[128:160] *= np.float32(1e4)
    x[160:192] = np.arange(-16, 16) * np.float32(127 / 32)  # ties of Q8_0
    quantised = [quantize(x, qtype).tobytes() for qtype in (T.Q8_0, T.Q4_0)]
    halves = [x.astype(kind).tobytes() for kind in (np.float16, ml_dtypes.bfloat16)]
    (here / "quantise.bin").write_bytes(b"".join([x.tobytes(), *quantised, *halves]))


main()
