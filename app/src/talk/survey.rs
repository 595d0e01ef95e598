//! Prompt packs that are read to see which experts they use.
