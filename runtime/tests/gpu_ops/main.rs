//! Every kernel against its twin: one-operation plans on random, ragged and adversarial data, on every adapter of this
//! machine, software ones included, with all features and with WebGPU's least.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a failure is a failed test; a skipped part is printed")]

mod attention;
mod backend;
mod dense;
mod drafts;
mod experts;
mod rows;
mod sampling;
mod slots;
mod steps;
mod support;
