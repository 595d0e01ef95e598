//! A second mind that reviews, or talks with the first.
