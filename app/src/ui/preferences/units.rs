//! Sizes and devices as people type them.

use crate::{loading::options::EVERYTHING, sizes, ui::parts};

/// All there is, as people type it.
const ALL: &str = "everything";

/// Units of sizes, largest first.
const UNITS: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// A number of bytes, as "6GiB" or "512 MiB", or "everything"; empty: `None`.
///
/// # Errors
/// In words, where it is no size.
pub(super) fn size(text: &str) -> Result<Option<u64>, String> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    if text.eq_ignore_ascii_case(ALL) {
        return Ok(Some(EVERYTHING));
    }
    sizes::parse(text, 1).map(Some).map_err(|words| {
        let mut letters = words.chars();
        letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
    })
}

/// The text that [`size`] reads as these bytes, where a short one does; else rounded.
pub(super) fn size_text(bytes: Option<u64>) -> String {
    let Some(bytes) = bytes else { return String::new() };
    if bytes == EVERYTHING {
        return ALL.to_owned();
    }
    match UNITS.iter().find(|(_, one)| bytes >= *one && bytes % one == 0 && bytes / one < 10_240) {
        Some((unit, one)) => format!("{} {unit}", bytes / one),
        None => parts::bytes(bytes),
    }
}

/// A device as the command line names it; empty: the best.
///
/// # Errors
/// In words, where there is none of that name.
pub(super) fn device(text: &str) -> Result<String, String> {
    let text = text.trim().to_ascii_lowercase();
    let numbered = text.strip_prefix("wgpu:").is_some_and(|n| n.parse::<usize>().is_ok());
    if numbered || ["", "auto", "cpu", "wgpu"].contains(&text.as_str()) {
        Ok(text)
    } else {
        Err("Use auto, cpu, wgpu or wgpu:N".to_owned())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use super::*;

    #[test]
    fn sizes_are_read_and_written() {
        for (text, bytes) in
            [("6GiB", 6 << 30), ("512 MiB", 512 << 20), (" 1.5g ", 3 << 29), ("4096", 4096), ("2 GB", 2_000_000_000)]
        {
            assert_eq!(size(text).unwrap(), Some(bytes), "{text}");
        }
        assert_eq!(size("").unwrap(), None);
        assert_eq!((size(" Everything").unwrap(), size_text(Some(EVERYTHING)).as_str()), (Some(EVERYTHING), "everything"));
        for text in ["GiB", "-1 GiB", "0", "1.2.3 G", "6 gibibytes", "nan"] {
            assert!(size(text).is_err(), "{text}");
        }
        for text in ["", "6 GiB", "512 MiB", "1 KiB", "3 TiB"] {
            assert_eq!(size_text(size(text).unwrap()), text);
        }
        assert_eq!(size_text(Some(2_000_000_000)), "1.9 GiB");
    }

    #[test]
    fn devices_are_checked() {
        for good in ["", "auto", "CPU", "wgpu", "wgpu:3"] {
            assert_eq!(device(good).unwrap(), good.to_ascii_lowercase());
        }
        for bad in ["gpu", "cpu:1", "wgpu:", "wgpu:x", "wgpu:-1"] {
            assert!(device(bad).is_err(), "{bad}");
        }
    }
}
