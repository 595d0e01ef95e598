//! Hit rate, bytes moved and tokens per second over time.
