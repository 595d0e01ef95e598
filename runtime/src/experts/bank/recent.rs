//! Packed experts that were used last, where every use of others reads the file.

use std::collections::VecDeque;

/// A few blobs, as many as fit a limit.
pub(super) struct Recent {
    /// Bytes that all may take.
    limit: usize,
    bytes: usize,
    /// Bank, expert and blob, the one used last behind the others.
    blobs: VecDeque<(usize, usize, Vec<u8>)>,
}

impl Recent {
    pub fn new(limit: usize) -> Self {
        Self { limit, bytes: 0, blobs: VecDeque::new() }
    }

    /// Whether blobs of that size are kept: not where there is room for one alone.
    pub fn takes(&self, bytes: usize) -> bool {
        bytes <= self.limit / 2
    }

    /// The blob of an expert, if it is here.
    pub fn get(&mut self, bank: usize, expert: usize) -> Option<&[u8]> {
        let at = self.blobs.iter().position(|&(b, e, _)| (b, e) == (bank, expert))?;
        let found = self.blobs.remove(at)?;
        self.blobs.push_back(found);
        self.blobs.back().map(|(.., blob)| blob.as_slice())
    }

    /// Makes room, and returns `bytes` zeros to be filled and [kept](Self::keep).
    pub fn room(&mut self, bytes: usize) -> Vec<u8> {
        let mut free = Vec::new();
        while self.bytes + bytes > self.limit
            && let Some((.., oldest)) = self.blobs.pop_front()
        {
            self.bytes -= oldest.len();
            free = oldest;
        }
        // Padding is zeros.
        free.clear();
        free.resize(bytes, 0);
        free
    }

    /// Keeps the blob of an expert that is not here.
    pub fn keep(&mut self, bank: usize, expert: usize, blob: Vec<u8>) {
        self.bytes += blob.len();
        self.blobs.push_back((bank, expert, blob));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use super::*;

    #[test]
    fn those_used_last_stay_within_the_limit() {
        let mut recent = Recent::new(100);
        assert!(recent.takes(50) && !recent.takes(51));
        let keep = |recent: &mut Recent, expert: usize, bytes: usize| {
            let mut blob = recent.room(bytes);
            assert!(blob.len() == bytes && blob.iter().all(|&b| b == 0));
            blob.fill(expert as u8);
            recent.keep(0, expert, blob);
            assert!(recent.bytes <= 100 && recent.bytes == recent.blobs.iter().map(|b| b.2.len()).sum::<usize>());
        };
        (1..=3).for_each(|e| keep(&mut recent, e, 30));
        assert_eq!(recent.get(0, 1), Some(&[1; 30][..]));
        assert!(recent.get(1, 1).is_none());
        keep(&mut recent, 4, 40);
        assert!(recent.get(0, 2).is_none() && recent.get(0, 3).is_some() && recent.get(0, 1).is_some());
        keep(&mut recent, 5, 20);
        assert!(recent.get(0, 4).is_none() && recent.get(0, 5) == Some(&[5; 20][..]));
    }
}
