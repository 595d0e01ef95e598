//! Counts, weights, misses and recent use of every expert.
