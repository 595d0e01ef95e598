//! Entropy, active share, working set, overlap.
