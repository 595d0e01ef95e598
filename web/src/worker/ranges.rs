//! Files that are read in ranges.
