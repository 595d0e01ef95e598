//! Seeds for answers that have none of their own.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::atomic::{AtomicU64, Ordering},
};

use web_time::{SystemTime, UNIX_EPOCH};

/// Seeds drawn so far.
static DRAWN: AtomicU64 = AtomicU64::new(0);

/// A fresh seed, short enough to be typed again: 32 bits.
///
/// The standard library's hash keys come from the system's random source where there is one. In a browser they are the same in
/// every run; the time of day and the count of seeds keep seeds apart there.
pub fn fresh() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    RandomState::new().hash_one((now, DRAWN.fetch_add(1, Ordering::Relaxed))) >> 32
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn seeds_are_short_and_differ() {
        let seeds: HashSet<u64> = (0..16).map(|_| fresh()).collect();
        // 16 draws of 32 bits: two alike once in 36 million runs.
        assert_eq!(seeds.len(), 16);
        assert!(seeds.iter().all(|&s| s <= u64::from(u32::MAX)));
    }
}
