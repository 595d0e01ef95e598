//! Pages of the latent cache: who holds which, and who shares them.
//!
//! A session holds a list of pages; position `p` lies in its page `p / 64`. Full pages whose tokens agree may be held
//! by several sessions, so that a branch costs only what it adds.

use crate::step::PAGE;

/// The pages of one cache.
#[derive(Debug)]
pub struct PagePool {
    holders: Vec<u32>,
    free: Vec<u32>,
}

impl PagePool {
    /// A pool for `positions` positions, rounded up to whole pages.
    pub fn new(positions: usize) -> Self {
        let pages = positions.div_ceil(PAGE);
        Self { holders: vec![0; pages], free: (0..pages as u32).rev().collect() }
    }

    /// Pages that nobody holds.
    pub fn available(&self) -> usize {
        self.free.len()
    }

    /// All pages.
    pub fn capacity(&self) -> usize {
        self.holders.len()
    }

    /// Takes a page, if there is one.
    pub fn take(&mut self) -> Option<u32> {
        let page = self.free.pop()?;
        self.holders[page as usize] = 1;
        Some(page)
    }

    /// Another holder for a page.
    pub fn share(&mut self, page: u32) {
        self.holders[page as usize] += 1;
    }

    /// Whether only one holds the page, so that it may be written.
    pub fn is_sole(&self, page: u32) -> bool {
        self.holders[page as usize] == 1
    }

    /// Gives a page back.
    pub fn release(&mut self, page: u32) {
        let holders = &mut self.holders[page as usize];
        *holders -= 1;
        if *holders == 0 {
            self.free.push(page);
        }
    }
}

/// What one session has in the cache.
#[derive(Debug, Default)]
pub struct Held {
    /// Tokens whose rows are in the cache, in order.
    pub tokens: Vec<u32>,
    /// Their pages.
    pub pages: Vec<u32>,
}

impl Held {
    /// Tokens at the beginning of `prompt` whose rows are here.
    pub fn common_prefix(&self, prompt: &[u32]) -> usize {
        self.tokens.iter().zip(prompt).take_while(|(a, b)| a == b).count()
    }

    /// Forgets everything from position `len` on. A page that is shared and cut in the middle is given up as a
    /// whole, because writing to it would change what others see; returns the positions that remain.
    pub fn truncate(&mut self, len: usize, pool: &mut PagePool) -> usize {
        let mut len = len.min(self.tokens.len());
        if !len.is_multiple_of(PAGE) && self.pages.get(len / PAGE).is_some_and(|&p| !pool.is_sole(p)) {
            len -= len % PAGE;
        }
        for page in self.pages.drain(len.div_ceil(PAGE)..) {
            pool.release(page);
        }
        self.tokens.truncate(len);
        len
    }

    /// Takes pages until `positions` fit; `false` if the pool runs dry (what was taken is kept).
    pub fn reserve(&mut self, positions: usize, pool: &mut PagePool) -> bool {
        while self.pages.len() * PAGE < positions {
            match pool.take() {
                Some(page) => self.pages.push(page),
                None => return false,
            }
        }
        true
    }

    /// Takes over the full pages that `other` shares with `prompt` beyond what is held here.
    pub fn adopt(&mut self, other: &Self, prompt: &[u32], pool: &mut PagePool) {
        let full = other.common_prefix(prompt) / PAGE;
        if full * PAGE <= self.common_prefix(prompt) {
            return;
        }
        self.truncate(0, pool);
        for &page in &other.pages[..full] {
            pool.share(page);
            self.pages.push(page);
        }
        self.tokens.extend_from_slice(&prompt[..full * PAGE]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_shared_and_given_back() {
        let mut pool = PagePool::new(10 * PAGE);
        let prompt: Vec<u32> = (0..200).collect();
        let (mut a, mut b) = (Held::default(), Held::default());
        assert!(a.reserve(200, &mut pool));
        a.tokens = prompt.clone();
        b.adopt(&a, &prompt[..150], &mut pool);
        assert_eq!((b.tokens.len(), b.pages.len(), pool.available()), (128, 2, 6));
        // Cutting inside a shared page gives that page up.
        assert_eq!(a.truncate(100, &mut pool), 64);
        assert_eq!(a.pages.len(), 1);
        assert_eq!(b.truncate(0, &mut pool), 0);
        // Sole again: may be cut in the middle.
        assert_eq!(a.truncate(10, &mut pool), 10);
        a.truncate(0, &mut pool);
        assert_eq!(pool.available(), pool.capacity());
    }

    #[test]
    fn a_dry_pool_refuses() {
        let mut pool = PagePool::new(2 * PAGE);
        let mut a = Held::default();
        assert!(!a.reserve(3 * PAGE, &mut pool));
        a.truncate(0, &mut pool);
        assert_eq!(pool.available(), 2);
    }

    use proptest::prelude::*;

    proptest! {
        /// Whatever sessions do, every page is either free or held as often as the pool counts, and a page that several
        /// hold stands for the same tokens.
        #[test]
        fn pages_are_never_lost_nor_mixed_up(
            actions in prop::collection::vec((0usize..4, 0usize..4, 0u32..3, 0usize..400), 1..60)
        ) {
            let mut pool = PagePool::new(12 * PAGE);
            let mut sessions: Vec<Held> = (0..4).map(|_| Held::default()).collect();
            for (who, other, text, len) in actions {
                // Three texts with a common beginning.
                let prompt: Vec<u32> = (0..len as u32).map(|i| if i < 150 { i } else { 1000 * text + i }).collect();
                let mut held = std::mem::take(&mut sessions[who]);
                if who != other {
                    held.adopt(&sessions[other], &prompt, &mut pool);
                }
                let common = held.common_prefix(&prompt);
                let kept = held.truncate(common, &mut pool);
                prop_assert!(kept <= common && held.tokens == prompt[..kept]);
                if held.reserve(len, &mut pool) {
                    held.tokens.extend_from_slice(&prompt[kept..]);
                } else {
                    held.truncate(kept, &mut pool);
                }
                sessions[who] = held;

                let mut holders = vec![0; pool.capacity()];
                let mut tokens: Vec<Option<&[u32]>> = vec![None; pool.capacity()];
                for s in &sessions {
                    prop_assert!(s.pages.len() * PAGE >= s.tokens.len());
                    for (i, &page) in s.pages.iter().enumerate() {
                        let mine = &s.tokens[(i * PAGE).min(s.tokens.len())..((i + 1) * PAGE).min(s.tokens.len())];
                        let first = *tokens[page as usize].get_or_insert(mine);
                        prop_assert_eq!(first, mine);
                        holders[page as usize] += 1;
                    }
                }
                prop_assert_eq!(&holders, &pool.holders);
                prop_assert_eq!(pool.available(), holders.iter().filter(|&&n| n == 0).count());
            }
        }
    }
}
