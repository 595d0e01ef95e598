//! Which of a machine's CUDA devices to use.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// One CUDA device, or several that share a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CudaDevices {
    /// The first.
    #[default]
    First,
    /// All there are.
    All,
    /// Those whose bits are set; one at least.
    Of(u64),
}

impl CudaDevices {
    /// Indices, ascending; none: all there are.
    pub fn indices(self) -> Vec<usize> {
        match self {
            Self::First => vec![0],
            Self::All => Vec::new(),
            Self::Of(bits) => (0..u64::BITS as usize).filter(|i| bits >> i & 1 == 1).collect(),
        }
    }
}

/// What follows `cuda:`: `all`, an index, or several with commas between them.
impl FromStr for CudaDevices {
    type Err = String;

    fn from_str(list: &str) -> Result<Self, String> {
        if list == "all" {
            return Ok(Self::All);
        }
        if list.contains(char::is_whitespace) {
            return Err(format!("`{list}` has a space in it; device numbers are written 0,1"));
        }
        let mut bits = 0u64;
        for number in list.split(',') {
            // A sign would be a number to Rust.
            let index = number.parse::<u32>().ok().filter(|_| number.bytes().all(|b| b.is_ascii_digit()));
            let Some(index) = index else {
                return Err(format!("`{number}` is no device number; write cuda:0, cuda:0,1 or cuda:all"));
            };
            let bit = 1u64.checked_shl(index).ok_or_else(|| format!("there is no device {index}: numbers go up to 63"))?;
            if bits & bit != 0 {
                return Err(format!("device {index} is named twice"));
            }
            bits |= bit;
        }
        Ok(Self::Of(bits))
    }
}

/// As it is written on the command line.
impl fmt::Display for CudaDevices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::First => write!(f, "cuda"),
            Self::All => write!(f, "cuda:all"),
            Self::Of(_) => {
                let all: Vec<String> = self.indices().iter().map(usize::to_string).collect();
                write!(f, "cuda:{}", all.join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

    use super::*;

    #[test]
    fn lists_of_devices() {
        for (text, indices) in [("0", &[0][..]), ("7", &[7]), ("0,1", &[0, 1]), ("3,0,2", &[0, 2, 3]), ("63", &[63])] {
            assert_eq!(text.parse::<CudaDevices>().unwrap().indices(), indices, "{text}");
        }
        assert_eq!("all".parse(), Ok(CudaDevices::All));
        assert_eq!(CudaDevices::default().indices(), [0]);
        for (text, words) in [
            ("0,0", "twice"),
            ("1,2,1", "device 1"),
            ("0, 1", "space"),
            (" 0", "space"),
            ("0,", "no device number"),
            ("", "no device number"),
            (",", "no device number"),
            ("all,0", "`all`"),
            ("-1", "`-1`"),
            ("+1", "`+1`"),
            ("x", "`x`"),
            ("64", "up to 63"),
            ("4294967296", "no device number"),
        ] {
            let error = text.parse::<CudaDevices>().unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_printed_is_read() {
        assert_eq!(CudaDevices::First.to_string(), "cuda");
        for text in ["all", "0", "0,1", "2,5,63"] {
            let devices: CudaDevices = text.parse().unwrap();
            assert_eq!(devices.to_string(), format!("cuda:{text}"));
        }
    }
}
