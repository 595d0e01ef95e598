//! The app in a window of its own.
