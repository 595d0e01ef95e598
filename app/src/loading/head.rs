//! Opening a model by the beginning of its file, where that is all of it that comes here.

/// Bytes asked for at first. Most of a header is its vocabulary.
const FIRST: usize = 2 << 20;
/// How many times more are asked for where they are not enough.
const MORE: usize = 8;
/// Most bytes asked for.
const MOST: usize = 512 << 20;

/// Opens a file by its first bytes. `head` gives at least so many of them, or all there are, and the length of the file; `open`
/// says `None` where they are not enough.
///
/// # Errors
/// What either of them says; in words, where even the most bytes are not enough.
pub(super) async fn open<T, F>(
    name: &str,
    mut head: impl FnMut(usize) -> F,
    open: impl Fn(&[u8], u64) -> Result<Option<T>, String>,
) -> Result<T, String>
where
    F: Future<Output = Result<(Vec<u8>, u64), String>>,
{
    let mut wanted = FIRST;
    loop {
        let (bytes, len) = head(wanted).await?;
        if let Some(opened) = open(&bytes, len)? {
            return Ok(opened);
        }
        if bytes.len() as u64 >= len {
            return Err(format!("{name}: the file ends within its header; it may have been cut short"));
        }
        if wanted >= MOST {
            return Err(format!("{name}: its header is longer than {} MiB, which is more than a page can read", MOST >> 20));
        }
        wanted = wanted.saturating_mul(MORE).min(MOST);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use std::{cell::RefCell, future::ready};

    use super::*;

    /// Opens a file of so many bytes whose header has so many; what was asked for, and what came of it.
    fn opened(len: u64, header: u64) -> (Vec<usize>, Result<u64, String>) {
        let asked = RefCell::new(Vec::new());
        let head = |n: usize| {
            asked.borrow_mut().push(n);
            // Stands for the bytes: a real head of 512 MiB would be memory for nothing.
            ready(Ok((vec![0; (n as u64).min(len).min(64 << 20) as usize], len)))
        };
        let last = || asked.borrow().last().copied().unwrap() as u64;
        let result = pollster::block_on(open("x.gguf", head, |_, len| Ok((last().min(len) >= header).then_some(header))));
        (asked.into_inner(), result)
    }

    #[test]
    fn more_is_asked_for_until_it_is_enough() {
        assert_eq!(opened(1 << 30, 1 << 20), (vec![2 << 20], Ok(1 << 20)));
        assert_eq!(opened(1 << 30, 20 << 20), (vec![2 << 20, 16 << 20, 128 << 20], Ok(20 << 20)));
        let (asked, result) = opened(1 << 40, 1 << 32);
        assert_eq!(asked, [2 << 20, 16 << 20, 128 << 20, 512 << 20]);
        assert!(result.unwrap_err().contains("512 MiB"));
    }

    #[test]
    fn a_file_that_ends_before_its_header_is_refused() {
        let (asked, result) = opened(3 << 20, 4 << 20);
        assert_eq!(asked, [2 << 20, 16 << 20]);
        assert!(result.unwrap_err().contains("cut short"));
        let failed = open("x", |_| ready(Err("gone".to_owned())), |_, _| Ok(Some(())));
        assert_eq!(pollster::block_on(failed), Err("gone".into()));
    }
}
