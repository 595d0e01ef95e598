//! One generation, from its prompt to its last event.
