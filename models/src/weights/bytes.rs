//! The bytes of tensors: in memory, or in a file that is read in ranges when they are used.

use std::{borrow::Cow, fmt, io, ops::Deref, sync::Arc};

/// Most bytes that are asked of a [`Ranged`] file at once.
pub(crate) const MAX_READ: usize = 4 << 20;

/// A file that is read in ranges, where none can be mapped: one that a browser holds, or a part of one.
pub trait Ranged: Send + Sync {
    /// Bytes of the whole file.
    fn len(&self) -> u64;

    /// Whether it has none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `out` with the bytes from `offset` on. May block.
    ///
    /// # Errors
    /// Where the file ends before, or cannot be read any more.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;
}

/// Fills `out`, a few MiB at a time.
pub(crate) fn read_in_pieces(file: &dyn Ranged, offset: u64, out: &mut [u8]) -> io::Result<()> {
    let mut at = offset;
    out.chunks_mut(MAX_READ).try_for_each(|piece| {
        file.read_at(at, piece)?;
        at += piece.len() as u64;
        Ok(())
    })
}

/// `len` zeros, or an error where there is not so much memory.
pub(crate) fn zeros(len: usize) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    all.try_reserve_exact(len)
        .map_err(|_| io::Error::new(io::ErrorKind::OutOfMemory, format!("there is no memory for {} KiB", len.div_ceil(1024))))?;
    all.resize(len, 0);
    Ok(all)
}

/// Bytes that live as long as their owner: a mapped file, the binary, memory, or a file that is read in ranges. Cloning is cheap.
///
/// Those in memory are a slice ([`Bytes::resident`], and by dereferencing). Those in ranges are none: whoever cannot know takes
/// [`Bytes::read`], which borrows what is in memory and reads what is not.
#[derive(Clone)]
pub struct Bytes {
    source: Source,
    start: u64,
    len: usize,
}

#[derive(Clone)]
enum Source {
    Resident(Arc<dyn AsRef<[u8]> + Send + Sync>),
    /// The file, and its name for errors.
    Ranged(Arc<dyn Ranged>, Arc<str>),
}

impl Bytes {
    /// All bytes of `owner`.
    pub fn new(owner: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        let len = owner.as_ref().len();
        Self { source: Source::Resident(Arc::new(owner)), start: 0, len }
    }

    /// `len` bytes of `file` from `offset` on, read when they are used; `None` where it has fewer. `name` is named in errors.
    pub fn ranged(name: &Arc<str>, file: &Arc<dyn Ranged>, offset: u64, len: usize) -> Option<Self> {
        let end = offset.checked_add(len as u64)?;
        let source = || Source::Ranged(Arc::clone(file), Arc::clone(name));
        (end <= file.len()).then(|| Self { source: source(), start: offset, len })
    }

    /// A part of these bytes, or `None` where it reaches beyond them.
    pub fn slice(&self, start: usize, len: usize) -> Option<Self> {
        let end = start.checked_add(len)?;
        (end <= self.len).then(|| Self { source: self.source.clone(), start: self.start + start as u64, len })
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether they are in memory, or mapped.
    pub fn is_resident(&self) -> bool {
        matches!(self.source, Source::Resident(_))
    }

    /// The bytes, where they are in memory.
    pub fn resident(&self) -> Option<&[u8]> {
        match &self.source {
            Source::Resident(owner) => Some(&(**owner).as_ref()[self.start as usize..self.start as usize + self.len]),
            Source::Ranged(..) => None,
        }
    }

    /// The file that they are read from, for errors.
    pub fn file(&self) -> &str {
        match &self.source {
            Source::Resident(_) => "memory",
            Source::Ranged(_, name) => name,
        }
    }

    /// `len` bytes from `start` on: borrowed where they are in memory, read now where they are not.
    ///
    /// # Errors
    /// Where there are fewer, or the file cannot be read, or there is no memory for them.
    pub fn read(&self, start: usize, len: usize) -> io::Result<Cow<'_, [u8]>> {
        let beyond = || {
            let what = format!("{len} bytes at {start} are wanted of {}", self.len);
            io::Error::new(io::ErrorKind::UnexpectedEof, what)
        };
        let end = start.checked_add(len).filter(|&end| end <= self.len).ok_or_else(beyond)?;
        match &self.source {
            Source::Resident(_) => self.resident().and_then(|all| all.get(start..end)).map(Cow::Borrowed).ok_or_else(beyond),
            Source::Ranged(file, _) => {
                let mut out = zeros(len)?;
                read_in_pieces(&**file, self.start + start as u64, &mut out)?;
                Ok(Cow::Owned(out))
            }
        }
    }

    /// The same bytes in memory: as they are, or read now.
    ///
    /// # Errors
    /// Those of [`Bytes::read`].
    pub fn to_resident(&self) -> io::Result<Self> {
        Ok(match self.read(0, self.len)? {
            Cow::Borrowed(_) => self.clone(),
            Cow::Owned(read) => Self::new(read),
        })
    }
}

/// The bytes in memory. Panics where they are read in ranges: code that may meet such bytes takes [`Bytes::read`] or
/// [`Bytes::resident`].
impl Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        let Some(bytes) = self.resident() else { panic!("{}: bytes that are read in ranges are no slice", self.file()) };
        bytes
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bytes({})", self.len)
    }
}

/// The length of a file whose contents are elsewhere: all that follows from its header can be known, but no weight.
pub(crate) struct Elsewhere(pub u64);

impl Ranged for Elsewhere {
    fn len(&self) -> u64 {
        self.0
    }

    fn read_at(&self, _: u64, _: &mut [u8]) -> io::Result<()> {
        Err(io::Error::other("only the file's header is here, not its weights"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use super::*;
    use crate::testing::Counted;

    #[test]
    fn ranges_give_the_bytes_of_the_file_in_pieces_of_a_few_mib() {
        let all: Vec<u8> = (0..(9u32 << 20)).map(|i| (i.wrapping_mul(0x9e37_79b9) >> 24) as u8).collect();
        let counted = Arc::new(Counted::new(all.clone()));
        let file: Arc<dyn Ranged> = Arc::<Counted>::clone(&counted);
        let name: Arc<str> = "model.gguf".into();
        let whole = Bytes::ranged(&name, &file, 0, all.len()).unwrap();
        assert!(!whole.is_resident() && whole.resident().is_none() && whole.len() == all.len());
        assert!(*whole.read(0, all.len()).unwrap() == *all);
        assert_eq!((counted.reads(), counted.largest()), (3, MAX_READ));
        let part = Bytes::ranged(&name, &file, 1000, 500).unwrap().slice(100, 50).unwrap();
        assert_eq!(*part.read(10, 20).unwrap(), all[1110..1130]);
        let here = part.to_resident().unwrap();
        assert!(here.is_resident() && *here == all[1100..1150]);
        assert!(matches!(here.read(0, 50).unwrap(), Cow::Borrowed(_)));
        assert!(part.slice(40, 11).is_none() && Bytes::ranged(&name, &file, 1, all.len()).is_none());
        for bytes in [&part, &here] {
            assert_eq!(bytes.read(40, 11).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
            assert_eq!(bytes.read(usize::MAX, 2).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        }
        counted.fail_after(0);
        assert!(part.read(0, 1).is_err() && part.to_resident().is_err() && here.read(0, 1).is_ok());
    }
}
