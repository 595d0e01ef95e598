//! One model in one file or in several.

use std::{
    collections::{HashMap, HashSet},
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Header, Metadata, Prefix, TensorInfo, read::MAX_HEADER};
use crate::{
    Bytes, Error, Ranged, Result, files,
    weights::bytes::{Elsewhere, read_in_pieces},
};

const SPLIT_NO: &str = "split.no";
const SPLIT_COUNT: &str = "split.count";
const SPLIT_TENSORS: &str = "split.tensors.count";
/// llama.cpp's own limit of what five digits can name.
const MAX_PARTS: usize = 9999;
/// First bytes that are read of a file; twice as many, and so on, where the header is longer.
const FIRST: u64 = 1 << 20;

/// The parts of a model, headers and data.
#[derive(Clone, Debug)]
pub struct Gguf {
    /// What to call it in errors: the path of the (first) file.
    pub file: String,
    /// The files it was opened from; none for bytes in memory.
    pub paths: Vec<PathBuf>,
    parts: Vec<(Header, Contents)>,
    index: HashMap<String, (usize, usize)>,
}

/// What a file's bytes are taken from.
#[derive(Clone)]
enum Contents {
    /// Memory, or a mapping.
    Whole(Bytes),
    /// The file is read in ranges; its name.
    Ranged(Arc<dyn Ranged>, Arc<str>),
    /// Nothing: only the header is here.
    Elsewhere(Arc<dyn Ranged>, Arc<str>),
}

impl Contents {
    fn len(&self) -> u64 {
        match self {
            Self::Whole(bytes) => bytes.len() as u64,
            Self::Ranged(file, _) | Self::Elsewhere(file, _) => file.len(),
        }
    }

    /// `len` bytes from `offset` on, or `None` where there are fewer.
    fn slice(&self, offset: u64, len: u64) -> Option<Bytes> {
        let len = usize::try_from(len).ok()?;
        match self {
            Self::Whole(bytes) => bytes.slice(usize::try_from(offset).ok()?, len),
            Self::Ranged(file, name) | Self::Elsewhere(file, name) => Bytes::ranged(name, file, offset, len),
        }
    }
}

impl fmt::Debug for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Contents({})", self.len())
    }
}

impl Gguf {
    /// Opens a file. Of a split model (`-00001-of-00003.gguf`) any part will do; all must be there.
    pub fn open(path: &Path) -> Result<Self> {
        let Some((prefix, count)) = split_name(path) else {
            let file = path.display().to_string();
            return Self::join(file.clone(), vec![path.to_owned()], vec![part(&file, files::map(path)?)?]);
        };
        let names: Vec<PathBuf> =
            (1..=count).map(|i| path.with_file_name(format!("{prefix}-{i:05}-of-{count:05}.gguf"))).collect();
        let missing: Vec<String> = names.iter().filter(|p| !p.exists()).map(|p| file_name(p)).collect();
        if !missing.is_empty() {
            let shown = missing.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
            let more = if missing.len() > 5 { format!(" and {} more", missing.len() - 5) } else { String::new() };
            return Err(Error::malformed(
                path.display().to_string(),
                format!("is one of {count} parts, and these are missing: {shown}{more}"),
            ));
        }
        let parts = names.iter().map(|p| part(&p.display().to_string(), files::map(p)?)).collect::<Result<Vec<_>>>()?;
        Self::join(names.first().map_or_else(String::new, |p| p.display().to_string()), names, parts)
    }

    /// A whole model in memory; `file` is named in errors.
    pub fn from_bytes(file: &str, bytes: Bytes) -> Result<Self> {
        Self::join(file.to_owned(), Vec::new(), vec![part(file, bytes)?])
    }

    /// A file that is read in ranges: the header now, tensors when they are used. `name` is named in errors. Without `vocabulary`
    /// the tokenizer's arrays are passed over.
    pub fn from_ranged(name: &str, file: Arc<dyn Ranged>, vocabulary: bool) -> Result<Self> {
        let failed = |e: io::Error| Error::io(name, e);
        let len = file.len();
        let (mut bytes, mut wanted) = (Vec::new(), FIRST);
        let header = loop {
            let have = bytes.len();
            let most = usize::try_from(wanted.min(MAX_HEADER).min(len)).unwrap_or(usize::MAX);
            bytes.try_reserve_exact(most.saturating_sub(have)).map_err(|_| failed(io::ErrorKind::OutOfMemory.into()))?;
            bytes.resize(most, 0);
            read_in_pieces(&*file, have as u64, bytes.get_mut(have..).unwrap_or_default()).map_err(failed)?;
            match Header::parse_prefix(name, &bytes, len, vocabulary)? {
                Prefix::Whole(header) => break header,
                // More than are here, and neither beyond the file nor beyond what is allowed.
                Prefix::Longer(needed) => wanted = needed.max(2 * most as u64),
            }
        };
        Self::single(name, header, Contents::Ranged(file, name.into()))
    }

    /// A file of `file_len` bytes of which only the first are here: everything but the tensors' contents. `None`: the header is
    /// longer than `head`. `name` is named in errors.
    pub fn from_head(name: &str, head: &[u8], file_len: u64) -> Result<Option<Self>> {
        match Header::parse_prefix(name, head, file_len, true)? {
            Prefix::Whole(header) => {
                Self::single(name, header, Contents::Elsewhere(Arc::new(Elsewhere(file_len)), name.into())).map(Some)
            }
            Prefix::Longer(_) => Ok(None),
        }
    }

    /// A model that must be in one file.
    fn single(name: &str, header: Header, contents: Contents) -> Result<Self> {
        let count = header.metadata.usize(SPLIT_COUNT)?.unwrap_or(1);
        if count > 1 {
            let what =
                format!("is one of the {count} parts of a split model; join them into one file first (llama-gguf-split --merge)");
            return Err(Error::malformed(name, what));
        }
        Self::join(name.to_owned(), Vec::new(), vec![(header, contents)])
    }

    fn join(file: String, paths: Vec<PathBuf>, parts: Vec<(Header, Contents)>) -> Result<Self> {
        let mut index = HashMap::new();
        let mut claimed = None;
        for (p, (header, _)) in parts.iter().enumerate() {
            let m = &header.metadata;
            let count = m.usize(SPLIT_COUNT)?.unwrap_or(0).max(1);
            if count != parts.len() {
                let hint = if parts.len() == 1 { "; name its parts ...-00001-of-0000N.gguf, in one directory" } else { "" };
                return Err(Error::metadata(
                    m.file(),
                    SPLIT_COUNT,
                    format!("says {count} parts, but the name says {}{hint}", parts.len()),
                ));
            }
            if parts.len() > 1 {
                let no = m.require_usize(SPLIT_NO)?;
                if no != p {
                    return Err(Error::metadata(m.file(), SPLIT_NO, format!("is {no}, but by its name it is part {p}")));
                }
            }
            claimed = claimed.or(m.usize(SPLIT_TENSORS)?);
            for (t, tensor) in header.tensors.iter().enumerate() {
                if index.insert(tensor.name.clone(), (p, t)).is_some() {
                    return Err(Error::malformed(m.file(), format!("tensor `{}` is in another part, too", tensor.name)));
                }
            }
        }
        if let Some(claimed) = claimed.filter(|_| parts.len() > 1)
            && claimed != index.len()
        {
            return Err(Error::metadata(
                file,
                SPLIT_TENSORS,
                format!("is {claimed}, but the parts hold {} tensors", index.len()),
            ));
        }
        Ok(Self { file, paths, parts, index })
    }

    /// The metadata: that of the first part.
    pub fn metadata(&self) -> &Metadata {
        &self.parts[0].0.metadata
    }

    /// Format version of the first part.
    pub fn version(&self) -> u32 {
        self.parts[0].0.version
    }

    /// Number of files.
    pub fn num_parts(&self) -> usize {
        self.parts.len()
    }

    /// Bytes of all files.
    pub fn total_bytes(&self) -> u64 {
        self.parts.iter().map(|(_, contents)| contents.len()).sum()
    }

    /// Whether only the header is here.
    pub fn is_head(&self) -> bool {
        self.parts.iter().any(|(_, contents)| matches!(contents, Contents::Elsewhere(..)))
    }

    /// All tensors, in file order.
    pub fn tensors(&self) -> impl Iterator<Item = &TensorInfo> {
        self.parts.iter().flat_map(|(h, _)| &h.tensors)
    }

    /// Names of all tensors but `used`, sorted.
    pub(crate) fn unused(&self, used: &HashSet<String>) -> Vec<String> {
        let mut names: Vec<String> = self.index.keys().filter(|n| !used.contains(*n)).cloned().collect();
        names.sort();
        names
    }

    /// A tensor's description, and its data.
    pub fn tensor(&self, name: &str) -> Option<(&TensorInfo, Bytes)> {
        let &(p, t) = self.index.get(name)?;
        let (header, contents) = self.parts.get(p)?;
        let info = header.tensors.get(t)?;
        Some((info, contents.slice(info.offset, info.len)?))
    }

    /// Whether there is a tensor of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.index.contains_key(name)
    }
}

fn part(file: &str, bytes: Bytes) -> Result<(Header, Contents)> {
    let header = Header::parse(file, &bytes, bytes.len() as u64)?;
    Ok((header, Contents::Whole(bytes)))
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

/// `(prefix, N)` of `prefix-00001-of-0000N.gguf`, where N is more than one.
fn split_name(path: &Path) -> Option<(String, usize)> {
    let stem = path.file_name()?.to_str()?.strip_suffix(".gguf")?;
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (prefix, no) = rest.rsplit_once('-')?;
    let digits = |s: &str| (s.len() == 5 && s.bytes().all(|b| b.is_ascii_digit())).then(|| s.parse::<usize>().ok()).flatten();
    let (no, count) = (digits(no)?, digits(count)?);
    (no >= 1 && no <= count && (2..=MAX_PARTS).contains(&count)).then(|| (prefix.to_owned(), count))
}
