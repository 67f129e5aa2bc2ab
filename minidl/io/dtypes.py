"""The dtypes that files hold, and how many tensors one file may."""

DTYPES = {
    "BOOL": "bool", "U8": "uint8", "U16": "uint16", "U32": "uint32", "U64": "uint64", "I8": "int8", "I16": "int16",
    "I32": "int32", "I64": "int64", "F16": "float16", "F32": "float32", "F64": "float64",
}
"""Dtypes of tensors: safetensors' name of each → NumPy's."""

READ_DTYPES = {**DTYPES, "BF16": "bfloat16"}
"""Dtypes that are read: `DTYPES`, and bfloat16, which becomes float32."""

MOST_TENSORS = 1 << 14
"""Most tensors in a state, several times as many as the largest networks have."""
