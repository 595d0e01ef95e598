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
}
