//! Accounting of the paged KV cache: how many blocks are free, and who holds how many.

/// A pool of equal blocks. It counts; nobody needs to know which block is where.
#[derive(Debug, Clone, Copy)]
pub(super) struct Blocks {
    size: u64,
    total: u64,
    free: u64,
}

impl Blocks {
    /// A pool for `tokens`, rounded down to whole blocks.
    pub(super) fn new(tokens: u64, size: u64) -> Self {
        let size = size.max(1);
        let total = tokens / size;
        Self { size, total, free: total }
    }

    /// Tokens that fit into the whole pool.
    pub(super) fn capacity(&self) -> u64 {
        self.total * self.size
    }

    /// Grows `held` blocks until they hold `tokens`; changes nothing and answers false where the pool
    /// has too few.
    pub(super) fn grow(&mut self, held: &mut u64, tokens: u64) -> bool {
        let more = tokens.div_ceil(self.size).saturating_sub(*held);
        if more > self.free {
            return false;
        }
        self.free -= more;
        *held += more;
        true
    }

    /// Takes all of `held` back.
    pub(super) fn release(&mut self, held: &mut u64) {
        self.free += std::mem::take(held);
    }

    /// Share of the pool in use.
    pub(super) fn usage(&self) -> f64 {
        if self.total == 0 { 0.0 } else { (self.total - self.free) as f64 / self.total as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn growing_takes_whole_blocks_or_nothing() {
        let mut pool = Blocks::new(50, 16);
        let mut held = 0;
        assert_eq!(pool.capacity(), 48);
        assert!(pool.grow(&mut held, 17));
        assert_eq!((held, pool.free), (2, 1));
        assert!(pool.grow(&mut held, 32));
        assert!(!pool.grow(&mut held, 49));
        assert_eq!((held, pool.free), (2, 1));
        pool.release(&mut held);
        assert_eq!((held, pool.free), (0, 3));
    }
}
