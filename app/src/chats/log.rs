//! A conversation as JSON lines.
