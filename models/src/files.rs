//! Files as [`Bytes`]: mapped where the platform can, read otherwise.

use std::{fs, path::Path};

use crate::{Bytes, Error, Result};

/// The file's bytes, mapped read-only.
#[cfg(not(target_arch = "wasm32"))]
pub(crate) fn map(path: &Path) -> Result<Bytes> {
    let failed = |e| Error::io(path, e);
    let file = fs::File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_dir() {
        return Err(Error::malformed(path.display().to_string(), "is a directory, not a file"));
    }
    if metadata.len() == 0 {
        return Ok(Bytes::new(Vec::new()));
    }
    // SAFETY: the mapping is read-only and private to this process. As with every mapped file, a
    // program that truncates it meanwhile makes later reads fail (SIGBUS); one that rewrites it
    // changes the weights. Nothing that was checked on opening is used to index unchecked.
    let mapped = unsafe { memmap2::Mmap::map(&file) }.map_err(failed)?;
    Ok(Bytes::new(mapped))
}

/// The file's bytes.
#[cfg(target_arch = "wasm32")]
pub(crate) fn map(path: &Path) -> Result<Bytes> {
    Ok(Bytes::new(fs::read(path).map_err(|e| Error::io(path, e))?))
}

/// A small text file, or `None` where there is none. At most `limit` bytes: what is larger is not what it claims to be.
pub(crate) fn read_text(path: &Path, limit: u64) -> Result<Option<String>> {
    let metadata = match fs::metadata(path) {
        Ok(m) => m,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(path, e)),
    };
    if metadata.len() > limit {
        return Err(Error::malformed(
            path.display().to_string(),
            format!("has {} bytes, more than the {limit} that such a file may have", metadata.len()),
        ));
    }
    fs::read_to_string(path).map(Some).map_err(|e| Error::io(path, e))
}

/// A JSON object in a small file, or `None` where there is no such file.
pub(crate) fn read_json(path: &Path, limit: u64) -> Result<Option<serde_json::Map<String, serde_json::Value>>> {
    let Some(text) = read_text(path, limit)? else { return Ok(None) };
    let file = path.display().to_string();
    match serde_json::from_str(&text) {
        Ok(serde_json::Value::Object(map)) => Ok(Some(map)),
        Ok(_) => Err(Error::malformed(file, "is not a JSON object")),
        Err(e) => Err(Error::malformed(file, format!("is not valid JSON: {e}"))),
    }
}
