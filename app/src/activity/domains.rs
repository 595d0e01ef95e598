//! Prompt packs, and the load they put on experts.
