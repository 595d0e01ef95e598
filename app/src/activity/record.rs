//! Recording, replay, CSV and JSON lines.
